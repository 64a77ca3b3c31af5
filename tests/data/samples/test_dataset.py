from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from data.errors import DataError
from data.images.read import read_image
from data.samples.dataset import EndSampler, InstanceDataset, MixedSampler, StepSampler, collate
from data.tables import IMAGES, INSTANCES, Category, Split, write_split
from tests.data.conftest import CATEGORIES, images_table, instances_table, tiny_masks
from tests.data.samples.test_transforms import STILL, WILD, changed

PLAIN = {"short_side": 24, "max_side": 40, "enlarge": True, "augment": None, "cache_images": False}


def same(a: object, b: object) -> bool:
    """Whether two samples hold the same."""
    assert isinstance(a, dict)
    assert isinstance(b, dict)
    return all(
        torch.equal(a[key], b[key]) if isinstance(a[key], torch.Tensor) else a[key] == b[key] for key in a
    )


def test_a_sample_holds_the_image_and_its_objects(make_split: Callable[..., Split]) -> None:
    split = make_split()
    sample = InstanceDataset(split, **PLAIN)[0]
    expected = torch.from_numpy(read_image(split.image_path(0))).permute(2, 0, 1)
    assert torch.equal(sample["image"], expected)
    m = tiny_masks()
    assert np.array_equal(sample["masks"].numpy(), np.stack([m["ring"], m["disc"], m["bar"]]))
    assert sample["labels"].tolist() == [1, 0, 2]  # of the ids 3, 7, 20
    assert sample["weights"].tolist() == [1, 1, 1]
    assert np.array_equal(sample["crowd"].numpy(), m["crowd"])
    assert (sample["image_id"], sample["original_size"], sample["points_xy"]) == (10, (24, 40), None)


def test_images_without_objects_and_empty_masks_are_fine(make_split: Callable[..., Split]) -> None:
    dataset = InstanceDataset(make_split(), **PLAIN | {"augment": WILD})
    nothing = dataset[1, 7]
    assert nothing["masks"].shape == (0, *nothing["image"].shape[1:])
    assert nothing["labels"].shape == nothing["weights"].shape == (0,)
    assert nothing["labels"].dtype == torch.int64
    assert nothing["crowd"] is None
    plain = InstanceDataset(make_split(), **PLAIN)[2]  # a ring and an empty mask
    assert plain["labels"].tolist() == [1]


def test_the_draw_seed_alone_decides_a_draw(make_split: Callable[..., Split]) -> None:
    dataset = InstanceDataset(make_split(), **PLAIN | {"augment": WILD})
    state = torch.random.get_rng_state()
    first = dataset[0, 123]
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(99)
    assert same(first, dataset[0, 123])
    assert not same(first, dataset[0, 124])
    assert same(dataset[0], dataset[0, 0])


def test_workers_change_nothing(make_split: Callable[..., Split]) -> None:
    dataset = InstanceDataset(make_split(), **PLAIN | {"augment": WILD, "cache_images": True})
    sampler = StepSampler(len(dataset), batch_size=2, seed=1, steps=4)
    here = list(DataLoader(dataset, batch_sampler=sampler, collate_fn=collate))
    # As in training. A fork of this process takes along the threads of a Prefect that other tests have started.
    there = DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=2,
        multiprocessing_context="forkserver",
    )
    for a, b in zip(here, there, strict=True):
        assert torch.equal(a["images"], b["images"])
        assert all(torch.equal(x, y) for x, y in zip(a["masks"], b["masks"], strict=True))


def test_a_data_set_can_be_sent_to_a_spawned_worker(make_split: Callable[..., Split]) -> None:
    dataset = InstanceDataset(make_split(), **PLAIN | {"augment": WILD})
    copy = pickle.loads(pickle.dumps(dataset))  # noqa: S301
    assert same(dataset[0, 3], copy[0, 3])


def test_a_worker_is_sent_neither_rows_nor_images(make_split: Callable[..., Split]) -> None:
    dataset = InstanceDataset(make_split(), **PLAIN | {"cache_images": True})
    before = len(pickle.dumps(dataset))
    first = dataset[0]
    sent = pickle.dumps(dataset)
    assert len(sent) == before < 4000
    assert same(pickle.loads(sent)[0], first)  # noqa: S301


def test_pseudo_labels_join_the_weak_split_with_their_scores(
    make_split: Callable[..., Split], tmp_path: Path
) -> None:
    strong = make_split()
    folder = tmp_path / "weak_images"
    folder.mkdir()
    row = {"instance_id": 1, "image_id": 10, "category_id": 3, "mask": tiny_masks()["bar"]}
    pseudo = instances_table([row | {"source": "pseudo", "score": 0.25}])
    pseudo = pseudo.append_column("point_x", pa.array([5.0], pa.float32())).append_column(
        "point_y", pa.array([20.5], pa.float32())
    )
    write_split(tmp_path / "weak", images_table(folder, [10, 40]), pseudo, CATEGORIES, str(folder))
    dataset = InstanceDataset([strong, Split.open(tmp_path / "weak")], **PLAIN)
    assert [dataset[i]["image_id"] for i in range(len(dataset))] == [10, 20, 30, 10, 40]
    weak = dataset[3]
    assert weak["weights"].tolist() == [0.25]
    assert weak["labels"].tolist() == [0]
    assert weak["points_xy"].tolist() == [[5.0, 20.5]]
    assert dataset[0]["weights"].tolist() == [1, 1, 1]  # image 10 of the strong split is another one
    doubled = InstanceDataset(dataset.splits[1], **PLAIN | {"short_side": 48, "max_side": 80})[0]
    assert doubled["points_xy"].tolist() == [[10.0, 41.0]]


def test_splits_of_unlike_categories_do_not_join(make_split: Callable[..., Split], tmp_path: Path) -> None:
    strong = make_split()
    write_split(
        tmp_path / "other", strong.images, INSTANCES.empty_table(), [Category(3, "cup")], strong.image_root
    )
    with pytest.raises(DataError, match="cup"):
        InstanceDataset([strong, Split.open(tmp_path / "other")], **PLAIN)


def test_images_that_cannot_be_used_are_left_out(make_split: Callable[..., Split], tmp_path: Path) -> None:
    split = make_split()
    status = pa.array(["ok", "unreadable", "ok"])
    images = split.images.set_column(IMAGES.get_field_index("status"), "status", status)
    write_split(tmp_path / "other", images, split.instances, split.categories, split.image_root)
    dataset = InstanceDataset(Split.open(tmp_path / "other"), **PLAIN)
    assert [dataset[i]["image_id"] for i in range(len(dataset))] == [10, 30]


def test_images_can_be_left_out_by_id(make_split: Callable[..., Split]) -> None:
    split = make_split()
    ids = split.images["image_id"].to_pylist()
    dataset = InstanceDataset(split, **PLAIN, leave_out={ids[0], -1})
    assert [dataset[n]["image_id"] for n in range(len(dataset))] == ids[1:]


def test_an_image_that_changed_since_its_ingest_is_refused(make_split: Callable[..., Split]) -> None:
    split = make_split()
    path = split.image_path(2)
    before = path.read_bytes()
    InstanceDataset(split, **PLAIN)[2]
    path.write_bytes(split.image_path(0).read_bytes())  # of the same size
    with pytest.raises(
        DataError, match=r"found another content; expected that of its ingest.*ingest stage again"
    ):
        InstanceDataset(split, **PLAIN)[2]
    path.write_bytes(before)
    InstanceDataset(split, **PLAIN)[2]


def test_an_image_that_changed_its_size_is_refused(make_split: Callable[..., Split]) -> None:
    """Where a split doesn't say what bytes its images had."""
    split = make_split()
    split.images = split.images.set_column(
        IMAGES.get_field_index("sha256"), IMAGES.field("sha256"), pa.array([""] * 3, pa.string())
    )
    cv2.imwrite(str(split.image_path(2)), np.zeros((40, 24, 3), np.uint8))
    with pytest.raises(DataError, match="24 x 40 pixels"):
        InstanceDataset(split, **PLAIN)[2]


def test_cached_images_are_read_once(make_split: Callable[..., Split]) -> None:
    split = make_split()
    dataset = InstanceDataset(split, **PLAIN | {"cache_images": True})
    first = dataset[0]
    split.image_path(0).unlink()
    assert same(first, dataset[0])
    with pytest.raises(DataError, match="no such file"):
        InstanceDataset(split, **PLAIN)[0]


def test_batches_are_padded_with_zeros_to_multiples_of_32(make_split: Callable[..., Split]) -> None:
    split = make_split()
    small = InstanceDataset(split, **PLAIN)[0]
    large = InstanceDataset(split, **PLAIN | {"short_side": 39, "max_side": 100})[0]
    batch = collate([small, large])
    assert batch["images"].shape == (2, 3, 64, 96)
    assert batch["content_sizes"] == [(24, 40), (39, 65)]
    assert torch.equal(batch["images"][0, :, :24, :40], small["image"])
    assert batch["images"][0].sum() == small["image"].sum()
    for masks, crowd, sample in zip(batch["masks"], batch["crowds"], (small, large), strict=True):
        assert masks.shape == (3, 64, 96)
        assert masks.sum() == sample["masks"].sum()
        assert crowd.shape == (64, 96)
    exact = collate([InstanceDataset(split, **PLAIN | {"short_side": 32, "max_side": 32})[1]])
    assert exact["images"].shape == (1, 3, 32, 32)
    assert exact["masks"][0].shape == (0, 32, 32)
    assert exact["crowds"] == [None]


def test_a_sample_s_size_is_known_without_its_image(make_split: Callable[..., Split]) -> None:
    dataset = InstanceDataset(make_split(), **PLAIN | {"augment": changed(WILD, scale_min=0.5, crop=False)})
    for seed in range(12):
        key = (seed % len(dataset), seed)
        assert dataset.content_size(key) == tuple(dataset[key]["image"].shape[1:])


def test_crops_say_where_they_lay(make_split: Callable[..., Split]) -> None:
    split = make_split()
    whole = InstanceDataset(split, **PLAIN | {"short_side": 48, "max_side": 80})[0]
    crops = InstanceDataset(
        split, **PLAIN | {"short_side": 48, "max_side": 80, "augment": changed(STILL, crop_side=32)}
    )
    batch = collate([crops[0, seed] for seed in range(4)])
    assert batch["images"].shape == (4, 3, 32, 32)
    assert len(set(batch["crop_origins"])) > 1
    for image, (x, y) in zip(batch["images"], batch["crop_origins"], strict=True):
        assert torch.equal(image, whole["image"][:, y : y + 32, x : x + 32])
    assert collate([whole])["crop_origins"] == [(0, 0)]


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 2**31), st.integers(1, 40))
def test_steps_walk_through_whole_epochs(n: int, batch_size: int, seed: int, steps: int) -> None:
    keys = [key for batch in StepSampler(n, batch_size, seed, steps) for key in batch]
    assert len(keys) == steps * batch_size
    for start in range(0, len(keys) - n + 1, n):
        assert sorted(index for index, _ in keys[start : start + n]) == list(range(n))
    assert len({draw for _, draw in keys}) == len(keys)
    assert all(0 <= draw < 2**63 for _, draw in keys)


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 2**31), st.integers(0, 20))
def test_resuming_goes_on_as_if_never_stopped(n: int, batch_size: int, seed: int, start: int) -> None:
    whole = list(StepSampler(n, batch_size, seed, 20))
    rest = StepSampler(n, batch_size, seed, 20, start_step=start)
    assert list(rest) == whole[start:]
    assert len(rest) == 20 - start


def test_epochs_and_seeds_differ() -> None:
    epochs = [[index for index, _ in batch] for batch in StepSampler(20, 20, 0, 3)]
    assert epochs[0] != epochs[1] != epochs[2]
    assert list(StepSampler(20, 20, 0, 3)) != list(StepSampler(20, 20, 1, 3))
    with pytest.raises(ValueError, match="n=0"):
        StepSampler(0, 4, 0, 1)


@given(st.data(), st.integers(0, 2**31), st.integers(0, 20))
def test_mixed_batches_keep_their_parts(data: st.DataObject, seed: int, start: int) -> None:
    n, size = data.draw(st.integers(2, 30)), data.draw(st.integers(2, 9))
    first, own = data.draw(st.integers(1, n - 1)), data.draw(st.integers(1, size - 1))
    whole = list(MixedSampler(first, n, own, size, seed, 20))
    rest = MixedSampler(first, n, own, size, seed, 20, start_step=start)
    assert list(rest) == whole[start:] and len(rest) == 20 - start
    assert all(len(batch) == size for batch in whole)
    for part, length in ((slice(None, own), first), (slice(own, None), n - first)):
        indices = [index for batch in whole for index, _ in batch[part]]
        offset = 0 if part.start is None else first
        for at in range(0, len(indices) - length + 1, length):
            assert sorted(indices[at : at + length]) == list(range(offset, offset + length))
    draws = [draw for batch in whole for _, draw in batch]
    assert len(set(draws)) == len(draws)


@pytest.mark.parametrize("turn", [0, 7, 20])
@pytest.mark.parametrize("start", [0, 5, 7, 12, 20])
def test_the_end_is_of_the_first_part(turn: int, start: int) -> None:
    mixed, strong = list(MixedSampler(4, 9, 1, 3, 0, 20)), list(StepSampler(4, 3, 0, 20))
    sampler = EndSampler(MixedSampler(4, 9, 1, 3, 0, 20, start), turn, 4, 3, 0, 20, start)
    assert list(sampler) == [*mixed[:turn], *strong[turn:]][start:]
    assert len(sampler) == 20 - start


@pytest.mark.parametrize(
    ("first", "n", "own", "size"), [(0, 5, 1, 2), (5, 5, 1, 2), (2, 5, 0, 2), (2, 5, 2, 2)]
)
def test_a_mix_of_nothing_is_refused(first: int, n: int, own: int, size: int) -> None:
    with pytest.raises(ValueError, match=f"{first} of {n} samples, {own} of {size} places"):
        MixedSampler(first, n, own, size, 0, 1)


def test_real_images_and_masks_load(real_split: Callable[[str], Split]) -> None:
    dataset = InstanceDataset(real_split("facade"), **PLAIN | {"short_side": 256, "max_side": 256})
    for i in range(0, len(dataset), 30):
        sample = dataset[i]
        assert sample["image"].shape == (3, 256, 256)
        assert 0 < len(sample["masks"]) <= dataset.splits[0].instances_of(i).num_rows
        assert sample["labels"].max() < 10
