"""Computes pseudo labels on a Ray cluster: a window of images is a part."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from data.tables import Split
from tasks.common.config import Params
from tasks.common.device import set_up
from tasks.common.progress import Bar
from tasks.common.ray_parts import Job, map_parts
from tasks.inference.split_parts import SplitPart, opened, source_of, with_files, with_source
from tasks.labelling.compute import AnyWindow, Computation, Window
from tasks.labelling.labeller import Labeller, Plan, load_labeller
from tasks.labelling.rows import failed_rows
from tasks.labelling.types import Clicks

log = logging.getLogger(__name__)


class _Part(NamedTuple):
    images: SplitPart
    clicks: list[Clicks]


class _Made(NamedTuple):
    tables: list[pa.Table]
    """PSEUDO rows of each image"""
    failed: dict[int, str]
    missing: bool
    """files aren't in S3 as they were ingested: nothing was computed"""


class RayComputation:
    """Computes windows of one split's images on the cluster.

    Args:
        stage: the one whose code must be the same on all nodes.
        plan: what draws masks.
    """

    def __init__(self, stage: str, params: Params, workspace: Path, plan: Plan, split: Split) -> None:
        named = {str(path): workspace / path for path in plan.files(params)}
        self.job = Job(stage, params, partial(_load, plan), _work, named)
        self.split = split

    def run(self, windows: Iterator[AnyWindow], bar: Bar) -> Iterator[AnyWindow]:
        """Each window, in any order, once the rows of all its images are made."""
        source = source_of(self.job.params)
        lacking: list[AnyWindow] = []
        yield from self._pass(windows, source, lacking, bar)
        yield from self._pass(iter(lacking), None, [], bar)

    def _pass(
        self, windows: Iterator[AnyWindow], source: str | None, lacking: list[AnyWindow], bar: Bar
    ) -> Iterator[AnyWindow]:
        """As `run`; windows of which a file isn't at the source are added to `lacking`."""
        idle: list[AnyWindow] = []
        for (window, rows), made in map_parts(self.job, self._parts(windows, source, idle)):
            if made.missing:
                lacking.append(window)
            else:
                for row, table in zip(rows, made.tables, strict=True):
                    window.made[row] = [table]
                window.failed |= {rows[n]: fault for n, fault in made.failed.items()}
                yield _counted(window, bar)
            while idle:
                yield _counted(idle.pop(), bar)
        for window in idle:
            yield _counted(window, bar)

    def _parts(
        self, windows: Iterator[AnyWindow], source: str | None, idle: list[AnyWindow]
    ) -> Iterator[tuple[tuple[AnyWindow, list[int]], _Part]]:
        """The part of each window, and its rows; windows with nothing to send are added to `idle`."""
        for window in windows:
            rows = list(window.clicks)
            if source is not None:
                images = with_source(self.split, rows, source)
            else:
                images, faults = with_files(self.split, rows)
                _fail(window, faults)
                rows = [row for row in rows if row not in faults]
            if rows:
                yield (window, rows), _Part(images, [window.clicks[row] for row in rows])
            else:
                idle.append(window)


def _counted(window: AnyWindow, bar: Bar) -> AnyWindow:
    for fault in window.failed.values():
        log.warning("%s", fault)
    bar.advance(len(window.clicks))
    return window


def _fail(window: Window, faults: dict[int, str]) -> None:
    window.failed |= faults
    for row, fault in faults.items():
        window.made[row] = [failed_rows(window.clicks[row], fault)]


def _load(plan: Plan, params: Params, folder: Path) -> tuple[Params, Labeller]:
    device = set_up(params.runtime, params.threads)
    return params, load_labeller(params, folder, device, plan)


def _work(state: tuple[Params, Labeller], part: _Part) -> _Made:
    params, labeller = state
    with opened(part.images) as images:
        if images.missing:
            return _Made([], {}, missing=True)
        computation = Computation(params, labeller, images.split, threads=max(1, params.runtime.workers))
        with Bar("part", len(part.clicks), "image") as bar:
            [window] = computation.run(iter([Window(dict(enumerate(part.clicks)))]), bar)
        failed = {n: images.fault(fault) for n, fault in window.failed.items()}
        made = {n: [failed_rows(part.clicks[n], fault)] for n, fault in failed.items()}
        tables = (window.made | made).items()
        return _Made([pa.concat_tables(pieces) for _, pieces in sorted(tables)], failed, missing=False)
