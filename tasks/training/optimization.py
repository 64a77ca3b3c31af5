"""What a training minimises with: the optimiser, the learning rate of a step, the running average of the weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from tasks.common.config import TrainConfig


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
    # False would also forbid the loops over all parameters at once, which None leaves to torch.
    fused = True if config.fused else None
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, fused=fused)
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, lr=config.lr, fused=fused)
    return torch.optim.AdamW(groups, lr=config.lr, fused=fused)


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
