from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.plain_samples import plain_sample
from data.errors import DataError
from data.masks.rle import encode
from data.samples.dataset import InstanceDataset
from data.samples.placement import Placement, whole
from data.tables import IMAGES, INSTANCES, Split, write_split
from tests.data.conftest import CATEGORIES, instances_table
from tests.data.samples.test_transforms import STILL, WILD

SIZES = [(24, 40), (40, 24), (61, 47), (1, 30), (90, 90)]


@pytest.fixture(scope="module")
def scattered(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Images of unlike sizes, each with many masks of all kinds, crowds among them, and points."""
    folder = tmp_path_factory.mktemp("scattered")
    rng = np.random.default_rng(0)
    images, rows = [], []
    for n, (height, width) in enumerate(SIZES):
        cv2.imwrite(str(folder / f"{n}.png"), rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        values = (n, f"{n}.png", f"{n}.png", width, height, "", "weak", "point", "ok")
        images.append(dict(zip(IMAGES.names, values, strict=True)))
        for k in range(12):
            top, left = rng.integers(height), rng.integers(width)
            mask = np.zeros((height, width), bool)
            mask[top : top + rng.integers(1, 30), left : left + rng.integers(1, 30)] = True
            mask &= rng.random((height, width)) < (0.6 if k % 3 else 1)
            rows.append(
                {
                    "instance_id": len(rows), "image_id": n, "category_id": CATEGORIES[k % 3].id, "mask": mask,
                    "iscrowd": k % 5 == 4 and n != 2, "source": "pseudo", "score": float(rng.random()),
                }
            )  # fmt: skip
    table = pa.Table.from_pylist(images, schema=IMAGES)
    points = {name: pa.array(rng.random(len(rows)) * 40, pa.float32()) for name in ("point_x", "point_y")}
    instances = instances_table(rows)
    for name, column in points.items():
        instances = instances.append_column(name, column)
    write_split(folder / "split", table, instances, CATEGORIES, str(folder))
    return Split.open(folder / "split")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    index=st.integers(0, len(SIZES) - 1), seed=st.integers(0, 2**31), crop=st.booleans(),
    crop_side=st.sampled_from([None, 1, 8, 32]), wild=st.sampled_from([None, STILL, WILD]),
    scales=st.tuples(st.floats(0.3, 3.0), st.floats(0.3, 3.0)), turns=st.tuples(*[st.sampled_from([0, 0.5, 1])] * 3),
    short_side=st.sampled_from([16, 24, 50]), enlarge=st.booleans(),
)  # fmt: skip
def test_samples_are_bit_for_bit_those_made_the_straightforward_way(
    scattered: Split, index: int, seed: int, crop: bool, crop_side: int | None, wild: object,
    scales: tuple[float, float], turns: tuple[float, float, float], short_side: int, enlarge: bool,
) -> None:  # fmt: skip
    augment = wild and dataclasses.replace(
        wild, flip=turns[0], vertical_flip=turns[1], rotate90=turns[2], scale_min=scales[0], scale_max=scales[1],
        crop=crop, crop_side=crop_side,
    )  # fmt: skip
    dataset = InstanceDataset(
        scattered, short_side=short_side, max_side=80, enlarge=enlarge, augment=augment, cache_images=True
    )
    found, expected = dataset[index, seed], plain_sample(dataset, (index, seed))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert found[name].dtype == value.dtype, name
            assert torch.equal(found[name], value), name
        else:
            assert found[name] == value, name


@pytest.mark.parametrize("name", ["nuclei", "facade"])
def test_real_samples_are_too(real_split: Callable[[str], Split], name: str) -> None:
    augment = dataclasses.replace(
        WILD, rotate90=0.5, vertical_flip=0.5, scale_min=0.8, scale_max=1.25, crop_side=128
    )
    dataset = InstanceDataset(
        real_split(name), short_side=1024, max_side=1400, enlarge=False, augment=augment, cache_images=True
    )
    for index in range(0, len(dataset), 60):
        for seed in range(2):
            found, expected = dataset[index, seed], plain_sample(dataset, (index, seed))
            assert all(
                torch.equal(found[key], value) if isinstance(value, torch.Tensor) else found[key] == value
                for key, value in expected.items()
            )


def test_a_mask_that_does_not_fit_its_image_is_named(scattered: Split, tmp_path: Path) -> None:
    heights = pa.array([23, 40, 61, 1, 90], IMAGES.field("height").type)
    images = scattered.images.set_column(IMAGES.get_field_index("height"), "height", heights)
    write_split(
        tmp_path / "split", images, scattered.instances.select(INSTANCES.names), CATEGORIES, str(tmp_path)
    )
    (tmp_path / "0.png").write_bytes(cv2.imencode(".png", np.zeros((23, 40, 3), np.uint8))[1].tobytes())
    dataset = InstanceDataset(
        Split.open(tmp_path / "split"), short_side=24, max_side=80, enlarge=False, augment=None, cache_images=False
    )  # fmt: skip
    with pytest.raises(DataError, match=r"(?s)image 0.*23 x 40"):
        dataset[0]


def test_a_place_in_the_image_stays_in_its_pixel_of_the_sample() -> None:
    """Of an image whose pixels say where they are: twice as large, flipped, turned, and cut."""
    placement = Placement((2, 3), (4, 6), True, False, True, origin=(1, 2), size=(3, 2))
    image = torch.arange(6, dtype=torch.uint8).view(1, 2, 3).repeat(3, 1, 1) * 40
    enlarged = image.repeat_interleave(2, 1).repeat_interleave(2, 2)
    expected = enlarged.flip(-1).rot90(1, (-2, -1))[0, 2:5, 1:3]
    codes = [np.zeros((2, 3), bool) for _ in range(6)]
    for k, mask in enumerate(codes):
        mask[divmod(k, 3)] = True
    masks, kept = placement.masks([encode(mask) for mask in codes])
    assert masks.is_contiguous()
    assert kept.tolist() == sorted({value // 40 for value in expected.flatten().tolist()})
    for mask, k in zip(masks, kept.tolist(), strict=True):
        assert torch.equal(mask, expected == 40 * k)
    points = placement.points(torch.tensor([[0.5, 0.5], [1.25, 1.75]]))
    assert points.tolist() == [[0.0, -1.0], [2.5, 0.5]]
    assert torch.equal(whole((2, 3), (2, 3)).image(image), image)
