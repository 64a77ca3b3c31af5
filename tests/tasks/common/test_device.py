from __future__ import annotations

import pytest
import torch

from tasks.common.config import RuntimeConfig
from tasks.common.device import resolve_device, set_up
from tasks.common.errors import TaskError


def test_auto() -> None:
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:99", ""])
def test_a_device_that_is_not_here(name: str) -> None:
    with pytest.raises(TaskError, match=r"runtime\.device"):
        resolve_device(name)


def test_set_up_seeds_and_sets_threads() -> None:
    before = torch.get_num_threads()
    try:
        runtime = RuntimeConfig(
            device="cpu",
            processes=1,
            launcher=None,
            ray=None,
            workers=0,
            cache_images=False,
            keep_checkpoints=1,
        )
        assert set_up(runtime, 1, 5) == torch.device("cpu")
        first = torch.rand(3)
        set_up(runtime, 1, 5)
        assert torch.equal(first, torch.rand(3))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(False)
