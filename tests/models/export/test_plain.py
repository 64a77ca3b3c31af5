"""The program of torch.export, against the network itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from models.config import SOLOv2Config
from models.export.plain import export_program
from tests.models.export.test_graph import PLACED, network_of


@pytest.mark.parametrize(
    "changes", [{}, PLACED, {"backbone": {"name": "efficientnet_lite0", "norm": "frozen_bn", "width": 0.5}}]
)
def test_a_program_takes_images_of_any_size(
    solov2_config: Callable[..., SOLOv2Config], changes: dict[str, Any]
) -> None:
    network = network_of(solov2_config(**changes))
    program = export_program(network, None).module()
    for n, height, width in [(1, 128, 128), (3, 160, 224), (1, 320, 128)]:
        images = torch.randint(
            0, 256, (n, 3, height, width), generator=torch.Generator().manual_seed(0)
        ).float()
        with torch.inference_mode():
            found, expected = program(images), network(images).tensors
        for one, own in zip(found, expected, strict=True):
            torch.testing.assert_close(one, own, rtol=1e-4, atol=1e-4)
