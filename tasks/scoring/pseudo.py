"""Quality of the pseudo labels, one part of stage pseudo_label at a time, by all processes of the stage."""

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
    """The measurements of all pseudo labels."""

    quality: pa.Table
    """QUALITY of the points whose image has kept-aside masks, in the order of the pseudo labels"""
    status: Counter[str]
    """points by status"""
    masks: int
    """points with a mask"""

    def metrics(self) -> dict[str, float | None]:
        """The `pseudo` section of metrics.json: all points, points with a mask, metrics over the measured points."""
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
    """Scores of all pseudo labels. All processes of the stage call this together; the first gets the result.

    Masks of one part at a time are in memory; the row that is kept of a point has none.

    Args:
        pseudo: folder of the stage pseudo_label: part-*.parquet.
        points: points.parquet.
        truth: the kept-aside split.
        size_bounds: sides in pixels between small and medium, and between medium and large masks.
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
    everyone = processes.gather((status, masks))  # from here on all rows are written
    with processes.first_alone() as first:
        if not first:
            return None
        tables = [read_parquet(scratch / path.name, QUALITY) for path in paths]
        return PseudoScores(
            pa.concat_tables([QUALITY.empty_table(), *tables]).combine_chunks(),
            sum((own for own, _ in everyone), Counter()),
            sum(own for _, own in everyone),
        )
