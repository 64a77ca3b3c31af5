"""Batch norm over two real processes (Gloo) against nn.BatchNorm2d on the joined batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn

from models.backbones.sync_norm import CpuSyncBatchNorm, sync_batch_norms


def network(momentum: float | None) -> nn.Sequential:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3, momentum=momentum)
    nn.init.normal_(norm.weight)
    return nn.Sequential(nn.Conv2d(2, 3, 1), norm, nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3, affine=False)))


def batch(sizes: tuple[int, ...], index: int | None = None) -> tuple[Tensor, Tensor]:
    """Inputs and the weights of a loss; a process's share, or all."""
    values = torch.randn(sum(sizes), 5, 4, 4, generator=torch.Generator().manual_seed(1))
    mine = values if index is None else values.split(sizes)[index]
    return mine[:, :2], mine[:, 2:]


def step(net: nn.Module, inputs: Tensor, pull: Tensor) -> Tensor:
    """Outputs; the gradients are in the parameters."""
    outputs: Tensor = net(inputs)
    (outputs * pull).sum().backward()
    return outputs.detach()


def member(index: int, folder: str, sizes: tuple[int, ...], momentum: float | None) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder}/meet", rank=index, world_size=len(sizes))
    net = network(momentum)
    sync_batch_norms(net, torch.device("cpu"))
    assert [type(net[1]), type(net[2][1])] == [CpuSyncBatchNorm] * 2  # type: ignore[index]
    outputs = [step(net, *batch(sizes, index)) for _ in range(2)]
    gradients = [parameter.grad for parameter in net.parameters()]
    torch.save([outputs, gradients, net.state_dict(), net.eval()(batch(sizes)[0])], f"{folder}/{index}.pt")
    distributed.destroy_process_group()


@pytest.mark.parametrize(("sizes", "momentum"), [((3, 2), 0.1), ((4, 0), None)])
def test_two_processes_are_one_on_the_joined_batch(
    tmp_path: Path, sizes: tuple[int, ...], momentum: float | None
) -> None:
    multiprocessing.spawn(member, (str(tmp_path), sizes, momentum), nprocs=len(sizes))
    found: list[Any] = [torch.load(tmp_path / f"{index}.pt") for index in range(len(sizes))]
    net = network(momentum)
    for n in range(2):
        expected = step(net, *batch(sizes))
        torch.testing.assert_close(torch.cat([one[0][n] for one in found]), expected)
    for n, parameter in enumerate(net.parameters()):
        gradients = [one[1][n] for one in found]
        torch.testing.assert_close(
            sum(gradients), parameter.grad, rtol=1e-4, atol=1e-4
        )  # a bias before a norm: 0 but for rounding
    for _, _, state, evaluated in found:
        assert state.keys() == net.state_dict().keys()
        for name, value in net.state_dict().items():
            torch.testing.assert_close(state[name], value)
        torch.testing.assert_close(evaluated, net.eval()(batch(sizes)[0]))


def test_alone_nothing_changes() -> None:
    net = network(0.1)
    sync_batch_norms(net, torch.device("cpu"))
    assert type(net[1]) is nn.BatchNorm2d
