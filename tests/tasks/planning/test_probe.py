"""Which precision and number of threads a probe chooses, by steps of known length."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tasks.common.config import Params
from tasks.planning import probe
from tasks.planning.probe import Forecast, busy, fastest
from tests.tasks.planning.test_rules import CPU

MILLISECONDS = {("bf16", 1): 40, ("fp32", 1): 40, ("bf16", 2): 40, ("fp32", 2): 40}


@pytest.mark.parametrize(
    ("faster", "load", "expected"),
    [
        ({}, 0.0, ("fp32", 1)),
        ({("bf16", 1): 36}, 0.0, ("fp32", 1)),  # not worth it
        ({("bf16", 1): 20}, 0.0, ("bf16", 1)),
        ({("fp32", 2): 20}, 0.0, ("fp32", 2)),
        ({("bf16", 2): 10, ("fp32", 2): 20}, 0.0, ("bf16", 2)),
        ({("fp32", 2): 20}, 2.0, ("fp32", 1)),  # a busy machine
        ({("fp32", 2): 20}, 1.9, ("fp32", 2)),
    ],
)
def test_the_fastest(
    recipe: dict[str, Any], params_of: Callable[[dict[str, Any]], Params], monkeypatch: pytest.MonkeyPatch,
    faster: dict[tuple[str, int], int], load: float, expected: tuple[str, int],
) -> None:  # fmt: skip
    lengths = MILLISECONDS | faster

    def step_of(_: Any, __: Any, precision: str, ___: Any) -> Callable[[], None]:
        return lambda: time.sleep(lengths[precision, torch.get_num_threads()] / 1000)

    monkeypatch.setattr(probe, "_detector_step", step_of)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 9.0, 9.0))
    threads = torch.get_num_threads()
    assert fastest(params_of(recipe), None, CPU) == expected  # type: ignore[arg-type]
    assert torch.get_num_threads() == threads
    assert bool(busy(CPU)) == (load >= 2)


def test_trainings_whose_steps_are_a_persons_keep_their_time() -> None:
    usual = Forecast(100.0, 50.0, 7.0, 200.0, 3.0)
    assert usual.scaled(0.5, ["teacher", "student"]) == Forecast(50.0, 50.0, 7.0, 100.0, 3.0)
