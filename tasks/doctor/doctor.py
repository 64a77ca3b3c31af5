"""Checks before a training, so that hours aren't lost to a fault that can be found in minutes.

`quick_check` checks the set-up in milliseconds. `full_check` reads the data too, as the steps do. It keeps its results,
with sizes and times of the files, in workspace/runs/doctor, which DVC doesn't track, and repeats the checks only when a
file has changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.errors import DataError, Fault
from data.storage import is_s3, walk
from data.tables import Split
from tasks.common.config import Params
from tasks.common.stage_main import read_json, write_json
from tasks.doctor.finding import Diagnosis
from tasks.doctor.setup import check_params, check_setup, is_made

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1
FOLDER = Path("runs/doctor")
NEEDS = "needs.json"


@dataclass(frozen=True)
class Examined:
    """A diagnosis; `fresh` unless it was kept from an earlier call about the same files."""

    diagnosis: Diagnosis
    fresh: bool


def quick_check(root: Path, workspace: Path) -> tuple[Diagnosis, Params | None]:
    """Checks params, paths, weights, device, DVC, git, registry, locks, folders.

    Args:
        root: the project's folder, which is the current one.
        workspace: relative to it.
    """
    diagnosis = Diagnosis()
    params = check_params(root / "params.yaml", diagnosis)
    if params is not None:
        check_setup(params, root, workspace, diagnosis)
    return diagnosis, params


def full_check(root: Path, workspace: Path, *, again: bool = False) -> Examined:
    """The quick checks and those of the data.

    Args:
        root: the project's folder, which is the current one.
        workspace: relative to it.
        again: check the data even if nothing changed since an earlier call.
    """
    diagnosis, params = quick_check(root, workspace)
    if params is None or any(finding.check in ("paths", "writable") for finding in diagnosis.errors):
        diagnosis.notes.append("data: not checked until the errors above are fixed")
        return Examined(diagnosis, True)
    missing = [name for name in _sources(params) if is_made(name) and not (root / name).exists()]
    if missing:
        diagnosis.notes.append(
            f"data: {missing[0]} doesn't exist yet; `points2model run` makes or restores it"
        )
        return Examined(diagnosis, True)
    try:
        about_data, fresh = _data(params, root / workspace / FOLDER, again)
    except DataError as error:  # S3 can't be reached
        diagnosis.error("sources", error.faults)
        return Examined(diagnosis, True)
    except OSError as error:  # a full disk, a folder that may not be read
        where = str(error.filename or root / workspace)
        step = "free space or change its permissions, and run this again"
        fault = Fault(where, "file", error.strerror or str(error), "a file to read and write", step)
        diagnosis.error("sources", fault)
        return Examined(diagnosis, True)
    diagnosis.errors += about_data.errors
    diagnosis.warnings += about_data.warnings
    diagnosis.notes += about_data.notes
    needs = root / workspace / FOLDER / NEEDS
    if needs.is_file():  # free space changes even if the data don't
        from tasks.doctor.needs import Needs, check_needs

        check_needs(Needs(**read_json(needs, "doctor")), params, root, diagnosis)
    return Examined(diagnosis, fresh)


def _data(params: Params, folder: Path, again: bool) -> tuple[Diagnosis, bool]:
    key = inventory(params)
    known = _kept(folder / "diagnosis.json", key)
    if known is not None and not again:
        return known, False
    (folder / NEEDS).unlink(missing_ok=True)
    diagnosis = _examine(params, folder, again)
    # Errors aren't kept: they may be fixed in a place that the inventory doesn't cover.
    (folder / "diagnosis.json").unlink(missing_ok=True)
    if not diagnosis.errors:
        write_json(folder / "diagnosis.json", {"key": key, **diagnosis.to_json()})
    return diagnosis, True


def _examine(params: Params, folder: Path, again: bool) -> Diagnosis:
    from tasks.doctor.data import check_classes
    from tasks.doctor.judgement import check_judgement
    from tasks.doctor.leaks import check_leaks
    from tasks.doctor.needs import estimate, note_gpu
    from tasks.doctor.objects import check_objects

    diagnosis = Diagnosis()
    found = read_data(params, folder, diagnosis, again=again)
    if found is None:
        diagnosis.notes.append("data: more is checked once the errors in annotations and images are fixed")
        return diagnosis
    splits, points = found
    check_classes(splits, points, diagnosis)
    check_leaks(splits, folder / "thumbnails.arrow", diagnosis)
    check_objects(params, splits["strong"], splits["val"], diagnosis)
    check_judgement(params, splits, points, diagnosis)
    note_gpu(params, diagnosis)
    write_json(folder / NEEDS, estimate(params, splits, 0 if points is None else len(points))._asdict())
    sizes = ", ".join(f"{name} {len(split):,}" for name, split in splits.items())
    diagnosis.notes.insert(
        0, f"images: {sizes}; objects with masks: {len(splits['strong'].instances):,} strong"
    )
    return diagnosis


def read_data(
    params: Params, folder: Path, diagnosis: Diagnosis, *, again: bool = False, points: bool = True
) -> tuple[dict[str, Split], pa.Table | None] | None:
    """The splits and the usable points, read as the steps do, before any step has run; their faults are added to
    `diagnosis`. None where ingest found faults; no points where the files can't be imported.

    Args:
        params: of the project in the current folder.
        folder: the doctor's, for what is read.
        again: read the images even if nothing changed since an earlier call.
        points: whether there are point files to read.
    """
    from tasks.doctor.data import check_images, check_points

    splits = _splits(params, folder, again, diagnosis)
    if splits is not None:
        check_images(params, splits, diagnosis)
    found = check_points(params, splits, folder, diagnosis) if points else None
    return None if splits is None else (splits, found)


def _splits(params: Params, folder: Path, again: bool, diagnosis: Diagnosis) -> dict[str, Split] | None:
    """The splits; those that an earlier call read, where their files haven't changed and only clicks are new."""
    from tasks.doctor.data import open_splits, read_splits

    key, path = inventory(params, points=False), folder / "read.json"
    if not again and _content(path).get("key") == key:
        try:
            return open_splits(folder)
        except DataError:
            pass  # the folder was deleted
    path.unlink(missing_ok=True)
    splits = read_splits(params, folder, diagnosis)
    if splits is not None:
        write_json(path, {"key": key})
    return splits


def _sources(params: Params) -> list[str]:
    return [params.ingest.images, params.ingest.annotations, params.points.files]


def inventory(params: Params, *, points: bool = True) -> str:
    """A hash of all that the diagnosis of the data depends on: params, names, sizes and times of files, our code.

    Args:
        params: of the project in the current folder.
        points: with the point files and all params; else only what the splits depend on.

    Raises:
        S3Error: a source in S3 can't be listed.
    """
    sources = _sources(params) if points else _sources(params)[:2]
    content: dict[str, Any] = params.model_dump(mode="json") if points else params.ingest.model_dump()
    digest = hashlib.sha256(json.dumps([FORMAT, points, content], sort_keys=True, default=str).encode())
    code = Path(__file__).resolve().parents[2]
    if points:
        sources.append(params.review.decisions)
    for source in [*(str(code / name) for name in ("data", "models", "tasks")), *sources]:
        for line in _remote_listing(source) if is_s3(source) else _listing(Path(source)):
            digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _remote_listing(source: str) -> Iterator[str]:
    """`key size etag` of all objects, in order."""
    from data.remote.fetch import open_remote  # boto3 takes a second

    for name, one in sorted(open_remote(source).objects.items()):
        yield f"{name} {one.size} {one.etag}\n"


def _listing(source: Path) -> Iterator[str]:
    """`path size time` of a file, or of all files in a folder, without caches of Python."""
    if source.is_file():
        facts = source.stat()
        yield f"{source} {facts.st_size} {facts.st_mtime_ns}\n"
    for folder, entries in walk(source):
        for entry in entries if folder.name != "__pycache__" else ():
            try:
                facts = entry.stat()
            except OSError:  # a broken link
                facts = entry.stat(follow_symlinks=False)
            yield f"{entry.path} {facts.st_size} {facts.st_mtime_ns}\n"


def _kept(path: Path, key: str) -> Diagnosis | None:
    """The diagnosis that an earlier call kept, of the same data."""
    content = _content(path)
    return Diagnosis.from_json(content) if content.get("key") == key else None


def _content(path: Path) -> dict[str, Any]:
    """A file that an earlier call wrote; empty if it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
