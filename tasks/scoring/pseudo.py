"""Quality of the pseudo labels, part by part as pseudo_label wrote them, by the processes that share the step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from data.tables import POINTS, PSEUDO, Split, read_parquet, write_parquet
from tasks.common import processes
from tasks.scoring.metrics import PSEUDO_METRICS, SIZES
from tasks.scoring.pseudo_quality import QUALITY, by_group, point_quality, summarise


class PseudoScores(NamedTuple):
    """What is known of all pseudo labels."""

    quality: pa.Table
    """QUALITY of the points whose image has kept-aside masks, in the order of the pseudo labels"""
    status: Counter[str]
    """points by status"""
    masks: int
    """points that have one"""

    def metrics(self) -> dict[str, float | None]:
        """The `pseudo` part of metrics.json: all points, those with a mask, means over the measured ones."""
        figures = summarise(self.quality)
        keys = [f"{kind}_{metric.key}" for metric in PSEUDO_METRICS for kind in metric.tracked]
        return {"points": self.status.total(), "masks": self.masks, **{key: figures[key] for key in keys}}

    def details(self, classes: Sequence[str]) -> dict[str, Any]:
        """Statuses, matches, and quality overall, by size of the true mask and by class of the point."""
        return {
            "status": dict(sorted(self.status.items())),
            "measured": len(self.quality),
            "unmatched": self.quality["instance_id"].null_count,
            "all": summarise(self.quality),
            "by_size": by_group(self.quality, "size", SIZES),
            "by_class": by_group(self.quality, "category", classes),
        }


def score_pseudo(
    pseudo: Path, points: Path, truth: Split, size_bounds: tuple[float, float], scratch: Path
) -> PseudoScores | None:
    """Scores of all pseudo labels; processes that share the step call this together, and the first has them.

    Masks are in memory for one part at a time; what is kept of a point is a row without any.

    Args:
        pseudo: folder of the stage pseudo_label: part-*.parquet.
        points: points.parquet.
        truth: the kept-aside split.
        size_bounds: sides in pixels that part small from medium and medium from large masks.
        scratch: folder for the parts' rows.
    """
    paths = sorted(pseudo.glob("part-*.parquet"))
    clicks = read_parquet(points, POINTS).select(["point_id", "x", "y"])
    status: Counter[str] = Counter()
    masks = 0
    for n in range(processes.index(), len(paths), processes.count()):
        part = read_parquet(paths[n], PSEUDO)
        status.update(part["status"].to_pylist())
        masks += len(part) - part["rough_rle"].null_count
        of_part = clicks.filter(pc.is_in(clicks["point_id"], value_set=part["point_id"]))
        write_parquet(point_quality(part, of_part, truth, size_bounds), scratch / paths[n].name)
    everyone = processes.gather((status, masks))  # and so all rows are written
    with processes.first_alone() as first:
        if not first:
            return None
        tables = [read_parquet(scratch / path.name, QUALITY) for path in paths]
        return PseudoScores(
            pa.concat_tables([QUALITY.empty_table(), *tables]).combine_chunks(),
            sum((own for own, _ in everyone), Counter()),
            sum(own for _, own in everyone),
        )
