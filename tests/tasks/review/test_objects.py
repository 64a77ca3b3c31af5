from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from data.tables import POINTS, PSEUDO, Split, read_parquet, write_parquet, write_split
from tasks.common.errors import TaskError
from tasks.review.objects import STATUSES, Objects


def rows(project: Path) -> dict[str, dict]:
    parts = [read_parquet(path, PSEUDO) for path in sorted((project / "workspace/pseudo").glob("part-*"))]
    return {row["point_id"]: row for row in pa.concat_tables(parts).to_pylist()}


def test_columns_are_those_of_the_tables(project: Path) -> None:
    objects, expected = Objects(project / "workspace"), rows(project)
    points = read_parquet(project / "workspace/points/points.parquet", POINTS).to_pylist()
    places = {row["point_id"]: (row["x"], row["y"]) for row in points}
    image_ids = objects.weak.images["image_id"].to_pylist()
    assert sorted(objects.ids) == sorted(expected) and len(objects) == 180
    for n, name in enumerate(objects.ids):
        row = expected[name]
        assert image_ids[objects.image[n]] == row["image_id"] and objects.category[n] == row["category_id"]
        assert STATUSES[objects.status[n]] == row["status"]
        assert tuple(objects.xy[n].tolist()) == places[name]
        if row["status"] == "empty":
            assert objects.area[n] == 0 and np.isnan(objects.score[n]) and objects.proposer[n] == -1
            assert objects.reason(n) == "the teacher draws no mask at this point"
        else:
            assert objects.score[n] == np.float32(row["score"]) and objects.area[n] == row["area"]
            assert objects.box[n].tolist() == row["bbox_xywh"]
            assert row["reason"].endswith(f"drawn by {objects.proposers[objects.proposer[n]]}")
            assert objects.reason(n) == ("refinement came out empty" if row["status"] == "rough" else None)
    assert objects.proposers == ["sam", "teacher"]
    some = [int(n) for n in np.random.default_rng(0).permutation(180)]
    assert objects.masks(some) == [
        expected[objects.ids[n]]["refined_rle"] or expected[objects.ids[n]]["rough_rle"] for n in some
    ]


def test_objects_of_an_image_lie_side_by_side_whatever_the_order_of_files(project: Path) -> None:
    before = Objects(project / "workspace")
    masks = before.masks(range(180))
    pseudo = project / "workspace/pseudo"
    (pseudo / "part-00000.parquet").rename(pseudo / "part-00009.parquet")
    after = Objects(project / "workspace")
    assert after.ids == before.ids and after.masks(range(180)) == masks
    assert [after.ids[n] for n in after.of_image(3)] == before.ids[27:36]


def test_a_point_that_is_gone_has_no_place(project: Path) -> None:
    path = project / "workspace/points/points.parquet"
    table = read_parquet(path, POINTS)
    gone = table["point_id"][0].as_py()
    write_parquet(table.slice(1), path)
    objects = Objects(project / "workspace")
    lost = np.isnan(objects.xy).any(axis=1)
    assert [objects.ids[n] for n in np.flatnonzero(lost)] == [gone]
    assert objects.further(objects.row_of[gone]) == []


def test_without_pseudo_masks_the_step_to_run_is_named(project: Path) -> None:
    shutil.rmtree(project / "workspace/pseudo")
    with pytest.raises(TaskError, match="points2model run"):
        Objects(project / "workspace")


def test_masks_of_an_image_or_a_class_that_is_gone_are_refused(project: Path) -> None:
    """Their rows would be taken for the next image's."""
    split = project / "workspace/dataset/weak"
    weak = Split.open(split)
    images, instances, classes, root = weak.images, weak.instances, weak.categories, str(weak.image_root)
    kept = images.filter(pc.not_equal(images["image_id"], 5))
    write_split(split, kept, instances, classes, root)
    with pytest.raises(
        TaskError, match=r"image_id: found 1 that the data set doesn't have, such as 5.*ingest has run"
    ):
        Objects(project / "workspace")
    write_split(split, images, instances, classes[1:], root)
    with pytest.raises(TaskError, match=r"category_id: found 1 .* such as 1; .*points2model run"):
        Objects(project / "workspace")
