"""Parts of the data are nested, and the whole is the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from data.tables import IMAGES, INSTANCES, POINTS, Category, Split, write_parquet, write_split
from tasks.budget.parts import WHOLE, Data, Part, first_share, short_params
from tasks.common.config import parse_params
from tasks.common.errors import TaskError
from tests.tasks.conftest import tiny_recipe

NAMES = st.dictionaries(
    st.integers(0, 10**6), st.text("abc/.", min_size=1, max_size=5), min_size=1, max_size=60
)


@given(NAMES, st.floats(0.001, 1), st.floats(0.001, 1), st.integers(0, 5))
def test_a_smaller_share_is_within_a_larger_one(names: dict[int, str], a: float, b: float, seed: int) -> None:
    small, large = (first_share(names, share, seed) for share in sorted((a, b)))
    assert set(small) <= set(large) <= set(names)
    assert small and small == sorted(small)
    assert len(large) - 1 < max(a, b) * len(names) + 1e-6 <= len(large) + 1e-6
    assert first_share(names, 1.0, seed) == sorted(names)


@given(NAMES, st.floats(0.001, 1), st.integers(0, 5))
def test_a_share_keeps_its_images_when_others_go(names: dict[int, str], share: float, seed: int) -> None:
    """The order is of the names alone: what isn't there any more moves nothing."""
    kept = set(first_share(names, share, seed))
    left = {id: name for id, name in names.items() if id in kept}
    half = first_share(left, 0.5, seed)
    assert half == first_share(names, (len(half) - 0.5) / len(names), seed)


def test_another_seed_takes_others() -> None:
    names = {n: f"{n}.png" for n in range(40)}
    assert first_share(names, 0.5, 0) != first_share(names, 0.5, 1)


def images(ids: range, label: str, bad: int) -> pa.Table:
    rows = [
        {
            "image_id": id, "file_name": f"{id}.png", "uri": f"{id}.png", "width": 20, "height": 10, "sha256": "",
            "split": label, "label": label, "status": "missing" if id == bad else "ok",
        }
        for id in ids
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=IMAGES)


def instances(ids: range, crowd: int) -> pa.Table:
    """Two objects on each image."""
    rows = [
        {
            **dict.fromkeys(INSTANCES.names), "instance_id": 2 * id + n, "image_id": id, "category_id": 7,
            "bbox_xywh": [0.0, 0.0, 1.0, 1.0], "area": 1.0, "iscrowd": id == crowd and n == 0, "rle_counts": b"01",
            "source": "annotator",
        }
        for id in ids
        for n in range(2)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=INSTANCES)


def project(workspace: Path, strong: int = 8, clicked: int = 10) -> Data:
    """Strong images of which the first can't be used, with a crowd; weak ones of which the last two have no click."""
    ids = range(100, 100 + strong)
    weak = range(200, 200 + clicked + 2)
    own = [Category(7, "cell")]
    write_split(
        workspace / "dataset/strong", images(ids, "mask", 100), instances(ids, 101), own, str(workspace)
    )
    write_split(
        workspace / "dataset/weak", images(weak, "point", -1), INSTANCES.empty_table(), own, str(workspace)
    )
    val = range(300, 303)
    write_split(workspace / "dataset/val", images(val, "mask", -1), instances(val, -1), own, str(workspace))
    rows: list[dict[str, Any]] = [
        {
            **dict.fromkeys(POINTS.names),
            "point_id": f"{id}-{n}",
            "image_id": id,
            "category_id": 7,
            "x": 1.0,
            "y": 1.0,
        }
        for id in weak[:clicked]
        for n in range(3)
    ]
    (workspace / "points").mkdir()
    write_parquet(pa.Table.from_pylist(rows, schema=POINTS), workspace / "points/points.parquet")
    return Data.open(workspace)


def test_counts_and_tables_of_the_parts(tmp_path: Path) -> None:
    data = project(tmp_path / "whole")
    assert data.counts(WHOLE) == (7, 13, 10, 30)  # one image is missing, one object is a crowd
    parts = data.parts([0, 1])
    assert len(parts) == 12 and len(set(parts)) == 12
    for part in parts:
        data.write(part, tmp_path / part.name)
        found = Data.open(tmp_path / part.name)
        assert found.counts(WHOLE) == data.counts(part)
        assert set(found.strong.instances["image_id"].to_pylist()) == set(
            found.strong.images["image_id"].to_pylist()
        )
        assert len(Split.open(tmp_path / part.name / "dataset/kept_aside")) == 0
        assert found.val.instances.equals(data.val.instances)
    assert data.counts(Part(0.25, 0.5, 0))[0::2] == (2, 5)


def test_parts_of_a_moved_project_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, part = Path("workspace"), Path("workspace/runs/budget/part")
    headers = []
    for name in ("here", "there"):
        (tmp_path / name / "photos").mkdir(parents=True)
        (tmp_path / name / "photos/200.png").touch()
        monkeypatch.chdir(tmp_path / name)
        data = project(own)
        for split in (data.strong, data.weak, data.val):
            split.image_root = "photos"
        data.write(WHOLE, part / "workspace")
        headers.append((part / "workspace/dataset/weak/split.json").read_text())
        monkeypatch.chdir(part)
        assert Split.open(Path("workspace/dataset/weak")).image_path(0).is_file()
    assert headers[0] == headers[1]


def test_too_few_images_with_masks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="3 images with masks, expected 4"):
        project(tmp_path, strong=4).parts([0])


def test_without_clicks_the_masks_alone_are_divided(tmp_path: Path) -> None:
    assert [part.masks for part in project(tmp_path, clicked=0).parts([3])] == [0.25, 0.5, 1.0]


def test_a_students_own_weights_are_found_from_its_part(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    recipe = tiny_recipe()
    for weights, found in (("models", str(tmp_path / "models")), ("owner/name", "owner/name")):
        recipe["student"]["network"] = {"name": "eomt", "weights": weights}
        assert short_params(recipe, 4, 0, tmp_path)["student"]["network"]["weights"] == found


def test_short_params_are_params(tmp_path: Path) -> None:
    recipe = tiny_recipe()
    recipe["teacher"] |= {"steps": 1200, "warmup_steps": 120, "milestones": [400, 0.8]}
    recipe["student"] |= {"steps": 1000, "start": "promoted", "schedule": "step", "decay_at": [600, 900]}
    recipe["refiner"] |= {"steps": 400}
    recipe["runtime"]["trackers"] = ["mlflow"]
    (tmp_path / "own.safetensors").touch()
    recipe["model"]["backbone"]["weights"] = "own.safetensors"
    before = yaml.safe_dump(recipe)
    found = short_params(recipe, 100, 5, tmp_path)
    assert yaml.safe_dump(recipe) == before
    params = parse_params(yaml.safe_dump(found), Path("params.yaml"))
    assert (params.seed, params.student.start) == (5, "scratch")
    assert (params.teacher.steps, params.refiner.steps, params.student.steps) == (120, 40, 100)
    assert (params.teacher.warmup_steps, list(params.teacher.milestones)) == (12, [40, 96])
    assert list(params.student.decay_at) == [60, 90]
    assert params.runtime.trackers == ()
    assert params.model["backbone"]["weights"] == str(tmp_path / "own.safetensors")


def test_parts_of_a_seed_are_nested(tmp_path: Path) -> None:
    """Each part's images are among those of every part with shares as large or larger."""
    data = project(tmp_path, strong=40, clicked=40)
    parts = data.parts([0, 1])
    for small in parts:
        for large in parts:
            if small.seed == large.seed and small.masks <= large.masks and small.clicks <= large.clicks:
                for few, many in zip(data.ids(small), data.ids(large), strict=True):
                    assert set(few) <= set(many)
