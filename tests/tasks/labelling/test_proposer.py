"""What is common to all proposers, shown with one that draws squares; and SOLOv2's contexts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tasks.pseudo_label as stage
from data.masks.rle import area, decode
from data.tables import Split
from models.checkpoint import load_teacher
from models.config import PromptConfig, TileConfig
from models.masks.clicks import FurtherClicks
from models.masks.resize import Sizes
from tasks.common.config import Params
from tasks.inference.batches import ImageBatch, load_batches
from tasks.labelling import compute
from tasks.labelling.labeller import Labeller, Plan, load_labeller
from tasks.labelling.proposer import NO_CANDIDATE, NOT_FINITE, Proposer, draw
from tasks.labelling.rows import rows_of
from tasks.labelling.solov2_proposer import SOLOv2Proposer
from tasks.labelling.types import Candidates, Clicks, ImageContext, PointMasks, PointStats, Proposals
from tasks.train_student import read_pseudo
from tests.tasks.labelling.test_crowded import POINTS_ON, crowd
from tests.tasks.test_pseudo_label import place

__all__ = ["place"]

CPU = torch.device("cpu")
PROMPT = PromptConfig.paper(0.5)
NAN = float("nan")
SIZE = (20, 30)


@dataclass
class Squares:
    """Candidate m of a click is a square of side 2 m + 3 pixels around it, of the m-th score.

    Attributes:
        scores: [K, M], of the clicks of each call; None gives each click 0.5, 0.9, ...
        count: M.
        broken: (click, candidate) of probabilities that are NaN.
        uncut: (click, candidate) whose threshold is NaN.
        reasons: of the clicks without candidates.
    """

    scores: list[list[float]] | None = None
    count: int = 2
    broken: tuple[tuple[int, int], ...] = ()
    uncut: tuple[tuple[int, int], ...] = ()
    reasons: tuple[str | None, ...] | None = None

    @property
    def masks_a_click(self) -> int:
        return self.count

    def encode(self, batch: ImageBatch) -> list[ImageContext]:
        return [ImageContext(original, batch.sizes(n), None) for n, original in enumerate(batch.originals)]

    def propose(
        self, context: ImageContext, points_xy: Tensor, labels: Tensor, further: FurtherClicks | None = None
    ) -> Proposals:
        scores = torch.tensor(self.scores or [[0.5, 0.9][: self.count]] * len(labels))
        scores = scores.reshape(len(labels), self.count)
        height, width = context.sizes.input
        y, x = torch.arange(height)[:, None] + 0.5, torch.arange(width) + 0.5
        away = torch.maximum((x - points_xy[:, 0, None, None]).abs(), (y - points_xy[:, 1, None, None]).abs())
        reach = torch.arange(self.count)[:, None, None] + 1.5
        maps = (away[:, None] <= reach) * 0.8
        for click, candidate in self.broken:
            maps[click, candidate, 0, 0] = NAN
        cut = torch.full_like(scores, 0.5)
        for which in self.uncut:
            cut[which] = NAN
        candidates = Candidates(
            maps, cut, torch.zeros_like(scores, dtype=torch.long), scores, scores, scores
        )  # fmt: skip
        return Proposals(candidates, list(self.reasons or [None] * len(labels)))


def context() -> ImageContext:
    return ImageContext(torch.zeros(3, *SIZE, dtype=torch.uint8), Sizes(SIZE, SIZE, SIZE), None)


def drawn_sides(proposer: Proposer, clicks: int) -> tuple[list[int], list[str | None]]:
    """The side of each click's square, 0 for none; and the reasons."""
    xy = torch.tensor([[5.5 + 9 * k, 9.5] for k in range(clicks)]).reshape(clicks, 2)
    found = draw(proposer, context(), xy, torch.zeros(clicks, dtype=torch.long), PROMPT)
    areas = found.rough.masks.flatten(1).sum(1)
    assert torch.equal(found.rough.drawn, areas > 0)
    assert all(column.isfinite().all() for column in found.best)
    return areas.double().sqrt().int().tolist(), found.reasons


@pytest.mark.parametrize(
    ("scores", "sides"),
    [
        ([[0.9, 0.5], [0.5, 0.9]], [3, 5]),
        ([[0.5, 0.5], [0.0, -1.0]], [3, 3]),
        ([[NAN, 0.1], [0.1, NAN]], [5, 3]),
        ([[-np.inf, 0.1], [np.inf, 0.1]], [5, 5]),
        ([[0.7], [NAN]], [3, 0]),
    ],
)
def test_the_candidate_of_the_highest_score_is_used(scores: list[list[float]], sides: list[int]) -> None:
    found, reasons = drawn_sides(Squares(scores, len(scores[0])), 2)
    assert found == sides
    assert reasons == [None if side else NO_CANDIDATE for side in sides]


def test_a_mask_that_is_not_finite_is_no_candidate() -> None:
    proposer = Squares([[0.1, 0.9]] * 3, broken=((0, 1), (1, 0), (1, 1)))
    assert drawn_sides(proposer, 3) == ([3, 0, 5], [None, NOT_FINITE, None])


def test_a_mask_without_a_threshold_is_no_candidate() -> None:
    proposer = Squares([[0.1, 0.9]] * 3, uncut=((0, 1), (1, 0), (1, 1)))
    assert drawn_sides(proposer, 3) == ([3, 0, 5], [None, NO_CANDIDATE, None])


def test_a_large_mask_of_half_precision_is_finite() -> None:
    class Whole(Squares):
        def propose(self, context: ImageContext, points_xy: Tensor, labels: Tensor, *_: Any) -> Proposals:
            maps, one = torch.ones(1, 1, *context.sizes.input, dtype=torch.float16), torch.ones(1, 1)
            return Proposals(Candidates(maps, 0.5 * one, one.long(), one, one, one), [None])

    large = ImageContext(torch.zeros(3, 300, 300, dtype=torch.uint8), Sizes(*[(300, 300)] * 3), None)
    xy, labels = torch.full((1, 2), 150.0), torch.zeros(1, dtype=torch.long)
    found = draw(Whole(), large, xy, labels, PROMPT)
    assert found.reasons == [None] and found.rough.masks.all()


@pytest.mark.parametrize("clicks", [0, 3])
def test_a_proposer_may_return_nothing(clicks: int) -> None:
    proposer = Squares(count=0, reasons=("too blurred", None, None)[:clicks])
    expected = ["too blurred", NO_CANDIDATE, NO_CANDIDATE][:clicks]
    assert drawn_sides(proposer, clicks) == ([0] * clicks, expected)


def test_reasons_of_clicks_with_a_candidate_do_not_count() -> None:
    proposer = Squares([[0.1, 0.9], [NAN, NAN]], reasons=("unsure", "too small"))
    assert drawn_sides(proposer, 2) == ([5, 0], [None, "too small"])


def test_wrong_shapes_are_refused() -> None:
    class Short(Squares):
        def propose(self, context: ImageContext, points_xy: Tensor, labels: Tensor, *_: Any) -> Proposals:
            return super().propose(context, points_xy[1:], labels[1:])

    class Flat(Squares):
        def propose(self, context: ImageContext, points_xy: Tensor, labels: Tensor, *_: Any) -> Proposals:
            candidates, reasons = super().propose(context, points_xy, labels)
            return Proposals(candidates._replace(mask_prob=candidates.mask_prob[:, 0]), reasons)

    with pytest.raises(ValueError, match=r"'score': \[1, 2\].*1 reasons; expected \[K, M, ...\] and K = 2"):
        drawn_sides(Short(), 2)
    with pytest.raises(ValueError, match=r"'mask_prob': \[2, 20, 30\]"):
        drawn_sides(Flat(), 2)


def test_a_click_without_a_candidate_has_a_row_with_its_reason() -> None:
    clicks = Clicks(7, ["a", "b"], np.array([4, 4]), np.array([[5.5, 9.5], [14.5, 9.5]], np.float32))
    xy, labels = clicks.tensors({4: 0}, CPU)
    found = draw(Squares([[0.9], [NAN]], 1, reasons=(None, "too small")), context(), xy, labels, PROMPT)
    none = torch.zeros(2, dtype=torch.bool)
    masks = PointMasks(PointStats.of(found, ~none, none, ["gate: no", None]), *[found.rough.masks] * 2)
    good, bad = rows_of(clicks, masks).to_pylist()
    assert (good["status"], good["reason"], good["area"], good["level"]) == ("rough", "gate: no", 9.0, 0)
    assert (bad["status"], bad["reason"]) == ("empty", "too small")
    assert {bad[name] for name in ("level", "score", "maskness", "class_score", "rough_rle")} == {None}


@pytest.mark.parametrize("chunked", [False, True])
def test_the_stage_runs_with_any_proposer(
    place: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch, chunked: bool
) -> None:
    workspace, params = place
    crowd(workspace)

    def with_squares(params: Params, workspace: Path, device: torch.device, plan: Plan) -> Labeller:
        usual = load_labeller(params, workspace, device, plan)
        return Labeller(
            Squares(), usual.refiner, params.prompt.model_copy(update={"exclusive": "none"}), device
        )

    monkeypatch.setattr(stage, "load_labeller", with_squares)
    monkeypatch.setattr(stage, "ledger_key", lambda *args: "squares")
    if chunked:
        monkeypatch.setattr(compute, "MASK_PIXELS", 4 * 64 * 64)
    stage.run(params, workspace)
    rows = read_pseudo(workspace / "pseudo").to_pylist()
    assert len(rows) == sum(POINTS_ON)
    for row in rows:
        assert row["status"] in ("ok", "rough") and row["score"] == pytest.approx(0.9)
        assert 0 < area(row["rough_rle"], 64, 64) <= 36  # of 5 or 6 pixels a side, by the place of the click
        y, x = np.nonzero(decode(row["rough_rle"], 64, 64))
        assert np.ptp(y) < 6 and np.ptp(x) < 6


@pytest.mark.parametrize("tile", [None, TileConfig(side=32, overlap=0)])
def test_contexts_do_not_depend_on_the_batch(
    line: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch, tile: TileConfig | None
) -> None:
    """If a batch size is given; masks are equal in any case, up to rounding."""
    folder, params = line
    monkeypatch.chdir(folder)
    teacher = load_teacher(Path("workspace/teacher"), CPU)
    weak = Split.open(Path("workspace/dataset/weak"))
    ((three, _),) = load_batches(weak, [0, 1, 2], params.input, 3, 0)
    ((alone, _),) = load_batches(weak, [1], params.input, 3, 0)
    assert three is not None and alone is not None
    xy, labels = torch.tensor([[20.0, 20.0], [40.0, 30.0]]), torch.zeros(2, dtype=torch.long)
    scores = {}
    for size in (3, None):
        proposer = SOLOv2Proposer(teacher, params.prompt, tile, CPU, size)
        contexts = [proposer.encode(three)[1], proposer.encode(alone)[0]]
        (one, _), (other, _) = (proposer.propose(context, xy, labels) for context in contexts)
        if size is not None:
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
        assert one.mask_prob.shape[:2] == (2, 1)
        scores[size] = [*one.score[:, 0].tolist(), *other.score[:, 0].tolist()]
    assert scores[3] == pytest.approx(scores[None], abs=1e-4)
