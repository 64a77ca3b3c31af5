"""Splits as a torch Dataset: samples, batches, and the order of training steps.

N images, K instances, H0 x W0 original size, h x w after resizing, H x W padded in a batch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from data.errors import DataError, Fault
from data.images.read import read_ingested
from data.images.resize import pad_to, padded_shape, resize_shape
from data.samples.placement import Placement, whole
from data.samples.transforms import AugmentConfig, draw_placement, recolour
from data.tables import POINT_COLUMNS, Split, class_indices

Key = tuple[int, int]
"""The index of a sample and the seed of its draws."""


class Sample(TypedDict):
    """One image with its instances, resized and augmented."""

    image: Tensor  # uint8 [3, h, w], RGB
    masks: Tensor  # bool [K, h, w], none empty, without crowds
    labels: Tensor  # int64 [K], contiguous class indices
    weights: Tensor  # float32 [K], 1 for an annotator's mask, the score of a pseudo mask
    points_xy: Tensor | None  # float32 [K, 2], input pixels: clicks of pseudo masks, NaN for true masks
    crowd: Tensor | None  # bool [h, w], union of the crowds
    image_id: int
    original_size: tuple[int, int]  # (H0, W0)
    crop_origin: tuple[int, int]  # x, y of the crop in the whole resized image


class Batch(TypedDict):
    """N samples; images and masks padded with zeros at the bottom and right to a common H x W."""

    images: Tensor  # uint8 [N, 3, H, W]
    masks: list[Tensor]  # bool [K, H, W] each
    labels: list[Tensor]
    weights: list[Tensor]
    points_xy: list[Tensor | None]
    crowds: list[Tensor | None]  # bool [H, W] each
    image_ids: list[int]
    original_sizes: list[tuple[int, int]]
    content_sizes: list[tuple[int, int]]  # (h, w)
    crop_origins: list[tuple[int, int]]  # (x, y)


class InstanceDataset(Dataset[Sample]):
    """The usable images (status "ok") of one or more splits, one split after the other.

    Args:
        split: a split, or several with the same categories.
        short_side: the shorter side after plain resizing, in pixels.
        max_side: the longer side never exceeds this.
        enlarge: whether smaller images are enlarged.
        augment: None resizes only.
        cache_images: keep decoded images in memory (per process).
        leave_out: ids of images to leave out.

    Raises:
        DataError: the splits' categories differ.
    """

    def __init__(
        self,
        split: Split | Sequence[Split],
        *,
        short_side: int,
        max_side: int,
        enlarge: bool,
        augment: AugmentConfig | None,
        cache_images: bool,
        leave_out: Collection[int] = (),
    ) -> None:
        self.splits = [split] if isinstance(split, Split) else list(split)
        for other in self.splits[1:]:
            if other.categories != self.splits[0].categories:
                raise DataError(
                    Fault(
                        str(other.root),
                        "categories",
                        str([tuple(c) for c in other.categories]),
                        str([tuple(c) for c in self.splits[0].categories]),
                        "ingest all splits with the same categories",
                    )
                )
        self.categories = self.splits[0].categories
        self.short_side = short_side
        self.max_side = max_side
        self.enlarge = enlarge
        self.augment = augment
        # Sorted, as class_indices counts: searchsorted gives the class index of a category id.
        self._category_ids = np.asarray(list(class_indices(self.categories)), dtype=np.int64)
        self._where = np.concatenate(
            [
                np.stack([np.full(rows.size, n), rows], axis=1)
                for n, one in enumerate(self.splits)
                for rows in [np.flatnonzero(_usable(one, leave_out))]
            ]
        )
        self._cache: dict[int, np.ndarray] | None = {} if cache_images else None

    def samples_of(self, n: int) -> int:
        """The number of samples from the n-th split."""
        return int((self._where[:, 0] == n).sum())

    def __len__(self) -> int:
        return len(self._where)

    def __getstate__(self) -> dict[str, Any]:
        # A worker process maps the tables and reads images itself; cached ones aren't sent to it.
        return self.__dict__ | {"_cache": None if self._cache is None else {}}

    def _image(self, index: int, split: Split, i: int) -> np.ndarray:
        if self._cache is not None and index in self._cache:
            return self._cache[index]
        image = read_ingested(split, i)
        if self._cache is not None:
            self._cache[index] = image
        return image

    def _place(self, size: tuple[int, int], draw_seed: int) -> Placement:
        """The geometry of a sample. Seeds torch's global generator, from which `recolour` draws next."""
        shape = resize_shape(size, self.short_side, self.max_side, self.enlarge)
        if self.augment is None:
            return whole(size, shape)
        # torch.manual_seed would also reset the accelerators' generators, which fork_rng doesn't restore.
        torch.default_generator.manual_seed(draw_seed)
        return draw_placement(size, shape, self.augment)

    def content_size(self, key: Key) -> tuple[int, int]:
        """(h, w) of the sample at (index, draw_seed), without reading its image."""
        n, i = (int(value) for value in self._where[key[0]])
        row = self.splits[n].image(i)
        with torch.random.fork_rng(devices=[]):
            return self._place((row["height"], row["width"]), key[1]).size

    def __getitem__(self, key: int | Key) -> Sample:
        """The sample at ``index``, or at (index, draw_seed); a bare index draws with seed 0.

        All randomness comes from ``draw_seed``: neither the worker nor earlier draws matter.

        Raises:
            DataError: the image file is missing, unreadable or has changed since its ingest.
        """
        index, draw_seed = key if isinstance(key, tuple) else (key, 0)
        n, i = (int(value) for value in self._where[index])
        split = self.splits[n]
        row = split.image(i)
        size = (row["height"], row["width"])
        instances = split.instances_of(i)
        image = torch.from_numpy(self._image(index, split, i)).permute(2, 0, 1)
        with torch.random.fork_rng(devices=[]):
            placement = self._place(size, draw_seed)
            image = placement.image(image)
            if self.augment is not None:
                image = recolour(image, self.augment)

        is_crowd = instances["iscrowd"].to_numpy()
        try:
            masks, held = placement.masks(instances["rle_counts"].to_pylist())
        except ValueError as error:
            where = str(split.root / "instances.arrow")
            expected = f"RLEs of {size[0]} x {size[1]} pixels"
            raise DataError(
                Fault(where, f"image {row['image_id']}", str(error), expected, "run the ingest stage again")
            ) from None
        things = ~is_crowd[held]
        kept = held[things]
        labels = np.searchsorted(self._category_ids, instances["category_id"].to_numpy()[kept])
        weights = instances["score"].fill_null(1.0).to_numpy()[kept]
        points = None
        if "point_x" in instances.column_names:
            xy = [instances[name].to_numpy()[kept] for name in POINT_COLUMNS]
            points = placement.points(torch.from_numpy(np.stack(xy, axis=1).astype(np.float32)))
        return Sample(
            image=image.contiguous(),
            masks=masks if things.all() else masks[torch.from_numpy(things)],
            labels=torch.from_numpy(labels.astype(np.int64)),
            weights=torch.from_numpy(weights.astype(np.float32)),
            points_xy=points,
            crowd=masks[torch.from_numpy(~things)].any(dim=0) if is_crowd.any() else None,
            image_id=row["image_id"],
            original_size=size,
            crop_origin=placement.origin,
        )


def _usable(split: Split, leave_out: Collection[int]) -> np.ndarray:
    """Bool, one per image."""
    ok: np.ndarray = split.images["status"].to_numpy(zero_copy_only=False) == "ok"
    return ok & ~np.isin(split.images["image_id"].to_numpy(), list(leave_out))


def collate(samples: Sequence[Sample], others: Sequence[tuple[int, int]] = ()) -> Batch:
    """Pads samples to the largest height and width among them and `others`, rounded up to ``PAD_MULTIPLE``.

    Args:
        others: (h, w) of samples that other processes pad to the same size.
    """
    sizes = [(int(s["image"].shape[1]), int(s["image"].shape[2])) for s in samples]
    height, width = (max(sides) for sides in zip(*sizes, *others, strict=True))
    shape = padded_shape((height, width))
    return Batch(
        images=torch.stack([pad_to(s["image"], shape) for s in samples]),
        masks=[pad_to(s["masks"], shape) for s in samples],
        labels=[s["labels"] for s in samples],
        weights=[s["weights"] for s in samples],
        points_xy=[s["points_xy"] for s in samples],
        crowds=[None if (crowd := s["crowd"]) is None else pad_to(crowd, shape) for s in samples],
        image_ids=[s["image_id"] for s in samples],
        original_sizes=[s["original_size"] for s in samples],
        content_sizes=sizes,
        crop_origins=[s["crop_origin"] for s in samples],
    )


class StepSampler(Sampler[list[Key]]):
    """The keys (index, draw_seed) of each training step: a batch sampler for a DataLoader.

    Epochs are shuffled and joined end to end, so no image comes twice before all came once; a batch may span two
    epochs. A step's keys depend on (n, batch_size, seed, step) alone: a resumed training continues exactly.

    Args:
        n: number of samples in the data set, at least 1.
        batch_size: samples per step.
        seed: of the shuffling and of the draws.
        steps: total number of steps.
        start_step: the first step to yield.
        stream: samplers of one seed and different streams draw independently.
    """

    def __init__(
        self, n: int, batch_size: int, seed: int, steps: int, start_step: int = 0, stream: int = 0
    ) -> None:
        if n < 1 or batch_size < 1:
            raise ValueError(f"n and batch_size are 1 or more; found n={n}, batch_size={batch_size}")
        self.n = n
        self.batch_size = batch_size
        self.seed = seed
        self.steps = steps
        self.start_step = start_step
        self.stream = stream

    def __len__(self) -> int:
        return max(0, self.steps - self.start_step)

    def __iter__(self) -> Iterator[list[Key]]:
        shuffled_epoch, order = -1, np.arange(0)
        for step in range(self.start_step, self.steps):
            keys = []
            for position in range(step * self.batch_size, (step + 1) * self.batch_size):
                epoch, at = divmod(position, self.n)
                if epoch != shuffled_epoch:
                    shuffled_epoch = epoch
                    order = np.random.default_rng([self.seed, 2 * self.stream, epoch]).permutation(self.n)
                draws = np.random.SeedSequence([self.seed, 2 * self.stream + 1, position])
                draw_seed = draws.generate_state(1, np.uint64)[0]
                keys.append((int(order[at]), int(draw_seed) >> 1))  # 63 bits: torch takes signed seeds
            yield keys


class MixedSampler(Sampler[list[Key]]):
    """Batches of a fixed number of samples from each of two parts of a data set.

    Each part has its own shuffled epochs, as in StepSampler: samples of a small part repeat more often.

    Args:
        first: number of samples of the first part, 1 to n - 1.
        n: total number of samples.
        first_size: samples per step from the first part, 1 to batch_size - 1.
        batch_size, seed, steps, start_step: as StepSampler's.
    """

    def __init__(
        self, first: int, n: int, first_size: int, batch_size: int, seed: int, steps: int, start_step: int = 0
    ) -> None:
        if not (0 < first < n and 0 < first_size < batch_size):
            raise ValueError(
                f"both parts need samples and a place in the batch; found {first} of {n} samples, {first_size} of "
                f"{batch_size} places"
            )
        self.first = first
        self.parts = (
            StepSampler(first, first_size, seed, steps, start_step),
            StepSampler(n - first, batch_size - first_size, seed, steps, start_step, stream=1),
        )

    def __len__(self) -> int:
        return len(self.parts[0])

    def __iter__(self) -> Iterator[list[Key]]:
        for own, others in zip(*self.parts, strict=True):
            yield own + [(self.first + index, draw_seed) for index, draw_seed in others]


class EndSampler(Sampler[list[Key]]):
    """The batches of another sampler, and from a step on those of the data set's first part alone.

    Args:
        before: yields the steps from `start_step` on.
        turn: the first step with samples of the first part alone.
        first: number of samples of the first part.
        batch_size, seed, steps, start_step: as StepSampler's; the same as of `before`.
    """

    def __init__(
        self, before: Sampler[list[Key]], turn: int, first: int, batch_size: int, seed: int, steps: int,
        start_step: int = 0,
    ) -> None:  # fmt: skip
        self.before, self.mixed = before, max(0, turn - start_step)
        self.end = StepSampler(first, batch_size, seed, steps, max(start_step, turn))

    def __len__(self) -> int:
        return self.mixed + len(self.end)

    def __iter__(self) -> Iterator[list[Key]]:
        yield from islice(self.before, self.mixed)
        yield from self.end
