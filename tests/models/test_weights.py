"""The rule for weights by itself; the ways in are in tests/attacks/test_checkpoints.py."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from models.weights import MAX_WEIGHTS, SHOWN, WeightsError, fault_of, listed, misfits, shapes_of

LARGE = torch.full((4,), 3e38)
"""Finite, and their sum isn't."""


@pytest.mark.parametrize(
    ("name", "tensor", "fault"),
    [
        ("a.weight", LARGE, None),
        ("a.weight", torch.full((4,), 6e4, dtype=torch.float16), None),
        ("a.weight", torch.zeros(0), None),
        ("a.running_var", torch.zeros(3), None),
        ("a.running_mean", torch.tensor([-1.0]), None),
        ("a.num_batches_tracked", torch.tensor(3), None),
        ("a.num_batches_tracked", torch.tensor(True), "type bool, expected int64"),
        (
            "a.weight",
            torch.tensor([[1.0, 2.0], [3.0, torch.nan]]),
            r"found nan at \[1, 1\] \(1 of 4 values\)",
        ),
        ("a.weight", torch.tensor([torch.inf, -torch.inf]), r"found inf at \[0\] \(2 of 2"),
        ("a.weight", torch.tensor([4e38], dtype=torch.float64), r"found 4e\+38 at \[0\]"),
        ("a.running_var", torch.tensor([1.0, -1e-30]), r"found -1e-30 at \[1\] \(1 of 2"),
        ("a.weight", torch.ones(2, dtype=torch.uint8), "type uint8, expected float32"),
    ],
)
def test_what_a_network_can_work_with(name: str, tensor: Tensor, fault: str | None) -> None:
    before = tensor.clone()
    found = fault_of(name, tensor)
    if fault is None:
        assert found is None
    else:
        assert found is not None
        assert re.search(fault, found)
    assert torch.equal(tensor.nan_to_num(), before.nan_to_num())


def test_all_misfits_are_named_and_so_many_shown() -> None:
    shapes = {"a": torch.Size([2]), "b": torch.Size([2]), "c": torch.Size([])}
    found = {"a": torch.ones(3), "b": torch.tensor([1.0, torch.nan]), "d": torch.ones(1)}
    assert misfits(found, shapes) == [
        "c: missing; expected []",
        "d: not in this network",
        "a: found shape [3], expected [2]",
        "b: found nan at [1] (1 of 2 values), expected finite numbers",
    ]
    assert misfits({"a": torch.ones(2)}, {"a": torch.Size([2])}) == []
    assert listed(["x"] * SHOWN).count("x") == SHOWN
    assert listed(["x"] * (SHOWN + 3)).endswith("- and 3 more")


def test_a_network_s_shapes_take_no_memory_and_have_a_limit() -> None:
    side = 2**14
    assert (
        shapes_of(lambda: nn.Linear(side, MAX_WEIGHTS // side, bias=False))["weight"].numel() == MAX_WEIGHTS
    )
    with pytest.raises(WeightsError, match=f"a network of {MAX_WEIGHTS + side} weights"):
        shapes_of(lambda: nn.Linear(side, MAX_WEIGHTS // side + 1, bias=False))


def test_asking_for_shapes_draws_nothing() -> None:
    before = torch.get_rng_state()
    shapes_of(lambda: nn.Conv2d(3, 4, 3))
    assert torch.equal(torch.get_rng_state(), before)
