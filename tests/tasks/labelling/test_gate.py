from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tasks.common.errors import TaskError
from tasks.labelling.gate import Gate, Measured, build_gate, read_gate, write_gate
from tasks.labelling.predicted_iou import ROW_FEATURES, row_features

Row = tuple[int, str, float, float, float]


def no_features(rows: int) -> NDArray[np.float64]:
    """Of masks of which nothing is known."""
    return np.zeros((rows, 2, len(ROW_FEATURES)))


def measured(*rows: Row) -> Measured:
    """From (object, click, area, rough IoU, refined IoU); four images in turn."""
    columns = list(zip(*rows, strict=True)) or [()] * 5
    types = (np.int64, np.str_, np.float64, np.float64, np.float64)
    own = [np.array(column, dtype=kind) for column, kind in zip(columns, types, strict=True)]
    return Measured(own[0] % 4, *own, no_features(len(own[0])))


def gate_of(
    *by_step: tuple[int, Measured],
    images: int = 4,
    bins: int = 2,
    min_objects: int = 1,
    errors: float = 1.0,
    min_images: int = 1,
) -> Gate:
    """A gate of these steps' measurements."""
    return build_gate(
        dict(by_step),
        images,
        bins=bins,
        min_objects=min_objects,
        min_images=min_images,
        errors=errors,
        enlarge=1.5,
        rounds=2,
    )


# Small masks get worse by refinement, large ones better, and all together better.
MIXED = [(n, "random", 10.0 + n, 0.7, 0.6) for n in range(10)]
MIXED += [(n, "centre", 100.0 + n, 0.5, 0.9) for n in range(10, 20)]


def test_a_size_decides_for_itself() -> None:
    gate = gate_of((7, measured(*MIXED)), min_objects=10)
    assert gate.use and gate.step == 7 and gate.held_out_images == 4
    assert [(one.area_from, one.area_to) for one in gate.bins] == [(0, 110.0), (110.0, None)]
    assert [one.use for one in gate.bins] == [False, True]
    assert [one.decided_by for one in gate.bins] == ["bin", "bin"]
    assert (gate.bins[0].rough_iou, gate.bins[0].refined_iou) == (70.0, 60.0)
    assert (gate.all.objects, gate.all.clicks, gate.all.rough_iou, gate.all.refined_iou) == (
        20,
        20,
        60.0,
        75.0,
    )
    assert {name: one.refined_iou for name, one in gate.by_click.items()} == {"centre": 90.0, "random": 60.0}
    small = "gate: refinement hurts masks of this size on held-out images (IoU 70.0 -> 60.0)"
    assert gate.refusals([0.5, 109.9, 110.0, 1e9]) == [small, small, None, None]


def test_the_iou_of_the_masks_in_use() -> None:
    """Small masks stay rough, large ones are refined; a click without a mask counts as 0."""
    rows = measured(*MIXED, (20, "random", 0.0, 0.0, 0.0))
    gate = gate_of((7, rows), min_objects=10)
    expected = [0.7] * 10 + [0.9] * 10 + [0.0]
    assert gate.final_iou(rows).tolist() == expected
    assert gate.iou == pytest.approx(100 * np.mean(expected), abs=1e-3)
    nothing = gate_of((7, measured()))
    assert nothing.iou is None and nothing.final_iou(rows).tolist() == rows.refined_iou.tolist()


def test_too_few_objects_follow_all() -> None:
    gate = gate_of((7, measured(*MIXED)), min_objects=11)
    assert [(one.use, one.decided_by) for one in gate.bins] == [(True, "all")] * 2
    worse = [(n, click, area, refined, rough) for n, click, area, rough, refined in MIXED]
    gate = gate_of((7, measured(*worse)), min_objects=11)
    assert not gate.use and [one.use for one in gate.bins] == [False] * 2
    assert gate.refusals([5.0]) == ["gate: refinement hurts masks on held-out images (IoU 75.0 -> 60.0)"]


def test_two_clicks_on_an_object_are_one_object() -> None:
    twice = [
        (n // 2, click, area, rough, refined) for n, (_, click, area, rough, refined) in enumerate(MIXED)
    ]
    gate = gate_of((7, measured(*twice)), min_objects=6)
    assert [(one.objects, one.clicks, one.decided_by) for one in gate.bins] == [(5, 10, "all")] * 2


def of_images(*gains: float) -> Measured:
    """Ten objects an image, whose masks all gain as much."""
    rows = [(n, i, gain) for i, gain in enumerate(gains) for n in range(10 * i, 10 * i + 10)]
    objects, images, gained = (np.array(column) for column in zip(*rows, strict=True))
    size = len(objects)
    return Measured(
        images, objects, np.full(size, "random"), np.arange(1.0, size + 1), np.full(size, 0.5), 0.5 + gained,
        no_features(size),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("gains", "errors", "use"),
    [
        # Two images that disagree decide nothing; many that agree do, even with small losses.
        ((-0.10, 0.05), 1.0, True),
        ((-0.10, 0.05), 0.0, False),
        ((-0.02, -0.03, -0.01, -0.02, -0.02), 1.0, False),
        ((-0.10, 0.05) * 8, 1.0, False),
        ((-0.10, 0.05) * 8, 3.0, True),
        ((-0.01,), 5.0, False),  # of one image nothing is known but its mean
        ((0.01,), 0.0, True),
        ((0.3, -0.1), 0.0, True),
    ],
)
def test_harm_must_show_over_images(gains: tuple[float, ...], errors: float, use: bool) -> None:
    gate = gate_of((1, of_images(*gains)), bins=1, errors=errors)
    assert gate.use is use and [one.use for one in gate.bins] == [use]


def test_the_error_is_that_of_image_means_where_images_are_alike() -> None:
    gains = np.array([-0.10, 0.05, 0.02, 0.08])
    gate = gate_of((1, of_images(*gains)))
    assert gate.all.images == 4
    assert gate.all.gain_error == pytest.approx(100 * gains.std(ddof=1) / 2, abs=1e-3)


def test_a_bin_of_too_few_images_follows_all_and_too_few_in_all_refuse_nothing() -> None:
    loss = of_images(-0.2, -0.2)
    gate = gate_of((1, loss), min_images=2)
    assert [(one.images, one.decided_by, one.use) for one in gate.bins] == [(1, "all", False)] * 2
    gate = gate_of((1, loss), min_images=3)
    assert gate.use and [(one.images, one.decided_by, one.use) for one in gate.bins] == [(1, "all", True)] * 2


def test_no_gain_is_no_use() -> None:
    gate = gate_of((1, measured(*((n, "random", 9.0, 0.5, 0.5) for n in range(4)))))
    assert not gate.use and [one.use for one in gate.bins] == [False]


def test_masks_that_the_teacher_does_not_draw_count_but_decide_nothing() -> None:
    empty = [(99, "random", 0.0, 0.0, 0.0)]
    gate = gate_of((1, measured(*MIXED, *empty)))
    assert gate.all.objects == 21 and sum(one.objects for one in gate.bins) == 20
    nothing = gate_of((1, measured(*empty)))
    assert nothing.use and not nothing.bins and nothing.refusals([3.0]) == [None]


def test_without_held_out_images_refinement_is_used() -> None:
    gate = gate_of((300, measured()), (500, measured()), images=0)
    assert gate.use and gate.step == 500 and gate.bins == () and gate.by_click == {}
    assert gate.all.rough_iou is None
    assert gate.refusals([1.0, 1e6]) == [None, None]


@pytest.mark.parametrize(
    ("refined", "step"), [({1: 0.5, 2: 0.7, 3: 0.6}, 2), ({1: 0.5, 2: 0.5}, 2), ({5: 0.9, 9: 0.2}, 5)]
)
def test_the_best_weights_are_taken(refined: dict[int, float], step: int) -> None:
    by_step = {at: measured((1, "random", 9.0, 0.4, iou)) for at, iou in refined.items()}
    gate = gate_of(*by_step.items())
    assert gate.step == step
    assert gate.all.refined_iou == pytest.approx(100 * refined[step])
    assert gate.refined_iou_by_step == {at: pytest.approx(100 * iou) for at, iou in refined.items()}


ROWS = st.lists(
    st.tuples(
        st.integers(0, 9), st.sampled_from(["random", "centre"]),
        st.one_of(st.just(0.0), st.integers(1, 40).map(float), st.floats(0.01, 1e7)),
        st.floats(0, 1), st.floats(0, 1),
    ),
    max_size=40,
)  # fmt: skip


@given(ROWS, st.integers(1, 5), st.integers(1, 6))
def test_bins_cover_all_sizes_once(rows: list[Row], bins: int, min_objects: int) -> None:
    gate = gate_of((1, measured(*rows)), bins=bins, min_objects=min_objects)
    drawn = [row for row in rows if row[2] > 0]
    assert sum(one.clicks for one in gate.bins) == len(drawn)
    assert all(one.clicks for one in gate.bins) and len(gate.bins) <= bins
    assert bool(gate.bins) == bool(drawn)
    if gate.bins:
        assert gate.bins[0].area_from == 0 and gate.bins[-1].area_to is None
        assert [one.area_to for one in gate.bins[:-1]] == [one.area_from for one in gate.bins[1:]]
    for row, refusal in zip(drawn, gate.refusals([row[2] for row in drawn]), strict=True):
        (own,) = [one for one in gate.bins if one.area_from <= row[2] < (one.area_to or np.inf)]
        assert (refusal is None) == own.use


@given(ROWS)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> None:
    folder = tmp_path_factory.mktemp("gate")
    gate = gate_of((2, measured(*rows)), (4, measured(*rows)), min_objects=2)
    write_gate(folder, gate)
    assert read_gate(folder) == gate


def test_a_gate_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"gate\.json: no such file; it is made by `dvc repro train_refiner`"):
        read_gate(tmp_path)
    (tmp_path / "gate.json").write_text('{"format": 0}')
    with pytest.raises(
        TaskError, match=r"(?s)gate\.json: edited, or of another version.* `dvc repro -f train_refiner`"
    ):
        read_gate(tmp_path)


def of_quality(uses: bool, images: int = 3, clicks: int = 20) -> Measured:
    """Maskness is the IoU of the rough mask, `change` that of the refined one, which gains or loses 0.1."""
    rough = np.random.default_rng(0).uniform(0.2, 0.8, images * clicks)
    refined, some = rough + (0.1 if uses else -0.1), np.full(len(rough), 0.5)
    zeros = np.zeros(len(rough))
    rows = [
        row_features(some, rough, some, zeros + 1, zeros),
        row_features(some, some, refined, zeros, zeros),
    ]
    return Measured(
        np.repeat(np.arange(images), clicks), np.arange(len(rough)), np.full(len(rough), "random"),
        np.full(len(rough), 50.0), rough, refined, np.stack(rows, 1),
    )  # fmt: skip


@pytest.mark.parametrize("uses", [True, False])
def test_the_score_predicts_the_iou_of_masks_in_use(uses: bool, tmp_path: Path) -> None:
    made = gate_of((1, of_quality(uses)), bins=1)
    write_gate(tmp_path, made)
    gate = read_gate(tmp_path)
    assert gate == made and gate.use is uses and gate.score is not None
    good, bad = (
        row_features([0.5], [0.5 if uses else iou], [iou], [0.0 if uses else 1.0], [0.0])
        for iou in (0.7, 0.4)
    )
    predicted = [float(gate.score.predict(row)[0]) for row in (good, bad)]
    assert predicted == pytest.approx([0.7, 0.4], abs=0.02)


@pytest.mark.parametrize(("images", "clicks", "fitted"), [(2, 10, True), (1, 60, False), (2, 9, False)])
def test_too_few_clicks_fit_no_score(images: int, clicks: int, fitted: bool) -> None:
    assert (gate_of((1, of_quality(True, images, clicks))).score is not None) is fitted


def test_a_score_of_other_features_is_of_another_version(tmp_path: Path) -> None:
    gate = gate_of((1, of_quality(True)))
    assert gate.score is not None
    short = {name: value[1:] for name, value in gate.score if isinstance(value, tuple)}
    write_gate(tmp_path, gate.model_copy(update={"score": gate.score.model_copy(update=short)}))
    with pytest.raises(TaskError, match=r"score: found 6 weights, expected 7: class_score, maskness"):
        read_gate(tmp_path)
