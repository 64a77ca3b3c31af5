"""Objects that the network can't learn or find: too small, too large, without a cell of their own, too many.

Sizes are in pixels of the input: after the resizing of section `input`, before augmentation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from data.masks.rle import object_pixels
from data.tables import Fault, Split
from tasks.common.config import DetectorTrainConfig, InputConfig, Params
from tasks.doctor.finding import SHOWN_EXAMPLES, Diagnosis
from tasks.scoring.crowding import crowding

LEAST_SHARE = 0.01
"""Of all objects, or of those of a class; less isn't reported."""
SHOWN_CLASSES = 5
CELL_OBJECTS = 20_000
"""Objects whose cells are checked, on images spread evenly over the split: enough for the share."""
PAD = 32

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


class Objects(NamedTuple):
    """The K objects of a split that aren't crowds, on usable images."""

    split: Split
    rows: npt.NDArray[np.int64]
    """[K] rows of the instances table"""
    image: npt.NDArray[np.int64]
    """[K] rows of the images table"""
    category: npt.NDArray[np.int64]
    """[K] ids"""
    width: Floats
    """[K] of the box, in input pixels; so are the next two"""
    height: Floats
    area: Floats
    """[K] of the mask"""


def check_objects(params: Params, strong: Split, val: Split, diagnosis: Diagnosis) -> None:
    """Warns of objects that can't be learnt or found, with the param to change."""
    objects = objects_of(strong, params.input)
    if len(objects.rows):
        _too_small(params, objects, diagnosis)
        for section, training in _with_cells(params):
            _out_of_range(section, training, objects, diagnosis)
        _too_large(params, objects, diagnosis)
        _hidden(params, objects, diagnosis)
    _too_many(params, val, diagnosis)


def _with_cells(params: Params) -> list[tuple[str, DetectorTrainConfig]]:
    """The sections whose network is a SOLOv2."""
    student = [] if params.student.network is not None else [("student", params.student)]
    return [("teacher", params.teacher), *student]


def objects_of(split: Split, size: InputConfig) -> Objects:
    """The objects of a split, measured in input pixels."""
    scales = _scales(split, size)
    table = split.instances
    image = np.searchsorted(split.images["image_id"].to_numpy(), table["image_id"].to_numpy())
    usable = split.images["status"].to_numpy(zero_copy_only=False) == "ok"
    crowd = table["iscrowd"].to_numpy(zero_copy_only=False).astype(bool)
    rows = np.flatnonzero(~crowd & usable[image]) if len(table) else np.empty(0, np.int64)
    boxes = table["bbox_xywh"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, 4)[rows]
    scale = scales[image[rows]]
    return Objects(
        split,
        rows,
        image[rows],
        table["category_id"].to_numpy()[rows],
        boxes[:, 2] * scale[:, 0],
        boxes[:, 3] * scale[:, 1],
        table["area"].to_numpy()[rows] * scale.prod(axis=1),
    )


def _scales(split: Split, size: InputConfig) -> Floats:
    """[N, 2]: the factors of each image's width and height."""
    from data.images.resize import resize_shape  # imports torch, which takes seconds

    rows = zip(split.images["width"].to_pylist(), split.images["height"].to_pylist(), strict=True)
    scales = []
    for width, height in rows:
        h, w = resize_shape((height, width), size.short_side, size.max_side, size.enlarge)
        scales.append((w / width, h / height))
    return np.asarray(scales, np.float64).reshape(-1, 2)


def _too_small(params: Params, objects: Objects, diagnosis: Diagnosis) -> None:
    stride = int(params.model["mask_stride"])
    _warn(
        "too_small",
        objects,
        objects.area < stride**2,
        f"smaller than one place of the mask map ({stride} x {stride} px of the input)",
        "objects of several places: of less than one, no mask can be learnt",
        f"raise input.short_side and input.max_side (now {params.input.short_side}, {params.input.max_side})"
        + (", set input.enlarge" if not params.input.enlarge else "")
        + (", or set model.mask_stride to 2" if stride > 2 else ""),
        diagnosis,
    )


def _out_of_range(
    section: str, training: DetectorTrainConfig, objects: Objects, diagnosis: Diagnosis
) -> None:
    size = np.sqrt(objects.width * objects.height)
    low, high = min(low for low, _ in training.ranges), max(high for _, high in training.ranges)
    for bad, word in ((size < low, "below"), (size >= high, "above")):
        _warn(
            f"{section}_ranges",
            objects,
            bad,
            f"{word} all of {section}.ranges ({low:g} to {high:g} px): the nearest level learns them",
            "sizes sqrt(w h) within the ranges",
            f"widen {section}.ranges, or change input.short_side",
            diagnosis,
        )


def _too_large(params: Params, objects: Objects, diagnosis: Diagnosis) -> None:
    longest = np.maximum(objects.width, objects.height)
    for section, training in (
        ("teacher", params.teacher.augment),
        ("refiner", params.refiner.augment),
        ("student", params.student.augment),
    ):
        if training.crop_side is not None:
            _warn(
                f"{section}_crop",
                objects,
                longest * training.scale_min > training.crop_side,
                f"larger than {section}.augment.crop_side ({training.crop_side} px): never whole in a crop",
                "objects that fit into a crop",
                f"raise {section}.augment.crop_side (and input.tile.side with it), or lower input.short_side",
                diagnosis,
            )
    tile = params.input.tile
    if tile is not None:
        _warn(
            "tile",
            objects,
            longest > tile.side,
            f"larger than input.tile.side ({tile.side} px): never whole in a tile",
            "objects that fit into a tile",
            "raise input.tile.side (and augment.crop_side with it), or lower input.short_side",
            diagnosis,
        )


def _hidden(params: Params, objects: Objects, diagnosis: Diagnosis) -> None:
    """Objects all of whose cells are assigned to other objects: their class isn't learnt."""
    # Cells of points drawn at every step learn them too.
    sections = [(name, training) for name, training in _with_cells(params) if not training.inner_points]
    picked = _spread(objects)
    if not sections or not len(picked):
        return
    name, training = sections[0]
    bad = _hidden_objects(params, training, objects, picked)
    part = Objects(
        objects.split,
        objects.rows[picked],
        objects.image[picked],
        objects.category[picked],
        objects.width[picked],
        objects.height[picked],
        objects.area[picked],
    )
    _warn(
        "hidden",
        part,
        bad,
        "with all cells taken by another object (each cell learns one): their class isn't learnt"
        + ("" if len(picked) == len(objects.rows) else f"; of {len(picked):,} objects checked"),
        "a cell or more of its own for each object",
        f"raise {name}.grids or input.short_side, or set {name}.inner_points to 2",
        diagnosis,
    )


def _spread(objects: Objects) -> npt.NDArray[np.int64]:
    """Rows of all objects of some images, spread evenly: at most CELL_OBJECTS, or those of one image."""
    images, first, counts = np.unique(objects.image, return_index=True, return_counts=True)
    every = -(-len(objects.rows) // CELL_OBJECTS)
    taken = range(0, len(images), max(1, every))
    parts = [np.arange(first[i], first[i] + counts[i]) for i in taken]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _hidden_objects(
    params: Params, training: DetectorTrainConfig, objects: Objects, picked: npt.NDArray[np.int64]
) -> Bools:
    """Bool for each picked object. A cell goes to its last object, as in models.solov2.targets."""
    import torch

    from models.solov2.targets import levels_of, positive_cells

    config = params.detector(training)
    scales = _scales(objects.split, params.input)
    images = objects.split.images
    heights, widths = images["height"].to_numpy(), images["width"].to_numpy()
    hidden = np.zeros(len(picked), np.bool_)
    for image in np.unique(objects.image[picked]):
        at = np.flatnonzero(objects.image[picked] == image)
        rows = picked[at]
        centres = _centres(objects, rows, int(heights[image])) * scales[image]
        sizes = np.stack([objects.width[rows], objects.height[rows]], axis=1)
        shape = (
            PAD * -(-round(heights[image] * scales[image, 1]) // PAD),
            PAD * -(-round(widths[image] * scales[image, 0]) // PAD),
        )
        centre = torch.from_numpy(centres.astype(np.float32))
        size = torch.from_numpy(sizes.astype(np.float32))
        member = (
            levels_of(size.prod(1).sqrt(), config.ranges) & torch.from_numpy(objects.area[rows] > 0)[:, None]
        )
        own = torch.zeros(len(rows), dtype=torch.bool)
        for level, grid in enumerate(config.grid_shapes(shape)):
            held = positive_cells(centre, size * config.centre_shrink / 2, grid, shape)
            held = (held & member[:, level, None, None]).flatten(1)
            later = held.flip(0).cumsum(0).flip(0) - held.int()  # later objects in the same cell
            own |= (held & (later == 0)).any(1)
        hidden[at] = ~own.numpy() & (objects.area[rows] > 0)
    return hidden


def _centres(objects: Objects, rows: npt.NDArray[np.int64], height: int) -> Floats:
    """[K, 2]: mass centres x, y in pixels of the original image; 0, 0 for an empty mask."""
    counts = objects.split.instances["rle_counts"].take(objects.rows[rows]).to_pylist()
    centres = np.zeros((len(rows), 2))
    for k, rle in enumerate(counts):
        found, columns = object_pixels(rle, height)
        if len(found):
            centres[k] = columns.mean() + 0.5, found.mean() + 0.5
    return centres


def _too_many(params: Params, val: Split, diagnosis: Diagnosis) -> None:
    crowded = crowding(val)
    files = dict(zip(val.images["image_id"].to_pylist(), val.images["file_name"].to_pylist(), strict=True))
    names = {c.id: c.name for c in val.categories}
    limit = params.evaluate.max_detections
    most, image, category = crowded.most_of_a_class
    if most > limit:
        lost = crowded.beyond(limit)
        fault = Fault(
            "params.yaml",
            "evaluate.max_detections",
            f"{limit}, but {files[image]} has {most} objects of class {names[category]}; {lost:,} of the validation "
            "objects can't be found at all",
            f"at least {most} (COCO's own limit is 100)",
            f"set evaluate.max_detections, and evaluate.inference.max_detections, to {most} or more",
        )
        diagnosis.warn("max_detections", fault, lost, [files[image]])
    limit = params.evaluate.inference.max_detections
    most, image = crowded.most
    if most > limit:
        fault = Fault(
            "params.yaml",
            "evaluate.inference.max_detections",
            f"{limit}, but {files[image]} has {most} objects",
            f"at least {most}",
            f"set evaluate.inference.max_detections to {most} or more, and nms_pre above it",
        )
        diagnosis.warn("inference_max_detections", fault, most - limit, [files[image]])


def _warn(
    check: str, objects: Objects, bad: Bools, found: str, expected: str, step: str, diagnosis: Diagnosis
) -> None:
    """Warns where the share of `bad` [K] objects, of all or of a class, is LEAST_SHARE or more."""
    count = int(bad.sum())
    classes = _worst_classes(objects, bad)
    if not count or (count < LEAST_SHARE * len(bad) and not classes):
        return
    names = objects.split.images["file_name"]
    ids = objects.split.instances["instance_id"]
    some = np.flatnonzero(bad)[:SHOWN_EXAMPLES]
    examples = [
        f"{names[int(objects.image[k])].as_py()}: annotation {ids[int(objects.rows[k])].as_py()}, "
        f"{objects.width[k]:.1f} x {objects.height[k]:.1f} px"
        for k in some
    ]
    shares = f" ({', '.join(classes)})" if classes else ""
    fault = Fault(
        "ingest.strong",
        f"{count:,} of {len(bad):,} objects, {100 * count / len(bad):.1f}%",
        found + shares,
        expected,
        step,
    )
    diagnosis.warn(check, fault, count, examples)


def _worst_classes(objects: Objects, bad: Bools) -> Sequence[str]:
    """`name 12%` of the classes with the largest shares of bad objects; none below LEAST_SHARE."""
    names = {c.id: c.name for c in objects.split.categories}
    rows = [
        (float(bad[objects.category == category].mean()), names[int(category)])
        for category in np.unique(objects.category)
    ]
    worst = sorted((row for row in rows if row[0] >= LEAST_SHARE), key=lambda row: (-row[0], row[1]))
    return [f"{name} {100 * share:.0f}%" for share, name in worst[:SHOWN_CLASSES]]
