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

from tasks.common.config import RefinerConfig, TrainConfig
from tasks.common.errors import TaskError
from tasks.training.finite_guard import FiniteGuard
from tasks.training.loop import Job, Piece, _backward, _begin, train, write_history
from tasks.training.optimization import WeightAverage, build_optimizer, learning_rate
from tasks.training.out_of_memory import explain_out_of_memory, next_accumulate

BASE: dict[str, Any] = {
    "steps": 12, "batch_size": 4, "optimizer": "adamw", "lr": 0.1, "weight_decay": 0.1, "warmup_steps": 0,
    "schedule": "cosine", "decay_at": [], "clip_norm": None, "ema": None, "precision": "fp32", "checkpoint_every": 4,
    "log_every": 2, "accumulate": 1, "channels_last": False, "fused": False, "compile": False,
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
    folder: Path,
    training: TrainConfig,
    *,
    kill_at: int | None = None,
    key: str = "k",
    bad_at: int = -1,
    lost_at: int = -1,
    dropout: float = 0.0,
) -> Job:
    """A line fitted to noisy data; batches are a function of the step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.Dropout(dropout), nn.Linear(8, 1))

    def batches(first: int) -> Iterable[dict[str, Any]]:
        for step in range(first, training.steps):
            if step == kill_at:
                raise Killed
            x = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
            y = x.sum(1, keepdim=True) * (math.nan if step == bad_at else 1)
            yield {"x": x, "y": y, "image_ids": [step, 77, 78, 79]}

    def pieces(batch: dict[str, Any]) -> list[Piece]:
        def piece(rows: Tensor) -> Piece:
            def loss(net: nn.Module) -> dict[str, Tensor]:
                value = (net(batch["x"][rows]) - batch["y"][rows]).square().sum() / len(batch["x"])
                if batch["image_ids"][0] == lost_at:  # finite, with a gradient that isn't
                    value = value + 0 * (value - value.detach()).sqrt()
                return {"loss": value, "loss_fit": value}

            return Piece(loss, [batch["image_ids"][row] for row in rows.tolist()])

        return [piece(rows) for rows in torch.arange(4).chunk(training.accumulate)]

    return Job(
        "line", model, pieces, batches, training, torch.device("cpu"), folder, key, 2, milestones=(3, 12)
    )


def weights(one: Job) -> Tensor:
    return torch.cat([p.detach().flatten() for p in one.model.parameters()])


def test_it_learns_and_logs(tmp_path: Path) -> None:
    one = job(tmp_path, config(steps=200, lr=0.03))
    train(one)
    assert one.history[-1]["loss"] < 0.5 * one.history[0]["loss"]
    assert [row["step"] for row in one.history] == list(range(2, 201, 2))
    write_history(one, tmp_path / "log.jsonl")
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 100


@pytest.mark.parametrize(("log_every", "logged"), [(5, [5, 10, 12]), (7, [7, 12]), (12, [12]), (50, [12])])
def test_each_line_of_the_log_is_the_mean_since_the_last_one(
    tmp_path: Path, log_every: int, logged: list[int]
) -> None:
    """The last one's window too, which is shorter."""
    sgd: dict[str, Any] = {"optimizer": "sgd", "lr": 0.01, "checkpoint_every": log_every}
    every, some = (job(tmp_path / str(n), config(log_every=n, **sgd)) for n in (1, log_every))
    train(every)
    train(some)
    losses = [row["loss"] for row in every.history]
    assert [row["step"] for row in every.history] == list(range(1, 13))
    assert len({round(loss, 3) for loss in losses}) > 6
    assert [row["step"] for row in some.history] == logged
    for before, row in zip([0, *logged], some.history, strict=False):
        window = losses[before : row["step"]]
        assert row["loss"] == row["loss_fit"] == pytest.approx(sum(window) / len(window), abs=2e-6)
        assert row["lr"] == every.history[row["step"] - 1]["lr"]


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
        assert whole.states.milestone(step).read_bytes() == resumed.states.milestone(step).read_bytes()
    resumed.states.clear()
    assert not (tmp_path / "killed" / "resume").exists()


def test_draws_from_the_global_generator_go_on_where_they_were(tmp_path: Path) -> None:
    whole = job(tmp_path / "whole", config(), dropout=0.5)
    train(whole)
    with pytest.raises(Killed):
        train(job(tmp_path / "killed", config(), kill_at=7, dropout=0.5))
    resumed = job(tmp_path / "killed", config(), dropout=0.5)
    torch.manual_seed(123)
    train(resumed)
    assert torch.equal(weights(whole), weights(resumed))


@pytest.mark.parametrize("damage", ["cut", "flip", "no hash", "no milestone"])
def test_a_damaged_state_falls_back_to_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    training = config(checkpoint_every=2)
    whole = job(tmp_path / "whole", training)
    train(whole)
    with pytest.raises(Killed):
        train(job(tmp_path / "killed", training, kill_at=9))
    folder = tmp_path / "killed" / "resume" / "k"
    assert sorted(path.name for path in folder.glob("state_*.pt")) == ["state_0000006.pt", "state_0000008.pt"]
    newest = folder / "state_0000008.pt"
    if damage == "cut":
        newest.write_bytes(newest.read_bytes()[:-100])
    elif damage == "flip":
        content = bytearray(newest.read_bytes())
        content[len(content) // 2] ^= 1
        newest.write_bytes(content)
    elif damage == "no hash":
        newest.with_suffix(".json").write_text("{")
    else:
        (folder / "milestone_0000003.safetensors").unlink()
    resumed = job(tmp_path / "killed", training)
    train(resumed)
    assert str(newest) in caplog.text and "using the one before" in caplog.text
    assert torch.equal(weights(whole), weights(resumed)) and whole.history == resumed.history
    assert whole.states.milestone(3).read_bytes() == resumed.states.milestone(3).read_bytes()


@pytest.mark.parametrize(("every", "resumed_after"), [(3, 0), (2, 2)])
def test_a_state_is_of_no_use_without_the_milestones_up_to_its_own_step(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, every: int, resumed_after: int
) -> None:
    """Milestone 3 is gone: the states of steps 3 and 4 are of no use, the one of step 2 is."""
    training = config(checkpoint_every=every, log_every=1)
    whole = job(tmp_path / "whole", training)
    train(whole)
    with pytest.raises(Killed):
        train(job(tmp_path / "killed", training, kill_at=5))
    (tmp_path / "killed" / "resume" / "k" / "milestone_0000003.safetensors").unlink()
    resumed = job(tmp_path / "killed", training)
    with caplog.at_level("INFO"):
        train(resumed)
    assert "milestone_0000003.safetensors is missing" in caplog.text
    assert (f"resuming after step {resumed_after}" in caplog.text) == (resumed_after > 0)
    assert torch.equal(weights(whole), weights(resumed))
    assert whole.states.milestone(3).read_bytes() == resumed.states.milestone(3).read_bytes()


@pytest.mark.parametrize("accumulate", [2, 4])
def test_pieces_make_the_step_of_the_whole_batch(tmp_path: Path, accumulate: int) -> None:
    sgd: dict[str, Any] = {"optimizer": "sgd", "lr": 0.01, "clip_norm": 1.0}
    whole = job(tmp_path / "whole", config(**sgd))
    pieces = job(tmp_path / "pieces", config(**sgd, accumulate=accumulate))
    train(whole)
    train(pieces)
    torch.testing.assert_close(weights(whole), weights(pieces))
    for one, other in zip(whole.history, pieces.history, strict=True):
        assert one == pytest.approx(other, abs=2e-6)


@pytest.mark.parametrize("count", [1, 3])
def test_gradients_are_those_of_the_sum_over_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """DDP takes their mean over the processes, so each one's are multiplied by the number of processes."""
    one = job(tmp_path, config(accumulate=2))
    run, batch = _begin(one), next(iter(one.batches(0)))
    for piece in one.pieces(batch):
        piece.loss(one.model)["loss"].backward()
    expected = [p.grad * count for p in one.model.parameters() if p.grad is not None]
    one.model.zero_grad()
    monkeypatch.setattr("tasks.common.processes.count", lambda: count)
    monkeypatch.setattr("tasks.common.processes.add", lambda values: values)
    _backward(run, one.pieces(batch), FiniteGuard(one.device))
    torch.testing.assert_close([p.grad for p in one.model.parameters()], expected)


def test_a_loss_that_is_not_finite_reaches_no_weight(tmp_path: Path) -> None:
    one = job(tmp_path, config(), bad_at=0)
    before = weights(one)
    with pytest.raises(TaskError, match="step 1 "):
        train(one)
    assert torch.equal(before, weights(one))


def test_out_of_memory_names_the_settings(tmp_path: Path) -> None:
    one = job(tmp_path, config())

    def pieces(batch: Any) -> list[Piece]:
        torch.empty(2**60, dtype=torch.uint8)  # more than there is: the allocator itself says no
        raise AssertionError

    one.pieces = pieces
    with pytest.raises(TaskError) as error:
        train(one)
    text = str(error.value)
    assert "out of memory on cpu" in text and f"{2**60}" in text
    assert all(
        setting in text
        for setting in ("accumulate: 2", "precision: bf16", "batch_size: 2", "input.short_side")
    )


def test_out_of_memory_in_an_earlier_round_names_the_student_s_section(tmp_path: Path) -> None:
    with (
        pytest.raises(TaskError, match=r"^train_rounds: .* In student of params\.yaml"),
        explain_out_of_memory("train_rounds", config(), torch.device("cpu")),
    ):
        torch.empty(2**60, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "expected"),
    [(4, 1, 2), (4, 2, 4), (5, 2, 3), (5, 3, 5), (4, 4, None), (1, 1, None)],
)
def test_the_next_number_of_pieces(batch_size: int, accumulate: int, expected: int | None) -> None:
    assert next_accumulate(config(batch_size=batch_size, accumulate=accumulate)) == expected


@pytest.mark.parametrize(
    "change",
    [{"channels_last": True}, {"fused": True}, pytest.param({"compile": True}, marks=pytest.mark.slow)],
)
def test_what_is_for_speed_changes_rounding_alone(tmp_path: Path, change: dict[str, Any]) -> None:
    plain, fast = job(tmp_path / "plain", config()), job(tmp_path / "fast", config(**change))
    train(plain)
    train(fast)
    torch.testing.assert_close(weights(plain), weights(fast), rtol=1e-4, atol=1e-5)


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
    milestone = load_file(averaged.states.milestone(3))
    torch.testing.assert_close(
        torch.cat([milestone[name].flatten() for name, _ in averaged.model.named_parameters()]), third
    )
    assert not torch.allclose(weights(averaged), after)


def test_the_average_copies_buffers_and_leaves_frozen_weights() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[0].requires_grad_(False)
    average = WeightAverage(model, 0.5)
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


def test_state_of_another_job_is_not_resumed_and_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, other = job(tmp_path / "whole", config()), job(tmp_path / "other", config())
    train(whole)
    train(other)
    for key in ("oldest", "old"):
        with pytest.raises(Killed):
            train(job(tmp_path, config(), kill_at=8, key=key))
    with pytest.raises(Killed):
        train(job(tmp_path, config(), kill_at=2, key="new"))
    assert "starts over" in caplog.text
    assert sorted(path.name for path in (tmp_path / "resume").iterdir()) == ["old"]
    fresh = job(tmp_path, config(), key="new")
    train(fresh)
    assert torch.equal(weights(fresh), weights(other))
    caplog.clear()
    taken_back = job(tmp_path, config(), key="old")
    with caplog.at_level("INFO"):
        train(taken_back)
    assert "resuming after step 8" in caplog.text
    assert torch.equal(weights(taken_back), weights(whole))
    taken_back.states.clear()
    assert not (tmp_path / "resume").exists()


@pytest.mark.parametrize("clip_norm", [None, 1.0])
@pytest.mark.parametrize("lost_at", [2, 7, 11])
def test_a_gradient_that_is_not_finite_is_kept_nowhere(
    tmp_path: Path, lost_at: int, clip_norm: float | None
) -> None:
    """At a milestone's step, a state's and the last one."""
    training = config(clip_norm=clip_norm)
    with pytest.raises(TaskError, match=f"a gradient became NaN or infinite, at step {lost_at + 1}"):
        train(job(tmp_path / "lost", training, lost_at=lost_at))
    for path in (tmp_path / "lost").rglob("*.safetensors"):
        assert all(value.isfinite().all() for value in load_file(path).values())
    whole, again = job(tmp_path / "whole", training), job(tmp_path / "lost", training)
    train(whole)
    train(again)
    assert torch.equal(weights(whole), weights(again))


def test_a_loss_that_is_not_finite_names_step_and_images(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"step 6 .*loss_fit nan.*image ids 5, 77, 78, 79"):
        train(job(tmp_path, config(), bad_at=5))


def test_norms_and_biases_are_not_decayed(tmp_path: Path) -> None:
    groups = build_optimizer(job(tmp_path, config()).model, config()).param_groups
    assert [(len(group["params"]), group["weight_decay"]) for group in groups] == [(2, 0.1), (4, 0.0)]


def test_configs_share_the_training_keys(params_of: Callable[..., Any], recipe: dict[str, Any]) -> None:
    assert set(BASE) <= set(RefinerConfig.model_fields)
