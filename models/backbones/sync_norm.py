"""Batch norm over the batches of all processes of a training."""

from typing import Any

import torch
from torch import Tensor, distributed, nn


class _SumOverProcesses(torch.autograd.Function):
    """The sum over all processes; the gradient is summed too, since the loss of each process depends on the sum."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        distributed.all_reduce(total)
        return total


class CpuSyncBatchNorm(nn.BatchNorm2d):
    """nn.SyncBatchNorm for the CPU; a process's batch may be empty."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same shape; in training by the mean and variance over all processes' values."""
        if not self.training:
            return super().forward(x)
        values = x.float()
        shape, axes = (1, -1, 1, 1), (0, 2, 3)
        count = values.new_full((1,), values.numel() / values.shape[1])
        summed: Tensor = _SumOverProcesses.apply(torch.cat([values.sum(axes), count]))
        total = summed[-1].detach()
        mean = summed[:-1] / total
        centred = values - mean.view(shape)
        squares: Tensor = _SumOverProcesses.apply(centred.square().sum(axes))
        variance = squares / total
        if (
            self.running_mean is not None
            and self.running_var is not None
            and self.num_batches_tracked is not None
        ):
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean, share)
                self.running_var.lerp_(variance * (total / (total - 1)), share)
        scaled = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            scaled = scaled * self.weight.view(shape) + self.bias.view(shape)
        return scaled.to(x.dtype)


def sync_batch_norms(network: nn.Module, device: torch.device) -> None:
    """Makes every nn.BatchNorm2d of the network take its statistics over all processes, in place; no change with one.

    Parameters and buffers stay the same objects of the same names.
    """
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return
    for module in list(network.modules()):
        if type(module) is nn.BatchNorm2d:
            module.__class__ = CpuSyncBatchNorm
