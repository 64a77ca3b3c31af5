from __future__ import annotations

import math

import pytest
import torch

from tasks.training.finite_guard import FiniteGuard


@pytest.mark.parametrize("norm", [math.inf, math.nan])
def test_a_lost_gradient_is_known_steps_later(norm: float) -> None:
    """On a GPU, where the norms of some steps are looked at together."""
    guard = FiniteGuard(torch.device("cpu"))
    guard.watch_gradients(torch.tensor(1.0))
    assert not guard.gradient_is_lost(now=True)
    for value in (norm, 2.0, 3.0):
        guard.watch_gradients(torch.tensor(value))
    assert guard.gradient_is_lost(now=True)
