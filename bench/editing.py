"""How long the networks take to draw at a reviewer's clicks, and whether untouched objects get their pseudo masks.

    python bench/editing.py PROJECT [--images 12]

PROJECT has pseudo masks. The images are spread evenly over those with few and with many clicks; on each, one object's
click is moved and gets 0 to 3 further clicks. Seconds are of the thread's CPU, with one thread, so that other work on
the machine doesn't count; the time until the answer is at least that.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.decisions.record import Click
from tasks.common.config import load_params
from tasks.review.clicked import ClickTable, clicks_of
from tasks.review.drawing import Drawer
from tasks.train_student import read_pseudo

UNTOUCHED = 60
"""Clicks of an image up to which all its objects are compared with their pseudo masks."""
REACH = 3, 20
"""Standard deviation in pixels of a moved click, and of further ones."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", type=Path)
    parser.add_argument("--images", type=int, default=12)
    options = parser.parse_args()
    torch.set_num_threads(1)
    workspace = options.project / "workspace"
    params = load_params(options.project / "params.yaml").model_copy(update={"threads": 1})
    drawer, table = Drawer(params, workspace), ClickTable(workspace)
    rows = {row["point_id"]: row for row in read_pseudo(workspace / "pseudo").to_pylist()}
    sizes = [len(table.of_image(n)) for n in range(len(table.weak))]
    order = [int(n) for n in np.argsort(sizes, kind="stable") if sizes[n]]
    rng = np.random.default_rng(0)
    differing = compared = 0
    answers: list[float] = []
    for image in sorted({order[n] for n in np.linspace(0, len(order) - 1, options.images).astype(int)}):
        objects = table.of_image(image)
        image_id = table.weak.images["image_id"][image].as_py()
        height, width = table.image_size(image)
        clicks = clicks_of(objects, image_id)
        chosen = objects[int(rng.integers(len(objects)))]
        row = clicks.point_ids.index(chosen.object)
        encoding, _ = timed(lambda image=image: drawer._encoded(image))
        first, _ = timed(lambda image=image, clicks=clicks, row=row: drawer.draw(image, clicks, row))
        mine = []
        for further in range(4):
            places = rng.normal(chosen.point, [[REACH[0]] * 2] + [[REACH[1]] * 2] * further)
            places = places.clip(0, np.array([width, height]) - 0.01)
            (x, y), *more = places.tolist()
            moved = chosen._replace(
                point=(x, y), further=tuple(Click(one[0], one[1], bool(n % 2)) for n, one in enumerate(more))
            )
            changed = clicks_of([moved if one is chosen else one for one in objects], image_id)
            at = changed.point_ids.index(chosen.object)
            seconds, _ = timed(lambda image=image, changed=changed, at=at: drawer.draw(image, changed, at))
            mine.append(seconds)
        answers += mine
        if len(clicks) <= UNTOUCHED:
            for n, name in enumerate(clicks.point_ids):
                compared += 1
                differing += drawer.draw(image, clicks, n).counts != (
                    rows[name]["refined_rle"] or rows[name]["rough_rle"]
                )
        print(
            f"{width} x {height}, {len(clicks)} clicks: encoding {encoding:.2f} s, all boxes and the first answer "
            f"{first:.2f} s, answers {', '.join(f'{1000 * one:.0f}' for one in mine)} ms", flush=True,
        )  # fmt: skip
    median, high, most = (1000 * np.percentile(answers, [50, 95, 100])).round()
    print(f"{len(answers)} answers: median {median:.0f}, 95% {high:.0f}, longest {most:.0f} ms")
    print(f"{compared} untouched objects, {differing} with another mask than in the pseudo labels")
    drawer.close()
    return 0


def timed(work: Any) -> tuple[float, Any]:
    """Seconds of this thread's CPU, and the result."""
    begin = time.thread_time()
    found = work()
    return time.thread_time() - begin, found


if __name__ == "__main__":
    sys.exit(main())
