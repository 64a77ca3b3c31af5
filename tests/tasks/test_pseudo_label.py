from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.masks.rle import area, decode
from data.tables import POINTS, PSEUDO, Split, read_parquet, write_parquet
from tasks.common.config import Params
from tasks.common.errors import TaskError
from tasks.labelling.gate import REFUSAL, Measured, build_gate, read_gate, write_gate
from tasks.labelling.predicted_iou import ROW_FEATURES, ridge
from tasks.pseudo_label import run
from tasks.train_student import read_pseudo


@pytest.fixture
def place(line: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Params]:
    """A copy of the line's workspace to run in, with a gate that refuses nothing, and its pseudo labels."""
    folder, params = line
    shutil.copytree(folder / "workspace", tmp_path / "workspace")
    monkeypatch.chdir(tmp_path)
    set_gate(Path("workspace"), small_ones_lose=False)
    run(params, Path("workspace"))
    return Path("workspace"), params


def files(workspace: Path) -> dict[str, bytes]:
    """What was written, by name."""
    return {path.name: path.read_bytes() for path in (workspace / "pseudo").iterdir()}


def image_counts(workspace: Path) -> dict[str, int]:
    """How many images the last run computed and carried over."""
    found: dict[str, int] = json.loads((workspace / "runs" / "pseudo_label" / "images.json").read_text())
    return found


EDGE = 300.0


def set_gate(workspace: Path, *, small_ones_lose: bool, rounds: int = 1) -> None:
    """A gate by hand: all masks are refined, or those of EDGE pixels and more."""
    iou = 0.4 if small_ones_lose else 0.6
    measured = Measured(
        images=np.array([1, 1, 2, 2]),
        objects=np.arange(4),
        clicks=np.array(["random"] * 4),
        areas=np.array([1.0, EDGE] * 2),
        rough_iou=np.full(4, 0.5),
        refined_iou=np.array([iou, 0.7] * 2),
        features=np.zeros((4, 2, len(ROW_FEATURES))),
    )
    gate = build_gate(
        {8: measured}, 2, bins=2, min_objects=1, min_images=1, errors=1.0, enlarge=1.5, rounds=rounds
    )
    write_gate(workspace / "refiner", gate)


def test_every_point_has_one_row(place: tuple[Path, Params]) -> None:
    workspace, _ = place
    points = read_parquet(workspace / "points" / "points.parquet", POINTS)
    pseudo = read_pseudo(workspace / "pseudo")
    assert sorted(pseudo["point_id"].to_pylist()) == sorted(points["point_id"].to_pylist())
    assert len(list((workspace / "pseudo").glob("part-*.parquet"))) == 3  # 14 images, 5 a part
    keys = list(zip(pseudo["image_id"].to_pylist(), pseudo["point_id"].to_pylist(), strict=True))
    assert keys == sorted(keys)


def test_scores_are_the_iou_that_the_gate_predicts(place: tuple[Path, Params]) -> None:
    """By a rule that depends on each feature."""
    workspace, params = place
    set_gate(workspace, small_ones_lose=True)
    draw = np.random.default_rng(0)
    features = draw.uniform(0.2, 0.8, (40, len(ROW_FEATURES)))
    rule = ridge(features, features @ draw.uniform(-0.3, 0.5, len(ROW_FEATURES)))
    gate = read_gate(workspace / "refiner")
    write_gate(workspace / "refiner", gate.model_copy(update={"score": rule}))
    run(params, workspace)
    rows = [row for row in read_pseudo(workspace / "pseudo").to_pylist() if row["rough_rle"] is not None]
    assert {row["status"] for row in rows} == {"ok", "rough"}
    assert len({row["score"] for row in rows}) > 10
    for row in rows:
        rough = row["refined_rle"] is None
        change = 1.0 if rough else row["iou_rough_refined"]
        certainty, quality, misses = row["class_score"], row["maskness"], not row["contains_point"]
        values = [certainty, quality, certainty * quality, change, quality * change, rough, misses]
        limited = np.clip(values, rule.low, rule.high)
        expected = rule.intercept + (limited - rule.mean) / np.array(rule.scale) @ np.array(rule.weights)
        assert row["score"] == pytest.approx(np.clip(expected, 0, 1), abs=1e-5)


def test_rows_are_consistent(place: tuple[Path, Params]) -> None:
    workspace, _ = place
    weak = Split.open(workspace / "dataset" / "weak")
    sizes = {row["image_id"]: (row["height"], row["width"]) for row in weak.images.to_pylist()}
    where = {
        row["point_id"]: row for row in read_parquet(workspace / "points/points.parquet", POINTS).to_pylist()
    }
    for row in read_pseudo(workspace / "pseudo").to_pylist():
        if row["status"] == "empty":
            assert row["rough_rle"] is row["refined_rle"] is None and row["reason"]
            continue
        assert (row["refined_rle"] is None) == (row["status"] == "rough")
        mask = decode(row["refined_rle"] or row["rough_rle"], *sizes[row["image_id"]])
        point = where[row["point_id"]]
        assert row["contains_point"] == bool(mask[int(point["y"]), int(point["x"])])
        assert row["area"] == mask.sum() > 0
        assert 0 <= row["score"] <= row["maskness"] <= 1
        assert row["score"] == pytest.approx(row["maskness"] * row["class_score"], rel=1e-5)


# Any number of points, anywhere on the weak images, several on the same place: one row each.
CLICK = st.tuples(
    st.integers(0, 13), st.integers(0, 3), st.floats(0, 64, width=32), st.floats(0, 64, width=32)
)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(clicks=st.lists(CLICK, max_size=60))
def test_any_points_give_one_row_each(
    place: tuple[Path, Params], clicks: list[tuple[int, int, float, float]]
) -> None:
    workspace, params = place
    weak = Split.open(workspace / "dataset" / "weak")
    ids, categories = weak.images["image_id"].to_pylist(), [category.id for category in weak.categories]
    rows = [
        {
            "point_id": f"{n:016x}", "image_id": ids[image], "category_id": categories[category], "x": x, "y": y,
            "annotator": None, "labelled_at": None, "source_file": "f", "source_record": str(n),
        }
        for n, (image, category, x, y) in enumerate(clicks)
    ]  # fmt: skip
    points = pa.Table.from_pylist(rows, schema=POINTS).sort_by("image_id")
    write_parquet(points, workspace / "points" / "points.parquet")
    run(params, workspace)
    found = read_pseudo(workspace / "pseudo")
    assert sorted(found["point_id"].to_pylist()) == sorted(row["point_id"] for row in rows)
    given_facts = {row["point_id"]: (row["image_id"], row["category_id"]) for row in rows}
    assert all(
        given_facts[row["point_id"]] == (row["image_id"], row["category_id"]) for row in found.to_pylist()
    )


@pytest.mark.parametrize("batch_size", [1, 3, 14])
def test_rows_do_not_depend_on_the_batch(place: tuple[Path, Params], batch_size: int) -> None:
    workspace, params = place
    before = read_pseudo(workspace / "pseudo").to_pylist()
    pseudo = params.pseudo.model_copy(update={"batch_size": batch_size, "part_images": 4})
    run(params.model_copy(update={"pseudo": pseudo}), workspace)
    after = read_pseudo(workspace / "pseudo").to_pylist()
    for old, new in zip(before, after, strict=True):
        # Another batch size may take another convolution kernel, whose sums differ in the last bits.
        assert old["point_id"] == new["point_id"] and old["status"] == new["status"]
        assert old["score"] == pytest.approx(new["score"], abs=1e-4)


def test_rows_do_not_depend_on_the_other_images(place: tuple[Path, Params]) -> None:
    workspace, params = place
    before = {row["point_id"]: row for row in read_pseudo(workspace / "pseudo").to_pylist()}
    path = workspace / "points" / "points.parquet"
    points = read_parquet(path, POINTS)
    kept = points["image_id"].unique().to_pylist()[1::3]  # fewer than a batch, in other places of it
    write_parquet(points.filter(pc.is_in(points["image_id"], pa.array(kept))), path)
    shutil.rmtree(workspace / "runs" / "pseudo_label")
    run(params, workspace)
    after = read_pseudo(workspace / "pseudo").to_pylist()
    assert after and all(before[row["point_id"]] == row for row in after)


def test_more_rounds_change_refined_masks_alone(place: tuple[Path, Params]) -> None:
    workspace, params = place
    before = read_pseudo(workspace / "pseudo").to_pylist()
    set_gate(workspace, small_ones_lose=False, rounds=3)
    run(params, workspace)
    after = read_pseudo(workspace / "pseudo").to_pylist()
    same = ("point_id", "status", "rough_rle", "score", "level")
    assert [[row[name] for name in same] for row in before] == [[row[name] for name in same] for row in after]
    assert any(old["refined_rle"] != new["refined_rle"] for old, new in zip(before, after, strict=True))


def test_the_gate_keeps_masks_rough(place: tuple[Path, Params]) -> None:
    workspace, params = place
    before = read_pseudo(workspace / "pseudo").to_pylist()
    set_gate(workspace, small_ones_lose=True)
    run(params, workspace)
    refused = 0
    for old, new in zip(before, read_pseudo(workspace / "pseudo").to_pylist(), strict=True):
        if old["status"] != "ok":
            continue
        rough_area = area(new["rough_rle"], 64, 64)  # images aren't resized here
        assert (new["status"] == "rough") == (rough_area < EDGE)
        if rough_area < EDGE:
            refused += 1
            assert new["reason"] == (
                "gate: refinement hurts masks of this size on held-out images (IoU 50.0 -> 40.0)"
            )
            assert (new["refined_rle"], new["area"]) == (None, rough_area)
    summary = json.loads((workspace / "pseudo" / "summary.json").read_text())
    assert 0 < refused == summary["refused"] < summary["ok"] + refused


def test_the_gate_counts_pixels_of_the_resized_image(place: tuple[Path, Params]) -> None:
    workspace, params = place
    set_gate(workspace, small_ones_lose=True)
    larger = params.model_copy(
        update={"input": params.input.model_copy(update={"short_side": 96, "max_side": 96})}
    )
    run(larger, workspace)
    rows = [row for row in read_pseudo(workspace / "pseudo").to_pylist() if row["rough_rle"] is not None]
    refused = [(row["reason"] or "").startswith(REFUSAL) for row in rows]
    assert refused == [area(row["rough_rle"], 64, 64) * 1.5**2 < EDGE for row in rows]
    assert any(refused) and not all(refused)


def test_an_unreadable_image_fails_its_points_only(place: tuple[Path, Params]) -> None:
    workspace, params = place
    shutil.rmtree(workspace / "runs" / "pseudo_label")
    before = files(workspace)
    weak = Split.open(workspace / "dataset" / "weak")
    image = weak.image_path(0).read_bytes()
    weak.image_path(0).write_bytes(b"\x89PNG no more")
    with pytest.raises(TaskError, match=r"1 weak images can't be read") as caught:
        run(params, workspace)
    assert weak.image(0)["file_name"] in str(caught.value)
    # All others are made, and kept for the next run.
    config = params.pseudo.model_copy(update={"on_failed": "report"})
    run(params.model_copy(update={"pseudo": config}), workspace)
    assert image_counts(workspace) == {"computed": 0, "carried": 13, "failed": 1}
    bad = weak.image(0)["image_id"]
    for row in read_pseudo(workspace / "pseudo").to_pylist():
        assert (row["status"] == "failed") == (row["image_id"] == bad)
        if row["image_id"] == bad:
            assert weak.image(0)["file_name"] in row["reason"]
    # What failed is tried again.
    weak.image_path(0).write_bytes(image)
    run(params, workspace)
    assert image_counts(workspace) == {"computed": 1, "carried": 13, "failed": 0}
    assert files(workspace) == before


def test_a_killed_run_goes_on_after_its_last_part(
    place: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    import tasks.labelling.cache as module

    workspace, params = place
    expected = files(workspace)
    shutil.rmtree(workspace / "pseudo")
    shutil.rmtree(workspace / "runs" / "pseudo_label")
    written: list[str] = []
    write: Callable[[pa.Table, Path], None] = module.write_parquet

    def killed_at_the_third(table: pa.Table, path: Path) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path.name)
        write(table, path)

    monkeypatch.setattr(module, "write_parquet", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run(params, workspace)
    assert not (workspace / "pseudo").exists()
    monkeypatch.setattr(module, "write_parquet", write)
    run(params, workspace)
    assert image_counts(workspace) == {"computed": 4, "carried": 10, "failed": 0}
    assert files(workspace) == expected
    assert PSEUDO.names == read_pseudo(workspace / "pseudo").column_names
