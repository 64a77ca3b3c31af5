"""The processes of one step, on one machine or several: started by torchrun or `accelerate launch`, or by the step
itself (`runtime.processes`).

Rank and number of processes are torchrun's variables RANK, WORLD_SIZE and LOCAL_RANK. Without all three there is one
process, and the functions here do nothing. Reading them doesn't import torch.
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
"""How long a process waits for the others: long, since parts may differ by hours. If a process dies, torchrun ends all
of them."""


def started() -> bool:
    """Whether torchrun started this process. Clusters set WORLD_SIZE alone, to the number of machines."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))


def index() -> int:
    """Rank of this process, over all machines; 0 writes outputs and logs."""
    return int(os.environ["RANK"]) if started() else 0


def count() -> int:
    """Number of processes of the step, over all machines."""
    return int(os.environ["WORLD_SIZE"]) if started() else 1


def local_index() -> int:
    """Rank of this process on its machine: the number of its GPU."""
    return int(os.environ["LOCAL_RANK"]) if started() else 0


def is_first() -> bool:
    return index() == 0


def start(processes: int, module: str, arguments: list[str], threads: int) -> None:
    """Replaces this process by torchrun with `processes` processes of `python -m module arguments`.

    Returns if there is nothing to start: one process is enough, or torchrun started this one."""
    if processes == 1 or started():
        return
    # By its path, since a step may run in another folder; -P keeps its folder off the search path.
    launcher = str(Path(__file__).with_name("launch.py"))
    command = [sys.executable, "-P", launcher, "--standalone", f"--nproc-per-node={processes}"]
    # torchrun would set one thread, with a long warning.
    environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
    sys.stdout.flush()
    sys.stderr.flush()
    # exec keeps the process id, so that a signal to this step reaches torchrun.
    os.execve(command[0], [*command, "-m", module, *arguments], environment)  # noqa: S606 (no shell is right)


def join() -> None:
    """Joins the other processes of the step; once, before `barrier` and `gather`. Does nothing for a single process.

    Tensors on GPUs are sent by NCCL, all else by Gloo.
    """
    if count() == 1:
        return
    from torch import cuda, distributed

    if not distributed.is_initialized():
        die_with_parent()
        distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda.is_available() else "gloo", timeout=WAIT)


def leave() -> None:
    """Undoes `join`; does nothing if it wasn't called."""
    torch = sys.modules.get("torch")
    if count() > 1 and torch is not None and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def lost_another(error: RuntimeError) -> bool:
    """Whether the error's only cause is that another process of the step has ended."""
    if count() == 1:
        return False
    from torch.distributed import DistError

    return isinstance(error, DistError) or "gloo" in str(error)


def barrier() -> None:
    """Waits for all processes."""
    gather(None)


def gather(value: Value) -> list[Value]:
    """The values of all processes, in the order of their ranks. Pickled: for small values.

    All processes must call it equally often.
    """
    if count() == 1:
        return [value]
    from torch import distributed

    values: list[Value | None] = [None] * count()
    distributed.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def place(size: int) -> tuple[int, int]:
    """Of items that are split across processes, `size` in this one: the offset of its items, and their total number."""
    sizes = gather(size)
    return sum(sizes[: index()]), sum(sizes)


def add(values: Tensor) -> Tensor:
    """The sum over all processes; `values` itself for a single one. On a GPU it doesn't block."""
    if count() == 1:
        return values
    from torch import distributed

    total = values.clone()
    distributed.all_reduce(total)
    return total


@contextlib.contextmanager
def first_alone() -> Iterator[bool]:
    """True in the first process, for work that only one may do (writing outputs); the others wait at the end.

    An error in the first one is raised there only: torchrun then ends the others.
    """
    yield is_first()
    barrier()


def die_with_parent() -> None:
    """On Linux this process is killed when its parent dies, dvc or torchrun.

    torchrun gives each process a session of its own, so killing the step's process group would leave them running,
    and writing the files of the next run."""
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, signal.SIGKILL)
