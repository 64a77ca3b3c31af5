"""From the files and folders that a person names to the sections `ingest` and `points` of params.yaml."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.annotations.describe import splits_of
from data.errors import DataError, Fault
from data.storage import IMAGE_SUFFIXES, is_s3
from tasks.planning.rules import Planned

POINTS = "points"
"""The project's folder of point files, where there is no single folder that the person named."""
DEFAULT_VAL = 0.2


def check_paths(
    root: Path, images: str, masks: Sequence[str], points: Sequence[str], others: Mapping[str, str]
) -> None:
    """
    Args:
        root: the folder of the project to be made.
        others: further files and folders with masks, by option: `{"--val": "val.json"}`.

    Raises:
        DataError: paths that don't exist, and folders that the project would be in, all of them.
    """
    named = [
        ("--images", images),
        *(("--masks", one) for one in masks),
        *(("--points", one) for one in points),
        *others.items(),
    ]
    faults = [
        Fault(flag, name, "no such file or folder", "one that exists", "correct the path")
        for flag, name in named
        if not is_s3(name) and not Path(name).exists()
    ]
    if _is_folder(images) and not _has_images(images):
        holds_others = any(path.is_file() for path in Path(images).rglob("*"))
        swapped = holds_others and any(_is_folder(one) and _has_images(one) for one in masks)
        step = "swap --images and --masks" if swapped else "name the folder of the images"
        faults.append(Fault("--images", images, "a folder without images", "one with images", step))
    for name in masks:
        if _holds_only(name, IMAGE_SUFFIXES) and Path(name).resolve() == Path(images).resolve():
            found = "the folder of --images, with images alone"
            step = "name the folder or file of the masks"
        elif _holds_only(name, (".jpg", ".jpeg", ".webp")):
            found = "a folder of photographs alone"
            step = "swap --images and --masks, or name the folder of the masks"
        else:
            continue
        faults.append(Fault("--masks", name, found, "files with masks", step))
    faults += [
        Fault("--points", name, "a folder of images alone", "files of clicks", "name the file of the clicks")
        for name in points
        if _holds_only(name, IMAGE_SUFFIXES)
    ]
    # DVC refuses a stage whose results are inside of what it reads.
    step = "name a project folder outside of it, such as ../" + root.resolve().name
    faults += [
        Fault(flag, name, f"a folder that the project would be in, {root}", "a folder of data alone", step)
        for flag, name in named
        if _is_folder(name) and root.resolve().is_relative_to(Path(name).resolve())
    ]
    if faults:
        raise DataError(faults)


def _is_folder(name: str) -> bool:
    return not is_s3(name) and Path(name).is_dir()


def _holds_only(name: str, suffixes: tuple[str, ...]) -> bool:
    if not _is_folder(name):
        return False
    found = {path.suffix.lower() for path in Path(name).rglob("*") if path.is_file()}
    return bool(found) and found <= {*suffixes}


def _has_images(folder: str) -> bool:
    return any(path.suffix.lower() in IMAGE_SUFFIXES for path in Path(folder).rglob("*"))


def mask_files(root: Path, files: Sequence[str]) -> list[str] | None:
    """What stage ingest depends on in place of the folder `ingest.annotations`: the files and folders with masks,
    where several are named, or one file. The folder that they have in common may hold anything else; it may be a home.
    None where that folder holds all: one folder is named, or S3.

    Args:
        root: the project's folder; paths inside it are relative.
        files: to train on and to measure on.
    """
    if any(map(is_s3, files)) or (len(files) == 1 and Path(files[0]).is_dir()):
        return None
    return sorted({_placed(root, name) for name in files})


def ingest_values(
    root: Path,
    images: str,
    masks: Sequence[str],
    val: str | float | None,
    mask_class: str | None,
    kept_aside: str | None = None,
) -> list[Planned]:
    """The values of section `ingest`.

    Args:
        root: the project's folder; data inside it get relative paths, all others absolute ones.
        images: a folder, or s3://BUCKET/PREFIX.
        masks: files and folders.
        val: such a file or folder, or a share of the images with masks; None: the part `val` of a folder of masks that
            has one (Ultralytics, Roboflow, ...), else `DEFAULT_VAL`.
        kept_aside: a file or folder with masks of weak images.

    Raises:
        DataError: they are at several places in S3.
    """
    base = _common_folder([*masks, *(one for one in (val, kept_aside) if isinstance(one, str))])
    strong, parts = [], []
    for one in masks:
        splits = {} if is_s3(one) else splits_of(Path(one))
        strong.append(_joined(_below(base, one), splits.get("train")))
        parts += [_joined(_below(base, one), splits["val"])] if "val" in splits else []
    measured: Any = _below(base, val) if isinstance(val, str) else val
    if measured is None:
        measured = DEFAULT_VAL if not parts else parts[0] if len(parts) == 1 else parts
    return [
        Planned("ingest.images", _placed(root, images), ""),
        Planned("ingest.annotations", _placed(root, base), "the folder that the files with masks are in"),
        Planned("ingest.strong", strong[0] if len(strong) == 1 else strong, "images with masks to train on"),
        Planned("ingest.val", measured, "share of the images with masks that is measured on"
                if isinstance(measured, float) else "to measure on"),
        Planned("ingest.weak", None, "all other images below `images`"),
        Planned("ingest.kept_aside", _below(base, kept_aside) if kept_aside is not None else None,
                "to measure pseudo masks with" if kept_aside is not None else ""),
        Planned("ingest.mask_class", mask_class, ""),
        Planned("ingest.on_reject", "report", "goes on without images that can't be read"),
    ]  # fmt: skip


def points_values(root: Path, points: Sequence[str]) -> list[Planned]:
    """The values of section `points`: the folder that was named, else the project's folder, with a link to each file.

    Raises:
        DataError: several folders, or a folder and files, are named.
    """
    faults: list[Fault] = []
    folders = [name for name in points if is_s3(name) or Path(name).is_dir()]
    if folders and len(points) > 1:
        step = "put them into one folder (or links to them), and name that"
        faults.append(
            Fault("--points", folders[0], "a folder among several paths", "one folder, or files", step)
        )
    names = [Path(name).name for name in points]
    faults += [
        Fault("--points", name, "two files of this name", "file names that differ", "rename one of them")
        for name in {one for one in names if names.count(one) > 1}
    ]
    if faults:
        raise DataError(faults)
    if folders:
        where = _placed(root, folders[0])
    else:
        (root / POINTS).mkdir()
        for name in points:
            (root / POINTS / Path(name).name).symlink_to(Path(name).resolve())
        where = POINTS
    return [
        Planned("points.files", where, "put further files here"),
        Planned("points.format", "auto", "detected for each file"),
        Planned("points.on_reject", "report", "goes on without points that can't be used"),
    ]


def _common_folder(files: Sequence[str]) -> str:
    """The folder that all paths are below; of a single folder, itself."""
    if len(files) == 1 and (is_s3(files[0]) or Path(files[0]).is_dir()):
        return files[0]
    if any(map(is_s3, files)):
        for folder in (*files, *(name.rpartition("/")[0] for name in files)):
            if all(f"{name.rstrip('/')}/".startswith(f"{folder.rstrip('/')}/") for name in files):
                return folder.rstrip("/")
        found = "several places" if all(map(is_s3, files)) else "some in S3, some on this machine"
        step = "put them below one prefix in S3, or all on this machine"
        raise DataError(Fault("files with masks", ", ".join(files), found, "one place", step))
    paths = [Path(name).resolve() for name in files]
    return os.path.commonpath([path.parent if path.is_file() else path for path in paths])


def _below(base: str, name: str) -> str:
    if is_s3(name):
        return name.removeprefix(base).strip("/") or "."
    return os.path.relpath(Path(name).resolve(), Path(base).resolve())


def _joined(folder: str, part: str | None) -> str:
    return folder if part is None else part if folder == "." else f"{folder}/{part}"


def _placed(root: Path, name: str) -> str:
    """Relative to the project where it is inside, else absolute."""
    if is_s3(name):
        return name
    path = Path(name).resolve()
    return path.relative_to(root.resolve()).as_posix() if path.is_relative_to(root.resolve()) else str(path)
