"""The sources of images and annotation files: local folders, or S3, from where they are downloaded first.

Downloaded files become an output of the step, workspace/fetched. DVC keeps it, so that `git checkout` and `dvc
checkout` restore last month's images, and a colleague gets them from the DVC remote alone.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path

from data.annotations.frames import below
from data.images.read import image_size
from data.remote.fetch import Refused, RemoteFolder, fetch, local_copy, open_remote
from data.storage import IMAGE_SUFFIXES, atomic_dir, is_s3, is_safe, join, list_files
from data.tables import DataError, Fault
from data.text import TEXT, clean, is_text
from tasks.common.config import IngestConfig
from tasks.common.progress import Bar
from tasks.common.stage_main import S3_CACHE, write_manifest
from tasks.intake.images import OR_REPORT, ImageRoot, Rejection

log = logging.getLogger(__name__)


class Sources:
    """Images and annotation files of a run.

    Attributes:
        annotations: the local folder of annotation files.
    """

    def __init__(self, config: IngestConfig, workspace: Path) -> None:
        """From S3, lists the images and downloads the annotation files.

        Raises:
            S3Error: the server can't be used, or there are no objects.
        """
        self.config, self.workspace = config, workspace
        self.annotations = local_copy(config.annotations, workspace / S3_CACHE)
        self._remote: RemoteFolder | None = open_remote(config.images) if is_s3(config.images) else None
        self._tree = workspace / S3_CACHE / "trees" / "images"

    def image_files(self) -> tuple[list[str], list[Rejection]]:
        """Sorted names of all image files that aren't hidden; and those that can't be used: names that aren't valid
        text, keys in S3 that can't be file names.

        Raises:
            DataError: the folder doesn't exist.
        """
        if self._remote is None:
            names, root = list_files(self.config.images, IMAGE_SUFFIXES), self.config.images.rstrip("/")
            return [name for name in names if is_text(name)], [
                _unusable(f"{root}/{clean(name)}", "file", f"name {name!r}", TEXT, clean(name))
                for name in names
                if not is_text(name)
            ]
        shown = (
            name for name in self._remote.objects if not any(part[:1] == "." for part in name.split("/"))
        )
        expected = "a name without '..', empty parts and control characters"
        return sorted(name for name in shown if name.lower().endswith(IMAGE_SUFFIXES)), [
            _unusable(f"s3://{self._remote.bucket}/{key}", "object", f"key {key!r}", expected, key)
            for key in self._remote.unsafe
            if key.lower().endswith(IMAGE_SUFFIXES)
        ]

    def has_image(self, name: str) -> bool:
        """Whether there is a file of this name below the image root, of any suffix."""
        if self._remote is not None:
            return name in self._remote.objects
        try:
            return is_safe(name) and (Path(self.config.images) / name).is_file()
        except OSError:  # a name that is too long
            return False

    def bring(self, names: Iterable[str]) -> ImageRoot:
        """Downloads these image files, where they are in S3.

        Raises:
            S3Error: the server can't be used; files that were downloaded are kept for the next run.
        """
        if self._remote is None:
            return ImageRoot(Path(self.config.images), self.config.images, {})
        chosen = set(names)
        sizes = [one.size for name, one in self._remote.objects.items() if name in chosen]
        refused: dict[str, Refused]
        with Bar("ingest: download", len(sizes), "object") as bar:
            done = 0

            def on_object(size: int) -> None:
                nonlocal done
                done += size
                bar.advance(facts=f"{done / 1e6:,.0f} of {sum(sizes) / 1e6:,.0f} MB")

            refused = fetch(self._remote, chosen, self.workspace / S3_CACHE, self._tree, on_object)
        return ImageRoot(self._tree, self.config.images, refused)

    def image_root(self) -> Path:
        """The root of the images in the tables, valid once `publish` is done."""
        return Path(self.config.images) if self._remote is None else self.workspace / "fetched" / "images"

    def publish(self) -> None:
        """Writes workspace/fetched: the files from S3, and their counts."""
        counts = {"images": 0, "annotations": 0}
        with atomic_dir(self.workspace / "fetched") as folder:
            if self._remote is not None:
                counts["images"] = len(list_files(self._tree))
                self._tree.replace(folder / "images")
            if is_s3(self.config.annotations):
                counts["annotations"] = len(list_files(self.annotations))
                shutil.copytree(self.annotations, folder / "annotations", copy_function=_link_or_copy)
            write_manifest(folder, "ingest", counts)

    def renamed(self, fault: Fault) -> Fault:
        """The fault with an annotation file's name as it is in params.yaml."""
        here, there = f"{self.annotations}/", f"{self.config.annotations.rstrip('/')}/"
        return (
            replace(fault, file=there + fault.file.removeprefix(here))
            if fault.file.startswith(here)
            else fault
        )


class SourceImages:
    """The images of a run, in which readers of label files look up sizes (`data.annotations.frames.ImageFiles`)."""

    def __init__(self, origin: Sources) -> None:
        self._origin = origin
        self._names: frozenset[str] | None = None
        self._root = ImageRoot(Path(), "", {})

    def names(self) -> frozenset[str]:
        """All image files."""
        if self._names is None:
            self._names = frozenset(self._origin.image_files()[0])
        return self._names

    def exists(self, name: str) -> bool:
        """Whether there is an image file, or a file of another suffix, of this name."""
        return name in self.names() or self._origin.has_image(name)

    def below_root(self, path: Path) -> str | None:
        """The place below the image root of a local path, or of the object that it is a copy of; None if elsewhere."""
        config = self._origin.config
        if not is_s3(config.images):
            return below(config.images, path)
        here = below(self._origin.annotations, path) if is_s3(config.annotations) else None
        place = "" if here is None else f"{config.annotations.rstrip('/')}/{here}"
        root = config.images.rstrip("/") + "/"
        return place.removeprefix(root) if place.startswith(root) else None

    def prepare(self, names: Collection[str]) -> None:
        """Downloads these files, where they are in S3; they aren't downloaded again with their split."""
        self._root = self._origin.bring(names)

    def size(self, file_name: str) -> tuple[int, int]:
        """(width, height) in pixels of a file that was prepared.

        Raises:
            DataError: the file doesn't exist, or isn't an image.
        """
        refused = self._root.problems.get(file_name)
        if refused is not None:
            where = f"{self._origin.config.images.rstrip('/')}/{file_name}"
            raise DataError(Fault(where, "image", refused.found, refused.expected, "restore the object"))
        return image_size(join(self._root.folder, file_name))


def _unusable(place: str, record: str, found: str, expected: str, name: str) -> Rejection:
    fault = Fault(place, record, found, expected, f"rename the {record}{OR_REPORT}")
    return Rejection(fault, "unsafe_path", {"id": None, "file_name": name})


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
