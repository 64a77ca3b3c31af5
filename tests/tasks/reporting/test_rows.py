from __future__ import annotations

import pyarrow as pa

from tasks.reporting.rows import _means


def test_points_without_a_score_count_as_0() -> None:
    """Of an image that could not be read no point has one."""
    table = pa.table({"point_id": ["a", "b", "c"], "image_id": [1, 1, 2], "score": [0.5, None, None]})
    assert _means(table, "score") == {1: 0.25, 2: 0.0}
