"""Masks of run-length codes, drawn only where they are needed: some rows and columns of the image.

K codes of an image of H x W pixels, R runs in all; h x w: the rows and columns asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data.masks.rle import BoolArray, IntArray

SPARSE = 1 / 4  # of the window's pixels: above it, drawing by running sums is faster than pixel by pixel


def runs_of_many(codes: Sequence[bytes]) -> tuple[IntArray, IntArray]:
    """Run lengths of K compressed RLEs, as `data.masks.rle.runs` gives them one by one.

    Returns:
        Lengths int64 [R], one code's after the other's; how many each code has, int64 [K].

    Raises:
        ValueError: an empty code, or one that ends within a number.
    """
    ends = np.cumsum([len(code) for code in codes], dtype=np.int64)
    code = np.frombuffer(b"".join(codes), dtype=np.uint8).astype(np.int64) - 48
    last = np.flatnonzero((code & 32) == 0)
    stops = np.searchsorted(last, ends)  # one past each code's last number
    counts = np.diff(stops, prepend=0)
    if (counts < 1).any() or (code[ends - 1] & 32).any():
        raise ValueError("a run-length code that is empty or ends within a number")
    first = np.concatenate([[0], last[:-1] + 1])
    shift = 5 * (np.arange(code.size) - np.repeat(first, last - first + 1))
    numbers = np.add.reduceat((code & 31) << shift, first)
    numbers -= np.where(code[last] & 16, np.int64(1) << (shift[last] + 5), 0)
    # From the fourth on, a number is the difference to the one two before: running sums of every other number,
    # begun anew with each code; the first number stands alone.
    starts = stops - counts
    place = np.arange(numbers.size) - np.repeat(starts, counts)
    alone = numbers[starts]
    numbers[starts] = 0
    for parity in (0, 1):
        which = np.flatnonzero(place & 1 == parity)
        sums = np.cumsum(numbers[which])
        sizes = (counts + 1 - parity) // 2
        before = np.concatenate([[0], sums])[np.cumsum(sizes) - sizes]
        numbers[which] = sums - np.repeat(before, sizes)
    numbers[starts] = alone
    return numbers, counts


def decode_window(
    codes: Sequence[bytes], height: int, width: int, rows: IntArray, columns: IntArray
) -> tuple[BoolArray, IntArray]:
    """Masks of K compressed RLEs at some rows and columns of their image; those with no pixel there are left out.

    Args:
        codes: of one image of height x width pixels.
        rows: int64 [h], ascending; a row may come several times, as where the image is enlarged.
        columns: int64 [w], likewise.

    Returns:
        bool [k, h, w]; which of the K they are, int64 [k], ascending.

    Raises:
        ValueError: an RLE that doesn't fill height x width pixels.
    """
    h, w = len(rows), len(columns)
    if not codes:
        return np.zeros((0, h, w), np.bool_), np.zeros(0, np.int64)
    lengths, counts = runs_of_many(codes)
    total = np.cumsum(lengths)
    stops = np.cumsum(counts)
    starts = stops - counts
    filled = np.diff(total[stops - 1], prepend=0)
    for bad in np.flatnonzero((filled != height * width) | (np.minimum.reduceat(lengths, starts) < 0)):
        raise ValueError(
            f"mask {bad}: runs of {filled[bad]} pixels, or a negative one, for {height} x {width} pixels"
        )
    is_object = (np.arange(lengths.size) - np.repeat(starts, counts)) & 1 == 1
    is_object &= lengths > 0
    owner = np.repeat(np.arange(len(codes)), counts)[is_object]
    end = total[is_object] - owner * (height * width)
    begin = end - lengths[is_object]

    # Each run, in each column asked for that it passes, as a span of the rows asked for.
    first = np.searchsorted(columns, begin // height)
    passes = np.searchsorted(columns, (end - 1) // height, side="right") - first
    run = np.repeat(np.arange(begin.size), passes)
    column = np.arange(run.size) - np.repeat(np.cumsum(passes) - passes - first, passes)
    top_pixel = columns[column] * height
    upper = np.searchsorted(rows, begin[run] - top_pixel)
    lower = np.searchsorted(rows, end[run] - top_pixel)
    held = lower > upper
    owner, column, upper, lower = owner[run[held]], column[held], upper[held], lower[held]

    kept, mask = np.unique(owner, return_inverse=True)
    sizes = lower - upper
    pixels = int(sizes.sum())
    if pixels < SPARSE * len(kept) * h * w:
        masks = np.zeros((len(kept), h, w), np.bool_)
        row = np.arange(pixels) - np.repeat(np.cumsum(sizes) - sizes - upper, sizes)
        masks.reshape(-1)[row * w + np.repeat(mask * (h * w) + column, sizes)] = True
        return masks, kept
    # One more row than asked for takes the ends of spans that reach the lower border.
    steps = np.zeros((len(kept), w, h + 1), np.int8)
    place = (mask * w + column) * (h + 1)
    steps.reshape(-1)[place + upper] += 1  # no two spans of a mask and column begin, or end, in one place
    steps.reshape(-1)[place + lower] -= 1
    np.cumsum(steps.reshape(-1), dtype=np.int8, out=steps.reshape(-1))
    return np.ascontiguousarray(steps[:, :, :h].transpose(0, 2, 1)).view(np.bool_), kept
