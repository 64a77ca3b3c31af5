"""Pictures of predictions: each image with its instances over it, and a contact sheet of the first ones.

Each instance has a colour of its own. Its class and score are written where they fit into its box.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from data.masks import rle
from data.messages import plain
from data.storage import atomic_write
from tasks.common.errors import TaskError
from tasks.reporting.gallery import instance_colour

FOLDER, SHEET = "pictures", "contact-sheet.jpg"
LIST = ".drawn"
"""In the folder: the names of its pictures, which the next run replaces. Other files stay."""
LONGEST_SIDES = (640, 1600)
"""Least and most: small images are enlarged, so that text fits."""
SHEET_TILES, SHEET_COLUMNS, TILE = 48, 6, 320
_OPACITY = 0.45
_QUALITY = 90
_MARGIN, _CAPTION = 8, 20
_LONGEST_NAME = 200  # bytes

Pixels = NDArray[np.uint8]
Rows = Sequence[Mapping[str, Any]]


def draw(pixels: Pixels, rows: Rows, names: Mapping[int, str]) -> Image.Image:
    """An image uint8 RGB [H, W, 3] with instances over it, its longest side within `LONGEST_SIDES`.

    Args:
        rows: COCO results with compressed RLE at the image's size; `point` [x, y], where a row has one, is drawn too.
        names: of the classes, by category_id; with one class only scores are written.
    """
    height, width = pixels.shape[:2]
    least, most = LONGEST_SIDES
    scale = min(max(least, height, width), most) / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    canvas = cv2.resize(pixels, size, interpolation=how).astype(np.uint8) if scale != 1 else pixels.copy()
    thickness = max(1, round(max(size) / 500))
    # Large ones first, so that small ones on top of them are seen.
    order = sorted(range(len(rows)), key=lambda n: -rows[n]["bbox"][2] * rows[n]["bbox"][3])
    for n in order:
        _draw_mask(canvas, rows[n], instance_colour(n), thickness, scale)
    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(max(14.0, max(size) / 50))
    for n in order:
        _write_label(pen, rows[n], names, font, scale)
        if "point" in rows[n]:
            x, y = (value * scale for value in rows[n]["point"])
            radius = 2.0 * thickness
            pen.ellipse(
                (x - radius, y - radius, x + radius, y + radius), fill=instance_colour(n), outline="black"
            )
    return picture


def _draw_mask(
    canvas: Pixels, row: Mapping[str, Any], rgb: tuple[int, int, int], thickness: int, scale: float
) -> None:
    """Decodes the mask in its box alone, at the canvas's pixels: an image may be large, and its objects many."""
    height, width = row["segmentation"]["size"]
    x, y, w, h = row["bbox"]
    columns = _places(x, w, scale, canvas.shape[1], width)
    rows = _places(y, h, scale, canvas.shape[0], height)
    code = row["segmentation"]["counts"].encode("ascii")
    masks, _ = rle.decode_window([code], height, width, rows[1], columns[1])
    left, top = columns[0], rows[0]
    for inside in masks:  # none, if all its pixels are between those of a smaller canvas
        window = canvas[top : top + inside.shape[0], left : left + inside.shape[1]]
        window[inside] = (window[inside] * (1 - _OPACITY) + np.array(rgb) * _OPACITY).astype(np.uint8)
        contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, contours, -1, rgb, thickness, offset=(left, top))


def _places(
    begin: float, length: float, scale: float, drawn: int, most: int
) -> tuple[int, NDArray[np.int64]]:
    """The first pixel of the canvas that a span covers, and for it and the next ones their places in the image."""
    first, end = math.floor(begin * scale), min(drawn, math.ceil((begin + length) * scale))
    places = ((np.arange(first, max(first, end)) + 0.5) / scale).astype(np.int64)
    return first, np.minimum(places, most - 1)


def _write_label(
    pen: ImageDraw.ImageDraw, row: Mapping[str, Any], names: Mapping[int, str], font: Any, scale: float
) -> None:
    x, y, w, h = (value * scale for value in row["bbox"])
    score = f"{row['score']:.2f}"
    name = names.get(row["category_id"], str(row["category_id"]))
    for text in (f"{name} {score}", score) if len(names) > 1 else (score,):
        left, top, right, bottom = pen.textbbox((x + 2, y + 1), text, font=font)
        if right - left <= w - 4 and bottom - top <= h / 2:
            pen.rectangle((left - 2, top - 1, right + 2, bottom + 1), fill=(0, 0, 0))
            pen.text((x + 2, y + 1), text, font=font, fill="white")
            return


class Pictures:
    """Writes pictures into `out`/pictures and, at the end, `out`/contact-sheet.jpg of the first ones.

    Raises:
        TaskError: a picture would replace one of the images.
    """

    def __init__(self, out: Path, images: Sequence[Path], names: Mapping[int, str]) -> None:
        self.out, self.names = out, names
        self.files = _file_names(images)
        self._tiles: dict[int, tuple[Image.Image, str]] = {}
        given = {path.resolve() for path in images}
        written = [out / SHEET, *(out / FOLDER / name for name in self.files.values())]
        lost = [str(path) for path in written if path.resolve() in given]
        if lost:
            raise TaskError(
                f"{lost[0]}: an image to predict on, which a picture of the same name would replace"
                f"{f' (and {len(lost) - 1} more)' if len(lost) > 1 else ''}; give another --out, or --no-pictures"
            )
        # Before the first one is drawn, so that the next run removes them even if this one is killed.
        _list(out, {*_listed(out), *self.files.values()})

    def add(self, image_id: int, pixels: Pixels, rows: Rows) -> None:
        """Writes the picture of an image; may be called from several threads."""
        picture = draw(pixels, rows, self.names)
        _save(picture, self.out / FOLDER / self.files[image_id])
        if image_id <= SHEET_TILES:
            picture.thumbnail((TILE, TILE))
            name = plain(self.files[image_id].removesuffix(".jpg"))
            self._tiles[image_id] = picture, f"{name}: {len(rows)}"

    def finish(self) -> None:
        """Writes the contact sheet; removes an earlier run's pictures of other images."""
        remove(self.out, keep=set(self.files.values()))
        _list(self.out, set(self.files.values()))
        _save(self._sheet(), self.out / SHEET)

    def _sheet(self) -> Image.Image:
        """The first pictures in rows, each with its name and number of instances."""
        columns = min(SHEET_COLUMNS, max(1, len(self._tiles)))
        rows = -(-len(self._tiles) // columns)
        step_x, step_y = TILE + _MARGIN, TILE + _CAPTION + _MARGIN
        sheet = Image.new("RGB", (columns * step_x + _MARGIN, max(1, rows) * step_y + _MARGIN), "white")
        pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13.0)
        for place, (_, (tile, caption)) in enumerate(sorted(self._tiles.items())):
            x, y = _MARGIN + place % columns * step_x, _MARGIN + place // columns * step_y
            sheet.paste(tile, (x + (TILE - tile.width) // 2, y + (TILE - tile.height) // 2))
            while caption and pen.textlength(caption, font=font) > TILE:
                caption = caption[1:]
            pen.text((x, y + TILE + 2), caption, font=font, fill="black")
        return sheet


def remove(out: Path, keep: AbstractSet[str] = frozenset()) -> None:
    """Removes the contact sheet and the pictures of an earlier run but those in `keep`; other files stay."""
    names = _listed(out)
    if names:
        (out / SHEET).unlink(missing_ok=True)
    for name in names - keep:
        (out / FOLDER / name).unlink(missing_ok=True)
    (out / FOLDER / LIST).unlink(missing_ok=True)


def _listed(out: Path) -> set[str]:
    """Names of the pictures in a folder that runs have drawn."""
    try:
        names = (out / FOLDER / LIST).read_text(encoding="utf-8").split("\0")
    except FileNotFoundError:
        return set()
    return {name for name in names if Path(name).name == name}


def _list(out: Path, names: AbstractSet[str]) -> None:
    with atomic_write(out / FOLDER / LIST) as unfinished:
        unfinished.write_text("\0".join(sorted(names)), encoding="utf-8")


def _file_names(images: Sequence[Path]) -> dict[int, str]:
    """A name for the picture of each image, by image_id; names that differ in case alone count as the same."""
    stems = Counter(path.stem.casefold() for path in images)
    names: dict[int, str] = {}
    used: set[str] = set()
    for n, path in enumerate(images, start=1):
        stem = path.stem.encode()[:_LONGEST_NAME].decode(errors="ignore")
        name = stem if stems[path.stem.casefold()] == 1 and stem.casefold() not in used else f"{stem}-{n}"
        while name.casefold() in used:
            name += f"-{n}"
        used.add(name.casefold())
        names[n] = f"{name}.jpg"
    return names


def _save(picture: Image.Image, path: Path) -> None:
    with atomic_write(path) as unfinished:
        picture.save(unfinished, "JPEG", quality=_QUALITY)
