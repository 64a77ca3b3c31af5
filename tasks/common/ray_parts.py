"""Parts of a step on the workers of a Ray cluster: `runtime.ray`, see docs/clusters.md.

The step itself makes the parts, sends each with all that it needs, and writes what comes back. Workers share no disk
with it. A part whose worker or node is lost is computed again; an error of our own ends the step, as without Ray.
"""

from __future__ import annotations

import logging
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from tasks.common import processes
from tasks.common.code_identity import code_digest
from tasks.common.config import Params
from tasks.common.device import hardware, set_up
from tasks.common.errors import TaskError

log = logging.getLogger(__name__)

LOST = 5
"""How often a part is computed again after its worker or node is lost."""
WAIT_S = 20.0
"""After so long without a result it is checked whether a node can run the parts."""
SILENT_S = 1800.0
"""After so long without a result there is a warning: Ray repeats parts that exceed a node's memory without end."""

State = TypeVar("State")
Part = TypeVar("Part")
Result = TypeVar("Result")
Tag = TypeVar("Tag")


@dataclass(frozen=True)
class Job(Generic[State, Part, Result]):
    """What workers do. Its functions are those of modules, since only their names are sent.

    Attributes:
        stage: its code must be the same on all nodes.
        load: called once in each worker process, with a folder that has the files.
        work: called for each part, with what `load` returned.
        files: local files by their names in the folder. They are sent to each node once.
        gpu: whether a part uses a GPU, if the cluster has any and `runtime.device` isn't cpu.
    """

    stage: str
    params: Params
    load: Callable[[Params, Path], State]
    work: Callable[[State, Part], Result]
    files: Mapping[str, Path] = field(default_factory=dict)
    gpu: bool = True


class _Shared(NamedTuple):
    """What all parts of a job need."""

    stage: str
    code: str
    params: Params
    files: dict[str, bytes]


def map_parts(
    job: Job[State, Part, Result], parts: Iterable[tuple[Tag, Part]]
) -> Iterator[tuple[Tag, Result]]:
    """The results of all parts with their tags, as they come. Tags aren't sent.

    `parts` is iterated as workers become free, so that few are in memory.

    Raises:
        TaskError: Ray isn't installed, the cluster can't be reached, a part was lost more than `LOST` times.
        Any error of `load` and `work`.
    """
    ray = _connected(job.params)
    files = {name: path.read_bytes() for name, path in job.files.items()}
    shared = ray.put(_Shared(job.stage, code_digest(job.stage), job.params, files))
    del files
    needs = _needs(job.params.threads, gpu=job.gpu and job.params.runtime.device != "cpu")
    run = ray.remote(_run).options(
        num_cpus=needs["CPU"], num_gpus=needs.get("GPU", 0), max_retries=LOST, scheduling_strategy="SPREAD"
    )
    rest = iter(parts)
    pending: dict[Any, Tag] = {}
    all_sent = warned = False
    last = time.monotonic()
    while True:
        slots = _slots(ray, needs)
        while not all_sent and len(pending) < slots + max(2, slots // 4):
            try:
                tag, part = next(rest)
            except StopIteration:
                all_sent = True
            else:
                pending[run.remote(shared.hex(), [shared], job.load, job.work, part)] = tag
                del part
        if not pending:
            return
        done, _ = ray.wait(list(pending), num_returns=1, timeout=WAIT_S)
        if done:
            last = time.monotonic()
            yield pending.pop(done[0]), _result(ray, done[0])
        elif not slots and not warned:
            warned = True
            log.warning("runtime.ray: waiting for a node with %s", _shown(needs))
        elif slots and time.monotonic() - last > SILENT_S:
            last = time.monotonic()
            log.warning(
                "runtime.ray: no part has ended for %d minutes; see `ray list tasks` and the workers' memory, which "
                "parts can exceed: lower pseudo.part_images or evaluate.part_images", SILENT_S / 60
            )  # fmt: skip


def worker_hardware(stage: str, params: Params) -> str:
    """`hardware` of one of the workers. Those of a cluster should be alike: others round differently."""
    [(_, found)] = map_parts(Job(stage, params, _no_state, _hardware), [(None, None)])
    return found


def _no_state(params: Params, folder: Path) -> Params:
    return params


def _hardware(params: Params, _: None) -> str:
    return hardware(set_up(params.runtime, params.threads))


def _connected(params: Params) -> Any:
    """The module `ray`, connected to the cluster; once per process."""
    address = params.runtime.ray
    try:
        import ray
    except ImportError:
        raise TaskError(
            f"runtime.ray: found {address}, but Ray isn't installed; run `pip install 'points2model[ray]'`, or set it "
            "to null"
        ) from None
    if processes.count() > 1:
        raise TaskError(
            f"runtime.ray: found {address} in one of {processes.count()} processes; start the step without torchrun"
        )
    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise _Away(
                f"runtime.ray: can't connect to the cluster at {address} ({first}); this machine must be one of its "
                f"nodes: run `ray start --address {address} --num-cpus 0` here, or set runtime.ray to null"
            ) from None
    return ray


class _Away(TaskError):
    passing = True


@cache
def _needs(threads: int, *, gpu: bool) -> dict[str, int]:
    """Resources of a part. Decided once in a process, since the first job determines under which hardware all rows are
    filed: a GPU node that joins later computes nothing in this run."""
    import ray

    needs = {"CPU": threads}
    if gpu and ray.cluster_resources().get("GPU", 0):
        needs["GPU"] = 1
    return needs


def _slots(ray: Any, needs: Mapping[str, int]) -> int:
    """How many parts the cluster's nodes can run at once."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(min(int(node.get(name, 0) // amount) for name, amount in needs.items()) for node in nodes)


def _shown(needs: Mapping[str, int]) -> str:
    return " and ".join(f"{amount} {name}" for name, amount in needs.items())


def _result(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise TaskError(
            f"runtime.ray: a part was lost {LOST + 1} times ({type(error).__name__}: {first}); workers may have too "
            "little memory. Run the step again to go on after the finished parts"
        ) from None


_loaded: dict[str, Any] = {}
"""In a worker process: the state of the last job."""


def _run(key: str, shared: list[Any], load: Callable[..., Any], work: Callable[..., Any], part: Any) -> Any:
    """In a worker: the result of a part. `shared` is in a list so that Ray fetches it only where it isn't loaded."""
    if key not in _loaded:
        import ray

        _loaded.clear()
        _loaded[key] = _load(ray.get(shared[0]), load)
    return work(_loaded[key], part)


def _load(shared: _Shared, load: Callable[[Params, Path], Any]) -> Any:
    if code_digest(shared.stage) != shared.code:
        raise TaskError(
            f"{socket.gethostname()}: another version of points2model than where the step was started; install the "
            "same one on all nodes of the Ray cluster"
        )
    with tempfile.TemporaryDirectory(prefix="points2model-") as folder:
        for name, content in shared.files.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return load(shared.params, Path(folder))
