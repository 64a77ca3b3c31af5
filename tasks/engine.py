"""The training loop that teacher, refiner and student share.

It counts steps, not epochs. Everything a step needs is a function of (seed, step): the batch, its augmentation
and the learning rate; so weights, their average, optimiser and the step number are all there is to resume from, and
a resumed run ends bit-identical to an undisturbed one on the same device.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from data.storage import atomic_write
from tasks.config import TrainConfig
from tasks.errors import TaskError
from tasks.progress import Bar

log = logging.getLogger(__name__)

LossFunction = Callable[[nn.Module, Any], dict[str, Tensor]]
"""(model, batch) to the parts of the loss by name; `loss` is the one to minimise."""
Batches = Callable[[int], Iterable[Any]]
"""From the number of the first step wanted to the batches from there to the last step."""


@dataclass
class Job:
    """One training: what to train, on what, and where its state lies while it runs.

    `key` names what the run depends on (config and data); a state left by a run with another key isn't resumed.
    Each batch must have `image_ids`, the images in it, for error messages.
    """

    name: str
    model: nn.Module
    loss: LossFunction
    batches: Batches
    config: TrainConfig
    device: torch.device
    run_folder: Path
    key: str
    milestones: tuple[int, ...] = ()
    history: list[dict[str, float]] = field(default_factory=list)


def learning_rate(config: TrainConfig, step: int) -> float:
    """The rate of step 0, 1, ...: linear warm-up, then half a cosine to 0 or x0.1 at each `decay_at`."""
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    if config.schedule == "cosine":
        past = max(0, step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
        factor = 0.5 * (1 + math.cos(math.pi * past))
    else:
        factor = 0.1 ** sum(step >= at for at in config.decay_at)
    return config.lr * warmup * factor


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimiser over what learns; norms and biases (one-dimensional parameters) aren't decayed."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9)
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, lr=config.lr)
    return torch.optim.AdamW(groups, lr=config.lr)


def weight_average(model: nn.Module, decay: float) -> AveragedModel:
    """The running average of a model's weights: each update keeps a share `decay` of it, fewer at first.

    The first weights are taken whole; the k-th after them keep min(decay, (1 + k) / (10 + k)), so that the average
    soon forgets the weights that training began with. Buffers are copied, not averaged.
    """

    @torch.no_grad()
    def update(averages: Any, weights: Any, updates: Any) -> None:
        done = int(updates)
        torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + done) / (10 + done)))

    return AveragedModel(model, multi_avg_fn=update)


def train(job: Job) -> None:
    """Trains `job.model` in place to the last step and fills `job.history`, one row every `log_every` steps.

    With `ema` the model ends with the average of its weights over the steps. The weights (or their average) at each
    milestone lie in `milestone_path(job, step)` afterwards, and the model computes in full precision. State is kept in
    `job.run_folder`/resume and taken up from there when the same job runs again; `finish` removes it.

    Raises:
        TaskError: the loss became NaN or infinite; names the step, the parts of the loss and the images.
    """
    config = job.config
    # Steps that run in one process may differ in precision, which accelerate keeps for the whole process.
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        cpu=job.device.type == "cpu",
        mixed_precision={"fp32": "no"}.get(config.precision, config.precision),
    )
    job.model.to(job.device).train()
    optimizer = build_optimizer(job.model, config)
    average = None if config.ema is None else weight_average(job.model, config.ema)
    first = _resume(job, optimizer, accelerator.scaler, average)
    model, optimizer = accelerator.prepare(job.model, optimizer)
    sums: dict[str, Tensor] = {}
    with Bar(job.name, config.steps, "step", done=first) as bar:
        for step, batch in enumerate(job.batches(first), start=first):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, step)
            with accelerator.autocast():
                parts = job.loss(model, batch)
            if not torch.isfinite(parts["loss"]):
                raise _not_finite(job, step, parts, batch)
            accelerator.backward(parts["loss"])
            if config.clip_norm is not None:
                accelerator.clip_grad_norm_(model.parameters(), config.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if average is not None:
                average.update_parameters(job.model)
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + value.detach()
            done = step + 1
            facts = ""
            if done % config.log_every == 0 or done == config.steps:
                count = (done - 1) % config.log_every + 1
                row = {name: round(float(value) / count, 6) for name, value in sums.items()}
                job.history.append({"step": done, **row, "lr": learning_rate(config, step)})
                facts, sums = f"loss {row['loss']:.3f}", {}
            if done in job.milestones:
                with atomic_write(milestone_path(job, done)) as path:
                    save_file(_weights(average.module if average is not None else job.model), path)
            if done % config.checkpoint_every == 0 and done < config.steps:
                _keep(job, optimizer, accelerator.scaler, average, done)
            bar.advance(facts=facts)
    if average is not None:
        job.model.load_state_dict(average.module.state_dict())
    # accelerate left autocast around the network; in use, and as a checkpoint, it has none.
    accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    job.model.eval()


def milestone_path(job: Job, step: int) -> Path:
    """Where the weights of `step` lie while the job runs."""
    return job.run_folder / "resume" / f"milestone_{step:07d}.safetensors"


def write_history(job: Job, path: Path) -> None:
    """log.jsonl: one JSON object a line with `step`, the mean loss and its parts since the last line, and `lr`."""
    with atomic_write(path) as temporary:
        Path(temporary).write_text("".join(json.dumps(row) + "\n" for row in job.history), encoding="utf-8")


def finish(job: Job) -> None:
    """Removes the resume state, once the step's outputs are written."""
    shutil.rmtree(job.run_folder / "resume", ignore_errors=True)


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}


def _keep(job: Job, optimizer: Any, scaler: Any, average: AveragedModel | None, step: int) -> None:
    state = {
        "key": job.key,
        "step": step,
        "model": job.model.state_dict(),
        "average": average.state_dict() if average is not None else None,
        "optimizer": optimizer.state_dict(),
        "history": job.history,
        "scaler": scaler.state_dict() if scaler is not None else None,  # fp16 only
    }
    with atomic_write(job.run_folder / "resume" / "state.pt") as path:
        torch.save(state, path)


def _resume(job: Job, optimizer: torch.optim.Optimizer, scaler: Any, average: AveragedModel | None) -> int:
    """Loads the state that an interrupted run of the same job left; returns the first step to do."""
    path = job.run_folder / "resume" / "state.pt"
    if not path.exists():
        return 0
    state = torch.load(path, map_location=job.device, weights_only=True)
    if state["key"] != job.key:
        log.info("%s: an interrupted run with other params or data is discarded", job.name)
        finish(job)
        return 0
    job.model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    if average is not None:
        average.load_state_dict(state["average"])
    if scaler is not None and state["scaler"] is not None:
        scaler.load_state_dict(state["scaler"])
    job.history[:] = state["history"]
    log.info("%s: going on after step %d", job.name, state["step"])
    return int(state["step"])


def _not_finite(job: Job, step: int, parts: dict[str, Tensor], batch: Any) -> TaskError:
    shown = ", ".join(f"{name} {float(value.detach()):g}" for name, value in parts.items())
    images = ", ".join(str(image) for image in batch["image_ids"])
    return TaskError(
        f"{job.name}: the loss is not finite at step {step + 1} ({shown}; image ids {images}). "
        f"Lower lr ({job.config.lr:g}), lengthen warmup_steps ({job.config.warmup_steps}), set clip_norm, "
        "or use precision: fp32; training goes on from the last kept state."
    )
