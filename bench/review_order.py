"""What review brings, worst first and in random order: IoU of the masks and AP of a student, by minutes of decisions.

A simulated reviewer, to whom the true masks are known, makes a decision every `--seconds`: accepts a pseudo mask of
IoU `--good` or more, draws the true mask in the place of another one, and rejects an object that is none. In a line of
bench/quality.py (or any such folders whose weak images have kept-aside masks):

    python bench/review_order.py quality/nuclei/0.1-0/student --data ../shared/data
    python bench/review_order.py quality/nuclei/0.1-0/student --train reviewed/nuclei --steps 400

With `--train` the decisions are written as the page writes them, `import_points` reads them, and a student is trained
after each number of minutes, equally long, on the line's networks and pseudo masks. What is done there isn't done
again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.quality import Line, changed, lines  # noqa: E402
from data.decisions.record import Action, Mask  # noqa: E402
from data.decisions.store import DecisionLog, read_decisions  # noqa: E402
from data.tables import Split  # noqa: E402
from tasks.common.config.load import parse_params  # noqa: E402
from tasks.review.objects import Objects  # noqa: E402
from tasks.review.rank import ORDERS, doubts  # noqa: E402
from tasks.scoring.pseudo import score_pseudo  # noqa: E402

BAD = 0.5
REVIEWER = "simulated"
TRAINED = ("doubt", "random")
"""Orders after which students are trained: that of the page, and its control."""


class Review(NamedTuple):
    """A line's pseudo masks, and what the reviewer knows; N objects in the order of `objects`.

    Attributes:
        known: bool [N], whether the image's true masks were kept aside.
        iou: float [N] with the true mask, 0 without a mask.
        truth: rows of `masks`, -1 where no true mask has the click.
        masks: the kept-aside split.
    """

    objects: Objects
    known: np.ndarray
    iou: np.ndarray
    truth: np.ndarray
    masks: Split

    @classmethod
    def of(cls, workspace: Path, size_bounds: tuple[float, float]) -> Review:
        masks = Split.open(workspace / "dataset" / "kept_aside")
        with tempfile.TemporaryDirectory() as scratch:
            points = workspace / "points" / "points.parquet"
            scores = score_pseudo(workspace / "pseudo", points, masks, size_bounds, Path(scratch))
        assert scores is not None  # alone
        columns = (scores.quality[name].to_pylist() for name in ("point_id", "refined_iou", "instance_id"))
        of_point = {point: (iou or 0.0, instance) for point, iou, instance in zip(*columns, strict=True)}
        objects = Objects(workspace)
        row_of = {name: n for n, name in enumerate(masks.instances["instance_id"].to_pylist())}
        found = [of_point.get(name, (0.0, None)) for name in objects.ids]
        return cls(
            objects,
            np.array([name in of_point for name in objects.ids]),
            np.array([iou for iou, _ in found]),
            np.array([row_of.get(instance, -1) for _, instance in found]),
            masks,
        )

    def orders(self) -> dict[str, np.ndarray]:
        """Rows of known objects, the first one to review first."""
        found = doubts(self.objects)._asdict()
        orders = {name: np.argsort(-found[name], kind="stable") for name in ORDERS}
        orders["random"] = np.random.default_rng(0).permutation(len(self.iou))
        orders["worst IoU (the most that is possible)"] = np.argsort(self.iou, kind="stable")
        return {name: order[self.known[order]] for name, order in orders.items()}

    def iou_after(self, rows: np.ndarray, good: float) -> float:
        """Mean IoU in percent of all known masks after decisions on some rows."""
        drawn = rows[(self.iou[rows] < good) & (self.truth[rows] >= 0)]
        return 100 * float((self.iou[self.known].sum() + (1 - self.iou[drawn]).sum()) / self.known.sum())

    def decide(self, rows: np.ndarray, good: float) -> list[tuple[Action, dict[str, Any]]]:
        """The decisions on some rows, as `DecisionLog.extend` takes them."""
        weak, found = self.objects.weak, []
        sides = [weak.images[name].to_pylist() for name in ("file_name", "height", "width")]
        for row, own in zip(rows.tolist(), self.objects.masks(rows.tolist()), strict=True):
            name, height, width = (side[int(self.objects.image[row])] for side in sides)
            fields: dict[str, Any] = {"image": name, "object": self.objects.ids[row]}
            action: Action = "reject"
            if self.iou[row] >= good and own:
                action, fields["mask"] = "accept", Mask(height, width, own)
            elif self.truth[row] >= 0:
                true = self.masks.instances["rle_counts"][int(self.truth[row])].as_py()
                action, fields["mask"], fields["source"] = "mask", Mask(height, width, true), "click"
            found.append((action, fields))
        return found


def train(review: Review, line: Line, out: Path, args: argparse.Namespace) -> None:
    """A student after each number of minutes, the longest first, and a table of their AP."""
    orders = review.orders()
    plan = [(0.0, TRAINED[0])]
    plan += [(minutes, order) for minutes in sorted(args.minutes, reverse=True) for order in TRAINED]
    table = Table("minutes", "order", "decisions", "masks: IoU", "AP", "AP50", "AP75", title=str(line.folder))
    for minutes, order in plan:
        rows = orders[order][: int(60 * minutes / args.seconds)]
        folder = out / (f"{minutes:g}-{order}" if minutes else "0")
        decisions = folder / "decisions"
        if len(rows) and not read_decisions(decisions).decisions:
            DecisionLog(decisions, REVIEWER).extend(review.decide(rows, args.good))
        decisions.mkdir(parents=True, exist_ok=True)
        others = {key: yaml.safe_load(value) for key, _, value in (one.partition("=") for one in args.set)}
        own = {"student.steps": args.steps, "review.decisions": "decisions"}
        recipe = changed(line.recipe, own | others)
        steps = ("import_points", "train_student", "ap_student")
        Line(folder, recipe, steps, line.folder, ("dataset", "pseudo", "teacher")).run()
        ap = json.loads((folder / "ap_student.json").read_text())
        shown = [f"{ap[name]:.1f}" for name in ("AP", "AP50", "AP75")]
        iou = f"{review.iou_after(rows, args.good):.1f}"
        table.add_row(f"{minutes:g}", order if minutes else "-", str(len(rows)), iou, *shown)
    Console(width=150).print(table)


def print_orders(review: Review, args: argparse.Namespace) -> None:
    """Mean IoU by order, and how many of the first masks are bad."""
    counts = [int(60 * minutes / args.seconds) for minutes in args.minutes]
    table = Table(
        "order", *(f"{minutes:g} min: IoU" for minutes in args.minutes),
        *(f"first {count}: IoU < {BAD}" for count in counts),
        title=f"{review.known.sum():,} masks of mean IoU {100 * review.iou[review.known].mean():.1f}",
    )  # fmt: skip
    for name, order in review.orders().items():
        after = [f"{review.iou_after(order[:n], args.good):.1f}" for n in counts]
        bad = [f"{100 * float((review.iou[order[:n]] < BAD).mean()):.0f}%" for n in counts]
        table.add_row(name, *after, *bad)
    Console(width=150).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("line", type=Path, help="WORK/DATASET/SHARE-SEED/student of bench/quality.py")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--seconds", type=float, default=3.0, help="a decision")
    parser.add_argument("--minutes", type=float, nargs="+", default=[5, 15, 30])
    parser.add_argument("--good", type=float, default=0.8, help="IoU from which a mask is accepted as it is")
    parser.add_argument("--train", type=Path, metavar="FOLDER", help="train students there too")
    parser.add_argument("--steps", type=int, default=400, help="of each of them")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="other params of them, in YAML"
    )
    args = parser.parse_args()
    place = args.line.resolve()
    name, cell = place.parts[-3:-1]
    share, _, seed = cell.partition("-")
    line = lines(name, args.data.resolve(), place.parents[2], float(share), int(seed), {})["student"]
    params = parse_params(yaml.safe_dump(line.recipe), line.folder / "params.yaml")
    review = Review.of(line.folder / "workspace", params.evaluate.size_bounds)
    print_orders(review, args)
    if args.train is not None:
        train(review, line, args.train.resolve(), args)


if __name__ == "__main__":
    main()
