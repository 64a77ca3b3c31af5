"""What the heads say must not depend on where an image was cut, or how much padding its batch gave it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from models.config import SOLOv2Config
from models.solov2.heads import Frame, InstanceHead, MaskBranch, coordinate_channels

WHOLE = (512, 640)
REFERENCE = 256


def frame(
    size: tuple[int, int], origin: tuple[float, float] = (0, 0), reference: int | None = REFERENCE
) -> Frame:
    return Frame(size, reference, torch.tensor([origin], dtype=torch.float32))


def small(solov2_config: Callable[..., SOLOv2Config], **changes: int) -> SOLOv2Config:
    return solov2_config(
        fpn_channels=4, head_channels=6, mask_channels=6, kernel_channels=5, norm_groups=1, **changes
    )


def without_norms(head: nn.Module) -> nn.Module:
    """Group norm's statistics are those of the whole map, padding and all; everything else is local."""
    for module in head.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(module, name, nn.Identity())
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.2)
    return head.eval()


def part(x: Tensor, size: tuple[int, int], origin: tuple[int, int], crop: tuple[int, int]) -> Tensor:
    """The part of map `x` [N, c, h, w] of an input of `size` that a crop (height, width) at `origin` (x, y) sees."""
    stride = size[0] // x.shape[-2]
    top, left = origin[1] // stride, origin[0] // stride
    return x[..., top : top + crop[0] // stride, left : left + crop[1] // stride]


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 4), st.integers(1, 5), st.integers(0, 9), st.integers(0, 9), st.sampled_from([1, 8, 32])
)
def test_coordinates_of_a_crop_are_those_of_the_whole_image(
    rows: int, columns: int, down: int, right: int, stride: int
) -> None:
    crop, origin = (32 * rows, 32 * columns), (right * stride, down * stride)
    size = (crop[0] + 40 * stride, crop[1] + 40 * stride)
    whole = coordinate_channels(torch.zeros(1, 1, size[0] // stride, size[1] // stride), frame(size))
    piece = torch.zeros(1, 1, crop[0] // stride, crop[1] // stride)
    own = coordinate_channels(piece, frame(crop, origin))
    torch.testing.assert_close(own, whole[:, :, down:, right:][..., : own.shape[2], : own.shape[3]])


def test_coordinates_by_hand() -> None:
    x, y = coordinate_channels(torch.zeros(1, 1, 2, 4), frame((128, 256)))[0]
    assert x[0].tolist() == [-0.75, -0.25, 0.25, 0.75]
    assert y[:, 0].tolist() == [-0.75, -0.25]  # half as high as the reference: up to 0
    x, y = coordinate_channels(torch.zeros(1, 1, 2, 4), frame((128, 256), reference=None))[0]
    assert (x[0, 0], x[0, -1], y[0, 0], y[-1, 0]) == (-1, 1, -1, 1)
    two = Frame((128, 256), 256, torch.tensor([[0.0, 0.0], [128.0, 64.0]]))
    both = coordinate_channels(torch.zeros(2, 1, 2, 4), two)
    torch.testing.assert_close(both[1] - both[0], torch.tensor([1.0, 0.5]).view(2, 1, 1).expand(2, 2, 4))


@pytest.mark.parametrize("reference", [REFERENCE, None])
@pytest.mark.parametrize(("stride", "cell"), [(8, 8), (8, 16), (16, 8), (32, 32)])
def test_a_crop_has_the_kernels_of_the_whole_image(
    stride: int, cell: int, reference: int | None, solov2_config: Callable[..., SOLOv2Config]
) -> None:
    head = without_norms(InstanceHead(small(solov2_config, head_convs=1), 3))
    features = torch.randn(1, 4, WHOLE[0] // stride, WHOLE[1] // stride)
    crop, origin = (256, 320), (128, 64)
    own = part(features, WHOLE, origin, crop)
    grids = [[(side[0] // cell, side[1] // cell)] for side in (WHOLE, crop)]
    with torch.no_grad():
        logits, kernels = head([features], grids[0], frame(WHOLE, reference=reference))
        seen, known = head([own], grids[1], frame(crop, origin, reference))
    # Two convolutions and one resize know of the border.
    inside = (..., slice(3, -3), slice(3, -3))
    torch.testing.assert_close(part(logits[0], WHOLE, origin, crop)[inside], seen[0][inside])
    same = torch.allclose(part(kernels[0], WHOLE, origin, crop)[inside], known[0][inside], atol=1e-5)
    assert same == (reference is not None)


@pytest.mark.parametrize("reference", [REFERENCE, None])
def test_a_crop_has_the_mask_features_of_the_whole_image(
    reference: int | None, solov2_config: Callable[..., SOLOv2Config]
) -> None:
    branch = without_norms(MaskBranch(small(solov2_config)))
    pyramid = {level: torch.randn(1, 4, WHOLE[0] // 2**level, WHOLE[1] // 2**level) for level in (2, 3, 4, 5)}
    crop, origin = (320, 384), (128, 64)
    own = {level: part(x, WHOLE, origin, crop) for level, x in pyramid.items()}
    with torch.no_grad():
        whole = branch(pyramid, frame(WHOLE, reference=reference))
        seen = branch(own, frame(crop, origin, reference))
    # P5 passes three convolutions and up-samplings: 32 + 32 + 16 + 16 + 8 + 8 input pixels.
    inside = (..., slice(28, -28), slice(28, -28))
    same = torch.allclose(part(whole, WHOLE, origin, crop)[inside], seen[inside], atol=1e-4)
    assert same == (reference is not None)


def test_padding_changes_no_cell_inside(solov2_config: Callable[..., SOLOv2Config]) -> None:
    head = without_norms(InstanceHead(small(solov2_config, head_convs=2), 3))
    features = torch.randn(1, 4, 32, 40)
    padded = nn.functional.pad(features, (0, 24, 0, 8))
    with torch.no_grad():
        logits, kernels = head([features], [(32, 40)], frame((256, 320)))
        wide, more = head([padded], [(40, 64)], frame((320, 512)))
    for own, other in ((logits, wide), (kernels, more)):
        torch.testing.assert_close(own[0][..., :-4, :-4], other[0][..., :32, :40][..., :-4, :-4])
