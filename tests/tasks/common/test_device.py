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
def test_freed_memory_stays_with_the_process() -> None:
    """By glibc's own counts (mallinfo2): a large block isn't mapped by itself, and freed memory isn't given back."""
    code = """if True:
        import ctypes
        from tasks.common.config import RuntimeConfig
        from tasks.common.device import set_up
        library = ctypes.CDLL(None)
        class Counts(ctypes.Structure):
            _fields_ = [(name, ctypes.c_size_t) for name in (
                "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks",
                "keepcost",
            )]
        library.mallinfo2.restype = Counts
        library.malloc.restype = ctypes.c_void_p
        library.free.argtypes = [ctypes.c_void_p]
        def freed():
            before = library.mallinfo2()
            block = library.malloc(ctypes.c_size_t(200_000_000))
            with_block = library.mallinfo2()
            library.free(block)
            after = library.mallinfo2()
            return with_block.hblks - before.hblks, after.arena - before.arena
        print(*freed())
        set_up(RuntimeConfig(device="cpu", processes=1, launcher=None, ray=None, workers=0, cache_images=False,
                             keep_checkpoints=1), 1)
        print(*freed())
    """
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    (mapped, _), (mapped_after, kept) = (map(int, line.split()) for line in found.stdout.splitlines())
    assert mapped == 1  # as glibc is
    assert mapped_after == 0 and kept >= 150_000_000
