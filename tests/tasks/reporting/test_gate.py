from __future__ import annotations

import numpy as np
import pytest

from tasks.labelling.gate import Gate, Measured, build_gate
from tasks.labelling.predicted_iou import ROW_FEATURES
from tasks.reporting.gate import gate_view, sentence, size_words


def gate_of(*refined: float, held_out: int = 3, min_objects: int = 1, errors: float = 0.0) -> Gate:
    """Three objects an image, on two alike, of 10², 20² and 30² px with rough masks of IoU 0.5, a bin each."""
    count = len(refined)
    measured = Measured(
        images=np.arange(2 * count) // max(count, 1),
        objects=np.tile(np.arange(count), 2),
        clicks=np.array(["random", "centre", "random"][:count] * 2, dtype=np.str_),
        areas=np.array([100.0, 400.0, 900.0][:count] * 2),
        rough_iou=np.full(2 * count, 0.5),
        refined_iou=np.array(refined * 2),
        features=np.zeros((2 * count, 2, len(ROW_FEATURES))),
    )
    return build_gate(
        {4: measured, 8: measured},
        held_out,
        bins=3,
        min_objects=min_objects,
        min_images=1,
        errors=errors,
        enlarge=2,
        rounds=1,
    )


SEEN = "On 3 images held out from training, refining changes the mean IoU of 3 objects from 50.0 to "


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        (gate_of(0.6, 0.7, 0.8), SEEN + "70.0. It is used at all sizes."),
        (
            gate_of(0.4, 0.3, 0.2),
            SEEN + "30.0. It does not help there, so it is not used: 5 of 90 pseudo masks stay rough.",
        ),
        (
            gate_of(0.4, 0.9, 0.2),
            SEEN
            + "50.0. It is not used for rough masks of under 20² px and over 30² px, where it lowers IoU: "
            "5 of 90 pseudo masks stay rough.",
        ),
        (
            gate_of(held_out=0),
            "No strong images were held out (teacher.holdout), so the gain of refining was not measured. "
            "Refining is always used.",
        ),
        (
            gate_of(held_out=1),
            "On 1 held-out image there was no mask to refine, so the gain of refining was not measured. "
            "Refining is always used.",
        ),
        (
            gate_of(0.45, 0.45, 0.45, errors=1.0),
            SEEN + "45.0. It does not help there, so it is not used: 5 of 90 pseudo masks stay rough.",
        ),
    ],
)
def test_sentence(gate: Gate, said: str) -> None:
    assert sentence(gate, refused=5, masks=90) == said


def test_rows() -> None:
    view = gate_view(gate_of(0.4, 0.9, 0.6), refused=5, masks=90)
    assert [(row["label"], row["used"]) for row in view["rows"]] == [
        ("all", None), ("clicks at the centre", None), ("clicks anywhere", None),
        ("under 20² px", False), ("20² to 30² px", True), ("over 30² px", True),
    ]  # fmt: skip
    assert view["steps"] == {4: pytest.approx(63.333), 8: pytest.approx(63.333)} and view["step"] == 8
    few = gate_view(gate_of(0.4, 0.9, 0.6, min_objects=2), refused=0, masks=90)
    assert few["rows"][0]["used"] is True
    assert [(row["note"], row["used"]) for row in few["rows"][3:]] == [("too few objects: as all", True)] * 3
    assert gate_view(gate_of(held_out=0), 0, 9)["rows"] == []


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0, 100, "under 10² px"),
        (100, 410, "10² to 20² px"),
        (100, None, "over 10² px"),
        (0, None, "any size"),
    ],
)
def test_size_words(low: float, high: float | None, words: str) -> None:
    assert size_words(low, high) == words
