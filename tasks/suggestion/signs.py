"""How many objects each image has, and how many of them the model misses, by class, from its outputs and from clicks.

On an image with clicks each click is an object, and the model misses it as far as the best score falls short of 1 among
the masks of its class that hold the click. Without clicks a mask of score s is taken for s objects, of which the model
misses 1 - s.

Legend: N images, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from data.masks.rle import BoolArray, runs
from tasks.suggestion.choice import Floats


class Signs(NamedTuple):
    """float64 [N, C] each."""

    objects: Floats
    doubts: Floats


class Clicks(NamedTuple):
    """The clicks on an image."""

    category_ids: list[int]
    xy: Floats
    """[K, 2], pixels"""


def signs(
    outputs: pa.Table, heights: Sequence[int], clicks: Mapping[int, Clicks], classes: Sequence[int]
) -> Signs:
    """Of images that could be read.

    Args:
        outputs: table OUTPUTS.
        heights: of the images, in pixels.
        clicks: of the images that have some, by row.
        classes: ids of all classes; objects of other ones are left out.
    """
    places = {category_id: n for n, category_id in enumerate(classes)}
    objects, doubts = np.zeros((2, len(outputs), len(classes)))
    images = (image for batch in outputs.to_batches(500) for image in batch.to_pylist())
    for row, image in enumerate(images):
        own = clicks.get(row)
        if own is None:
            for category_id, score in zip(image["category_id"], image["score"], strict=True):
                if category_id in places:
                    objects[row, places[category_id]] += score
                    doubts[row, places[category_id]] += score * (1 - score)
            continue
        best = best_scores(own, image["category_id"], image["score"], image["rle_counts"], heights[row])
        for category_id, score in zip(own.category_ids, best.tolist(), strict=True):
            if category_id in places:
                objects[row, places[category_id]] += 1
                doubts[row, places[category_id]] += 1 - score
    return Signs(objects, doubts)


def best_scores(
    clicks: Clicks, category_ids: Sequence[int], scores: Sequence[float], masks: Sequence[bytes], height: int
) -> Floats:
    """[K], for each click the best score of a mask of its class that holds it; 0 if there is none."""
    pixel = np.floor(clicks.xy).astype(np.int64)
    place = pixel[:, 0] * height + pixel[:, 1]  # masks are coded column by column
    best = np.zeros(len(place))
    of_class = np.array(clicks.category_ids)
    for category_id, score, counts in zip(category_ids, scores, masks, strict=True):
        rows = np.flatnonzero((of_class == category_id) & (best < score))
        if len(rows):
            best[rows[_holds(counts, place[rows])]] = score
    return best


def _holds(counts: bytes, place: np.ndarray) -> BoolArray:
    """Which places are in a mask."""
    # Runs alternate, and the first one is outside.
    held: BoolArray = np.searchsorted(np.cumsum(runs(counts)), place, side="right") % 2 == 1
    return held
