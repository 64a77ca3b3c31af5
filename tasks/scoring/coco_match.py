"""COCO's matching of detections with true objects, some images at a time, and the curves that AP is computed from.

pycocotools does both steps: `evaluate` for some images, `accumulate` over all of them. In between only scores and
flags are kept, no masks, so that a set's images can be matched in parts, by several processes, in little memory. Each
image is matched by itself: the result equals that of the whole set at once, bit for bit.

Legend: T IoU thresholds (0.50, 0.55 .. 0.95), R recall points (0, 0.01 .. 1), K classes, A size groups,
M detection limits, P pairs of a class and an image where either has something, D detections, G true objects.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle_tools
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from data.storage import atomic_write
from tasks.scoring.metrics import SIZES

_NO_LIMIT = 1e10  # square pixels; COCO's own "all" and "large" end here


class Rules(NamedTuple):
    """Parameters of COCO's evaluation."""

    max_detections: int
    """the number of best detections that count for each image and class"""
    size_bounds: tuple[float, float]
    """sides in pixels between small and medium, and between medium and large"""

    @property
    def limits(self) -> list[int]:
        """The M numbers of detections that recall is computed for, ascending."""
        return sorted({min(limit, self.max_detections) for limit in (1, 10, self.max_detections)})

    @property
    def areas(self) -> list[list[float]]:
        """The A ranges of areas in square pixels: all, small, medium, large."""
        small, medium = (float(side) ** 2 for side in self.size_bounds)
        return [[0, _NO_LIMIT], [0, small], [small, medium], [medium, _NO_LIMIT]]

    def apply(self, params: Any) -> None:
        """Sets the params of an evaluator of pycocotools or faster-coco-eval."""
        params.areaRng, params.areaRngLbl, params.maxDets = self.areas, ["all", *SIZES], self.limits


class Matches(NamedTuple):
    """The result of matching some images."""

    pairs: NDArray[np.int64]
    """[P, 3]: class index, detections, true objects; by class, then in the order of the images"""
    images: NDArray[np.int64]
    """[P]: image ids"""
    scores: NDArray[np.float64]
    """[D], pair after pair, best first in each"""
    matched: NDArray[np.bool_]
    """[A, T, D]: matched with a true object"""
    ignored: NDArray[np.bool_]
    """[A, T, D]: counts neither as correct nor as false"""
    objects_ignored: NDArray[np.bool_]
    """[A, G]: a crowd, or of another size"""

    def save(self, path: Path) -> None:
        """Writes an .npz file, atomically."""
        with atomic_write(path) as partial, partial.open("wb") as file:
            np.savez(file, **self._asdict())

    @classmethod
    def load(cls, path: Path) -> Matches:
        """Reads what `save` wrote."""
        with np.load(path) as file:
            return cls(**{name: file[name] for name in cls._fields})


class Curves(NamedTuple):
    """Precision and recall of all classes; -1 for a class without true objects."""

    precision: NDArray[np.float64]
    """[T, R, K, A, M]"""
    recall: NDArray[np.float64]
    """[T, K, A, M]"""

    def of_classes(self, classes: Sequence[int]) -> Curves:
        """The curves of some classes, by their indices among the K."""
        return Curves(self.precision[:, :, classes], self.recall[:, classes])


def thresholds() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """COCO's IoU thresholds [T] and recall points [R], 0 to 1."""
    params = COCOeval(iouType="segm").params
    return np.asarray(params.iouThrs, np.float64), np.asarray(params.recThrs, np.float64)


def match(ground_truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], rules: Rules) -> Matches:
    """Matches the detections in some images; arguments as of `tasks.scoring.coco_eval.evaluate_masks`.

    The ground truth has all categories of the whole set.
    """
    with quiet():
        evaluation = COCOeval(*indexed(COCO, ground_truth, results), "segm")
        rules.apply(evaluation.params)
        evaluation.evaluate()
    size_groups, images = len(rules.areas), len(evaluation.params.imgIds)
    count = len(evaluation.params.iouThrs)
    found = evaluation.evalImgs  # by class, size group, image; None without detections and objects
    pairs, images_of, rows = [], [], []
    for at in range(0, len(found), size_groups * images):
        for i in range(at, at + images):
            if found[i] is not None:
                group = [found[i + a * images] for a in range(size_groups)]
                pairs.append(
                    (at // (size_groups * images), len(group[0]["dtScores"]), len(group[0]["gtIgnore"]))
                )
                images_of.append(group[0]["image_id"])
                rows.append(group)

    def joined(name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        parts = [np.stack([row[name] for row in group]) for group in rows]
        return np.concatenate([np.zeros((*shape, 0)), *parts], axis=-1)

    return Matches(
        np.array(pairs, np.int64).reshape(-1, 3),
        np.array(images_of, np.int64),
        np.concatenate([np.zeros(0), *(group[0]["dtScores"] for group in rows)]),
        joined("dtMatches", (size_groups, count)) > 0,
        joined("dtIgnore", (size_groups, count)) > 0,
        joined("gtIgnore", (size_groups,)) > 0,
    )


def accumulate(parts: Sequence[Matches], classes: int, rules: Rules) -> Curves:
    """Curves of `classes` classes over the images of all `parts`, which are in the order of their image ids."""
    by_class: list[list[list[dict[str, Any]]]] = [[] for _ in range(classes)]
    for part in parts:
        for k, group in _groups(part):
            by_class[k].append(group)
    curves = [_of_class(groups, rules) for groups in by_class]
    return Curves(
        np.concatenate([precision for precision, _ in curves], axis=2),
        np.concatenate([recall for _, recall in curves], axis=1),
    )


def _groups(part: Matches) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Class index, and for each size group the input of pycocotools' `accumulate` for a class and an image."""
    d = g = 0
    for k, detections, objects in part.pairs.tolist():
        mine, own = slice(d, d + detections), slice(g, g + objects)
        yield (
            k,
            [
                {
                    "dtScores": part.scores[mine],
                    "dtMatches": part.matched[a, :, mine],
                    "dtIgnore": part.ignored[a, :, mine],
                    "gtIgnore": part.objects_ignored[a, own],
                }
                for a in range(len(part.matched))
            ],
        )
        d, g = d + detections, g + objects


def _of_class(
    groups: Sequence[list[dict[str, Any]]], rules: Rules
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision [T, R, 1, A, M] and recall [T, 1, A, M] of a class; `groups` has an entry for each image with any."""
    evaluation = COCOeval(iouType="segm")
    rules.apply(evaluation.params)
    evaluation.params.catIds, evaluation.params.imgIds = [0], list(range(len(groups)))
    evaluation._paramsEval = evaluation.params
    evaluation.evalImgs = [group[a] for a in range(len(rules.areas)) for group in groups]
    with quiet():
        evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


def indexed(
    kind: Any, ground_truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]]
) -> tuple[Any, Any]:
    """Ground truth and results as data sets of an evaluator's own class `kind`.

    Annotations are copied, since evaluators write into them. Ids begin with 1: for an evaluator 0 means no match.
    """
    truth = [{"iscrowd": 0, **row, "id": n} for n, row in enumerate(ground_truth["annotations"], start=1)]
    # One at a time: pycocotools 2.0.11 with NumPy 2 can't take the areas of more than 255 masks in one call.
    found = [
        {**row, "id": n, "area": float(rle_tools.area(row["segmentation"])), "iscrowd": 0}
        for n, row in enumerate(results, start=1)
    ]
    sets = []
    for rows in (truth, found):
        one = kind()
        one.dataset = {
            "images": list(ground_truth["images"]),
            "categories": list(ground_truth["categories"]),
            "annotations": rows,
        }
        one.createIndex()
        sets.append(one)
    return sets[0], sets[1]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """pycocotools prints its progress."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
