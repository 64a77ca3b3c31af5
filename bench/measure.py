"""What benches share: times in turns, the work of a piece of code, the machine's measured peak, table and JSON.

On the CPU a time is seconds of CPU of this process, all threads, so that other jobs on the machine count little; on
CUDA it is seconds of the clock between two synchronisations.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

Run = Callable[[], object]


def seconds(run: Run, device: torch.device) -> float:
    """Of one call (see above)."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        begin = time.perf_counter()
        run()
        torch.cuda.synchronize(device)
        return time.perf_counter() - begin
    begin = time.process_time()
    run()
    return time.process_time() - begin


def in_turns(
    runs: Mapping[str, Run], device: torch.device, repeats: int, warm_up: int = 1
) -> dict[str, float]:
    """Median seconds of each run: one after the other, `repeats` times, so that a busy machine slows all alike."""
    for run in runs.values():
        for _ in range(warm_up):
            run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            times[name].append(seconds(run, device))
    return {name: statistics.median(values) for name, values in times.items()}


class Work(NamedTuple):
    """What a piece of code does on tensors; NumPy and pycocotools are not seen."""

    flops: int
    """of matrix products, convolutions and attention, a multiplication and an addition being two"""
    bytes: int
    """that its operations read and write, each as if nothing stayed in a cache"""

    def plus(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.bytes + other.bytes)

    def times(self, count: int) -> Work:
        return Work(self.flops * count, self.bytes * count)


class _Bytes(TorchDispatchMode):
    """Adds up the sizes of what operations take and give."""

    GATHERS = frozenset({"index", "index_select", "gather", "embedding", "roi_align"})
    """These read of their source about as much as they give."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        composite = torch._C.DispatchKey.CompositeImplicitAutograd
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), composite):
            with self:  # under inference_mode: its parts count
                return func._op_dk(composite, *args, **kwargs)
        result = func(*args, **kwargs)
        given = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if func.is_view or func._schema.name.split("::")[1] in ("empty", "detach", "empty_strided"):
            return result
        taken = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if func._schema.name.split("::")[1] in self.GATHERS and taken:
            taken = [*taken[1:], *given]
        self.total += sum(tensor.numel() * tensor.element_size() for tensor in [*taken, *given])
        return result


@torch.no_grad()
def work_of(run: Run) -> Work:
    """Counted over one call, without gradients."""
    with FlopCounterMode(display=False) as flops:
        run()
    with _Bytes() as counted:
        run()
    return Work(flops.get_total_flops(), counted.total)


class Peak(NamedTuple):
    """What this machine reaches with this device, threads and precision."""

    flops: float
    """a second, of a big square matrix product"""
    bytes: float
    """a second, read and written, of a big copy"""


@torch.no_grad()
def peak_of(device: torch.device, dtype: torch.dtype = torch.float32, repeats: int = 3) -> Peak:
    """The best of some runs, in the type that the work is done in; taken in the run whose times are held against it.

    On a GPU float32 products round as convolutions do there (TF32, unless told otherwise).
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    side, length = (8192, 1 << 28) if device.type == "cuda" else (1024, 1 << 26)
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    source = torch.randn(length, device=device)
    target = torch.empty_like(source)
    product, copy = (lambda: a @ b), (lambda: target.copy_(source))
    product(), copy()
    return Peak(
        2 * side**3 / min(seconds(product, device) for _ in range(repeats)),
        2 * source.numel() * source.element_size() / min(seconds(copy, device) for _ in range(repeats)),
    )


def facts_of(run_seconds: float, work: Work | None, peak: Peak | None) -> dict[str, float]:
    """`seconds`; with work and peak also `gflop`, `gbyte` and their shares of the peak a second, in percent."""
    facts = {"seconds": run_seconds}
    if work is not None:
        facts |= {"gflop": work.flops / 1e9, "gbyte": work.bytes / 1e9}
    if work is not None and peak is not None:
        facts["percent_of_matmul"] = 100 * work.flops / run_seconds / peak.flops
        facts["percent_of_copy"] = 100 * work.bytes / run_seconds / peak.bytes
    return facts


def machine(device: torch.device, peak: Peak | None = None) -> dict[str, Any]:
    """Date, device, threads, torch's version, and the measured peak: what a figure must be read with."""
    facts: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    if peak is not None:
        facts |= {"peak_gflop_s": peak.flops / 1e9, "peak_gbyte_s": peak.bytes / 1e9}
    return facts


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def parser(description: str | None, repeats: int) -> argparse.ArgumentParser:
    """With --device, --threads, --repeats and --json, which all benches of speed have."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu, cuda")
    made.add_argument("--threads", type=int, default=1, help="of the CPU")
    made.add_argument("--repeats", type=int, default=repeats, help="of which the medians are taken")
    made.add_argument("--json", action="store_true", help="print JSON on stdout beside the table on stderr")
    return made


def show(title: str, rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any], *, as_json: bool) -> None:
    """A table with a column for each key of the rows, on stderr; with `as_json` all of it on stdout too."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    about = ", ".join(f"{key} {_written(value)}" for key, value in facts.items())
    table = Table(*(column.replace("_", " ") for column in columns), title=title, caption=about)
    for row in rows:
        table.add_row(*(_written(row.get(column)) for column in columns))
    Console(stderr=True, width=160).print(table)
    if as_json:
        json.dump({"title": title, "machine": dict(facts), "rows": [dict(row) for row in rows]}, sys.stdout)
        print()


def _written(value: Any) -> str:
    """Numbers to three figures."""
    if value is None:
        return ""
    if not isinstance(value, float) or not math.isfinite(value) or value == 0:
        return str(value)
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"
