"""Processes that share one step, on one machine or several: those that torchrun or `accelerate launch` started, or
that the step started itself (`runtime.processes`).

A process knows its place by torchrun's variables RANK, WORLD_SIZE and LOCAL_RANK. Without all three it is alone, and
nothing here costs anything. Reading them needs no torch, so that a step can ask before it imports it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

Value = TypeVar("Value")

WAIT = timedelta(days=2)
"""How long a process waits for the others. Long, since shards may differ by hours; torchrun itself ends all processes
when one dies."""


def started() -> bool:
    """Whether torchrun started this process. Clusters set WORLD_SIZE, and mean machines."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))


def index() -> int:
    """This process among those of the step, over all machines: 0 is the one that writes and speaks."""
    return int(os.environ["RANK"]) if started() else 0


def count() -> int:
    """Processes of the step, over all machines."""
    return int(os.environ["WORLD_SIZE"]) if started() else 1


def local_index() -> int:
    """This process among those on this machine: the number of its GPU."""
    return int(os.environ["LOCAL_RANK"]) if started() else 0


def is_first() -> bool:
    return index() == 0


def start(processes: int, module: str, arguments: list[str], threads: int) -> None:
    """Becomes torchrun with `processes` processes of `python -m module arguments`; returns where there is nothing to
    start: one is enough, or torchrun started us already.
    """
    if processes == 1 or started():
        return
    # By its path, since a step may run in another folder; -P keeps its folder off the search path.
    launcher = str(Path(__file__).with_name("launch.py"))
    command = [sys.executable, "-P", launcher, "--standalone", f"--nproc-per-node={processes}"]
    # torchrun would set one thread, and say so at length.
    environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
    sys.stdout.flush()
    sys.stderr.flush()
    # The same process number: who stops or kills this step reaches torchrun.
    os.execve(command[0], [*command, "-m", module, *arguments], environment)  # noqa: S606 (no shell is right)


def join() -> None:
    """Meets the other processes of the step; needed once, before `barrier` and `gather`. Nothing where we are alone.

    Tensors on GPUs go by NCCL, all else by Gloo.
    """
    if count() == 1:
        return
    from torch import cuda, distributed

    if not distributed.is_initialized():
        die_with_parent()
        distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda.is_available() else "gloo", timeout=WAIT)


def leave() -> None:
    """The end of `join`; nothing where it wasn't called."""
    torch = sys.modules.get("torch")
    if count() > 1 and torch is not None and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def lost_another(error: RuntimeError) -> bool:
    """Whether this error only says that another process of the step has ended."""
    if count() == 1:
        return False
    from torch.distributed import DistError

    return isinstance(error, DistError) or "gloo" in str(error)


def barrier() -> None:
    """Waits until all processes are here."""
    gather(None)


def gather(value: Value) -> list[Value]:
    """What each process has, in the order of `index`; the same list in all. Pickled: for small things.

    The processes must call it equally often.
    """
    if count() == 1:
        return [value]
    from torch import distributed

    values: list[Value | None] = [None] * count()
    distributed.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def place(size: int) -> tuple[int, int]:
    """Where this process's `size` things lie among those of all: how many come before them, and how many there are."""
    sizes = gather(size)
    return sum(sizes[: index()]), sum(sizes)


def add(values: Tensor) -> Tensor:
    """The sum of what the processes have; `values` itself where we are alone. On a GPU nothing waits for it."""
    if count() == 1:
        return values
    from torch import distributed

    total = values.clone()
    distributed.all_reduce(total)
    return total


@contextlib.contextmanager
def first_alone() -> Iterator[bool]:
    """True in the first process, for what one alone may do (writing outputs); the others wait until it is done.

    An error in the first one is raised there only: torchrun then ends the others.
    """
    yield is_first()
    barrier()


def die_with_parent() -> None:
    """Linux: killed when the parent is, dvc or torchrun. The latter gives each process a session of its own, so that
    killing the step's process group leaves them running, at work on files that the next run writes."""
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, signal.SIGKILL)
