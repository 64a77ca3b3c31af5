"""Instances that a trained network finds in the images of a split, without points, in parts.

Parts are Parquet files of some hundred images each, in a folder of the run. A killed step continues after the finished
parts, and processes divide them between each other. A part's content doesn't depend on the process.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from data.masks import rle as mask_codec
from data.masks.rle import encode_many
from data.tables import PREDICTIONS, Split, read_parquet, write_parquet
from models.config import InferenceConfig
from models.inference.detector import Detector, detect
from tasks.common import processes
from tasks.common.config import InputConfig
from tasks.common.errors import TaskError
from tasks.common.ordered_threads import ordered_thread_map
from tasks.common.progress import Bar
from tasks.inference.batches import ImageBatch, grouped, read_batches

SCORE_DECIMALS = 6
_MAX_LISTED = 50
Rows = list[dict[str, Any]]
Job = tuple[int, Callable[[], Rows]]


@dataclass(frozen=True)
class Finder:
    """A network, and the settings with which it finds instances in images of a split.

    Attributes:
        model: on `device`, in eval mode, with the `categories` of its checkpoint: class i is categories[i].
        split: its images are read, its instances aren't.
        size: the size that images are resized to.
        batch_size: images at a time, all of one padded size.
        workers: processes that read images; 0 reads them in this one.
        name: the network's name in the progress bar, e.g. "student".
        threads: threads that read images, in place of the workers.
    """

    model: Detector
    split: Split
    size: InputConfig
    inference: InferenceConfig
    batch_size: int
    device: torch.device
    workers: int
    name: str
    threads: int = 0

    def find(self, parts: Sequence[Sequence[int]], bar: Bar) -> Iterator[tuple[pa.Table, list[str]]]:
        """Instances part by part, while the images of the next part are read.

        Args:
            parts: rows of the split's images.
            bar: advances by one per image.

        Yields:
            PREDICTIONS of a part, sorted by image_id, the best of an image first; and the faults of its images that
            are missing, unreadable or changed. After a fault images are only read, to list all faults.
        """
        faults: list[list[str]] = [[] for _ in parts]
        found: Rows = []
        at = 0
        for n, instances in ordered_thread_map(self._jobs(parts, faults, bar)):
            for done in range(at, n):
                yield _table(found), faults[done]
                found = []
            at = n
            found += instances
        for done in range(at, len(parts)):
            yield _table(found), faults[done]
            found = []

    def _jobs(
        self, parts: Sequence[Sequence[int]], faults: list[list[str]], bar: Bar
    ) -> Iterator[tuple[int, Callable[[], tuple[int, Rows]]]]:
        """For each image the job that returns its part's number and its rows."""
        image_ids = self.split.images["image_id"]
        batches = [
            (n, batch)
            for n, rows in enumerate(parts)
            for batch in grouped(self.split, rows, self.size, self.batch_size)
        ]
        read = read_batches(
            self.split, (batch for _, batch in batches), self.size, self.workers, self.threads
        )
        for (n, _), (loaded, failed) in zip(batches, read, strict=True):
            faults[n] += [one.fault for one in failed]
            if loaded is not None and not any(faults):
                for size, job in self._batch(loaded, [image_ids[row].as_py() for row in loaded.rows]):
                    yield size, partial(_of_part, n, job)
            bar.advance((len(loaded.rows) if loaded else 0) + len(failed))

    @torch.inference_mode()
    def _batch(self, batch: ImageBatch, image_ids: Sequence[int]) -> Iterator[Job]:
        images = batch.images.to(self.device, non_blocking=True)
        sizes = [batch.sizes(n) for n in range(len(batch.originals))]
        found_in = detect(self.model, images, batch.content_sizes, self.size.tile, self.inference, sizes)
        for n, found in enumerate(found_in):
            classes = [self.model.categories[label]["id"] for label in found.labels.tolist()]
            yield (
                found.masks.nbytes,
                partial(_rows, image_ids[n], classes, found.scores.tolist(), found.masks, found.boxes_xyxy),
            )


def _of_part(n: int, job: Callable[[], Rows]) -> tuple[int, Rows]:
    return n, job()


def _table(rows: Rows) -> pa.Table:
    # A stable sort: an image's instances stay sorted by score.
    return pa.Table.from_pylist(sorted(rows, key=lambda row: row["image_id"]), schema=PREDICTIONS)


def _rows(
    image_id: int, category_ids: Sequence[int], scores: Sequence[float], masks: Tensor, boxes_xyxy: Tensor
) -> Rows:
    """PREDICTIONS rows of one image; masks bool [D, H, W], empty outside boxes [D, 4]. Empty masks are left out."""
    height, width = masks.shape[-2:]
    rows = []
    codes = encode_many(masks, boxes_xyxy)
    for category_id, score, counts in zip(category_ids, scores, codes, strict=True):
        area = mask_codec.area(counts, height, width)
        if not area:  # all of it was in the padding, which is cut off
            continue
        rows.append(
            {
                "image_id": image_id,
                "category_id": category_id,
                "score": round(score, SCORE_DECIMALS),
                "bbox_xywh": mask_codec.bbox_xywh(counts, height, width),
                "area": area,
                "height": height,
                "width": width,
                "rle_counts": counts,
            }
        )
    return rows


Find = Callable[[Sequence[Sequence[int]], Bar], Iterator[tuple[int, pa.Table | None, list[str]]]]
"""Returns each part's index, in any order, with its PREDICTIONS and the faults of its images. The bar counts images.
A part whose images weren't all predicted has None."""


def _in_order(
    finder: Finder, parts: Sequence[Sequence[int]], bar: Bar
) -> Iterator[tuple[int, pa.Table | None, list[str]]]:
    faulty = False
    for n, (table, faults) in enumerate(finder.find(parts, bar)):
        faulty = faulty or bool(faults)  # from here on images are only read
        yield n, None if faulty else table, faults


@dataclass(frozen=True)
class Predictions:
    """Instances of a split's usable images, in parts.

    Attributes:
        folder: of the parts' files.
        rows: the rows of the split's images in each part, in the order of image ids.
    """

    folder: Path
    rows: list[list[int]]

    @classmethod
    def plan(cls, folder: Path, split: Split, part_images: int) -> Predictions:
        """Parts of `part_images` images with the status "ok"; at least one part."""
        rows = [i for i, status in enumerate(split.images["status"].to_pylist()) if status == "ok"]
        return cls(folder, [rows[at : at + part_images] for at in range(0, len(rows), part_images)] or [[]])

    def path(self, n: int) -> Path:
        """Of part `n`."""
        return self.folder / f"part-{n:05d}.parquet"

    def table(self, n: int) -> pa.Table:
        """PREDICTIONS of part `n`."""
        return read_parquet(self.path(n), PREDICTIONS)

    def make(self, finder: Finder, find: Find | None = None) -> None:
        """Makes the parts that don't exist yet; all processes of the step call this together.

        Args:
            find: finds the instances of parts in place of the finder.

        Raises:
            TaskError: images can't be read; all are listed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        there = [n for n in range(len(self.rows)) if self.path(n).exists()]
        there = processes.gather(there)[0]  # another process may have written one since
        missing = [n for n in range(len(self.rows)) if n not in set(there)]
        mine = missing[processes.index() :: processes.count()]
        done = sum(len(self.rows[n]) for n in there)
        faults: list[str] = []
        with Bar(
            f"predict with {finder.name}", done + sum(len(self.rows[n]) for n in mine), "image", done
        ) as bar:
            found = (find or partial(_in_order, finder))([self.rows[n] for n in mine], bar)
            for i, table, failed in found:
                faults += failed
                if table is not None:
                    write_parquet(table, self.path(mine[i]))
        faults = sorted(fault for own in processes.gather(faults) for fault in own)
        if faults and not processes.is_first():
            sys.exit(0)  # the first process reports the error
        if faults:
            more = f"\n  and {len(faults) - _MAX_LISTED} more" if len(faults) > _MAX_LISTED else ""
            listed = "\n".join(f"  - {fault}" for fault in faults[:_MAX_LISTED])
            raise TaskError(f"{finder.split.root}: {len(faults)} images can't be predicted:\n{listed}{more}")


@dataclass(frozen=True)
class StoredPredictions(Predictions):
    """Predictions written by stage evaluate: PREDICTIONS by image id."""

    whole: pa.Table
    image_ids: list[int]
    """of the split"""

    def table(self, n: int) -> pa.Table:
        if not self.rows[n]:
            return self.whole.slice(0, 0)
        # The images of a part are consecutive but for images without predictions.
        ids = self.whole["image_id"].to_numpy()
        first, last = (self.image_ids[row] for row in (self.rows[n][0], self.rows[n][-1]))
        begin, end = np.searchsorted(ids, first, "left"), np.searchsorted(ids, last, "right")
        return self.whole.slice(int(begin), int(end - begin))
