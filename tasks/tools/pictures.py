"""Pictures of predictions: each image with its instances over it, and a contact sheet of all.

Each instance has a colour of its own. Its class and score are written where they fit into its box.
"""

from __future__ import annotations

import colorsys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from data.masks import rle
from data.storage import atomic_write

FOLDER, SHEET = "pictures", "contact-sheet.jpg"
MIN_SCORE = 0.3
"""Instances below it aren't drawn unless another score is given: most of them are wrong."""
LONGEST_SIDES = (640, 1600)
"""Least and most: small images are enlarged, so that text fits."""
SHEET_TILES, SHEET_COLUMNS, TILE = 48, 6, 320
_OPACITY = 0.45
_QUALITY = 90
_MARGIN, _CAPTION = 8, 20

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
        _draw_mask(canvas, rows[n], colour(n), thickness)
    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(max(14.0, max(size) / 50))
    for n in order:
        _write_label(pen, rows[n], names, font, scale)
        if "point" in rows[n]:
            x, y = (value * scale for value in rows[n]["point"])
            radius = 2.0 * thickness
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour(n), outline="black")
    return picture


def colour(n: int) -> tuple[int, int, int]:
    """RGB of the n-th instance: neighbours in number are far apart in hue (golden angle)."""
    hue = (n * 0.61803398875) % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75 if n % 2 else 0.95, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def _draw_mask(canvas: Pixels, row: Mapping[str, Any], rgb: tuple[int, int, int], thickness: int) -> None:
    height, width = row["segmentation"]["size"]
    mask = rle.decode(row["segmentation"]["counts"].encode("ascii"), height, width).view(np.uint8)
    if mask.shape != canvas.shape[:2]:
        size = (canvas.shape[1], canvas.shape[0])
        mask = (cv2.resize(255 * mask, size, interpolation=cv2.INTER_LINEAR) > 127).astype(np.uint8)
    x, y, w, h = cv2.boundingRect(mask)
    inside, window = mask[y : y + h, x : x + w] > 0, canvas[y : y + h, x : x + w]
    window[inside] = (window[inside] * (1 - _OPACITY) + np.array(rgb) * _OPACITY).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, contours, -1, rgb, thickness)


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
    """Writes pictures into `out`/pictures and, at the end, `out`/contact-sheet.jpg of the first ones."""

    def __init__(self, out: Path, images: Sequence[Path], names: Mapping[int, str]) -> None:
        self.out, self.names = out, names
        stems = Counter(path.stem for path in images)
        self.files = {
            n: f"{path.stem}.jpg" if stems[path.stem] == 1 else f"{path.stem}-{n}.jpg"
            for n, path in enumerate(images, start=1)
        }
        self._tiles: dict[int, tuple[Image.Image, str]] = {}

    def add(self, image_id: int, pixels: Pixels, rows: Rows) -> None:
        """Writes the picture of an image; may be called from several threads."""
        picture = draw(pixels, rows, self.names)
        _save(picture, self.out / FOLDER / self.files[image_id])
        if image_id <= SHEET_TILES:
            picture.thumbnail((TILE, TILE))
            self._tiles[image_id] = picture, f"{self.files[image_id].removesuffix('.jpg')}: {len(rows)}"

    def write_sheet(self) -> Path:
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
        path = self.out / SHEET
        _save(sheet, path)
        return path


def _save(picture: Image.Image, path: Path) -> None:
    with atomic_write(path) as unfinished:
        picture.save(unfinished, "JPEG", quality=_QUALITY)
