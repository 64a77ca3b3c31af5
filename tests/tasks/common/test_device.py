from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from tasks.common.config import RuntimeConfig
from tasks.common.device import resolve_device, set_up
from tasks.common.errors import TaskError
from tests.tasks.conftest import ROOT


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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_freed_memory_is_used_again() -> None:
    """A large block, freed and taken again, has its pages already."""
    code = """if True:
        import resource, torch
        from tasks.common.device import _keep_freed_memory
        _keep_freed_memory()
        def faults():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            torch.ones(50_000_000)
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        print(*[faults() for _ in range(8)])
    """
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    first, *later = map(int, found.stdout.split())
    # A small block may have been put where the large one was.
    assert first > 100 and min(later) < first / 10
