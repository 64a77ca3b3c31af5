"""Pictures of the report: images with clicks and masks over them.

Each image is in the page once, as a JPEG. Its panels draw masks over it as SVG paths, which are sharp at any zoom and
show their title when pointed at.
"""

from __future__ import annotations

import base64
import colorsys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from data.images.jpeg import to_jpeg
from data.masks.outlines import outlines
from data.messages import plain
from tasks.reporting.charts import safe

LONGEST_SIDE = 640
JPEG_QUALITY = 85
_TOLERANCE = 0.6  # maximum deviation in pixels when corners are left out
_LETTER = 0.58  # width of a letter, in font sizes


class Shape(NamedTuple):
    """A mask bool [h, w] to draw in a colour; `title` is shown when it's pointed at, `label` where it fits.

    `kind` is the CSS class: `mask`; `wrong`, a false alarm; `miss`, a true object without a detection.
    """

    mask: NDArray[np.bool_]
    colour: str
    title: str
    label: str = ""
    kind: str = "mask"
    unit: float = 1.0
    """pixels of the image by pixel of the mask, which may be smaller"""


class Dot(NamedTuple):
    """A click at x, y in pixels; `missing`: without a mask."""

    x: float
    y: float
    colour: str
    title: str
    missing: bool = False


class Panel(NamedTuple):
    """One picture of a row: shapes and dots over the image."""

    caption: str
    shapes: Sequence[Shape]
    dots: Sequence[Dot]


def instance_colour(n: int) -> tuple[int, int, int]:
    """RGB of the n-th instance: neighbours in number are far apart in hue (golden angle). None is red, the colour of
    errors."""
    hue = 0.08 + 0.84 * ((n * 0.61803398875) % 1)
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75 if n % 2 else 0.95, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def hex_colour(n: int) -> str:
    """`instance_colour` for a page."""
    return "#{:02x}{:02x}{:02x}".format(*instance_colour(n))


class Window(NamedTuple):
    """A part of an image, in its pixels."""

    x: float
    y: float
    width: float
    height: float


def image_definition(
    image: NDArray[np.uint8], name: str, longest: int = LONGEST_SIDE, corner: tuple[int, int] = (0, 0)
) -> Markup:
    """An image uint8 RGB [H, W, 3] as an SVG definition that `panel` draws by name, in units of its pixels.

    It is stored with at most `longest` pixels a side. `corner`: x, y of its upper left corner, if it is cut out.
    """
    height, width = image.shape[:2]
    data = base64.b64encode(to_jpeg(image, longest, JPEG_QUALITY)).decode("ascii")
    return safe(
        f'<svg class="defs" aria-hidden="true"><defs><image id="{escape(name)}" '
        f'x="{corner[0]}" y="{corner[1]}" width="{width}" height="{height}" preserveAspectRatio="none" '
        f'href="data:image/jpeg;base64,{data}"/></defs></svg>'
    )


def panel(name: str, size: tuple[int, int], content: Panel, window: Window | None = None) -> Markup:
    """The image `name` of (height, width) pixels with masks and clicks over it; with `window` that part of it."""
    height, width = size
    view = window or Window(0, 0, width, height)
    unit = max(view.width, view.height) / 100
    parts = [f'<use href="#{escape(name)}"/>']
    # Large ones first, so that small ones on top of them can be pointed at.
    shapes = sorted(content.shapes, key=lambda shape: -int(shape.mask.sum()))
    parts += [_outline(shape) for shape in shapes]
    parts += [_label(shape, 4.5 * unit) for shape in shapes]
    for dot in content.dots:
        at = f'cx="{dot.x:.1f}" cy="{dot.y:.1f}"'
        title = f"<title>{escape(dot.title)}</title>"
        if dot.missing:
            arm = 1.8 * unit
            parts.append(
                f'<path class="cross" stroke-width="{unit:.2f}" d="M{dot.x - arm:.1f} {dot.y - arm:.1f}'
                f"l{2 * arm:.1f} {2 * arm:.1f}m0 {-2 * arm:.1f}l{-2 * arm:.1f} {2 * arm:.1f}"
                f'">{title}</path>'
            )
        else:
            parts.append(
                f'<circle class="click" {at} r="{1.5 * unit:.2f}" fill="{dot.colour}" '
                f'stroke-width="{0.7 * unit:.2f}">{title}</circle>'
            )
    return safe(
        f'<svg class="panel" viewBox="{view.x:g} {view.y:g} {view.width:g} {view.height:g}" role="img" '
        f'aria-label="{escape(content.caption)}">'
        f"{''.join(parts)}</svg>"
    )


def _outline(shape: Shape) -> str:
    return (
        f'<path class="{shape.kind}" fill="{shape.colour}" stroke="{shape.colour}" fill-rule="evenodd" '
        f'd="{mask_path(shape.mask, shape.unit)}"><title>{escape(shape.title)}</title></path>'
    )


def _label(shape: Shape, font: float) -> str:
    """The label in the upper left corner of the shape's box; empty where it doesn't fit."""
    rows, columns = np.flatnonzero(shape.mask.any(axis=1)), np.flatnonzero(shape.mask.any(axis=0))
    if not shape.label or not rows.size:
        return ""
    width, height = (shape.unit * (line[-1] - line[0] + 1) for line in (columns, rows))
    if _LETTER * font * len(shape.label) > width or 2.5 * font > height:
        return ""
    x, y = shape.unit * columns[0] + 0.2 * font, shape.unit * rows[0] + 1.1 * font
    return (
        f'<text class="tag" x="{x:.1f}" y="{y:.1f}" font-size="{font:.1f}" stroke-width="{0.22 * font:.1f}">'
        f"{escape(plain(shape.label))}</text>"
    )


def mask_path(mask: NDArray[np.bool_], unit: float = 1.0) -> str:
    """SVG path data around a mask bool [H, W], with its holes (fill-rule evenodd); empty for an empty mask.

    Coordinates are those of the mask's pixels times `unit`.
    """
    rings = (unit * ring for ring in outlines(mask, _TOLERANCE))
    return "".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in ring) + "Z" for ring in rings)


def spread(count: int, chosen: int) -> list[int]:
    """`chosen` of the indices 0 .. count - 1 at even distances with the first and the last one, or all of them."""
    if count <= chosen:
        return list(range(count))
    if chosen <= 1:
        return [0] * chosen
    return [round(i * (count - 1) / (chosen - 1)) for i in range(chosen)]
