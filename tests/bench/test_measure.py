"""What the benches' figures are made of."""

from __future__ import annotations

import json

import pytest
import torch

from bench.measure import Peak, Work, facts_of, in_turns, machine, peak_of, show, work_of

CPU = torch.device("cpu")
FLOAT = 4


def test_runs_take_turns_after_a_warm_up() -> None:
    calls: list[str] = []
    times = in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, CPU, repeats=2)
    assert calls == ["a", "b", "a", "b", "a", "b"]
    assert times.keys() == {"a", "b"} and all(value >= 0 for value in times.values())


A, B, M = torch.rand(8, 16), torch.rand(16, 4), torch.rand(100, 10)
IMAGE, KERNEL = torch.rand(1, 3, 8, 8), torch.rand(5, 3, 3, 3)


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (lambda: A @ B, Work(2 * 8 * 16 * 4, FLOAT * (8 * 16 + 16 * 4 + 8 * 4))),
        (lambda: A + 1, Work(0, FLOAT * 2 * 8 * 16)),
        (lambda: A.T.reshape(16, 8)[2:], Work(0, 0)),
        (lambda: M[torch.tensor([3, 4])], Work(0, FLOAT * 2 * 20 + 8 * 2)),
        (
            lambda: torch.nn.functional.conv2d(IMAGE, KERNEL),
            Work(2 * 5 * 36 * 27, FLOAT * (3 * 64 + 5 * 27 + 5 * 36)),
        ),
    ],
    ids=["product", "sum", "view", "gather", "convolution"],
)
def test_work_is_what_arithmetic_says(run, expected: Work) -> None:
    assert work_of(run) == expected


@pytest.mark.parametrize(
    "run",
    [
        lambda: torch.nn.functional.interpolate(IMAGE, scale_factor=2.0, mode="bilinear"),
        lambda: torch.nn.functional.group_norm(IMAGE, 3),
        lambda: torch.nn.functional.conv2d(IMAGE, KERNEL),
        lambda: A @ B,
    ],
)
def test_work_is_the_same_in_inference_mode(run) -> None:
    with torch.inference_mode():
        inferring = work_of(run)
    assert inferring == work_of(run)


def test_work_is_seen_in_inference_mode() -> None:
    @torch.inference_mode()
    def run() -> object:
        return torch.nn.functional.linear(A, B.T)

    assert work_of(run).flops == 2 * 8 * 16 * 4
    assert work_of(run).bytes >= FLOAT * (8 * 16 + 16 * 4 + 8 * 4)


def test_shares_of_the_peak() -> None:
    facts = facts_of(2.0, Work(4_000_000_000, 1_000_000_000), Peak(10e9, 5e9))
    assert facts == {
        "seconds": 2.0,
        "gflop": 4.0,
        "gbyte": 1.0,
        "percent_of_matmul": 20.0,
        "percent_of_copy": 10.0,
    }
    assert facts_of(2.0, None, None) == {"seconds": 2.0}


def test_the_peak_is_no_dream() -> None:
    peak = peak_of(CPU, repeats=1)
    assert 1e8 < peak.flops < 1e14
    assert 1e7 < peak.bytes < 1e13


def test_rows_are_shown_and_written(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"what": "a", "seconds": 0.123456}, {"what": "b", "ratio": 1234.5}]
    show("Speed", rows, machine(CPU), as_json=True)
    shown = capsys.readouterr()
    told = json.loads(shown.out)
    assert told["rows"] == rows and told["machine"]["threads"] == torch.get_num_threads()
    assert "0.123" in shown.err and "1,234" in shown.err
