from __future__ import annotations

import json
from pathlib import Path

import pytest

from data.annotations.categories import KNOWN, load_categories, numbered
from data.errors import DataError
from data.tables import Category


def test_the_built_in_lists() -> None:
    coco = {category.id: category.name for category in load_categories("coco")}
    assert len(coco) == len(set(coco.values())) == 80
    # Ten of COCO's 90 numbers were never used in its instances.
    assert set(range(1, 91)) - coco.keys() == {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
    assert (coco[1], coco[44], coco[72], coco[90]) == ("person", "bottle", "tv", "toothbrush")
    bdd = ["pedestrian", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"]
    assert load_categories("bdd100k") == [Category(i, name) for i, name in enumerate(bdd, start=1)]


def test_against_coco_s_own_file(shared_dir: Path) -> None:
    files = sorted((shared_dir / "fixtures/coco_golden").glob("*instances*.json"))
    if not files:
        pytest.skip("no COCO file")
    assert load_categories(files[0]) == KNOWN["coco"]


def test_numbered() -> None:
    assert numbered(3) == [(1, "1"), (2, "2"), (3, "3")]


@pytest.mark.parametrize("whole", [True, False])
def test_a_file_s_classes_come_sorted_by_id(tmp_path: Path, whole: bool) -> None:
    rows = [{"id": 7, "name": "ring", "supercategory": "x"}, {"id": 3, "name": "disc"}]
    path = tmp_path / "classes.json"
    path.write_text(json.dumps({"categories": rows, "images": []} if whole else rows))
    assert load_categories(path) == [Category(3, "disc"), Category(7, "ring")]


@pytest.mark.parametrize(
    ("content", "reasons"),
    [
        ("{", ["not readable as JSON"]),
        ('{"classes": []}', ["no list of classes"]),
        ("[]", ["no list of classes"]),
        (
            '[{"id": 1}, {"id": true, "name": "a"}, 5, {"id": 2, "name": "b"}, {"id": 2, "name": "b"}]',
            ["category #0", "category #1", "category #2", "id 2: found 2", "name 'b': found 2"],
        ),
    ],
)
def test_all_faults_of_a_file(tmp_path: Path, content: str, reasons: list[str]) -> None:
    path = tmp_path / "classes.json"
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        load_categories(path)
    assert all(reason in str(caught.value) for reason in reasons)


def test_a_missing_file() -> None:
    with pytest.raises(DataError, match=r"cocoo: file: found no such file"):
        load_categories("cocoo")
