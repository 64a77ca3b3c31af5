"""A tiny Segment Anything model draws masks in place of the teacher."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from data.tables import Split
from models.config import PromptConfig
from models.inference.coarse_masks import place_masks
from models.masks.clicks import NO_POINT, OFF, ON, FurtherClicks
from models.sam.network import load_sam
from models.sam.prompts import prompts_at
from tasks.common.config import Params
from tasks.common.config.proposers import ProposersConfig, SamConfig
from tasks.common.errors import TaskError
from tasks.inference.batches import ImageBatch
from tasks.labelling.judge import read_judge
from tasks.labelling.labeller import Plan
from tasks.labelling.proposer import NOT_FINITE, draw, make_proposer, proposer_files
from tasks.labelling.rows import rows_of
from tasks.labelling.sam_proposer import SamProposer, bounded
from tasks.labelling.solov2_proposer import SOLOv2Proposer
from tasks.labelling.types import Clicks, PointMasks, PointStats
from tasks.pseudo_label import ledger_key, run
from tasks.train_student import read_pseudo
from tests.models.sam.tiny import picture, saved
from tests.tasks.test_pseudo_label import files, image_counts, place

__all__ = ["place"]

CPU = torch.device("cpu")
PROMPT = PromptConfig.paper(0.5)
XY = torch.tensor([[20.0, 20.0], [40.0, 30.0], [25.0, 40.0]])
LABELS = torch.tensor([0, 1, 0])


@pytest.fixture(scope="session")
def sam_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("sam", tmp_path_factory.mktemp("weights") / "sam")


def with_sam(params: Params, folder: Path, **settings: Any) -> Params:
    values = {"revision": None, "precision": "fp32", "click_batch": 2, "negatives": 0, **settings}
    proposers = ProposersConfig(use=["sam"], sam=SamConfig(weights=str(folder), **values))
    return params.model_copy(update={"proposers": proposers})


def batch_of(*images: Tensor) -> ImageBatch:
    """As if they were resized to 32 x 32 pixels, with padding: a size that SAM doesn't use."""
    sizes = [(24, 32)] * len(images)
    return ImageBatch(
        list(range(len(images))), list(images), torch.zeros(len(images), 3, 32, 32, dtype=torch.uint8), sizes
    )


def proposer_of(folder: Path, negatives: int = 0) -> SamProposer:
    return SamProposer(load_sam(folder, CPU, "fp32", 2), negatives)


def test_further_clicks_are_points_of_their_prompt(sam_folder: Path) -> None:
    proposer = proposer_of(sam_folder)
    (context,) = proposer.encode(batch_of(picture(48, 60)))
    places = torch.tensor([[[30.0, 20.0]], [[0.0, 0.0]], [[50.0, 5.0]]])
    further = FurtherClicks(places, torch.tensor([[ON], [NO_POINT], [OFF]]))
    candidates, reasons = proposer.propose(context, XY, LABELS, further)
    assert reasons == [None] * 3
    logits, _ = proposer.sam.draw(proposer.sam.encode(picture(48, 60)), prompts_at(XY, 0, further))
    assert torch.equal(candidates.mask_prob, logits.sigmoid())
    plain, _ = proposer.propose(context, XY, LABELS)
    change = (candidates.mask_prob - plain.mask_prob).abs().flatten(1).mean(1)
    assert (change[[0, 2]] > 1e-3).all()


def test_three_candidates_of_each_click(sam_folder: Path) -> None:
    proposer = proposer_of(sam_folder)
    (context,) = proposer.encode(batch_of(picture(48, 60)))
    assert context.sizes == ((64, 64), (51, 64), (48, 60))
    assert context.area_scale == 51 * 64 / (48 * 60)
    candidates, reasons = proposer.propose(context, XY, LABELS)
    assert reasons == [None] * 3
    assert candidates.mask_prob.shape == (3, 3, 16, 16)
    assert candidates.level.tolist() == [[0, 1, 2]] * 3
    assert candidates.cut.eq(0.5).all() and candidates.class_score.eq(1).all()
    logits, iou = proposer.sam.draw(proposer.sam.encode(picture(48, 60)), prompts_at(XY, 0))
    assert torch.equal(candidates.mask_prob, logits.sigmoid())
    assert torch.equal(candidates.score.argsort(1), iou.argsort(1))
    inside = candidates.mask_prob > 0.5
    expected = (candidates.mask_prob * inside).sum((2, 3)) / inside.sum((2, 3)).clamp(min=1)
    torch.testing.assert_close(candidates.maskness, expected)


def test_the_best_candidate_is_drawn_at_its_click(sam_folder: Path) -> None:
    proposer = proposer_of(sam_folder)
    (context,) = proposer.encode(batch_of(picture(48, 60)))
    drawn = draw(proposer, context, XY, LABELS, PROMPT)
    candidates, _ = proposer.propose(context, XY, LABELS)
    best = candidates.score.argmax(1)
    assert drawn.best.level.tolist() == best.tolist()
    maps = candidates.mask_prob[torch.arange(3), best]
    placed = place_masks(maps, torch.full((3,), 0.5), XY, LABELS, context.sizes, PROMPT)
    assert torch.equal(drawn.rough.masks, placed.masks) and drawn.rough.masks.any()


def test_the_order_of_predicted_iou_above_one_is_kept() -> None:
    found = bounded(torch.tensor([[0.5, 1.25, 1.0], [0.2, -0.1, 0.9]]))
    assert found.tolist() == [pytest.approx([0.4, 1.0, 0.8]), pytest.approx([0.2, 0.0, 0.9])]


def test_a_predicted_iou_that_is_not_finite_leaves_the_others_of_its_click() -> None:
    found = bounded(torch.tensor([[torch.nan, 1.25, 0.5], [torch.inf, 0.4, 0.2]]))
    assert not found[:, 0].isfinite().any()
    assert found[:, 1:].tolist() == [pytest.approx([1.0, 0.4]), pytest.approx([0.4, 0.2])]


def test_an_image_is_the_same_in_any_batch(sam_folder: Path) -> None:
    proposer = proposer_of(sam_folder)
    pictures = [picture(48, 60), picture(60, 48)]
    (_, second), (alone,) = proposer.encode(batch_of(*pictures)), proposer.encode(batch_of(pictures[1]))
    for one, other in zip(
        proposer.propose(second, XY, LABELS)[0], proposer.propose(alone, XY, LABELS)[0], strict=True
    ):
        assert torch.equal(one, other)


def test_neighbours_are_negative_points(sam_folder: Path) -> None:
    (none, one), maps = (proposer_of(sam_folder, count) for count in (0, 1)), []
    for proposer in (none, one):
        (context,) = proposer.encode(batch_of(picture(48, 60)))
        maps.append(proposer.propose(context, XY, LABELS)[0].mask_prob)
    assert float((maps[0] - maps[1]).abs().max()) > 1e-2


def row_of(proposer: SamProposer, image: Tensor) -> dict[str, Any]:
    """The row of a click in pseudo_label."""
    clicks = Clicks(7, ["a"], np.array([4]), np.array([[0.5, 0.5]], np.float32))
    xy, labels = clicks.tensors({4: 0}, CPU)
    (context,) = proposer.encode(batch_of(image))
    drawn = draw(proposer, context, xy, labels, PROMPT)
    none = torch.zeros(1, dtype=torch.bool)
    masks = PointMasks(PointStats.of(drawn, ~none, none, [None]), drawn.rough.masks, drawn.rough.masks)
    row: dict[str, Any] = rows_of(clicks, masks).to_pylist()[0]
    return row


def broken(tensor: str) -> Callable[[SamProposer], None]:
    def damage(proposer: SamProposer) -> None:
        proposer.sam.model.get_parameter(tensor).data.fill_(torch.nan)

    return damage


@pytest.mark.parametrize(
    "tensor",
    ["mask_decoder.mask_tokens.weight", "vision_encoder.pos_embed", "mask_decoder.upscale_conv2.bias"],
)
def test_a_mask_that_is_not_finite_is_a_reason(sam_folder: Path, tensor: str) -> None:
    proposer = proposer_of(sam_folder)
    broken(tensor)(proposer)
    row = row_of(proposer, picture(48, 60))
    assert (row["status"], row["reason"], row["score"]) == ("empty", NOT_FINITE, None)


def test_a_score_that_is_not_finite_is_a_reason(sam_folder: Path) -> None:
    proposer = proposer_of(sam_folder)
    broken("mask_decoder.iou_prediction_head.proj_out.bias")(proposer)
    row = row_of(proposer, picture(48, 60))
    assert (row["status"], row["reason"]) == ("empty", "the proposer returns no mask for this point")


def test_an_image_too_narrow_is_a_reason(sam_folder: Path) -> None:
    row = row_of(proposer_of(sam_folder), picture(1, 200))
    assert row["status"] == "empty"
    assert row["reason"] == "an image of 200 x 1 pixels is too narrow for SAM"
    assert len(draw_none(sam_folder)) == 0


def draw_none(folder: Path) -> list[str | None]:
    proposer = proposer_of(folder)
    (context,) = proposer.encode(batch_of(picture(1, 200)))
    return draw(proposer, context, torch.zeros(0, 2), torch.zeros(0, dtype=torch.long), PROMPT).reasons


def never() -> Any:
    raise AssertionError("the teacher isn't in use")


def test_params_choose_the_proposer(line: tuple[Path, Params], sam_folder: Path) -> None:
    _, params = line
    network: Any = torch.nn.Identity()
    assert isinstance(make_proposer("teacher", params, lambda: network, CPU, 4), SOLOv2Proposer)
    assert proposer_files(params) == []
    chosen = with_sam(params, sam_folder, negatives=2)
    proposer = make_proposer("sam", chosen, never, CPU)
    assert isinstance(proposer, SamProposer)
    assert (proposer.negatives, proposer.sam.click_batch, proposer.sam.precision) == (2, 2, "fp32")
    assert [path.name for path in proposer_files(chosen)] == ["config.json", "model.safetensors"]


def test_weights_that_are_not_there(line: tuple[Path, Params], tmp_path: Path) -> None:
    for call in (lambda params: make_proposer("sam", params, never, CPU), proposer_files):
        with pytest.raises(
            TaskError, match=r"proposers.sam.weights: found no folder .*nowhere; expected a folder"
        ):
            call(with_sam(line[1], tmp_path / "nowhere"))
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(TaskError, match=r"proposers.sam.weights: found model_type 'vit'"):
        make_proposer("sam", with_sam(line[1], tmp_path), never, CPU)


def test_pseudo_labels_of_sam(place: tuple[Path, Params], sam_folder: Path, tmp_path: Path) -> None:
    """Its masks are in the rows, without a teacher; other weights in the same folder are noticed."""
    workspace, params = place
    of_teacher = files(workspace)
    folder = shutil.copytree(sam_folder, tmp_path / "sam")
    params = with_sam(params, folder)
    (workspace / "teacher" / "model.safetensors").rename(tmp_path / "kept")
    (workspace / "teacher" / "model.safetensors").write_bytes(b"no weights")
    run(params, workspace)
    rows = read_pseudo(workspace / "pseudo").to_pylist()
    drawn = [row for row in rows if row["status"] in ("ok", "rough")]
    assert drawn and all(row["class_score"] == 1 and 0 <= row["score"] <= 1 for row in drawn)
    assert {row["level"] for row in drawn} <= {0, 1, 2}

    first = files(workspace)
    assert first.keys() == of_teacher.keys() | {"judge.json"} and first != of_teacher
    run(params, workspace)
    assert image_counts(workspace)["carried"] > 0 and files(workspace) == first
    saved("sam", folder, seed=1)
    run(params, workspace)
    assert image_counts(workspace)["computed"] > 0 and files(workspace) != first


def test_settings_that_change_masks_are_in_the_key(
    place: tuple[Path, Params], sam_folder: Path, tmp_path: Path
) -> None:
    workspace, params = place
    weak = Split.open(workspace / "dataset" / "weak")
    chosen = with_sam(params, sam_folder)
    unused = chosen.model_copy(
        update={"proposers": chosen.proposers.model_copy(update={"use": ("teacher",)})}
    )
    others = [
        params, chosen, with_sam(params, sam_folder, negatives=1), with_sam(params, sam_folder, precision="bf16"),
        with_sam(params, saved("sam", tmp_path / "other", seed=2)),
    ]  # fmt: skip
    keys = [ledger_key(one, weak, workspace, "cpu", Plan(), "pseudo_label") for one in others]
    assert len(set(keys)) == len(keys)
    assert ledger_key(unused, weak, workspace, "cpu", Plan(), "pseudo_label") == keys[0]


def test_refinement_is_measured_on_masks_of_the_proposer(
    place: tuple[Path, Params], sam_folder: Path
) -> None:
    workspace, params = place
    run(with_sam(params, sam_folder), workspace)
    judge = read_judge(workspace / "pseudo")
    assert judge.gates.keys() == {"sam-1", "sam-2", "sam-3"}
    assert all(gate.all.clicks == judge.clicks > 0 for gate in judge.gates.values())
    assert len({gate.all.rough_iou for gate in judge.gates.values()}) > 1
