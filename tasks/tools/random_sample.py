"""The random sample of a project: drawn once, then read."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from data.tables import PSEUDO, Split, read_parquet
from tasks.common.errors import TaskError
from tasks.review.audit import Sample, changed, draw_sample, masks_of, read_sample, write_sample


class Opened(NamedTuple):
    """A sample; whether it was drawn now; objects whose mask or class has changed since."""

    sample: Sample
    is_new: bool
    changed: list[str]


def open_sample(decisions: Path, workspace: Path, count: int, seed: int, redraw: bool) -> Opened:
    """The sample in the folder of decisions; drawn from the pseudo masks and written, if there is none.

    Args:
        count: masks to draw; all if there are fewer. A sample that is there keeps its own number.
        redraw: draw anew.

    Raises:
        DataError: the sample's file is damaged.
        TaskError: there are no pseudo masks.
    """
    parts = sorted((workspace / "pseudo").glob("part-*.parquet"))
    masks = masks_of(
        (read_parquet(part, PSEUDO) for part in parts), Split.open(workspace / "dataset" / "weak")
    )
    if not masks:
        raise TaskError(f"{workspace / 'pseudo'}: no pseudo masks to draw from; run `points2model run` first")
    sample = None if redraw else read_sample(decisions)
    if sample is not None:
        present = {one.object: (one.category, one.mask) for one in masks}
        return Opened(sample, False, changed(sample.objects, present))
    sample = draw_sample(masks, count, seed)
    write_sample(decisions, sample)
    return Opened(sample, True, [])
