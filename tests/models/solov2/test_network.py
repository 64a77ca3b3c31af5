from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from models.solov2.network import SOLOv2


@pytest.mark.parametrize("mask_stride", [2, 4])
def test_output_shapes(solov2_config, mask_stride: int) -> None:
    model = SOLOv2(solov2_config(mask_stride=mask_stride), 5)
    out = model(torch.zeros(2, 3, 64, 96, dtype=torch.uint8))
    assert [tuple(x.shape) for x in out.category_logits] == [(2, 5, s, s) for s in (12, 8, 4)]
    assert [tuple(x.shape) for x in out.kernels] == [(2, 8, s, s) for s in (12, 8, 4)]
    assert out.mask_features.shape == (2, 8, 64 // mask_stride, 96 // mask_stride)
    assert out.strides == (8, 16, 32)


def test_with_a_reference_the_grids_follow_the_input(solov2_config) -> None:
    model = SOLOv2(solov2_config(grid_reference=64), 5)
    out = model(torch.zeros(2, 3, 64, 96, dtype=torch.uint8))
    assert [tuple(x.shape) for x in out.category_logits] == [(2, 5, s, s * 3 // 2) for s in (12, 8, 4)]
    assert [tuple(x.shape) for x in out.kernels] == [(2, 8, s, s * 3 // 2) for s in (12, 8, 4)]


@pytest.mark.parametrize("reference", [None, 64])
def test_where_a_crop_lay_counts_with_a_reference_alone(solov2_config, reference: int | None) -> None:
    model = SOLOv2(solov2_config(grid_reference=reference), 3).eval()
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8).expand(2, 3, 64, 64)
    with torch.no_grad():
        plain, placed = model(images), model(images, None, [(0, 0), (40, 7)])
    assert torch.equal(plain.kernels[0][0], placed.kernels[0][0])
    assert torch.equal(plain.mask_features[0], placed.mask_features[0])
    assert torch.equal(plain.category_logits[0], placed.category_logits[0])
    for a, b in ((plain.kernels[0], placed.kernels[0]), (plain.mask_features, placed.mask_features)):
        assert torch.equal(a[1], b[1]) == (reference is None)


@pytest.mark.parametrize("shape", [(1, 3, 65, 64), (1, 1, 64, 64), (3, 64, 64)])
def test_other_shapes_are_refused(solov2_config, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="multiples of 32"):
        SOLOv2(solov2_config(), 5)(torch.zeros(shape))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"grids": [12, 8]}, "one entry per level"),
        ({"ranges": [[1, 32], [40, 64], [48, 128]]}, "found none for sizes from 32 to 40; expected no gap"),
        ({"ranges": [[1, 32], [64, 24], [24, 128]]}, "lower < upper"),
        ({"level_sources": [[1, 3], [4, 4], [6, 5]]}, "level_sources"),
        ({"head_chanels": 3}, "head_chanels"),
        ({"mask_stride": 3}, "mask_stride"),
        (
            {"grid_reference": 96, "grids": [12, 8, 4]},
            r"found \[8, 4\], expected multiples of 3 .* nearest are \[9, 3\]",
        ),
        ({"grid_reference": 16}, "grid_reference"),
        ({"backbone": {"norm": "layer_norm"}}, "norm"),
        ({"grids": ["12", 8, 4]}, "grids"),
    ],
)
def test_wrong_config_is_refused(solov2_config, changes: dict, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        solov2_config(**changes)


def test_every_config_field_is_required(solov2_config) -> None:
    config = solov2_config()
    for model in (config, config.backbone):
        assert all(field.is_required() for field in type(model).model_fields.values())


def test_an_image_gives_the_same_in_any_batch(solov2_config) -> None:
    model = SOLOv2(solov2_config(), 3).eval()
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        together, alone = model(images), model(images[1:2])
    torch.testing.assert_close(together.mask_features[1:2], alone.mask_features, rtol=1e-4, atol=1e-4)
    for a, b in zip(together.kernels, alone.kernels, strict=True):
        torch.testing.assert_close(a[1:2], b, rtol=1e-4, atol=1e-4)


def test_normalise_orders_channels_and_blanks_padding(solov2_config) -> None:
    model = SOLOv2(solov2_config(bgr=True, pixel_mean=[1.0, 2.0, 3.0], pixel_std=[1.0, 1.0, 2.0]), 3)
    rgb = torch.tensor([30, 20, 10], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    x = model.normalise(rgb, [(20, 30)])
    assert x[0, :, 0, 0].tolist() == [9.0, 18.0, 13.5]
    assert (x[0, :, 20:] == 0).all()
    assert (x[0, :, :, 30:] == 0).all()
    assert (x[0, :, :20, :30] != 0).all()


def test_untrained_cells_answer_nothing_here(solov2_config) -> None:
    out = SOLOv2(solov2_config(), 3)(torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8))
    for logits in out.category_logits:
        assert logits.sigmoid().mean().item() == pytest.approx(0.01, rel=0.2)
