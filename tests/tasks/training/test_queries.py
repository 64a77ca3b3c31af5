"""The pieces of a step of a network with queries, and what its training checks first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models.hub import FolderError
from tasks.common.config import NetworkConfig, Params, StudentConfig
from tasks.training.queries import freeze_unused, new_model, query_pieces, side_fault
from tasks.training.setup import StepBatch
from tests.models.queries.tiny import MASK2FORMER, network

CPU = torch.device("cpu")


def student(params: Params, **changes: Any) -> StudentConfig:
    return StudentConfig.model_validate({**params.student.model_dump(), **changes})


def batch_of(crowd: bool = False, weight: float = 1.0) -> StepBatch:
    generator = torch.Generator().manual_seed(1)
    masks = [torch.zeros(2, 64, 64, dtype=torch.bool) for _ in range(4)]
    for n, two in enumerate(masks):
        two[0, 4 + n : 30, 8:40], two[1, 34:60, 30 : 60 - n] = True, True
    region = torch.zeros(64, 64, dtype=torch.bool)
    region[:32] = True
    return StepBatch(
        images=torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8, generator=generator), masks=masks,
        labels=[torch.tensor([0, 2])] * 4, weights=[torch.tensor([weight, 1.0])] * 4, points_xy=[None] * 4,
        crowds=[region if crowd else None] * 4, image_ids=[1, 2, 3, 4], original_sizes=[(64, 64)] * 4,
        content_sizes=[(64, 64)] * 4, crop_origins=[(0, 0)] * 4, step=7,
    )  # fmt: skip


def losses(training: StudentConfig, batch: StepBatch, **changes: Any) -> dict[str, float]:
    model = network(**changes)
    total: dict[str, float] = {}
    for piece in query_pieces(model, CPU, training, seed=3)(batch):
        for name, value in piece.loss(model).items():
            total[name] = total.get(name, 0.0) + float(value.detach())
    return total


@pytest.fixture(scope="module")
def params(line: tuple[Path, Params]) -> Params:
    return line[1]


def test_pieces_sum_to_the_step(params: Params) -> None:
    whole = losses(student(params), batch_of())
    assert losses(student(params, accumulate=3), batch_of()) == pytest.approx(whole, rel=1e-4)
    assert losses(student(params), {**batch_of(), "step": 8})["loss"] != whole["loss"]


def test_dropout_is_drawn_by_the_step(params: Params) -> None:
    """Whatever else was drawn before, as in a resumed run."""
    dropping = {"backbone_config": {**MASK2FORMER["backbone_config"], "drop_path_rate": 0.5}}
    made = []
    for drawn in (0, 5):
        model = network(**dropping)
        torch.rand(drawn)
        before = torch.get_rng_state()
        (piece,) = query_pieces(model, CPU, student(params), 3)(batch_of())
        made.append(float(piece.loss(model)["loss"].detach()))
        assert torch.equal(before, torch.get_rng_state())
    assert made[0] == made[1]


def test_scores_and_crowds_reach_the_loss(params: Params) -> None:
    whole, doubtful = (losses(student(params), batch_of(weight=weight)) for weight in (1.0, 0.2))
    assert doubtful["loss_mask"] != whole["loss_mask"] and doubtful["loss_category"] != whole["loss_category"]
    by_mask = losses(student(params, weight_by_score="mask"), batch_of(weight=0.2))
    assert (
        by_mask["loss_mask"] == doubtful["loss_mask"] and by_mask["loss_category"] == whole["loss_category"]
    )
    assert losses(student(params), batch_of(crowd=True))["loss_mask"] != whole["loss_mask"]


def test_unused_parameters_are_frozen() -> None:
    """Other processes would wait for their gradients; all others learn."""
    model = network()
    state = torch.get_rng_state()
    freeze_unused(model)
    assert torch.equal(state, torch.get_rng_state())
    frozen = {name for name, one in model.named_parameters() if not one.requires_grad}
    assert frozen and all(".layernorm." in name for name in frozen)
    assert all(one.grad is None for one in model.parameters()) and model.training


def test_batch_norms_are_not_changed_by_the_trial() -> None:
    resnet = {
        "model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1],
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    }  # fmt: skip
    model = network(backbone_config=resnet)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert any("running_mean" in name for name in before)
    freeze_unused(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_new_network(params: Params) -> None:
    """Its pixels are RGB, those of section `model` in the order of its channels."""
    given = NetworkConfig(name="mask2former", weights=None, revision=None, config=MASK2FORMER)
    section = {**params.model, "pixel_mean": [1.0, 2.0, 3.0], "pixel_std": [4.0, 5.0, 6.0]}
    for bgr, mean in ((False, (1.0, 2.0, 3.0)), (True, (3.0, 2.0, 1.0))):
        own = params.model_copy(update={"model": section | {"bgr": bgr}})
        model, weights = new_model("train_student", given, own, ["a", "b"])
        assert model.config.pixel_mean == mean and weights is None and model.num_classes == 2
    wrong = given.model_copy(update={"config": {"num_querys": 3}})
    with pytest.raises(FolderError, match="num_querys"):
        new_model("train_student", wrong, params, ["a"])


@pytest.mark.parametrize(
    ("side", "changes", "fault"),
    [
        (None, {}, False),
        (64, {}, False),
        (32, {}, True),
        (64, {"max_side": 65}, True),
        (96, {"max_side": 65}, False),
        (64, {"scale_max": 1.25}, False),
        (64, {"scale_max": 1.25, "crop": False}, True),
        (96, {"scale_max": 1.25, "crop": False}, False),
    ],
)
def test_inputs_that_a_square_network_takes(
    recipe: dict[str, Any],
    params_of: Callable[[dict[str, Any]], Params],
    side: int | None,
    changes: Any,
    fault: bool,
) -> None:
    for section in (recipe["input"], recipe["student"]["augment"]):
        section |= {key: value for key, value in changes.items() if key in section}
    found = side_fault(params_of(recipe), side)
    assert (found is not None) == fault
    if found is not None:
        assert "found inputs of up to" in found and f"takes {side} x {side}" in found
