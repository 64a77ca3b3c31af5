"""Device, CPU threads, and the switches that make equal runs bit-identical."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from pathlib import Path

# cuBLAS needs this before CUDA starts to give the same sums in every run.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch

from tasks.common import processes
from tasks.common.config import RuntimeConfig
from tasks.common.errors import TaskError

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Of malloc.h."""


def resolve_device(name: str) -> torch.device:
    """`auto` is the GPU if there is one, else the CPU. Each process of a step has a GPU of its own.

    Raises:
        TaskError: torch has no such device or can't use it here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and processes.count() > 1:
        name = f"cuda:{processes.local_index()}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise TaskError(
            f"runtime.device: {name!r} can't be used here ({str(error).splitlines()[0]}); "
            "use auto, cpu, or a device that torch sees"
        ) from None
    return device


def set_up(runtime: RuntimeConfig, threads: int, seed: int | None = None) -> torch.device:
    """Seeds torch, selects deterministic kernels, sets the CPU threads, joins the other processes of the step, and
    returns the device."""
    torch.set_num_threads(threads)
    # A few CUDA kernels aren't deterministic; they warn instead of ending the run.
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Not with NaN, which would write every tensor twice.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    if seed is not None:
        torch.manual_seed(seed)
    device = resolve_device(runtime.device)
    if device.type == "cpu":
        _keep_freed_memory()
    processes.join()
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # else accelerate would put the model on the first one
    return device


def _keep_freed_memory() -> None:
    """Lets glibc use freed memory again, where it would return large blocks to the kernel, which clears them each time.

    Masks of an image are such blocks. Other C libraries don't have the call, or refuse it.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, -1)


def hardware(device: torch.device) -> str:
    """What rounding depends on: the GPU's name, or the processor's and the instruction set that torch uses."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    processor = platform.processor()
    with contextlib.suppress(OSError):
        facts = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
        processor = next((fact for fact in facts if fact.startswith("model name")), processor)
    return f"{device.type} {platform.machine()} {processor} {torch.backends.cpu.get_cpu_capability()}"
