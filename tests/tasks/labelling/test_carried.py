"""What pseudo labels take over from earlier runs, and how processes share them: the same bytes as from nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml

from data.images.content import sha256
from data.tables import IMAGES, POINTS, Split, read_arrow, read_parquet, write_arrow, write_parquet
from tasks.common.config import Params
from tasks.common.errors import TaskError
from tasks.pseudo_label import run
from tests.tasks.conftest import ROOT, tiny_recipe
from tests.tasks.test_pseudo_label import files, image_counts, place, set_gate

__all__ = ["place"]

Place = tuple[Path, Params]
Change = Callable[[pa.Table], pa.Table]


def from_nothing(place: Place) -> dict[str, bytes]:
    workspace, params = place
    shutil.rmtree(workspace / "runs" / "pseudo_label")
    run(params, workspace)
    assert image_counts(workspace)["carried"] == 0
    return files(workspace)


def image(points: pa.Table, n: int) -> int:
    """The id of the n-th image that has points."""
    found: int = pc.unique(points["image_id"])[n].as_py()
    return found


def moved(points: pa.Table, *images: int) -> pa.Table:
    """The points of these images half a pixel further to the left."""
    here = pc.is_in(points["image_id"], pa.array([image(points, n) for n in images]))
    x = pc.if_else(
        here, pc.max_element_wise(pc.subtract(points["x"], pa.scalar(0.5, pa.float32())), 0.0), points["x"]
    )
    return points.set_column(POINTS.get_field_index("x"), "x", x.cast(pa.float32()))


def without(points: pa.Table, n: int) -> pa.Table:
    return points.filter(pc.not_equal(points["image_id"], image(points, n)))


def one_more(points: pa.Table, n: int) -> pa.Table:
    """A second point on an image."""
    row = points.filter(pc.equal(points["image_id"], image(points, n))).slice(0, 1).to_pylist()[0]
    more = pa.Table.from_pylist([row | {"point_id": "f" * 16, "x": 1.5, "y": 2.5}], schema=POINTS)
    return pa.concat_tables([points, more]).sort_by([("image_id", "ascending"), ("point_id", "ascending")])


def further(points: pa.Table, n: int, inside: bool = True) -> pa.Table:
    """A further click on the first object of an image."""
    rows = points.to_pylist()
    first = next(row for row in rows if row["image_id"] == image(points, n))
    first["further"] = [{"x": 31.5, "y": 12.0, "inside": inside}]
    return pa.Table.from_pylist(rows, schema=POINTS)


def renamed(points: pa.Table) -> pa.Table:
    """The same points from other files: with other ids, which fall where the old ones rose."""
    ids = pa.array([f"{2**64 - 1 - int(one, 16):016x}" for one in points["point_id"].to_pylist()])
    points = points.set_column(POINTS.get_field_index("point_id"), "point_id", ids)
    return points.sort_by([("image_id", "ascending"), ("point_id", "ascending")])


@pytest.mark.parametrize(
    ("change", "computed", "carried"),
    [
        pytest.param(lambda points: points, 0, 14, id="nothing"),
        pytest.param(lambda points: moved(points, 3, 11), 2, 12, id="points of two images moved"),
        pytest.param(lambda points: one_more(points, 6), 1, 13, id="a point more"),
        pytest.param(lambda points: further(points, 6), 1, 13, id="a further click"),
        pytest.param(lambda points: further(further(points, 6, False), 7), 2, 12, id="two, one outside"),
        # All images after it change parts.
        pytest.param(lambda points: without(points, 0), 0, 13, id="an image without points now"),
        pytest.param(lambda points: points.slice(0, 0), 0, 0, id="no point at all"),
        pytest.param(renamed, 0, 14, id="clicks moved to other files"),
        pytest.param(
            lambda points: renamed(moved(points, 3, 11)), 2, 12, id="moved to other files, some anew"
        ),
    ],
)
def test_changed_points(place: Place, change: Change, computed: int, carried: int) -> None:
    workspace, params = place
    path = workspace / "points" / "points.parquet"
    write_parquet(change(read_parquet(path, POINTS)), path)
    shutil.rmtree(workspace / "pseudo")  # as DVC does before it runs a stage
    run(params, workspace)
    assert image_counts(workspace) == {"computed": computed, "carried": carried, "failed": 0}
    found = files(workspace)
    assert found == from_nothing(place)


def test_clicks_in_one_place_are_distinguished_by_their_ids(place: Place) -> None:
    """Of two that are alike one gets all pixels: by their order, whatever run computed them."""
    workspace, params = place
    path = workspace / "points" / "points.parquet"
    points = read_parquet(path, POINTS)
    twin = points.slice(0, 1).to_pylist()[0] | {"point_id": "7" * 16}
    both = pa.concat_tables([points, pa.Table.from_pylist([twin], schema=POINTS)])
    write_parquet(both.sort_by([("image_id", "ascending"), ("point_id", "ascending")]), path)
    run(params, workspace)
    assert image_counts(workspace)["computed"] == 1
    write_parquet(renamed(both), path)
    run(params, workspace)
    assert image_counts(workspace) == {"computed": 0, "carried": 14, "failed": 0}
    found = files(workspace)
    assert found == from_nothing(place)


def test_another_further_click_is_computed(place: Place) -> None:
    """Masks change with a click inside, and go back to what they were without it."""
    workspace, params = place
    path = workspace / "points" / "points.parquet"
    points, before = read_parquet(path, POINTS), files(workspace)
    found = []
    for changed in (further(points, 6), further(points, 6, False), points):
        write_parquet(changed, path)
        run(params, workspace)
        assert image_counts(workspace) == {"computed": 1, "carried": 13, "failed": 0}
        found.append(files(workspace))
    assert found[0] not in (before, found[1]) and found[2] == before


def test_an_image_of_other_pixels_is_computed(place: Place) -> None:
    workspace, params = place
    path = workspace / "dataset" / "weak" / "images.arrow"
    images = read_arrow(path, IMAGES)
    hashes = images["sha256"].to_pylist()
    picture = Split.open(path.parent).image_path(4)
    picture.write_bytes(picture.read_bytes() + b" ")  # behind a PNG's end
    hashes[4] = sha256(picture)
    write_arrow(images.set_column(IMAGES.get_field_index("sha256"), "sha256", pa.array(hashes)), path)
    run(params, workspace)
    assert image_counts(workspace) == {"computed": 1, "carried": 13, "failed": 0}


def test_other_parts_compute_nothing(place: Place) -> None:
    workspace, params = place
    pseudo = params.pseudo.model_copy(update={"part_images": 3, "part_points": 20})
    params = params.model_copy(update={"pseudo": pseudo})
    run(params, workspace)
    assert image_counts(workspace) == {"computed": 0, "carried": 14, "failed": 0}
    found = files(workspace)
    assert found == from_nothing((workspace, params))


def test_another_gate_or_setting_computes_all(place: Place) -> None:
    workspace, params = place
    set_gate(workspace, small_ones_lose=True)
    run(params, workspace)
    assert image_counts(workspace)["computed"] == 14
    prompt = params.prompt.model_copy(update={"click_power": 0.5})
    run(params.model_copy(update={"prompt": prompt}), workspace)
    assert image_counts(workspace)["computed"] == 14
    assert len(list((workspace / "runs" / "pseudo_label").glob("ledger-*"))) == 1


def test_a_damaged_part_is_computed_again(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    workspace, params = place
    expected = files(workspace)
    parts = sorted((workspace / "runs" / "pseudo_label").glob("ledger-*/*.parquet"))
    code = bytearray(parts[0].read_bytes())
    code[len(code) // 2] ^= 1
    parts[0].write_bytes(code)
    parts[1].with_suffix(".json").unlink()
    run(params, workspace)
    assert "damaged; its images are computed again" in caplog.text
    assert image_counts(workspace)["computed"] in (9, 10)  # two of the parts, of 5, 5 and 4 images
    assert files(workspace) == expected


def test_points_out_of_order_are_refused(place: Place) -> None:
    workspace, params = place
    path = workspace / "points" / "points.parquet"
    write_parquet(read_parquet(path, POINTS).sort_by([("image_id", "descending")]), path)
    with pytest.raises(TaskError, match="order of their image_id"):
        run(params, workspace)


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(place: Place) -> None:
    workspace, params = place
    expected = files(workspace)
    shutil.rmtree(workspace / "runs" / "pseudo_label")
    shutil.rmtree(workspace / "pseudo")
    recipe = tiny_recipe()
    recipe["runtime"]["processes"] = 2
    Path("params.yaml").write_text(yaml.safe_dump(recipe))
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    # As the step starts itself (tests/tasks/test_parallel.py does that), without importing torch once more before.
    launch = ["tasks.common.launch", "--standalone", "--nproc-per-node=2", "-m", "tasks.pseudo_label"]
    done = subprocess.run(
        [sys.executable, "-m", *launch],
        env=environment | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert files(workspace) == expected
    assert image_counts(workspace) == {"computed": 14, "carried": 0, "failed": 0}
    assert done.stderr.count("14 images") == 2, done.stderr  # one process speaks
    # Alone again: what two made is taken over.
    run(params, workspace)
    assert image_counts(workspace) == {"computed": 0, "carried": 14, "failed": 0}
