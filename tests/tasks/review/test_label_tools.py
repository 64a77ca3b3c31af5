"""Round trips through the tools' own code: Datumaro, with which CVAT reads and writes COCO; Label Studio's converter.

Neither is among the project's dependencies: each test is skipped where its package isn't installed. The whole way
through a running Label Studio is in bench/label_studio.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from data.masks import rle as masks
from tasks.tools.export_labels import ExportRequest, export_labels
from tasks.tools.import_review import import_review
from tests.tasks.review.project import HEIGHT, WIDTH, rle, write_project

TRUE = {"aa": rle(1, 1, 5), "bb": rle(8, 3, 5), "cc": rle(1, 1, 4)}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write_project(tmp_path)
    return tmp_path


def send(root: Path, tool: str) -> Path:
    request = ExportRequest("pseudo", tool, decisions=root / "decisions")
    export_labels(request, root / "sent", root / "workspace")
    return root / "sent"


def read(root: Path, file: Path) -> dict[str, Any]:
    return import_review(
        file, root / "decisions", root / "workspace", "anna", sent=root / "sent", reviewed="all"
    )


def imported(datumaro: Any, root: Path) -> Any:
    """The export for COCO tools, in the folders that Datumaro expects."""
    sent = send(root, "coco")
    for name in ("annotations", "images"):
        (root / "coco" / name).mkdir(parents=True)
    for image in (7, 8, 9):
        cv2.imwrite(str(root / f"coco/images/{image}.png"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    (root / "coco/annotations/instances_default.json").write_bytes((sent / "pseudo.json").read_bytes())
    return datumaro.Dataset.import_from(str(root / "coco"), "coco_instances")


def masks_of(item: Any) -> list[Any]:
    """The masks of an item of Datumaro, which has their boxes too."""
    return [one for one in item.annotations if one.type.name == "mask"]


def mask_of(annotation: Any) -> bytes:
    return masks.encode(np.asarray(annotation.image, bool))


def test_coco_through_datumaro(project: Path) -> None:
    """Masks, ids and scores are there when Datumaro has read the file; what it writes comes back unchanged, by id,
    though it draws outlines through the centres of pixels."""
    datumaro = pytest.importorskip("datumaro")
    data = imported(datumaro, project)
    found = {one.attributes["point_id"]: one for item in data for one in masks_of(item)}
    assert {name: mask_of(one) for name, one in found.items()} == TRUE
    assert {name: one.attributes["score"] for name, one in found.items()} == {"aa": 0.7, "bb": 0.9, "cc": 0.2}
    data.export(str(project / "out"), "coco_instances", save_media=False)
    (back,) = (project / "out/annotations").glob("*.json")
    summary = read(project, back)
    assert summary["actions"] == {"accept": 3} and summary["counts"]["matched_by_id"] == 3


def test_a_change_in_datumaro_is_a_decision(project: Path) -> None:
    datumaro = pytest.importorskip("datumaro")
    data = imported(datumaro, project)
    items = []
    for item in data:
        kept = [one for one in item.annotations if one.attributes["point_id"] == "aa"]
        for one in masks_of(item):
            if one.attributes["point_id"] == "cc":
                corners = [2.0, 2.0, 6.0, 2.0, 6.0, 6.0, 2.0, 6.0]
                kept.append(datumaro.Polygon(corners, label=one.label, attributes=one.attributes, id=one.id))
        items.append(item.wrap(annotations=kept))
    changed = datumaro.Dataset.from_iterable(items, categories=data.categories())
    changed.export(str(project / "out"), "coco_instances", save_media=False)
    (back,) = (project / "out/annotations").glob("*.json")
    assert read(project, back)["actions"] == {"accept": 1, "mask": 1, "reject": 1}
    rows = [json.loads(line) for line in (project / "decisions/anna.jsonl").read_text().splitlines()]
    (row,) = (one for one in rows if one["action"] == "mask")
    assert (row["object"], row["source"]) == ("cc", "polygon")
    assert row["mask"]["counts"].encode() == rle(2, 2, 4)


def test_brushes_through_label_studios_converter(project: Path) -> None:
    """Its decoder gives our pixels, and its encoder's brushes, of another form, come back as the same masks."""
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    rows = json.loads((send(project, "label-studio") / "pseudo/tasks.json").read_text())
    regions = [region for row in rows for region in row["predictions"][0]["result"]]
    for region in regions:
        decoded = brush.decode_rle(region["value"]["rle"]).reshape(HEIGHT, WIDTH, 4)
        assert masks.encode(decoded[..., 3] > 0) == TRUE[region["id"]]
        pixels = coco_mask.decode({"size": [HEIGHT, WIDTH], "counts": TRUE[region["id"]]})
        region["value"]["rle"] = brush.mask2rle(pixels * 255)
    for row in rows:
        row["annotations"] = [{"id": 1, "result": row["predictions"][0]["result"]}]
    (project / "back.json").write_text(json.dumps(rows))
    summary = read(project, project / "back.json")
    assert (
        summary["actions"]
        == {
            "accept": 3,
        }
        and summary["counts"]["matched_by_id"] == 3
    )


def test_cvats_client_takes_the_labels(project: Path) -> None:
    """The labels are those of a task as CVAT's client describes them, in fields, types and values."""
    models = pytest.importorskip("cvat_sdk.models")
    rows = json.loads((send(project, "cvat") / "labels.json").read_text())
    made = [models.PatchedLabelRequest._from_openapi_data(**row) for row in rows]
    assert [(one.name, str(one.type)) for one in made] == [
        ("disc", "any"),
        ("ring", "any"),
        ("reviewed", "tag"),
    ]
    for row in rows[:2]:
        for attribute in row["attributes"]:
            one = models.AttributeRequest._from_openapi_data(**attribute)
            assert str(one.input_type) == "text" and one.values == [""]
