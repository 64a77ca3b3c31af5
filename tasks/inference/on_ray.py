"""Finds instances in parts of a split on a Ray cluster."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from data.tables import Split
from models.checkpoint import load_detector
from tasks.common.config import Params
from tasks.common.device import set_up
from tasks.common.progress import Bar
from tasks.common.ray_parts import Job, map_parts
from tasks.inference.predict import Finder
from tasks.inference.split_parts import SplitPart, opened, source_of, with_files, with_source

log = logging.getLogger(__name__)


class Instances(NamedTuple):
    """What a worker found in a part."""

    table: pa.Table
    """PREDICTIONS"""
    faults: list[str]
    missing: bool
    """files aren't in S3 as they were ingested: nothing was computed"""


MakeFinder = Callable[[Split], Finder]


@dataclass(frozen=True)
class RayFinder:
    """As `Finder`, on workers of the cluster.

    Attributes:
        source: s3://BUCKET/PREFIX that has the split's files, or None.
    """

    job: Job[MakeFinder, SplitPart, Instances]
    split: Split
    source: str | None

    def find(
        self, parts: Sequence[Sequence[int]], bar: Bar
    ) -> Iterator[tuple[int, pa.Table | None, list[str]]]:
        """See `tasks.inference.predict.Find`."""
        lacking: list[int] = []
        yield from self._pass(parts, list(range(len(parts))), self.source, lacking, bar)
        yield from self._pass(parts, lacking, None, [], bar)

    def _pass(
        self,
        parts: Sequence[Sequence[int]],
        numbers: list[int],
        source: str | None,
        lacking: list[int],
        bar: Bar,
    ) -> Iterator[tuple[int, pa.Table | None, list[str]]]:
        """Some parts; those of which a file isn't at the source are added to `lacking`."""
        for (n, faults), found in map_parts(self.job, self._parts(parts, numbers, source)):
            if found.missing:
                lacking.append(n)
                continue
            faults += found.faults
            for fault in faults:
                log.warning("%s", fault)
            bar.advance(len(parts[n]))
            yield n, None if faults else found.table, faults

    def _parts(
        self, parts: Sequence[Sequence[int]], numbers: list[int], source: str | None
    ) -> Iterator[tuple[tuple[int, list[str]], SplitPart]]:
        for n in numbers:
            if source is not None:
                yield (n, []), with_source(self.split, parts[n], source)
            else:
                part, faults = with_files(self.split, parts[n])
                yield (n, list(faults.values())), part


def ray_finder(name: str, params: Params, workspace: Path, split: Split) -> RayFinder:
    """With the network in the folder `name` of the workspace, which is one of the split's classes."""
    files = {file: workspace / name / file for file in ("model.safetensors", "model.json")}
    job = Job("evaluate", params, partial(_load, name), _work, files)
    return RayFinder(job, split, source_of(params))


def _load(name: str, params: Params, folder: Path) -> MakeFinder:
    device = set_up(params.runtime, params.threads)
    return partial(
        Finder, load_detector(folder, device), size=params.input, inference=params.evaluate.inference,
        batch_size=params.evaluate.batch_size, device=device, workers=0, name=name,
        threads=max(1, params.runtime.workers),
    )  # fmt: skip


def _work(finder_of: MakeFinder, part: SplitPart) -> Instances:
    with opened(part) as images, Bar("part", len(part.images), "image") as bar:
        if images.missing:
            return Instances(pa.table({}), [], missing=True)
        [(table, faults)] = finder_of(images.split).find([range(len(images.split))], bar)
        return Instances(table, [images.fault(fault) for fault in faults], missing=False)
