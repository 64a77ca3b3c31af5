"""The split of a training step's batch across ranks."""

from __future__ import annotations

from torch.utils.data import Dataset

from data.samples.dataset import Batch, InstanceDataset, Key, collate


def share(size: int, index: int, count: int) -> slice:
    """The contiguous part of `size` items for rank `index` of `count`; parts differ by at most one item."""
    each, more = divmod(size, count)
    start = index * each + min(index, more)
    return slice(start, start + each + (index < more))


class StepDataset(Dataset[Batch]):
    """This rank's part of the batch of a step, by the keys of the whole step.

    It is padded as the whole batch would be: a network's grid covers the padded input, so results don't depend on the
    number of ranks.
    """

    def __init__(self, samples: InstanceDataset, index: int, count: int) -> None:
        self.samples, self.index, self.count = samples, index, count

    def __getitem__(self, keys: list[Key]) -> Batch:
        """Raises DataError: an image is missing, unreadable or has changed since its ingest."""
        part = share(len(keys), self.index, self.count)
        others = [self.samples.content_size(key) for key in keys] if self.count > 1 else []
        return collate([self.samples[key] for key in keys[part]], others)
