"""Shares of a training step's batch, for processes that train together."""

from __future__ import annotations

from torch.utils.data import Dataset

from data.samples.dataset import Batch, InstanceDataset, Key, collate


def share(size: int, index: int, count: int) -> slice:
    """The part of `size` things that falls to process `index` of `count`: in order, none twice, none left out, and no
    process has two more than another."""
    each, more = divmod(size, count)
    start = index * each + min(index, more)
    return slice(start, start + each + (index < more))


class StepDataset(Dataset[Batch]):
    """A data set's batches, by the keys of a whole step: this process's share of it.

    The share is padded as the whole step's batch would be, for networks whose grid covers the padded input: so an image
    means the same however many processes there are.

    Args:
        index: of this process.
        count: of processes.
    """

    def __init__(self, samples: InstanceDataset, index: int, count: int) -> None:
        self.samples, self.index, self.count = samples, index, count

    def __getitem__(self, keys: list[Key]) -> Batch:
        """Raises DataError: an image is missing, unreadable or of another size than ingested."""
        part = share(len(keys), self.index, self.count)
        others = [self.samples.content_size(key) for key in keys] if self.count > 1 else []
        return collate([self.samples[key] for key in keys[part]], others)
