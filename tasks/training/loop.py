"""The training loop of teacher, refiner and student.

It counts steps, not epochs. The batch of a step, its augmentation and the learning rate are functions of (seed, step),
so a run that is killed and resumed ends bit-identical to an undisturbed one on the same device.

A step's batch is split across ranks (processes), and on each rank into pieces (micro-batches) whose gradients are
accumulated. Random draws and the loss's divisors are those of the whole step, so the numbers of ranks and of pieces
change results by rounding only.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, GradientAccumulationPlugin
from safetensors.torch import save_file
from torch import Tensor, nn

from data.storage import atomic_write
from models.backbones.sync_norm import sync_batch_norms
from models.weights import WeightsError, listed, misfits, read_safetensors
from tasks.common import processes, tracking
from tasks.common.config import TrainConfig
from tasks.common.errors import TaskError
from tasks.common.progress import Bar
from tasks.training.finite_guard import FiniteGuard
from tasks.training.optimization import WeightAverage, build_optimizer, learning_rate
from tasks.training.out_of_memory import explain_out_of_memory
from tasks.training.resume import States
from tasks.training.speed import Speed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Piece:
    """The part of a step's batch that one forward pass processes.

    `loss(model)` returns the loss ("loss", which is minimised) and its parts, by name. Summed over all pieces of all
    processes, they are those of the step's whole batch.
    """

    loss: Callable[[nn.Module], dict[str, Tensor]]
    image_ids: Sequence[int]
    """For error messages."""


Pieces = Callable[[Any], Sequence[Piece]]
"""Returns a batch's pieces: at least one, and the same number in all processes."""
Batches = Callable[[int], Iterable[Any]]
"""Returns the batches of the given step and all later ones."""


@dataclass
class Job:
    """One training: network, data, settings, and the folder of its states.

    `key` identifies all that the run depends on; only states of the same key are resumed. The last `keep_checkpoints`
    states are kept.
    """

    name: str
    model: nn.Module
    pieces: Pieces
    batches: Batches
    config: TrainConfig
    device: torch.device
    run_folder: Path
    key: str
    keep_checkpoints: int
    milestones: tuple[int, ...] = ()
    pieces_use_model: bool = False
    """Pieces depend on `model` as the step before leaves it, so none are made before that step has ended."""
    history: list[dict[str, float]] = field(default_factory=list)

    @cached_property
    def states(self) -> States:
        """The states from which the run can be resumed, and its milestones."""
        return States(self.name, self.run_folder / "resume", self.key, self.keep_checkpoints, self.milestones)


def train(job: Job) -> None:
    """Trains `job.model` in place to the last step and fills `job.history`, one row every `log_every` steps.

    With `ema` the model ends with the average of its weights over the steps. The weights (or their average) of each
    milestone are in `job.states.milestone(step)`. States are saved in `job.run_folder`/resume, and loaded when the same
    job runs again; `job.states.clear` removes them.

    All processes end with the same weights, except for the average, which only the first one has.

    Raises:
        TaskError: the loss became NaN or infinite (names the step, the parts of the loss and the images), or memory
            ran out (names the settings to change).
    """
    with explain_out_of_memory(job.name, job.config, job.device):
        _train(job)


@dataclass
class _Run:
    """The objects of a running job."""

    accelerator: Accelerator
    model: nn.Module
    """job.model, wrapped by accelerate"""
    optimizer: Any
    average: WeightAverage | None
    first: int
    """the first step to run"""


def _begin(job: Job) -> _Run:
    """Prepares network and optimiser, and loads the newest state of an interrupted run."""
    config = job.config
    accelerator = _accelerator(config, job.device)
    job.model.to(job.device).train()
    if config.channels_last:
        job.model.to(memory_format=torch.channels_last)
    sync_batch_norms(job.model, job.device)
    optimizer = build_optimizer(job.model, config)
    average = None
    if config.ema is not None and processes.is_first():
        average = WeightAverage(job.model, config.ema)
    first, state = job.states.load()
    if state is not None:
        job.model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        if average is not None:
            average.load_state_dict(state["average"])
        if accelerator.scaler is not None:
            accelerator.scaler.load_state_dict(state["scaler"])
        job.history[:] = state["history"]
    model, optimizer = accelerator.prepare(job.model, optimizer)
    return _Run(accelerator, model, optimizer, average, first)


def _train(job: Job) -> None:
    config, run = job.config, _begin(job)
    guard, speed = FiniteGuard(job.device), Speed(job.run_folder, job.device, config.batch_size)
    sums: dict[str, Tensor] = {}
    with Bar(job.name, config.steps, "step", done=run.first) as bar:
        batches = speed.waits(job.batches(run.first))
        for step, pieces in enumerate(_one_ahead(job, batches), start=run.first):
            parts = _backward(run, pieces, guard)
            faults = guard.fault()
            if faults is not None:
                raise _not_finite(job, step, faults, pieces)
            _update(job, run, step, guard)
            if guard.gradient_is_lost(now=_save_due(job, step + 1)):
                raise _gradient_lost(job, step)
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + value
            done = step + 1
            status = ""
            if done % config.log_every == 0 or done == config.steps:
                row = _means(sums, (done - 1) % config.log_every + 1)
                job.history.append({"step": done, **row, "lr": learning_rate(config, step)})
                tracking.log(job.run_folder, job.key, job.history[-1], config.batch_size)
                status, sums = f"loss {row['loss']:.3f}, {speed.window()}", {}
            _save(job, run, done)
            bar.advance(facts=status)
    speed.write()
    if run.average is not None:
        job.model.load_state_dict(run.average.module.state_dict())
    # Removes accelerate's autocast: inference and checkpoints are without it.
    run.accelerator.unwrap_model(run.model, keep_fp32_wrapper=False, keep_torch_compile=False)
    job.model.to(memory_format=torch.contiguous_format).eval()


def _one_ahead(job: Job, batches: Iterable[Any]) -> Iterator[Sequence[Piece]]:
    """The pieces of each batch, made while a GPU computes the step before, on a stream of their own.

    The number of objects and cells in a batch decides the shapes of its targets, so the host waits for them to be
    counted. On this stream it doesn't wait for the step. The same happens, in the same order, on a CPU.
    """
    source, device = iter(batches), job.device
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    if stream is not None:
        stream.wait_stream(torch.cuda.current_stream(device))  # for networks that pieces use

    def following() -> Sequence[Piece] | None:
        batch = next(source, None)
        if stream is not None and job.pieces_use_model:
            stream.wait_stream(torch.cuda.current_stream(device))
        with contextlib.nullcontext() if stream is None else torch.cuda.stream(stream):
            return None if batch is None else job.pieces(batch)

    current = following()
    while current is not None:
        if stream is not None:
            torch.cuda.current_stream(device).wait_stream(stream)
        yield current
        # `current` is referred to until the next pieces are made: its memory is used again on their stream. Those
        # before it are free, as the guard has waited for the losses of `current`, and so for the steps before.
        current = following()


def _accelerator(config: TrainConfig, device: torch.device) -> Accelerator:
    """accelerate for this device, precision and processes; the settings of `accelerate launch` are overridden."""
    # accelerate keeps the precision for the whole process, in which a stage of another precision may have run.
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision={"fp32": "no"}.get(config.precision, config.precision),
        dynamo_backend="inductor" if config.compile else "no",
        # accelerate would divide the loss by the number of pieces; ours is a sum over them.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
    )
    known = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
    if accelerator.distributed_type not in known:
        raise TaskError(
            f"accelerate launch: found {accelerator.distributed_type.value}, expected plain data parallel training "
            "(MULTI_GPU or MULTI_CPU); say so in `accelerate config`, or use torchrun"
        )
    return accelerator


def _backward(run: _Run, pieces: Sequence[Piece], guard: FiniteGuard) -> dict[str, Tensor]:
    """Accumulates the gradients of all pieces over all processes; returns this process's part of the losses."""
    found: list[dict[str, Tensor]] = []
    for piece in pieces:
        last = len(found) == len(pieces) - 1
        with contextlib.nullcontext() if last else run.accelerator.no_sync(run.model):
            with run.accelerator.autocast():
                parts = piece.loss(run.model)
            found.append({name: value.detach() for name, value in parts.items()})
            if last:
                guard.watch(found)
            # DDP averages gradients over the processes; the loss is a sum over them.
            loss = parts["loss"] * processes.count() if processes.count() > 1 else parts["loss"]
            run.accelerator.backward(loss)
    total = found[0]
    for other in found[1:]:
        total = {name: value + other[name] for name, value in total.items()}
    return total


def _update(job: Job, run: _Run, step: int, guard: FiniteGuard) -> None:
    """Clips gradients, updates the weights and their average."""
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(job.config, step) * group.get("factor", 1.0)
    if job.config.clip_norm is not None:
        norm = run.accelerator.clip_grad_norm_(run.model.parameters(), job.config.clip_norm)
    else:
        norm = nn.utils.get_total_norm([p.grad for p in run.model.parameters() if p.grad is not None])
    if run.accelerator.scaler is None:  # a scaler skips such a step and lowers its scale
        guard.watch_gradients(norm)
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    if run.average is not None:
        run.average.update_parameters(job.model)


def _means(sums: dict[str, Tensor], steps: int) -> dict[str, float]:
    """The losses' means over the steps, summed over all processes."""
    totals = processes.add(torch.stack(list(sums.values()))).tolist()
    return {name: round(value / steps, 6) for name, value in zip(sums, totals, strict=True)}


def read_milestone(job: Job, step: int) -> dict[str, Tensor]:
    """The weights of the milestone `step`.

    Raises:
        TaskError: the file was changed since it was written.
    """
    path = job.states.milestone(step)
    try:
        state = read_safetensors(path)
        faults = misfits(state, {key: value.shape for key, value in job.model.state_dict().items()})
    except (WeightsError, FileNotFoundError) as error:
        faults = [str(error)]
    if faults:
        raise TaskError(
            f"{path}: damaged since it was written:\n{listed(faults)}\nRemove {job.states.root} and train again"
        )
    return state


def write_history(job: Job, path: Path) -> None:
    """log.jsonl: one JSON object per line with `step`, the mean loss and its parts since the last line, and `lr`."""
    with atomic_write(path) as temporary:
        Path(temporary).write_text("".join(json.dumps(row) + "\n" for row in job.history), encoding="utf-8")


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}


def _checkpoint_due(job: Job, done: int) -> bool:
    """Whether a state is saved after `done` steps."""
    return done % job.config.checkpoint_every == 0 and done < job.config.steps


def _save_due(job: Job, done: int) -> bool:
    """Whether weights are saved after `done` steps: a state, a milestone, or the final weights."""
    return _checkpoint_due(job, done) or done in job.milestones or done == job.config.steps


def _save(job: Job, run: _Run, done: int) -> None:
    """Saves a milestone and a state, if they are due after `done` steps."""
    average, scaler = run.average, run.accelerator.scaler
    if not _save_due(job, done):
        return
    if done in job.milestones and processes.is_first():
        with atomic_write(job.states.milestone(done)) as path:
            save_file(_weights(average.module if average is not None else job.model), path)
    if not _checkpoint_due(job, done):
        return
    state = {
        "model": job.model.state_dict(),
        "average": average.state_dict() if average is not None else None,
        "optimizer": run.optimizer.state_dict(),
        "history": job.history,
        "scaler": scaler.state_dict() if scaler is not None else None,  # fp16 only
    }
    job.states.save(done, state)


def _not_finite(job: Job, step: int, faults: Sequence[str | None], pieces: Sequence[Piece]) -> TaskError:
    """The error for a loss that isn't finite, with the faults of all processes. Only the first one returns."""
    local_faults = [
        (fault, piece.image_ids) for fault, piece in zip(faults, pieces, strict=True) if fault is not None
    ]
    all_faults = [one for some in processes.gather(local_faults) for one in some]
    if not processes.is_first():
        sys.exit(0)  # the first process raises the error
    shown = "; ".join(f"{fault}; image ids {', '.join(map(str, ids))}" for fault, ids in all_faults)
    return TaskError(f"{job.name}: the loss is not finite at step {step + 1} ({shown}). {_remedies(job)}")


def _gradient_lost(job: Job, step: int) -> TaskError:
    return TaskError(
        f"{job.name}: a gradient became NaN or infinite, at step {step + 1} or some steps before, though the loss is "
        f"finite; no state was saved since. {_remedies(job)}"
    )


def _remedies(job: Job) -> str:
    """The settings to change. A changed one restarts the training, since the steps so far depend on it."""
    return (
        f"Lower lr ({job.config.lr:g}), lengthen warmup_steps ({job.config.warmup_steps}), set clip_norm, or use "
        "precision: fp32. With a change the training starts over, without one it resumes from the last state."
    )
