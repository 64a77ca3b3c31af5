"""Images and masks of label files of any format, collected as the records of a COCO file."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from data.annotations.coco.checks import MAX_PIXELS
from data.annotations.coco.file import CocoFile
from data.annotations.frames import ImageFiles, name_id
from data.annotations.image_index import ImageIndex, listed
from data.annotations.join import ImageIds
from data.errors import DataError, Fault
from data.masks.polygons import from_polygons
from data.storage import is_safe, list_files
from data.tables import Category
from data.text import TEXT, clean, is_text

log = logging.getLogger(__name__)

Document = TypeVar("Document")
DEFAULT_CLASS = "object"
CIRCLE_CORNERS = 64
"""Corners of the polygon for an ellipse."""


@dataclass(frozen=True)
class ReadOptions:
    """How label files are read.

    Attributes:
        need_masks: whether an annotation without a mask is a fault; False: only the images are read.
        images: where images, and sizes that the files lack, are looked up.
        folder: the folder of the images below the image root; prepended to each file name.
        keep_unsized: see `read_scalabel`.
        keep_annotations: see `read_coco`; other formats always keep them.
        reject: leave out and list faulty records; False: they are faults of the file. Scalabel and bitmasks: always.
        any_place: see `read_coco`.
        mask_class: the class of masks that carry none; None: by folder, else `DEFAULT_CLASS`.
    """

    need_masks: bool = True
    images: ImageFiles | None = None
    folder: str = ""
    keep_unsized: bool = False
    keep_annotations: bool = True
    reject: bool = False
    any_place: bool = False
    mask_class: str | None = None


class ImageRow(NamedTuple):
    """An image that label files name: height and width in pixels."""

    id: int
    file_name: str
    height: int
    width: int


class Records:
    """Collects images, masks and faults while label files are read.

    A fault is of one record: with `options.reject` the record is left out and listed, else all faults end the reading.

    Args:
        path: the label file or folder, for messages and the result.
        options: how it is read.
        labels: files that aren't images, though they may be below the image root: label maps.
    """

    def __init__(self, path: Path, options: ReadOptions, labels: Iterable[Path] = ()) -> None:
        self.path, self.options = path, options
        self.faults: list[Fault] = []
        self.rejected: list[Fault] = []
        self.skipped: Counter[str] = Counter()
        """Kinds of shapes that aren't masks, such as points."""
        self.boxes = 0
        self._rows: dict[str, ImageRow] = {}
        self._ids = ImageIds()
        self._annotations: list[dict[str, Any]] = []
        self._names: list[str] = []
        self._known: set[tuple[int, str, bytes, bool, object]] = set()
        self._doubles = 0
        self._reviewed: set[str] = set()
        self.not_images: frozenset[str] = frozenset()
        self.index: ImageIndex | None = None
        if options.images is not None:
            below = (options.images.below_root(label) for label in labels)
            self.not_images = frozenset(name for name in below if name is not None)
            self.index = ImageIndex(options.images.names() - self.not_images)

    def fault(
        self, file: Path | str, record: str, found: str, expected: str, step: str = "correct this record"
    ) -> None:
        """A fault of one record; long texts are cut."""
        one = Fault(clean(str(file)), clean(record[:200]), clean(found[:300]), clean(expected), step)
        (self.rejected if self.options.reject else self.faults).append(one)

    def documents(self, suffix: str, load: Callable[[Path], Document]) -> Iterator[tuple[Path, Document]]:
        """The content of the label file, or of all files of a folder with this suffix; those that can't be read are
        faults.

        Args:
            suffix: with its dot, in lower case.
            load: reads a file, or raises a DataError.
        """
        files = (
            [self.path / name for name in list_files(self.path, (suffix,))]
            if self.path.is_dir()
            else [self.path]
        )
        for file in files:
            try:
                document = load(file)
            except DataError as error:
                self.faults += error.faults
                continue
            yield file, document

    def add_faults(self, error: DataError) -> None:
        """The faults of a record that can't be read."""
        for one in error.faults:
            self.fault(one.file, one.record, one.found, one.expected, one.next_step)

    def find(self, file: Path, record: str, *given: str) -> str | None:
        """The path of an image below the image root, given names that it may have; None after a fault."""
        folder = self.options.folder.strip("/")
        names = [f"{folder}/{name}" for name in given if folder and is_safe(name)] + list(given)
        if not all(map(is_text, names)) or not names:
            self.fault(file, record, f"image {given[0]!r}" if given else "no image", f"a name: {TEXT}")
            return None
        if self.index is None or self.options.images is None:
            if is_safe(names[0]):
                return names[0]
            self.fault(file, record, f"image {names[0]!r}", "a path under the image root")
            return None
        fits = self.index.find(*names, near=self.options.images.below_root(file.parent))
        if len(fits) == 1:
            return fits[0]
        if fits:
            found, expected = f"image {given[-1]!r}, which fits {len(fits)}: {listed(fits)}", "one image"
            self.fault(
                file, record, found, expected, "rename them, or set ingest.images nearer to the images"
            )
        else:
            step = "correct ingest.images or the name, or remove this record"
            self.fault(file, record, f"no image {given[-1]!r}", self.index.expected(given[-1]), step)
        return None

    def prepare(self, names: Collection[str]) -> None:
        """Makes the sizes of these image files available to `size`: downloads them, where they are in S3."""
        if self.options.images is not None:
            self.options.images.prepare(names)

    def size(self, file_name: str) -> tuple[int, int] | None:
        """(height, width) of an image file that was prepared; None after a fault, which names the image."""
        if self.options.images is None:
            self.fault(file_name, "image", "no size, and no folder of images", "a folder to look it up in")
            return None
        try:
            width, height = self.options.images.size(file_name)
        except DataError as error:
            self.add_faults(error)
            return None
        return height, width

    def image(self, file: Path, record: str, file_name: str, size: tuple[int, int] | None) -> ImageRow | None:
        """The row of an image, the same one for each label file that names it; None after a fault.

        Args:
            file, record: where it is named.
            file_name: as `find` returns it.
            size: (height, width) in pixels; None where no masks are read.
        """
        height, width = size or (0, 0)
        if size is not None and not (height > 0 and width > 0 and height * width <= MAX_PIXELS):
            self.fault(file, record, f"{width} x {height} pixels", f"1 to {MAX_PIXELS} pixels")
            return None
        number = self._ids.assign(file_name, name_id(file_name))
        row = self._rows.setdefault(file_name, ImageRow(number, file_name, height, width))
        if size is not None and (row.height, row.width) != (height, width):
            found = f"{width} x {height} pixels for image {file_name!r}, elsewhere {row.width} x {row.height}"
            self.fault(file, record, found, "one size for an image")
            return None
        return row

    def mark_reviewed(self, image: ImageRow) -> None:
        """A person has finished the image in the tool: its record gets the key `reviewed`."""
        self._reviewed.add(image.file_name)

    def add(self, image: ImageRow, name: str, counts: bytes, is_region: bool = False, **more: object) -> None:
        """A mask; `is_region` is one to ignore. A mask that an image already has counts once, unless its point_id is
        another.

        Args:
            more: further keys of its record: `point_id` (an attribute), `tool_ids` (the tool's own, which may be a
                point_id), `is_polygon`, `place` (in the file).
        """
        key = (image.id, name, counts, is_region, more.get("point_id"))
        if key in self._known:
            self._doubles += 1
            return
        self._known.add(key)
        size = [image.height, image.width]
        self._names.append(name)
        self._annotations.append(
            {
                "image_id": image.id,
                "segmentation": {"size": size, "counts": counts},
                "iscrowd": int(is_region),
                **more,
            }
        )

    def add_polygons(
        self, file: Path, record: str, image: ImageRow, name: object, parts: Sequence[Sequence[float]],
        is_region: bool = False, **more: object,
    ) -> None:  # fmt: skip
        """A mask of polygon parts, each x0, y0, x1, y1, ... in pixels; or a fault. `more`: see `add`."""
        if (checked := self.class_name(file, record, name)) is None:
            return
        try:
            self.add(
                image,
                checked,
                from_polygons(list(map(list, parts)), image.height, image.width),
                is_region,
                **more,
            )
        except ValueError as error:
            self.fault(file, record, str(error), "polygons of 3 or more corners, in the image")

    def add_box(
        self, file: Path, record: str, image: ImageRow, name: object, box: tuple[float, float, float, float]
    ) -> None:
        """A box without a mask: a region to ignore, since the outline of its object is unknown."""
        self.boxes += 1
        x0, y0, x1, y1 = box
        self.add_polygons(file, record, image, name, [[x0, y0, x1, y0, x1, y1, x0, y1]], True)

    def class_name(self, file: Path, record: str, name: object) -> str | None:
        """The name of a class; None after a fault."""
        if is_text(name) and name.strip():
            return name
        self.fault(file, record, f"class {name!r}", "a class name")
        return None

    def file(self, classes: Sequence[str] = (), ids: Sequence[int] | None = None) -> CocoFile:
        """The records as a COCO file.

        Args:
            classes: in the order of their ids, from 1; other classes follow by name.
            ids: ids of `classes`, where they are others.

        Raises:
            DataError: the faults.
        """
        if self.faults:
            raise DataError(self.faults)
        self._log()
        more = sorted(set(self._names) - set(classes))
        numbers = list(range(1, len(classes) + 1)) if ids is None else list(ids)
        numbers += range(max(numbers, default=0) + 1, max(numbers, default=0) + 1 + len(more))
        table = dict(zip([*classes, *more], numbers, strict=True))
        annotations = [
            row | {"id": n, "category_id": table[name]}
            for n, (row, name) in enumerate(zip(self._annotations, self._names, strict=True), start=1)
        ]
        return CocoFile(
            images=sorted(map(self._image_record, self._rows.values()), key=lambda row: row["id"]),
            annotations=annotations,
            categories=sorted(Category(number, name) for name, number in table.items()),
            path=str(self.path),
            rejected=tuple(self.rejected),
            not_images=self.not_images,
        )

    def _image_record(self, row: ImageRow) -> dict[str, Any]:
        size = {"height": row.height, "width": row.width} if row.height else {}
        reviewed = {"reviewed": True} if row.file_name in self._reviewed else {}
        return {"id": row.id, "file_name": row.file_name, **size, **reviewed}

    def _log(self) -> None:
        if self.skipped:
            kinds = ", ".join(f"{kind} {count:,}" for kind, count in self.skipped.most_common(10))
            log.info("%s: shapes that aren't masks are left out: %s", self.path, kinds)
        if self.boxes:
            log.warning("%s: %d boxes without a mask; they are regions to ignore", self.path, self.boxes)
        if self._doubles:
            log.info("%s: %d masks that occur twice count once", self.path, self._doubles)


def ellipse(x: float, y: float, rx: float, ry: float, degrees: float = 0.0) -> list[float]:
    """The outline of an ellipse around (x, y) as a polygon x0, y0, ..., turned clockwise."""
    at = np.linspace(0, 2 * np.pi, CIRCLE_CORNERS, endpoint=False)
    along, across = rx * np.cos(at), ry * np.sin(at)
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    corners: list[float] = (
        np.stack([x + along * cos - across * sin, y + along * sin + across * cos], 1).ravel().tolist()
    )
    return corners
