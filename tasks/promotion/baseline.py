"""The baseline: the model that was promoted when this round of training began. New students are compared with it.

Stage compare depends on registry/baseline.json. The flow moves the baseline when the next round begins, so a promotion
at the end of a round makes no stage stale (docs/registry.md). The model's files are in registry/VERSION/model, which
Git ignores and DVC stores; the hash next to the version identifies them.
"""

from __future__ import annotations

import hashlib
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from data.annotations.strict_json import ONCE, parse_json
from tasks.common import processes
from tasks.common.errors import TaskError

REGISTRY = "registry"
"""The folder next to the workspace."""
BASELINE = "baseline.json"
START = "start"
"""The folder with a file for each value of `student.start` and `teacher.start`, of which a training depends on the
chosen one. Only promoted.json, together with the baseline, and those of checkpoints ever change."""
MODEL = "model"
VERSION = re.compile(r"v[1-9][0-9]{0,8}")

Version = Annotated[str, Field(pattern=rf"^{VERSION.pattern}$")]
ModelHash = Annotated[str, Field(pattern=r"^[0-9a-f]{32}\.dir$")]


class Record(BaseModel):
    """Base of the contents of the registry's files: no unknown keys, immutable."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Kind = TypeVar("Kind", bound=Record)


class Trainings(Record):
    """AP of several trainings of a student, which differ in their seed alone. The first is the student itself."""

    seeds: list[int]
    AP: list[float | None]
    """over all classes that were compared"""
    classes: dict[int, list[float | None]]
    """of each of them, by category_id"""

    def mean(self, category_id: int | None = None) -> float | None:
        """Mean AP of a class, or over all classes, rounded to 3 decimals; None where undefined."""
        known = [ap for ap in self._of(category_id) if ap is not None]
        return round(statistics.fmean(known), 3) if known else None

    def first(self, category_id: int | None = None) -> float | None:
        """AP of the student itself; None where undefined."""
        return self._of(category_id)[0]

    def _of(self, category_id: int | None) -> list[float | None]:
        return self.AP if category_id is None else self.classes[category_id]


class Baseline(Record):
    """A version and the hash of its model (see `folder_hash`); both null before the first promotion."""

    version: Version | None
    model: ModelHash | None = None
    trainings: Trainings | None = Field(default=None, exclude_if=lambda found: found is None)
    """of its student, if there were several"""

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.version is None) != (self.model is None):
            raise ValueError("version and model go together: give both, or null for both")
        return self


def registry_of(workspace: Path) -> Path:
    """The registry next to a workspace."""
    return workspace.parent / REGISTRY


def model_folder(registry: Path, version: str) -> Path:
    """The folder of a version's model, if it is checked out."""
    return registry / version / MODEL


def read_baseline(registry: Path) -> Baseline:
    """registry/baseline.json.

    Raises:
        TaskError: it is missing or damaged.
    """
    path = registry / BASELINE
    if not path.is_file():
        raise TaskError(
            f'{path}: no such file; before the first promotion it holds {{"version": null}}. Write that, or '
            f"{restoring(path)}"
        )
    return read_record(path, Baseline)


def read_start(registry: Path) -> Baseline:
    """The model whose weights a student with `start: promoted` starts from.

    Raises:
        TaskError: the file is missing or damaged.
    """
    path = registry / START / "promoted.json"
    if not path.is_file():
        raise TaskError(f"{path}: no such file; {restoring(path)}")
    return read_record(path, Baseline)


def read_record(path: Path, kind: type[Kind]) -> Kind:
    """The content of a file of the registry.

    Raises:
        TaskError: it isn't JSON, or doesn't fit `kind`; all faults are listed.
    """
    try:
        content = path.read_bytes()
        value, doubled = parse_json(content)
        json.dumps(value, allow_nan=False)  # else NaN would pass in fields of any type, such as metrics
        if not doubled:
            return kind.model_validate_json(content)
        faults = "\n".join(f"  - {place}: found key {keys} twice, expected {ONCE}" for place, keys in doubled)
    except ValidationError as error:
        faults = "\n".join(f"  - {_place(one['loc'])}{one['msg']}" for one in error.errors())
    except OSError as error:
        faults = f"  - {error.strerror or error}"
    except ValueError as error:
        faults = f"  - {str(error)[:200]}"
    raise TaskError(f"{path}: damaged, or edited by hand:\n{faults}\nFix these faults, or {restoring(path)}")


def restoring(path: Path | str) -> str:
    """How to restore a file of the registry, for messages."""
    return (
        f"restore it from a backup, or with `git checkout {path}` where promotions are committed (operate.git: true; "
        "else Git may have an older version, or none)"
    )


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location)) + ": " if location else ""


def folder_hash(folder: Path) -> str:
    """The hash of a folder in dvc.lock and model.dvc: MD5 of the list of its files' MD5s.

    MD5 identifies content here; nothing relies on it for security.

    Raises:
        TaskError: the folder is missing.
    """
    if not folder.is_dir():
        raise TaskError(f"{folder}: no such folder")
    rows = []
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                content = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            rows.append({"md5": content, "relpath": path.relative_to(folder).as_posix()})
    rows.sort(key=lambda row: row["relpath"])
    listed = json.dumps(rows, sort_keys=True)
    return hashlib.md5(listed.encode(), usedforsecurity=False).hexdigest() + ".dir"


def checked_model(registry: Path, version: str, model: str) -> Path:
    """The folder of a version's model, after a check of its hash.

    The flow checks the model out before it runs stages. `dvc repro` in a fresh clone, or an experiment in its own
    folder, gets it from DVC's cache here.

    Raises:
        TaskError: it isn't in the cache, or was changed.
    """
    folder = model_folder(registry, version)
    file = f"{folder}.dvc"
    if not folder.is_dir():
        _check_out(Path(file))
    if not folder.is_dir():
        raise TaskError(
            f"{folder}: the model of {version} isn't here; get it from DVC's cache or remote with `dvc pull {file}`"
        )
    found = folder_hash(folder)
    if found != model:
        raise TaskError(
            f"{folder}: found a model with hash {found}, expected {model}; remove the folder, and restore the model of "
            f"{version} with `points2model run`"
        )
    return folder


def _check_out(pointer: Path) -> None:
    """Checks out the output of a .dvc file, if it is in DVC's cache; no network."""
    # Not with several processes: one could read what another has half written.
    if pointer.is_file() and processes.count() == 1:
        command = [sys.executable, "-m", "dvc", "--wait-for-lock", "checkout", "--quiet", str(pointer)]
        subprocess.run(command, capture_output=True, check=False)
