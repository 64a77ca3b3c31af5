"""Masks as means over mirror images, against the mirror images given one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.checkpoint import load_teacher
from models.config import TileConfig
from models.masks.clicks import NO_POINT, OFF, ON, FurtherClicks
from models.masks.resize import Sizes
from models.solov2.network import SOLOv2
from tasks.common.config import Params
from tasks.inference.batches import ImageBatch
from tasks.labelling.solov2_proposer import (
    MIRRORS,
    SOLOv2Proposer,
    mirrored_images,
    mirrored_maps,
    mirrored_points,
)
from tasks.labelling.types import Candidates

CPU = torch.device("cpu")
LABELS = torch.tensor([0, 1, 3])


@pytest.fixture(scope="module")
def teacher(line: tuple[Path, Params]) -> SOLOv2:
    return load_teacher(line[0] / "workspace" / "teacher", CPU)


def batch_of(image: torch.Tensor) -> ImageBatch:
    """An image of multiples of 8 pixels, padded to 64 x 64."""
    height, width = image.shape[1:]
    padded = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    padded[0, :, :height, :width] = image
    return ImageBatch([0], [image], padded, [(height, width)])


@pytest.mark.parametrize("mirror", ["horizontal", "both"])
@pytest.mark.parametrize("size", [(64, 64), (40, 56)])
@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("label", [None, ON, OFF])
def test_a_mask_is_the_mean_over_the_mirror_images(
    line: tuple[Path, Params],
    teacher: SOLOv2,
    mirror: str,
    size: tuple[int, int],
    tiled: bool,
    label: int | None,
) -> None:
    """Also with a further click on the first object."""
    height, width = size
    image = torch.randint(0, 255, (3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    points = torch.tensor([[10.0, 12.0], [width - 0.5, 20.25], [30.0, height - 3.0]])
    params = line[1]
    tile = TileConfig(side=32, overlap=0) if tiled else None
    alone = SOLOv2Proposer(teacher, params.prompt, tile, CPU)
    several = SOLOv2Proposer(teacher, params.prompt.model_copy(update={"mirror": mirror}), tile, CPU)
    places = torch.tensor([20.0, 13.0]).repeat(3, 1, 1)
    labels = torch.tensor([[label or 0], [NO_POINT], [NO_POINT]])
    more = None if label is None else FurtherClicks(places, labels)
    found = several.propose(several.encode(batch_of(image))[0], points, LABELS, more).candidates
    each: list[Candidates] = []
    for across in (False, True):
        for down in (False, True) if mirror == "both" else (False,):
            pixels = image.numpy()[:, :: -1 if down else 1, :: -1 if across else 1]
            seen = torch.from_numpy(np.ascontiguousarray(pixels))
            there = torch.cat([points, places[:, 0]])
            if across:
                there[:, 0] = width - there[:, 0]
            if down:
                there[:, 1] = height - there[:, 1]
            more_there = None if label is None else FurtherClicks(there[3:, None], labels)
            one = alone.propose(alone.encode(batch_of(seen))[0], there[:3], LABELS, more_there).candidates
            stride = 64 // one.mask_prob.shape[-1]
            maps = one.mask_prob[..., : height // stride, : width // stride].numpy()
            maps = maps[..., :: -1 if down else 1, :: -1 if across else 1]
            each.append(one._replace(mask_prob=torch.from_numpy(maps.copy())))
    h, w = each[0].mask_prob.shape[2:]
    for name in ("cut", "class_score", "maskness", "score"):
        expected = torch.stack([getattr(one, name) for one in each]).mean(0)
        torch.testing.assert_close(getattr(found, name), expected)
    torch.testing.assert_close(
        found.mask_prob[..., :h, :w], torch.stack([one.mask_prob for one in each]).mean(0)
    )


def test_without_mirror_images_nothing_is_copied() -> None:
    images, maps, points = torch.zeros(1, 3, 8, 8), torch.zeros(1, 4, 4), torch.zeros(2, 2)
    (axes,) = MIRRORS["none"]
    assert mirrored_images(images, [(8, 8)], axes) is images
    assert mirrored_maps(maps, Sizes((8, 8), (8, 8), (8, 8)), axes) is maps
    assert torch.equal(mirrored_points(points, (8, 8), axes), points)


@given(st.integers(5, 64), st.integers(5, 64), st.sampled_from(MIRRORS["both"]))
def test_a_ramp_is_mirrored_where_it_ends(height: int, width: int, axes: tuple[int, ...]) -> None:
    """Maps of 4 pixels a place; linear values stay exact between places, up to the content's border."""
    sizes = Sizes((64, 64), (height, width), (height, width))
    y, x = torch.meshgrid(*[(torch.arange(16) + 0.5) * 4] * 2, indexing="ij")
    mirrored = torch.stack([width - x if -1 in axes else x, height - y if -2 in axes else y])
    found = mirrored_maps(mirrored, sizes, axes)
    inside = (x + 2 <= width) & (y + 2 <= height)
    inside &= (width - x >= 2) & (height - y >= 2)
    torch.testing.assert_close(found[0][inside], x[inside])
    torch.testing.assert_close(found[1][inside], y[inside])
