"""The checkpoints that teacher and student start from, with `start: checkpoint`, and the files by which DVC sees them.

DVC can't make a stage depend on a path that may be null. So a stage depends on registry/start/NAME.json, of which
`start` chooses one. For `checkpoint` it holds the named folder's path and the hashes of its files. `points2model run`
writes it before the stages run, the training compares it with the files, and a training without a checkpoint depends on
a file that never changes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from data.images.content import sha256
from tasks.common.config import Params
from tasks.common.errors import TaskError
from tasks.common.stage_main import write_json
from tasks.promotion.baseline import REGISTRY, START, Record, read_record

Trained = Literal["teacher", "student"]
FILES: dict[Trained, str] = {"teacher": "teacher_checkpoint.json", "student": "checkpoint.json"}
CHECKPOINT = ("model.json", "model.safetensors")
"""The files of a checkpoint, which its hashes are of."""


class CheckpointStart(Record):
    """A checkpoint's folder, as params.yaml has it, and the SHA-256 of its files by name."""

    checkpoint: str
    sha256: dict[str, str]


def unrecorded_checkpoints(root: Path, params: Params) -> dict[Path, CheckpointStart]:
    """The files that aren't up to date with params.yaml and the checkpoints that it names, with their new content.

    Raises:
        TaskError: a checkpoint's file is missing.
    """
    sections: tuple[tuple[Trained, str | None], ...] = (
        ("teacher", params.teacher.checkpoint),
        ("student", params.student.checkpoint),
    )
    stale = {}
    for name, checkpoint in sections:
        if checkpoint is None:
            continue
        path = root / REGISTRY / START / FILES[name]
        found = CheckpointStart(checkpoint=checkpoint, sha256=_hashes(name, root, checkpoint))
        if not path.is_file() or read_record(path, CheckpointStart) != found:
            stale[path] = found
    return stale


def record_checkpoints(root: Path, params: Params) -> list[str]:
    """Writes `unrecorded_checkpoints`; returns a line for each."""
    stale = unrecorded_checkpoints(root, params)
    for path, found in stale.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, found.model_dump())
    return [
        f"{path.relative_to(root)}: has the hashes of {one.checkpoint} now" for path, one in stale.items()
    ]


def checked_checkpoint(registry: Path, name: Trained, checkpoint: str) -> Path:
    """The folder of a training's checkpoint, after a check that DVC saw these files.

    Raises:
        TaskError: a file is missing, or the folder or its files aren't the recorded ones.
    """
    path = registry / START / FILES[name]
    step = "`points2model run` records them; a plain `dvc repro` doesn't"
    if not path.is_file():
        raise TaskError(
            f"{path}: no such file; expected the hashes of {checkpoint} ({name}.checkpoint). {step}"
        )
    recorded = read_record(path, CheckpointStart)
    if recorded.checkpoint != checkpoint:
        raise TaskError(
            f"{path}: found {recorded.checkpoint}, expected the hashes of {checkpoint} "
            f"({name}.checkpoint). {step}"
        )
    root = registry.parent
    for file, digest in _hashes(name, root, checkpoint).items():
        if recorded.sha256.get(file) != digest:
            raise TaskError(
                f"{root / checkpoint / file}: found SHA-256 {digest[:16]}..., expected "
                f"{str(recorded.sha256.get(file))[:16]}... ({path}); restore the file, or take the new one: {step}"
            )
    return root / checkpoint


def _hashes(name: Trained, root: Path, checkpoint: str) -> dict[str, str]:
    found = {}
    for file in CHECKPOINT:
        path = root / checkpoint / file
        if not path.is_file():
            raise TaskError(
                f"{path}: no such file; expected a checkpoint, a folder with {' and '.join(CHECKPOINT)}. Correct "
                f"{name}.checkpoint, or make one with `points2model import-checkpoint`"
            )
        found[file] = sha256(path)
    return found
