"""Objects and those that a model misses, from what it finds and from clicks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.masks.rle import encode
from tasks.suggestion.outputs import OUTPUTS
from tasks.suggestion.signs import Clicks, best_scores, signs

HEIGHT, WIDTH = 6, 9


def square(x: int, y: int, side: int) -> bytes:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + side, x : x + side] = True
    return encode(mask)


def outputs(*images: list[tuple[int, float, bytes]]) -> pa.Table:
    rows: list[dict[str, Any]] = [
        dict.fromkeys(OUTPUTS.names)
        | {
            "category_id": [kind for kind, _, _ in image],
            "score": [score for _, score, _ in image],
            "rle_counts": [counts for _, _, counts in image],
        }
        for image in images
    ]
    return pa.Table.from_pylist(rows, schema=OUTPUTS)


def test_without_clicks_scores_are_objects() -> None:
    found = signs(outputs([(4, 0.9, b""), (4, 0.5, b""), (9, 0.25, b"")], []), [HEIGHT] * 2, {}, [4, 9, 11])
    assert found.objects.tolist() == [pytest.approx([1.4, 0.25, 0]), [0, 0, 0]]
    assert found.doubts.tolist() == [pytest.approx([0.09 + 0.25, 0.1875, 0]), [0, 0, 0]]


def test_a_class_that_the_data_set_lacks_is_left_out() -> None:
    found = signs(
        outputs([(5, 0.9, square(0, 0, 3))]), [HEIGHT], {0: Clicks([5, 4], np.array([[1.0, 1], [2, 2]]))}, [4]
    )
    assert found.objects.tolist() == [[1]] and found.doubts.tolist() == [[1]]
    assert signs(outputs([(5, 0.9, square(0, 0, 3))]), [HEIGHT], {}, [4]).objects.tolist() == [[0]]


def test_clicks_are_the_objects() -> None:
    """One is found by its class, one by another class only, one not at all."""
    masks = [
        (4, 0.6, square(0, 0, 3)),
        (4, 0.8, square(1, 1, 3)),
        (9, 0.9, square(6, 3, 3)),
        (4, 0.95, square(6, 0, 1)),
    ]
    clicks = Clicks([4, 4, 9, 4], np.array([[0.0, 0.0], [2.5, 2.5], [0.5, 5.5], [8.9, 5.9]]))
    found = signs(outputs(masks), [HEIGHT], {0: clicks}, [4, 9])
    assert found.objects.tolist() == [[3, 1]]
    assert found.doubts[0].tolist() == pytest.approx([(1 - 0.6) + (1 - 0.8) + 1, 1])


@pytest.mark.parametrize(
    ("xy", "held"),
    [
        ((2, 1), True),
        ((1.99, 1.5), False),
        ((4.99, 3.99), True),
        ((5, 1), False),
        ((2, 0.99), False),
        ((2, 4), False),
    ],
)
def test_the_pixel_of_a_click(xy: tuple[float, float], held: bool) -> None:
    best = best_scores(Clicks([4], np.array([xy], float)), [4], [0.7], [square(2, 1, 3)], HEIGHT)
    assert best.tolist() == [0.7 if held else 0]


def test_holes_and_every_pixel() -> None:
    mask = np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.5
    xy = np.array([[x + 0.5, y + 0.5] for x in range(WIDTH) for y in range(HEIGHT)])
    best = best_scores(Clicks([4] * len(xy), xy), [4], [1.0], [encode(mask)], HEIGHT)
    assert (best.reshape(WIDTH, HEIGHT).T > 0).tolist() == mask.tolist()
