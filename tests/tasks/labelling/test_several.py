"""Several proposers: what the judge sees by hand, whose mask is used, and whole stages with SAM models."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from data.tables import POINTS, read_parquet
from models.config import PromptConfig
from models.masks.clicks import NO_POINT, OFF, ON, FurtherClicks
from models.refiner.network import MaskRefineNet
from tasks.common.config import Params
from tasks.labelling import compute
from tasks.labelling.crowded import label_crowd
from tasks.labelling.gate import Bin, Comparison, unmeasured
from tasks.labelling.judge import FEATURES, Judge, read_judge
from tasks.labelling.labeller import GatedRefiner, Labeller, load_refiner
from tasks.labelling.predicted_iou import ROW_FEATURES, Rule, ridge
from tasks.labelling.proposer import NO_CANDIDATE, draw
from tasks.labelling.rows import rows_of
from tasks.labelling.several import Several, sources_of
from tasks.labelling.types import Clicks, Drawn, ImageContext, PointMasks, PointStats
from tasks.pseudo_label import run
from tasks.train_student import read_pseudo
from tests.models.sam.tiny import MODELS, saved
from tests.tasks.conftest import ROOT
from tests.tasks.labelling.test_proposer import NAN, Squares, context
from tests.tasks.labelling.test_sam_proposer import with_sam
from tests.tasks.test_pseudo_label import files, image_counts, place

__all__ = ["place"]

FREE = PromptConfig.paper(0.5).model_copy(update={"exclusive": "none"})
ONE_CLASS = FREE.model_copy(update={"exclusive": "same_class"})
XY = torch.tensor([[10.5, 10.5], [12.5, 10.5], [22.5, 10.5]])
LABELS = torch.tensor([0, 0, 1])


def rule_of(weights: tuple[float, ...]) -> Rule:
    none, one, far = ((value,) * len(FEATURES) for value in (0.0, 1.0, 1e9))
    low = (-1e9,) * len(FEATURES)
    return Rule(intercept=0.0, weights=weights, mean=none, scale=one, low=low, high=far)


def by_score(names: tuple[str, ...], areas: tuple[float, ...] = (9.0, 25.0)) -> Judge:
    """Predicts a mask's IoU to be its score."""
    weights = tuple(float(name == "score") for name in FEATURES)
    rule = rule_of(weights)
    return Judge(
        proposers=names, typical_areas=areas, images=2, clicks=20, iou=dict.fromkeys(names, 0.0), judged_iou=1.0,
        best_iou=1.0, alone=None, rules=dict.fromkeys(names, rule),
        gates=dict.fromkeys(names, unmeasured(0, enlarge=1.5, rounds=1)),
    )  # fmt: skip


def several(*scores: list[list[float]], judge: Judge | None = None) -> Several:
    """Proposer n draws squares of 3 pixels (n = 0), or of 3 and 5 (n = 1), of these scores."""
    named = tuple((f"p{n}", Squares(one, n + 1)) for n, one in enumerate(scores))
    names = tuple(source.name for source in sources_of(named))
    return Several(named, judge or by_score(names))


def seen(proposer: Several) -> ImageContext:
    return context()._replace(encoding=[context() for _ in proposer.named])


def drawn_by(proposer: Several, prompt: PromptConfig = FREE) -> Drawn:
    return draw(proposer, seen(proposer), XY, LABELS, prompt)


def test_each_mask_of_a_click_is_a_source() -> None:
    named = (("teacher", Squares(count=1)), ("sam", Squares(count=3)))
    assert [(one.name, one.proposer, one.candidate) for one in sources_of(named)] == [
        ("teacher", 0, 0), ("sam-1", 1, 0), ("sam-2", 1, 1), ("sam-3", 1, 2),
    ]  # fmt: skip


def test_features_by_hand() -> None:
    proposer = several([[0.5]] * 3, [[0.25, 0.75]] * 3)
    proposed = proposer.propose(seen(proposer), XY, LABELS)
    masks = proposer.place(proposed, seen(proposer), XY, LABELS, FREE)
    features, has_mask = proposer.features(masks, seen(proposer), XY, LABELS)
    assert has_mask.all() and features.shape == (3, 3, len(FEATURES))
    found = dict(zip(FEATURES, np.moveaxis(features, 2, 0), strict=True))
    assert found["score"].tolist() == [[0.5, 0.25, 0.75]] * 3
    assert found["log_area"] == pytest.approx(
        np.log([[1, 1, 25 / 9]] * 2 + [[9 / 25, 9 / 25, 1]])  # of 9 and 25 pixels, over 9 and 25
    )
    assert found["log_area_squared"] == pytest.approx(found["log_area"] ** 2)
    small = (1 + 9 / 25) / 2  # the other square of 3 pixels, and the one of 5
    assert found["agreement"] == pytest.approx(np.array([[small, small, 9 / 25]] * 3))
    assert not found["misses_click"].any()
    # Of 5 pixels they hold the neighbour of their class, two pixels away.
    other = math.log(2)
    assert found["log_clicks"] == pytest.approx(np.array([[0, 0, other], [0, 0, other], [0, 0, 0]]))


def test_further_clicks_count_as_missed() -> None:
    """Squares of 3 and 5 pixels: of an object with a click 2 pixels away, inside; and of one with it outside."""
    proposer = several([[0.5]] * 3, [[0.25, 0.75]] * 3)
    points = torch.tensor([[[10.5, 12.5], [0, 0]], [[12.5, 12.5], [12.5, 11.5]], [[0, 0], [0, 0]]])
    further = FurtherClicks(points, torch.tensor([[ON, NO_POINT], [OFF, OFF], [NO_POINT, NO_POINT]]))
    masks = proposer.place(proposer.propose(seen(proposer), XY, LABELS), seen(proposer), XY, LABELS, FREE)
    features, _ = proposer.features(masks, seen(proposer), XY, LABELS, None, further)
    assert features[..., FEATURES.index("misses_click")] == pytest.approx(
        np.array([[1 / 2, 1 / 2, 0], [1 / 3, 1 / 3, 2 / 3], [0, 0, 0]])
    )


def test_the_best_by_the_judge_is_used_and_named() -> None:
    proposer = several([[0.5], [0.9], [0.6]], [[0.1, 0.7], [0.1, 0.2], [0.65, 0.3]])
    found = drawn_by(proposer)
    assert found.drawn_by == ["p1-2", "p0", "p1-1"]
    assert found.rough.masks.flatten(1).sum(1).tolist() == [25, 9, 9]
    assert found.best.score.tolist() == pytest.approx([0.7, 0.9, 0.65])
    assert found.reasons == [None] * 3


def test_a_score_is_the_iou_predicted_by_the_rule_of_who_drew_the_mask(line: tuple[Path, Params]) -> None:
    """It means the same for all proposers; where nothing was measured it is the proposer's own."""
    proposer = several([[0.5], [0.9], [0.6]], [[0.1, 0.7], [0.1, 0.2], [0.65, 0.3]])
    found = drawn_by(proposer)
    assert found.drawn_by == ["p1-2", "p0", "p1-1"]
    constant = ridge(np.zeros((3, len(ROW_FEATURES))), np.full(3, 0.25))
    usual = unmeasured(0, enlarge=1.5, rounds=1)
    gates = {
        name: usual.model_copy(update={"score": rule})
        for name, rule in (
            ("p0", constant), ("p1-1", constant.model_copy(update={"intercept": 1.5})), ("p1-2", None),
        )
    }  # fmt: skip
    none = torch.zeros(3, dtype=torch.bool)
    stats = PointStats.of(found, ~none, none, ["gate: no"] * 3)
    masks = PointMasks(stats, found.rough.masks, found.rough.masks)
    clicks = Clicks(7, ["a", "b", "c"], np.array([1, 1, 2]), XY.numpy())
    network = MaskRefineNet(line[1].refiner.net)
    rows = rows_of(clicks, masks, GatedRefiner(network, usual, 1, gates)).to_pylist()
    assert [row["score"] for row in rows] == pytest.approx([0.7, 0.25, 1.0])
    own = rows_of(clicks, masks).to_pylist()
    assert [row["score"] for row in own] == pytest.approx([0.7, 0.9, 0.65])


def test_overlaps_of_chosen_masks_are_removed() -> None:
    """Clicks 0 and 1 are of one class, two pixels apart: their squares of 5 and 3 pixels share six pixels."""
    proposer = several([[0.1], [0.9], [0.9]], [[0.1, 0.7]] * 3)
    free, found = drawn_by(proposer), drawn_by(proposer, ONE_CLASS)
    assert found.drawn_by == ["p1-2", "p0", "p0"]
    assert int((free.rough.masks[0] & free.rough.masks[1]).sum()) == 6
    assert not (found.rough.masks[0] & found.rough.masks[1]).any()
    assert torch.equal(found.rough.masks[:2].any(0), free.rough.masks[:2].any(0))
    for k, (x, y) in enumerate(XY.long().tolist()):
        assert found.rough.masks[k, y, x]


@pytest.mark.parametrize("prompt", [FREE, ONE_CLASS])
def test_one_proposer_alone_draws_what_it_draws_by_itself(prompt: PromptConfig) -> None:
    proposer = several([[0.1]] * 3, [[0.2, 0.9]] * 3)
    alone = Several(proposer.named, proposer.judge.model_copy(update={"alone": "p1-2"}))
    expected = draw(Squares([[0.2, 0.9]] * 3, 2), context(), XY, LABELS, prompt)
    found = drawn_by(alone, prompt)
    assert torch.equal(found.rough.masks, expected.rough.masks)
    assert torch.equal(found.rough.boxes_xyxy, expected.rough.boxes_xyxy)
    places = torch.tensor([[11.2, 10.9], [12.0, 9.7], [21.0, 12.0]])
    rows = torch.arange(3)
    torch.testing.assert_close(found.rough.maps.at(rows, places), expected.rough.maps.at(rows, places))


def test_a_proposer_without_a_mask_loses_and_without_any_there_is_a_reason() -> None:
    proposer = several([[NAN], [0.1], [NAN]], [[0.9, 0.1], [NAN, NAN], [NAN, NAN]])
    found = drawn_by(proposer)
    assert found.drawn_by is not None and found.drawn_by[:2] == ["p1-1", "p0"]
    assert found.reasons == [None, None, NO_CANDIDATE]
    assert found.rough.drawn.tolist() == [True, True, False]


def together(params: Params, folder: Path) -> Params:
    params = with_sam(params, folder)
    proposers = params.proposers.model_copy(update={"use": ("teacher", "sam")})
    return params.model_copy(update={"proposers": proposers})


@pytest.mark.parametrize("family", MODELS)
def test_teacher_and_sam_in_a_whole_stage(place: tuple[Path, Params], tmp_path: Path, family: str) -> None:
    """Each click has a row with the choice; the same bytes twice."""
    workspace, params = place
    params = together(params, saved(family, tmp_path / "weights"))
    run(params, workspace)
    judge = read_judge(workspace / "pseudo")
    assert judge.proposers == ("teacher", "sam-1", "sam-2", "sam-3")
    assert all(gate.all.clicks == judge.clicks > 0 for gate in judge.gates.values())
    rows = read_pseudo(workspace / "pseudo").to_pylist()
    points = read_parquet(workspace / "points/points.parquet", POINTS)
    assert sorted(row["point_id"] for row in rows) == sorted(points["point_id"].to_pylist())
    drawn = [row["reason"].rpartition("drawn by ")[2] for row in rows if row["status"] in ("ok", "rough")]
    assert drawn and set(drawn) <= set(judge.proposers)
    assert all(row["reason"] for row in rows)
    before = files(workspace)
    shutil.rmtree(workspace / "runs" / "pseudo_label")
    run(params, workspace)
    assert files(workspace) == before


@pytest.mark.slow
def test_two_processes_choose_as_one_does(place: tuple[Path, Params], tmp_path: Path) -> None:
    """The first one measures the judge, which both read."""
    workspace, params = place
    params = together(params, saved("sam", tmp_path / "weights"))
    run(params, workspace)
    expected = files(workspace)
    shutil.rmtree(workspace / "runs" / "pseudo_label")
    shutil.rmtree(workspace / "pseudo")
    two = params.model_copy(update={"runtime": params.runtime.model_copy(update={"processes": 2})})
    Path("params.yaml").write_text(yaml.safe_dump(two.model_dump(mode="json")), encoding="utf-8")
    command = [sys.executable, "-m", "tasks.pseudo_label"]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"PYTHONPATH": path})
    assert files(workspace) == expected
    assert json.loads((workspace / "runs/pseudo_label/run.json").read_text())["processes"] == 2


def test_a_killed_run_goes_on_and_the_judge_is_measured_once(
    place: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, params = place
    params = together(params, saved("sam", tmp_path / "weights"))
    run(params, workspace)
    expected = files(workspace)
    shutil.rmtree(workspace / "runs" / "pseudo_label")
    shutil.rmtree(workspace / "pseudo")
    calls = 0
    real = compute.rows_of

    def killed(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 7:  # of 14 images, in parts of 5
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(compute, "rows_of", killed)
        with pytest.raises(KeyboardInterrupt):
            run(params, workspace)
    assert not (workspace / "pseudo").exists()
    monkeypatch.setattr("tasks.pseudo_label.decide", None)  # not called again
    run(params, workspace)
    assert image_counts(workspace) == {"computed": 9, "carried": 5, "failed": 0}
    assert files(workspace) == expected


def test_a_crowd_is_labelled_in_pieces(
    place: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, params = place
    params = together(params, saved("sam", tmp_path / "weights"))
    monkeypatch.setattr(compute, "MASK_PIXELS", 4 * 64 * 64)  # one click at a time, of four masks each
    run(params, workspace)
    rows = read_pseudo(workspace / "pseudo").to_pylist()
    assert sum(row["status"] in ("ok", "rough") for row in rows) > len(rows) // 2
    assert all("drawn by" in row["reason"] for row in rows if row["status"] in ("ok", "rough"))


def test_each_proposer_s_masks_have_their_gate(place: tuple[Path, Params]) -> None:
    """p0's masks stay rough, p1-2's are refined; a score is the predicted IoU. In a crowd too."""
    workspace, _ = place
    device = torch.device("cpu")
    yes = unmeasured(0, enlarge=1.5, rounds=1)
    everything = Comparison(images=3, objects=9, clicks=9, rough_iou=50.0, refined_iou=40.0, gain_error=1.0)
    bin_ = Bin(**everything.model_dump(), area_from=0.0, area_to=None, use=False, decided_by="bin")
    no = yes.model_copy(update={"all": everything, "bins": (bin_,), "use": False})
    proposer = several([[0.1], [0.9], [0.9]], [[0.1, 0.7]] * 3)
    gates = {"p0": no, "p1-1": no, "p1-2": yes}
    refiner = GatedRefiner(load_refiner(workspace / "refiner", device), yes, 8, gates)
    labeller = Labeller(proposer, refiner, ONE_CLASS, device)
    whole = labeller.label(seen(proposer), XY, torch.zeros_like(LABELS))
    pieces = [masks for _, masks in label_crowd(labeller, seen(proposer), XY, torch.zeros_like(LABELS), 3)]
    for all_stats in ([whole.stats], [one.stats for one in pieces]):
        found = {
            name: refusal
            for stats in all_stats
            for name, refusal in zip(stats.drawn_by or (), stats.refusals, strict=True)
        }
        assert found.keys() == {"p0", "p1-2"}
        assert found["p1-2"] is None and "IoU 50.0 -> 40.0" in (found["p0"] or "")
    assert whole.stats.score.tolist() == pytest.approx([0.7, 0.9, 0.9])


@pytest.mark.parametrize("prompt", [FREE, ONE_CLASS])
@pytest.mark.parametrize("chunk_size", [1, 2])
def test_the_choice_does_not_depend_on_the_chunks_of_a_crowd(
    place: tuple[Path, Params], prompt: PromptConfig, chunk_size: int
) -> None:
    """The larger squares win where they hold another click of their class, which is in another chunk."""
    workspace, _ = place
    weights = tuple(float(name == "log_clicks") for name in FEATURES)
    rule = rule_of(weights)
    judge = by_score(("p0", "p1-1", "p1-2"))
    judge = judge.model_copy(update={"rules": dict.fromkeys(judge.proposers, rule)})
    proposer = Several((("p0", Squares(count=1)), ("p1", Squares(count=2))), judge)
    device = torch.device("cpu")
    refiner = GatedRefiner(
        load_refiner(workspace / "refiner", device), unmeasured(0, enlarge=1.5, rounds=1), 8
    )
    labeller = Labeller(proposer, refiner, prompt, device)
    whole = labeller.label(seen(proposer), XY, LABELS)
    assert whole.stats.drawn_by == ["p1-2", "p1-2", "p0"]
    found: dict[int, tuple[str, Tensor]] = {}
    for rows, masks in label_crowd(labeller, seen(proposer), XY, LABELS, chunk_size):
        assert masks.stats.drawn_by is not None and len(rows) <= chunk_size
        found |= dict(zip(rows, zip(masks.stats.drawn_by, masks.rough, strict=True), strict=True))
    assert [found[k][0] for k in range(3)] == whole.stats.drawn_by
    assert torch.equal(torch.stack([found[k][1] for k in range(3)]), whole.rough)


def test_probabilities_are_those_of_the_chosen_source() -> None:
    proposer = several([[0.9], [0.1], [0.9]], [[0.1, 0.7]] * 3)
    found = drawn_by(proposer)
    assert found.drawn_by == ["p0", "p1-2", "p0"]
    corners: Tensor = XY - 2.0  # outside of 3 pixels, inside of 5
    assert found.rough.maps.at(torch.arange(3), corners).tolist() == pytest.approx([0, 0.8, 0])
