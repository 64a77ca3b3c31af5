"""What review brings, worst first and in random order: mean IoU of pseudo masks after minutes of a reviewer's work.

A simulated reviewer, to whom the true masks are known, corrects one mask every `--seconds`; a corrected mask is the
true one. In the folder of a line of bench/quality.py (or any project whose weak images have kept-aside masks):

    python bench/review_order.py quality/nuclei/0.1-0/student
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.tables import Split
from tasks.common.config import load_params
from tasks.review.objects import Objects
from tasks.review.rank import ORDERS, doubts
from tasks.scoring.pseudo import score_pseudo

BAD = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("line", type=Path, help="with params.yaml and workspace/")
    parser.add_argument("--seconds", type=float, default=3.0, help="a decision")
    parser.add_argument("--minutes", type=float, nargs="+", default=[5, 15, 30])
    arguments = parser.parse_args()
    workspace = arguments.line / "workspace"
    params = load_params(arguments.line / "params.yaml")
    with tempfile.TemporaryDirectory() as scratch:
        scores = score_pseudo(
            workspace / "pseudo", workspace / "points" / "points.parquet",
            Split.open(workspace / "dataset" / "kept_aside"), params.evaluate.size_bounds, Path(scratch),
        )  # fmt: skip
    assert scores is not None  # alone
    columns = (scores.quality[name].to_pylist() for name in ("point_id", "refined_iou"))
    iou_of = {point: iou or 0.0 for point, iou in zip(*columns, strict=True)}
    objects = Objects(workspace)
    known = np.array([name in iou_of for name in objects.ids])
    iou = np.array([iou_of.get(name, 0.0) for name in objects.ids])
    found = doubts(objects)._asdict()
    orders = {name: np.argsort(-found[name], kind="stable") for name in ORDERS}
    orders["random"] = np.random.default_rng(0).permutation(len(iou))
    orders["worst IoU (the most that is possible)"] = np.argsort(iou, kind="stable")
    counts = [int(60 * minutes / arguments.seconds) for minutes in arguments.minutes]
    table = Table(
        "order", *(f"{minutes:g} min: IoU" for minutes in arguments.minutes),
        *(f"first {count}: IoU < {BAD}" for count in counts),
        title=f"{known.sum():,} masks of mean IoU {100 * iou[known].mean():.1f}",
    )  # fmt: skip
    for name, order in orders.items():
        order = order[known[order]]
        after = [100 * (iou[known].sum() + (1 - iou[order[:n]]).sum()) / known.sum() for n in counts]
        bad = [100 * float((iou[order[:n]] < BAD).mean()) for n in counts]
        table.add_row(name, *(f"{value:.1f}" for value in after), *(f"{share:.0f}%" for share in bad))
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
