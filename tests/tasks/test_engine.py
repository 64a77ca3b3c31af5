from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tasks.config import RefinerConfig, TrainConfig
from tasks.engine import (
    Job,
    finish,
    learning_rate,
    milestone_path,
    train,
    weight_average,
    write_history,
)
from tasks.errors import TaskError

BASE: dict[str, Any] = {
    "steps": 12, "batch_size": 4, "optimizer": "adamw", "lr": 0.1, "weight_decay": 0.1, "warmup_steps": 0,
    "schedule": "cosine", "decay_at": [], "clip_norm": None, "ema": None, "precision": "fp32", "checkpoint_every": 4,
    "log_every": 2,
}  # fmt: skip


def config(**changes: Any) -> TrainConfig:
    return TrainConfig.model_validate({**BASE, **changes})


@pytest.mark.parametrize(
    ("changes", "step", "expected"),
    [
        ({}, 0, 0.1),
        ({}, 6, 0.05),
        ({"warmup_steps": 4}, 0, 0.025),
        ({"warmup_steps": 4}, 3, 0.1),
        ({"warmup_steps": 4}, 8, 0.05),
        ({"schedule": "step", "decay_at": [4, 8]}, 3, 0.1),
        ({"schedule": "step", "decay_at": [4, 8]}, 4, 0.01),
        ({"schedule": "step", "decay_at": [4, 8]}, 11, 0.001),
        ({"schedule": "step", "decay_at": [4], "warmup_steps": 2}, 0, 0.05),
    ],
)
def test_learning_rate(changes: dict[str, Any], step: int, expected: float) -> None:
    assert math.isclose(learning_rate(config(**changes), step), expected)


class Killed(Exception):
    pass


def job(
    folder: Path, training: TrainConfig, *, kill_at: int | None = None, key: str = "k", bad_at: int = -1
) -> Job:
    """A line fitted to noisy data; batches are a function of the step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.Linear(8, 1))

    def batches(first: int) -> Iterable[dict[str, Any]]:
        for step in range(first, training.steps):
            if step == kill_at:
                raise Killed
            x = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
            y = x.sum(1, keepdim=True) * (math.nan if step == bad_at else 1)
            yield {"x": x, "y": y, "image_ids": [step, 77]}

    def loss(net: nn.Module, batch: dict[str, Any]) -> dict[str, Tensor]:
        value = (net(batch["x"]) - batch["y"]).square().mean()
        return {"loss": value, "loss_fit": value}

    return Job("line", model, loss, batches, training, torch.device("cpu"), folder, key, milestones=(3, 12))


def weights(one: Job) -> Tensor:
    return torch.cat([p.detach().flatten() for p in one.model.parameters()])


def test_it_learns_and_logs(tmp_path: Path) -> None:
    one = job(tmp_path, config(steps=200, lr=0.03))
    train(one)
    assert one.history[-1]["loss"] < 0.5 * one.history[0]["loss"]
    assert [row["step"] for row in one.history] == list(range(2, 201, 2))
    write_history(one, tmp_path / "log.jsonl")
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 100


@pytest.mark.parametrize(
    ("optimizer", "ema"), [("adamw", None), ("adam", None), ("sgd", None), ("adamw", 0.9)]
)
@pytest.mark.parametrize("kill_at", [3, 4, 5, 7, 8, 11])
def test_killed_and_resumed_is_bit_identical(
    tmp_path: Path, optimizer: str, ema: float | None, kill_at: int
) -> None:
    training = config(optimizer=optimizer, lr=0.01, log_every=2, ema=ema)
    whole = job(tmp_path / "whole", training)
    train(whole)
    with pytest.raises(Killed):
        train(job(tmp_path / "killed", training, kill_at=kill_at))
    resumed = job(tmp_path / "killed", training)
    torch.manual_seed(123)  # resuming must not lean on the global generator
    train(resumed)
    assert torch.equal(weights(whole), weights(resumed))
    assert whole.history == resumed.history
    for step in (3, 12):
        assert milestone_path(whole, step).read_bytes() == milestone_path(resumed, step).read_bytes()
    finish(resumed)
    assert not (tmp_path / "killed" / "resume").exists()


def test_training_in_half_precision_leaves_a_network_in_full_precision(tmp_path: Path) -> None:
    one = job(tmp_path, config(precision="bf16"))
    train(one)
    bare = job(tmp_path / "bare", config()).model.eval()
    bare.load_state_dict(one.model.state_dict())
    x = torch.randn(5, 3)
    assert torch.equal(one.model(x), bare(x))


@pytest.mark.parametrize("decay", [0.3, 0.9])
def test_the_average_is_the_weights_average(tmp_path: Path, decay: float) -> None:
    """By hand: the weights after every step, from runs of 1, 2, ... steps at a constant rate, then averaged."""
    expected = None
    constant = {"schedule": "step", "decay_at": [29], "lr": 0.05}
    for steps in range(1, 13):
        one = job(tmp_path / str(steps), config(**constant, steps=30))
        batches = one.batches
        one.batches = lambda first, n=steps, source=batches: itertools.islice(source(first), n)
        train(one)
        after = weights(one)
        share = min(decay, steps / (9 + steps))  # of the k-th after the first, k = steps - 1
        expected = after if expected is None else share * expected + (1 - share) * after
        if steps == 3:
            third = expected
    averaged = job(tmp_path / "average", config(**constant, steps=30, ema=decay))
    batches = averaged.batches
    averaged.batches = lambda first: itertools.islice(batches(first), 12)
    train(averaged)
    torch.testing.assert_close(weights(averaged), expected)
    milestone = load_file(milestone_path(averaged, 3))
    torch.testing.assert_close(
        torch.cat([milestone[name].flatten() for name, _ in averaged.model.named_parameters()]), third
    )
    assert not torch.allclose(weights(averaged), after)


def test_the_average_copies_buffers_and_leaves_frozen_weights() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[0].requires_grad_(False)
    average = weight_average(model, 0.5)
    frozen = model[0].weight.clone()
    for step in range(3):
        with torch.no_grad():
            model[1].weight.fill_(step)
            model[1].running_mean.fill_(step)
        average.update_parameters(model)
    assert torch.equal(average.module[0].weight, frozen)
    assert average.module[1].running_mean.tolist() == [2, 2]
    first = (1 - 2 / 11) * 1  # one update after the first weights, 0
    assert average.module[1].weight.tolist() == pytest.approx([0.25 * first + 0.75 * 2] * 2)


def test_state_of_another_job_is_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(job(tmp_path, config(), kill_at=8, key="old"))
    fresh, other = job(tmp_path, config(), key="new"), job(tmp_path / "other", config(), key="new")
    train(fresh)
    train(other)
    assert torch.equal(weights(fresh), weights(other))


def test_a_loss_that_is_not_finite_names_step_and_images(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"step 6 .*loss_fit nan.*image ids 5, 77"):
        train(job(tmp_path, config(), bad_at=5))


def test_norms_and_biases_are_not_decayed(tmp_path: Path) -> None:
    from tasks.engine import build_optimizer

    groups = build_optimizer(job(tmp_path, config()).model, config()).param_groups
    assert [(len(group["params"]), group["weight_decay"]) for group in groups] == [(2, 0.1), (4, 0.0)]


def test_configs_share_the_training_keys(params_of: Callable[..., Any], recipe: dict[str, Any]) -> None:
    assert set(BASE) <= set(RefinerConfig.model_fields)
