"""What the driver of `runtime.ray` does for an image of pseudo_label, without Ray and networks: made-up rows come back.

python bench/ray_driver.py           # 1,000 images of 20 points, masks of 324 bytes (COCO's mean)
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import bench.pseudo_scale as drawn
from data.tables import PSEUDO, Split, write_parquet
from tasks.common.config import load_params
from tasks.common.progress import Bar
from tasks.inference.split_parts import with_files
from tasks.labelling.cache import Ledger
from tasks.labelling.parts import PointParts
from tasks.labelling.rows import failed_rows
from tasks.labelling.schedule import Maker, PlannedWindow
from tasks.labelling.types import Clicks

IMAGES, POINTS, PART_IMAGES, RLE_BYTES, SIDE = 1000, 20, 100, 324, 256


def made_up(clicks: Clicks, rng: np.random.Generator) -> pa.Table:
    """PSEUDO rows with masks of random bytes, which don't compress."""
    facts: dict[str, Any] = {
        "status": "ok",
        "reason": None,
        "level": 1,
        "class_score": 0.5,
        "maskness": 0.5,
        "score": 0.25,
    }
    facts |= {
        "iou_rough_refined": 0.9,
        "bbox_xywh": [1.0, 2.0, 3.0, 4.0],
        "area": 9.0,
        "contains_point": True,
    }
    rows = failed_rows(clicks, "").to_pylist()
    for row in rows:
        row |= facts | {name: rng.bytes(RLE_BYTES) for name in ("rough_rle", "refined_rle")}
    return pa.Table.from_pylist(rows, schema=PSEUDO)


def main() -> None:
    drawn.SIDE = SIDE
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        drawn.write_params(folder, PART_IMAGES, 1)
        drawn.write_images(folder, IMAGES)
        write_parquet(drawn.points_on(np.repeat(np.arange(IMAGES), POINTS), 0, 0), folder / "points.parquet")
        weak = Split.open(folder / "workspace" / "dataset" / "weak")
        params = load_params(folder / "params.yaml")
        parts = PointParts(folder / "points.parquet", weak, PART_IMAGES, params.pseudo.part_points)
        (folder / "ledger").mkdir()
        reading = making = 0.0
        size = 0

        def compute(windows: Iterator[PlannedWindow], bar: Bar) -> Iterator[PlannedWindow]:
            nonlocal reading, making, size
            for window in windows:
                times = [time.process_time()]
                with_files(weak, list(window.clicks))
                times.append(time.process_time())
                window.made |= {row: [made_up(clicks, rng)] for row, clicks in window.clicks.items()}
                size += sum(tables[0].nbytes for tables in window.made.values())
                times.append(time.process_time())
                reading, making = reading + times[1] - times[0], making + times[2] - times[1]
                yield window

        begin = time.process_time()
        with Bar("driver", IMAGES, "image") as bar:
            Maker(params, weak, parts, Ledger(folder / "ledger")).make(compute, range(len(parts)), bar)
        total = time.process_time() - begin - making
        print(
            f"{1000 * total / IMAGES:.2f} ms of CPU an image, {1000 * reading / IMAGES:.2f} of them for files"
        )
        print(f"{size / IMAGES:,.0f} bytes of rows an image")


if __name__ == "__main__":
    main()
