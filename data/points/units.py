"""Coordinates that can't be pixels of their images, which is visible only in many clicks together.

Valid clicks fill their images from border to border, or keep the same distance from all borders, as with objects in the
middle. If they fill a rectangle that begins at the origin and ends well before or beyond the other two borders, they
are in another unit, or on copies of another size, and one factor (`points.scale`) converts them to pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from data.errors import Fault

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MIN_CLICKS, MIN_IMAGES = 30, 3
LOW, MIDDLE, HIGH = 0.02, 0.5, 0.98
"""Quantiles of clicks: beginning, middle and end, without a few outliers."""
CORNER_SIDE, CORNER_AREA = 0.7, 0.4
"""Clicks in a corner: the largest share of each side, and of the area, that they fill."""
BEYOND_SIDE, BEYOND = 1.2, 0.2
"""Clicks on larger copies: the smallest share of each side that they reach, and of clicks outside."""
MOST = 0.5  # share of clicks outside from which they are on other images
SMALLEST_SIDE = 20  # of images on which clicks from 0 to 1 are suspicious
MIN_EXCHANGED = 10  # clicks that are outside, and inside if x and y are exchanged
EVEN = 1.15
"""Largest ratio of the factors of x and y that are reported as one."""
USUAL_FACTORS = (0.25, 0.5, 2.0, 4.0)
SLACK = 0.03  # relative deviation from a usual factor


class Clicks(NamedTuple):
    """K clicks whose image is known.

    Attributes:
        files: int64 [K], the number of the file.
        images: int64 [K], image_id.
        sides: float64 [K, 2], the image's width and height in pixels.
        xy: float64 [K, 2], in pixels, if the file is right.
    """

    files: IntArray
    images: IntArray
    sides: FloatArray
    xy: FloatArray


class _Doubt(NamedTuple):
    cause: str
    step: str


def find_doubts(clicks: Clicks, names: Sequence[str]) -> list[Fault]:
    """Likely errors of the coordinates of files, one fault a cause.

    Each file of `MIN_CLICKS` clicks or more is checked by itself, all others together.

    Args:
        clicks: of all files.
        names: of the files, by number.
    """
    counts = np.bincount(clicks.files, minlength=len(names))
    many = np.flatnonzero(counts >= MIN_CLICKS)
    groups = [np.array([n]) for n in many] + [np.flatnonzero((counts > 0) & (counts < MIN_CLICKS))]
    found: dict[str, list[IntArray]] = {}
    for group in groups:
        doubt = _doubt(_of(clicks, group))
        if doubt is not None:
            found.setdefault(doubt.cause, []).append(group)
    faults = []
    for cause, some in found.items():
        files = np.concatenate(some)
        own = _of(clicks, files)
        step = (_doubt(own) or _doubt(_of(clicks, some[0])) or _Doubt(cause, "")).step
        if len(own.xy) < len(clicks.xy):
            step += (
                "; points.scale and points.columns apply to all files: convert these if the others are right"
            )
        shown = names[files[0]] + (f" and {len(files) - 1:,} more files" if len(files) > 1 else "")
        faults.append(
            Fault(shown, "points", f"{_figures(own)}; likely {cause}", "clicks all over their images", step)
        )
    return faults


def _of(clicks: Clicks, files: IntArray) -> Clicks:
    chosen = np.isin(clicks.files, files)
    return Clicks(clicks.files[chosen], clicks.images[chosen], clicks.sides[chosen], clicks.xy[chosen])


def _doubt(clicks: Clicks) -> _Doubt | None:
    if len(clicks.xy) < MIN_CLICKS or len(np.unique(clicks.images)) < MIN_IMAGES:
        return None
    sides, xy = clicks.sides, clicks.xy
    return _fractions(sides, xy) or _exchanged(sides, xy) or _in_a_corner(sides, xy) or _beyond(sides, xy)


def _fractions(sides: FloatArray, xy: FloatArray) -> _Doubt | None:
    if np.quantile(xy, HIGH) > 1 or xy.min() < 0 or np.median(sides) < SMALLEST_SIDE:
        return None
    return _Doubt("fractions of the image's sides (0 to 1)", _multiply(sides, 1))


def _exchanged(sides: FloatArray, xy: FloatArray) -> _Doubt | None:
    outside = _outside(xy, sides)
    if outside * len(xy) < MIN_EXCHANGED or _outside(xy[:, ::-1], sides) > outside / 20:
        return None
    step = "exchange points.columns.x and points.columns.y, or x and y in the file if it is no table"
    return _Doubt("x and y exchanged", step)


def _in_a_corner(sides: FloatArray, xy: FloatArray) -> _Doubt | None:
    shares = xy / sides
    ends = np.quantile(shares, HIGH, axis=0)
    if (ends > CORNER_SIDE).any() or ends.prod() > CORNER_AREA or _outside(xy, sides) > SLACK:
        return None
    factor, step = _scale(shares)
    # A factor of 2 on images of 200 pixels rather means smaller copies.
    if (
        _fills(xy)
        and (np.abs(np.quantile(xy, HIGH, axis=0) - 90) <= 10).all()
        and factor not in USUAL_FACTORS
    ):
        return _Doubt("percent of the image's sides (0 to 100)", _multiply(sides, 100))
    if not _fills(shares):
        return None
    cause = "another unit than pixels (microns, as ImageJ writes them), or clicks on smaller copies"
    return _Doubt(cause, f"{step}, unless only this part of the images was clicked")


def _beyond(sides: FloatArray, xy: FloatArray) -> _Doubt | None:
    shares, outside = xy / sides, _outside(xy, sides)
    if outside >= BEYOND and (np.quantile(shares, HIGH, axis=0) >= BEYOND_SIDE).all() and _fills(shares):
        step = _scale(shares)[1]
        return _Doubt("clicks on larger copies of the images, or another unit than pixels", step)
    if outside > MOST:
        step = "export them again, in pixels of these images"
        return _Doubt("clicks of other images, or from another origin", step)
    return None


def _outside(xy: FloatArray, sides: FloatArray) -> float:
    """The share of clicks outside of their image."""
    return float(((xy < 0) | (xy >= sides)).any(axis=1).mean())


def _fills(places: FloatArray) -> bool:
    """Whether places [K, 2] fill a rectangle that begins at the origin, about evenly."""
    begin, middle, end = np.quantile(places, [LOW, MIDDLE, HIGH], axis=0)
    near = (begin >= 0) & (begin <= 0.15 * end)
    return bool((near & (np.abs(middle - end / 2) <= 0.2 * end)).all())


def _scale(shares: FloatArray) -> tuple[float | None, str]:
    """The factor, or None if x and y differ; and the advice to set it."""
    x, y = (1 / np.quantile(shares, 0.995, axis=0)).tolist()
    if max(x, y) > EVEN * min(x, y):
        value, factor = f"{{x: {x:.3g}, y: {y:.3g}}}", None
    else:
        mean = (x + y) / 2
        factor = next((usual for usual in USUAL_FACTORS if abs(mean / usual - 1) <= SLACK), mean)
        value = f"{factor:.3g}"
    return factor, f"set points.scale: {value} (an estimate; use the exact figure)"


def _multiply(sides: FloatArray, whole: int) -> str:
    """The advice for coordinates that are shares of the sides, from 0 to `whole`."""
    if np.ptp(sides, axis=0).any():
        return (
            "multiply each by its image's width or height; the images' sizes differ, so no points.scale fits"
        )
    x, y = (sides[0] / whole).tolist()
    return f"set points.scale: {{x: {x:g}, y: {y:g}}}"


def _figures(clicks: Clicks) -> str:
    shares = clicks.xy / clicks.sides
    x, y = np.quantile(shares, HIGH, axis=0)
    _, index = np.unique(clicks.images, return_inverse=True)
    reach = np.zeros((index.max() + 1, 2))
    np.maximum.at(reach, index, shares)
    alike = (reach <= np.array([x, y]) * 1.05).all(axis=1).mean()
    outside = _percent(_outside(clicks.xy, clicks.sides))
    return (
        f"{len(shares):,} points of {len(reach):,} images within {_percent(x)} of the width and {_percent(y)} of the "
        f"height (all points of {_percent(alike)} of the images), {outside} of them outside"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%" if share < 0.01 else f"{100 * share:.0f}%"
