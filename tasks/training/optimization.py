"""The optimiser, the learning rate of a step, the running average of the weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from models.backbones.base import Backbone
from tasks.common.config import DetectorTrainConfig, TrainConfig


def learning_rate(config: TrainConfig, step: int) -> float:
    """The rate of step 0, 1, ...: linear warm-up, then half a cosine to 0, or x 0.1 at each of `decay_at`."""
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    if config.schedule == "cosine":
        past = max(0, step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
        factor = 0.5 * (1 + math.cos(math.pi * past))
    else:
        factor = 0.1 ** sum(step >= at for at in config.decay_at)
    return config.lr * warmup * factor


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimiser of all trainable parameters; without weight decay for norms and biases (one-dimensional).

    With a `backbone_lr` other than 1 the backbone's published part has groups of its own, with the factor of their
    learning rate as "factor".
    """
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    factor = config.backbone_lr if isinstance(config, DetectorTrainConfig) else 1.0
    slow = _backbone_parameters(model) if factor != 1 else set()
    groups = _groups([p for p in learning if id(p) not in slow], config)
    for group in _groups([p for p in learning if id(p) in slow], config):
        if group["params"]:
            groups.append({**group, "factor": factor})
    # None allows torch its foreach implementation, False wouldn't.
    fused = True if config.fused else None
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, fused=fused)
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, lr=config.lr, fused=fused)
    return torch.optim.AdamW(groups, lr=config.lr, fused=fused)


def _groups(parameters: list[nn.Parameter], config: TrainConfig) -> list[dict[str, Any]]:
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _backbone_parameters(model: nn.Module) -> set[int]:
    """The ids of the parameters that published weights would fill."""
    parts = [module.pretrained() for module in model.modules() if isinstance(module, Backbone)]
    parts += getattr(
        model, "published_parts", []
    )  # of a QueryNetwork, whose code is no part of the teacher's
    return {id(p) for part in parts for p in part.parameters()}


class WeightAverage(AveragedModel):
    """The exponential moving average of a model's weights with `decay`, lower at first.

    It starts with the weights after the first step; the k-th update after that has min(decay, (1 + k) / (10 + k)), so
    that the initial weights soon have no effect. Buffers are copied, not averaged. The number of updates is on the
    host: torch's own update waits for a GPU three times.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model)
        self.decay = decay
        self.n_averaged = self.n_averaged.cpu()

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        done = int(self.n_averaged)
        weight = 1 - min(self.decay, (1 + done) / (10 + done)) if done else 1.0
        torch._foreach_lerp_(list(self.module.parameters()), list(model.parameters()), weight)
        for own, other in zip(self.module.buffers(), model.buffers(), strict=True):
            own.copy_(other)
        self.n_averaged += 1
