"""Run-length codes (RLE) of masks: encoded, decoded, checked and measured.

A compressed RLE is the ``counts`` bytes of pycocotools; the size (H, W) of its image is kept elsewhere. Runs go down
the columns and begin with background. Pixel coordinates are x, y; (0, 0) is the outer corner of the top-left pixel, so
the centre of pixel [row, column] is (column + 0.5, row + 0.5).

Legend: K masks of one image of H x W pixels, R runs in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

if TYPE_CHECKING:
    import torch

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MAX_LABELS = 65_535
"""Values of a label map: the objects that a bitmask can number."""
CHUNK_PIXELS = 1 << 28
"""Pixels of masks that are compared at once on a GPU."""
SPARSE = 1 / 4
"""Share of a window's pixels: below it `decode_window` sets pixels one by one, above it by running sums."""


def encode(mask: BoolArray) -> bytes:
    """Compressed RLE of a bool mask [H, W]."""
    if mask.ndim != 2:
        raise ValueError(f"a mask has shape [H, W]; found {list(mask.shape)}")
    counts: bytes = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]
    return counts


def encode_many(
    masks: BoolArray | torch.Tensor, boxes_xyxy: IntArray | torch.Tensor | None = None
) -> list[bytes]:
    """Compressed RLEs of bool masks [K, H, W], byte for byte those of `encode`.

    The time grows with the objects, not with the image: only a mask's box is read. Of masks on a GPU only the ends of
    their runs are copied to the CPU.

    Args:
        masks: an array, or a tensor on any device.
        boxes_xyxy: whole numbers [K, 4] in pixels, x1 and y1 exclusive; a mask is empty outside of its box, and the box
            of an empty mask is zeros. None: they are computed. Not used for masks on a GPU.

    Raises:
        ValueError: masks of another shape or type.
    """
    if masks.ndim != 3 or str(masks.dtype).removeprefix("torch.") != "bool":
        raise ValueError(f"masks are bool [K, H, W]; found {masks.dtype} {list(masks.shape)}")
    count, height, width = masks.shape
    if not isinstance(masks, np.ndarray) and masks.device.type != "cpu":
        mask_of, pixel = _ends_on_device(masks)
    else:
        array = np.asarray(masks)
        boxes = _boxes(array) if boxes_xyxy is None else np.asarray(boxes_xyxy)
        mask_of, pixel = _ends(array, boxes.tolist())
    return _codes(mask_of, pixel, count, height * width)


def encode_labels(labels: npt.NDArray[Any]) -> dict[int, bytes]:
    """Compressed RLE of each value above 0 of a label map [H, W] of whole numbers, by value, in ascending order.

    Raises:
        ValueError: another shape, or more than `MAX_LABELS` values, as in a photograph.
    """
    if labels.ndim != 2:
        raise ValueError(f"a label map has shape [H, W]; found {list(labels.shape)}")
    flat = labels.ravel(order="F")
    begins = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])[: flat.size]
    ends = np.append(begins[1:], flat.size)
    labelled = flat[begins] > 0
    values, label_of = np.unique(flat[begins][labelled].astype(np.int64), return_inverse=True)
    if values.size > MAX_LABELS:
        raise ValueError(f"{values.size:,} different values, more than {MAX_LABELS:,}")
    pixel = np.concatenate([begins[labelled], ends[labelled]])
    codes = _codes(np.tile(label_of, 2), pixel, values.size, flat.size)
    return dict(zip(values.tolist(), codes, strict=True))


def _boxes(masks: BoolArray) -> IntArray:
    boxes = np.zeros((len(masks), 4), np.int64)
    for box, mask in zip(boxes, masks, strict=True):
        rows = np.flatnonzero(mask.any(1))
        if rows.size:
            y0, y1 = int(rows[0]), int(rows[-1]) + 1
            columns = np.flatnonzero(mask[y0:y1].any(0))
            box[:] = columns[0], y0, columns[-1] + 1, y1
    return boxes


def _ends(masks: BoolArray, boxes: Sequence[Sequence[int]]) -> tuple[IntArray, IntArray]:
    """Where runs begin and end within each column: the index of the mask, and of the pixel down the columns.

    In no particular order. A run that continues at the top of the next column has both an end and a beginning there.
    """
    height = masks.shape[1]
    mask_of, pixels = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for k, (x0, y0, x1, y1) in enumerate(boxes):
        h, w = y1 - y0, x1 - x0
        if h <= 0 or w <= 0:
            continue
        piece = masks[k, y0:y1, x0:x1]
        changes = np.empty((h + 1, w), np.bool_)
        changes[0], changes[h] = piece[0], piece[-1]
        np.not_equal(piece[1:], piece[:-1], out=changes[1:h])
        row, column = np.divmod(np.flatnonzero(changes), w)
        pixels.append((x0 + column) * height + (y0 + row))
        mask_of.append(np.full(row.size, k))
    return np.concatenate(mask_of), np.concatenate(pixels)


def _ends_on_device(masks: torch.Tensor) -> tuple[IntArray, IntArray]:
    """`_ends` of whole masks, computed on their device."""
    import torch

    _, height, width = masks.shape
    mask_of, pixels = [], []
    step = max(1, CHUNK_PIXELS // (height * width))
    for n, part in enumerate(masks.split(step)):
        changes = torch.cat([part[:, :1], part[:, 1:] != part[:, :-1], part[:, -1:]], 1)
        k, row, column = changes.nonzero(as_tuple=True)
        mask_of.append(k + n * step)
        pixels.append(column * height + row)
    return torch.cat(mask_of).cpu().numpy(), torch.cat(pixels).cpu().numpy()


def _codes(mask_of: IntArray, pixel: IntArray, count: int, pixels: int) -> list[bytes]:
    """The codes of `count` masks of `pixels` pixels each, from the ends of their runs (see `_ends`)."""
    key = np.sort(mask_of * (pixels + 1) + pixel)
    same = np.flatnonzero(key[1:] == key[:-1])  # a run that continues in the next column
    key = np.delete(key, np.concatenate([same, same + 1]))
    mask_of, pixel = np.divmod(key, pixels + 1)
    sizes = np.bincount(mask_of, minlength=count)
    last = np.cumsum(sizes)
    # A run to the very last pixel has no background behind it.
    full = np.zeros(count, np.bool_)
    full[sizes > 0] = pixel[last[sizes > 0] - 1] == pixels
    counts = sizes + ~full
    stops = np.cumsum(counts)
    starts = stops - counts
    bounds = np.full(int(stops[-1]) if count else 0, pixels, np.int64)
    bounds[np.arange(key.size) + np.repeat(starts - (last - sizes), sizes)] = pixel
    lengths = np.diff(bounds, prepend=0)
    lengths[starts] = bounds[starts]
    # From the fourth on, a number is the difference to the one two before.
    rank = np.arange(lengths.size) - np.repeat(starts, counts)
    later = np.flatnonzero(rank > 2)
    numbers = lengths.copy()
    numbers[later] -= lengths[later - 2]
    return _packed(numbers, counts)


def _packed(numbers: IntArray, counts: IntArray) -> list[bytes]:
    """Numbers in pycocotools' characters, `counts` of them a code.

    A number is digits of base 32, low ones first, as characters from '0' on. Bit 5 marks that another digit follows;
    bit 4 of the last digit is the sign.
    """
    magnitude = np.where(numbers < 0, ~numbers, numbers)
    digits = np.ones(numbers.size, np.int64)
    bound = 16
    while (longer := magnitude >= bound).any():
        digits += longer
        bound <<= 5
    rank = np.arange(int(digits.max(initial=1)))
    characters = (numbers[:, None] >> 5 * rank) & 31
    characters += np.where(rank < digits[:, None] - 1, 32, 0) + 48
    text = characters.astype(np.uint8)[rank < digits[:, None]].tobytes()
    ends = np.cumsum(digits)[np.cumsum(counts) - 1].tolist() if numbers.size else []
    return [text[begin:end] for begin, end in zip([0, *ends[:-1]], ends, strict=False)]


def runs(counts: bytes) -> IntArray:
    """Run lengths of a compressed RLE: background, object, background, ...

    Raises:
        ValueError: see `runs_of_many`.
    """
    return runs_of_many([counts])[0]


def runs_of_many(codes: Sequence[bytes]) -> tuple[IntArray, IntArray]:
    """Run lengths of K >= 1 compressed RLEs; the inverse of `_packed` and of the differences.

    Returns:
        int64 [R], the lengths of one code after those of the other; int64 [K], how many each code has.

    Raises:
        ValueError: a code that is empty, ends within a number, or has other characters or too long a number.
    """
    ends = np.cumsum([len(code) for code in codes], dtype=np.int64)
    code = np.frombuffer(b"".join(codes), dtype=np.uint8).astype(np.int64) - 48
    if not all(codes):
        raise ValueError("the run-length code is empty")
    if code.min() < 0 or code.max() > 63:
        raise ValueError("a run-length code with a character outside '0'..'o'")
    if (code[ends - 1] & 32).any():
        raise ValueError("a run-length code that ends within a number")
    last = np.flatnonzero((code & 32) == 0)
    stops = np.searchsorted(last, ends)  # one past each code's last number
    counts = np.diff(stops, prepend=0)
    starts = stops - counts
    first = np.concatenate([[0], last[:-1] + 1])
    shift = 5 * (np.arange(code.size) - np.repeat(first, last - first + 1))
    if shift.max() > 40:
        raise ValueError("a run-length code with a number of more than 9 digits")
    numbers = np.add.reduceat((code & 31) << shift, first)
    numbers -= np.where(code[last] & 16, np.int64(1) << (shift[last] + 5), 0)
    # Each is the difference to the number two before, but for the first three. So the lengths are running sums over
    # every other number of a code; the first number belongs to none.
    place = np.arange(numbers.size) - np.repeat(starts, counts)
    background = numbers[starts]
    numbers[starts] = 0
    for parity in (0, 1):
        which = np.flatnonzero(place & 1 == parity)
        sums = np.cumsum(numbers[which])
        sizes = (counts + 1 - parity) // 2
        before = np.concatenate([[0], sums])[np.cumsum(sizes) - sizes]
        numbers[which] = sums - np.repeat(before, sizes)
    numbers[starts] = background
    return numbers, counts


def check_rle(counts: bytes, height: int, width: int) -> None:
    """Check a compressed RLE before pycocotools reads it, which checks nothing and may write beyond its memory.

    Raises:
        ValueError: not a code, a negative run, or runs that don't fill height x width pixels.
    """
    lengths = runs(counts)
    if lengths.min() < 0:
        raise ValueError("a run of negative length")
    if int(lengths.sum()) != height * width:
        raise ValueError(f"runs of {int(lengths.sum())} pixels, for {height} x {width} = {height * width}")


def from_runs(lengths: Sequence[int], height: int, width: int) -> bytes:
    """Compressed RLE of an uncompressed one (a list of run lengths).

    Raises:
        ValueError: a run that is no whole number or negative, or runs that don't fill the image.
    """
    values = list(lengths)
    if not all(isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in values):
        raise ValueError("a run length that is not a whole number of 0 or more")
    if sum(values) != height * width:
        raise ValueError(f"runs of {sum(values)} pixels, for {height} x {width} = {height * width}")
    rle = {"size": [height, width], "counts": values}
    counts: bytes = coco_mask.frPyObjects(rle, height, width)["counts"]
    return counts


def decode(counts: bytes, height: int, width: int) -> BoolArray:
    """The bool mask [height, width] of a compressed RLE."""
    pixels = coco_mask.decode({"size": [height, width], "counts": counts})
    return np.ascontiguousarray(pixels).view(np.bool_)


def decode_many(counts: Sequence[bytes], height: int, width: int) -> BoolArray:
    """Bool masks [K, height, width] of K compressed RLEs of one image; K may be 0."""
    masks = np.empty((len(counts), height, width), dtype=np.bool_)
    for k, rle in enumerate(counts):
        masks[k] = coco_mask.decode({"size": [height, width], "counts": rle})
    return masks


def decode_window(
    codes: Sequence[bytes], height: int, width: int, rows: IntArray, columns: IntArray
) -> tuple[BoolArray, IntArray]:
    """Masks of K compressed RLEs at some rows and columns of their image; masks without a pixel there are left out.

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
    mask_of, begin, end = _object_runs(codes, height, width)
    # Each run, in each of the columns that it passes, as a span of the rows.
    first = np.searchsorted(columns, begin // height)
    passes = np.searchsorted(columns, (end - 1) // height, side="right") - first
    run = np.repeat(np.arange(begin.size), passes)
    column = np.arange(run.size) - np.repeat(np.cumsum(passes) - passes - first, passes)
    top_pixel = columns[column] * height
    upper = np.searchsorted(rows, begin[run] - top_pixel)
    lower = np.searchsorted(rows, end[run] - top_pixel)
    inside = lower > upper
    mask_of, column, upper, lower = mask_of[run[inside]], column[inside], upper[inside], lower[inside]

    kept, mask = np.unique(mask_of, return_inverse=True)
    sizes = lower - upper
    pixels = int(sizes.sum())
    if pixels < SPARSE * len(kept) * h * w:
        masks = np.zeros((len(kept), h, w), np.bool_)
        row = np.arange(pixels) - np.repeat(np.cumsum(sizes) - sizes - upper, sizes)
        masks.reshape(-1)[row * w + np.repeat(mask * (h * w) + column, sizes)] = True
        return masks, kept
    # A further row holds the ends of spans that reach the lower border.
    steps = np.zeros((len(kept), w, h + 1), np.int8)
    place = (mask * w + column) * (h + 1)
    steps.reshape(-1)[place + upper] += 1  # no two spans of a mask and column begin, or end, in one place
    steps.reshape(-1)[place + lower] -= 1
    np.cumsum(steps.reshape(-1), dtype=np.int8, out=steps.reshape(-1))
    return np.ascontiguousarray(steps[:, :, :h].transpose(0, 2, 1)).view(np.bool_), kept


def _object_runs(codes: Sequence[bytes], height: int, width: int) -> tuple[IntArray, IntArray, IntArray]:
    """The object's runs of all codes: index of the mask, first pixel, one past the last, down the columns."""
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
    mask_of = np.repeat(np.arange(len(codes)), counts)[is_object]
    end = total[is_object] - mask_of * (height * width)
    return mask_of, end - lengths[is_object], end


def object_pixels(counts: bytes, height: int) -> tuple[IntArray, IntArray]:
    """Rows and columns of the object's pixels, down the columns; in time that grows with the object alone.

    Raises:
        ValueError: not a code; see `runs_of_many`.
    """
    lengths = runs(counts)
    ends = np.cumsum(lengths)[1::2]
    sizes = lengths[1::2]
    flat = np.arange(int(sizes.sum())) + np.repeat(ends - np.cumsum(sizes), sizes)
    return flat % height, flat // height


def union(codes: Sequence[bytes], height: int, width: int) -> bytes:
    """Compressed RLE of the union of masks [height, width]."""
    if len(codes) == 1:
        return codes[0]
    merged: bytes = coco_mask.merge([{"size": [height, width], "counts": one} for one in codes])["counts"]
    return merged


def area(counts: bytes, height: int, width: int) -> int:
    """Number of object pixels."""
    return int(coco_mask.area({"size": [height, width], "counts": counts}))


def bbox_xywh(counts: bytes, height: int, width: int) -> tuple[float, float, float, float]:
    """The tight box x, y, width, height in pixels; zeros for an empty mask."""
    x, y, w, h = coco_mask.toBbox({"size": [height, width], "counts": counts}).tolist()
    return (x, y, w, h) if w and h else (0.0, 0.0, 0.0, 0.0)


def iou_matrix(
    a: Sequence[bytes], b: Sequence[bytes], height: int, width: int, *, crowd: bool = False
) -> FloatArray:
    """Intersection over union [len(a), len(b)] of masks of one image; 0 where both are empty.

    With `crowd`, as COCO scores against crowds: intersection over the area of the mask of `a`.
    """
    if not a or not b:
        return np.zeros((len(a), len(b)))
    size = [height, width]
    of_a = [{"size": size, "counts": counts} for counts in a]
    of_b = [{"size": size, "counts": counts} for counts in b]
    overlap = coco_mask.iou(of_a, of_b, [int(crowd)] * len(b))
    return np.nan_to_num(np.asarray(overlap, dtype=np.float64), nan=0.0)
