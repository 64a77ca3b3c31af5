"""What label tools are given: Label Studio's brushes and interface, CVAT's labels and attributes, COCO's attributes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from defusedxml.ElementTree import parse
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays

from data.annotations.export import write_frames
from data.annotations.formats.label_studio import decode_brush
from data.annotations.frames import Frame, Label
from data.annotations.writers.colors import colors
from data.annotations.writers.cvat import write_labels
from data.annotations.writers.label_studio import encode_brush
from data.masks import rle
from data.tables import Category
from tests.data.annotations.test_writers import CLASSES, HEIGHT, WIDTH, square

FRAMES = [
    Frame(
        1, "night/ä b#1.png", WIDTH, HEIGHT,
        (Label(1, 9, square(2, 3, 5), score=0.25, point_id="aa"), Label(2, 4, square(9, 3, 5), point_id="bb")),
    ),
    Frame(2, "two.jpg", WIDTH, HEIGHT, ()),
]  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_any_mask_survives_a_brush(mask: np.ndarray) -> None:
    code = encode_brush(rle.encode(mask), *mask.shape)
    assert (decode_brush(code, *mask.shape) == mask).all()


@pytest.mark.parametrize("pixels", [1, 2, 3, 4, 64, 65, 16_384, 16_385, 40_000])
@pytest.mark.parametrize("value", [False, True])
def test_runs_at_the_bounds_of_their_lengths(pixels: int, value: bool) -> None:
    """Of 8, 16, 256 and 65,536 values, and longer than the longest, which is cut."""
    mask = np.full((1, pixels + 1), value)
    mask[0, -1] = not value
    assert (decode_brush(encode_brush(rle.encode(mask), *mask.shape), *mask.shape) == mask).all()


def tasks(folder: Path, **options: Any) -> list[dict[str, Any]]:
    folder.mkdir()
    assert write_frames(folder, "x", "label-studio", FRAMES, CLASSES, **options) == {"images": 2, "labels": 2}
    rows: list[dict[str, Any]] = json.loads((folder / "x/tasks.json").read_text())
    return rows


def test_label_studio_by_hand(tmp_path: Path) -> None:
    """The region's tag is one of the interface, its class one of the tag's; ids and scores are there."""
    first, second = tasks(tmp_path / "out")
    assert first["data"] == {
        "image": "/data/local-files/?d=night/%C3%A4%20b%231.png", "file_name": "night/ä b#1.png"
    }  # fmt: skip
    (prediction,) = first["predictions"]
    assert prediction["score"] == 0.25 and second["predictions"][0] == {
        "model_version": "points2model", "result": []
    }  # fmt: skip
    one, other = prediction["result"]
    assert (one["id"], one["meta"], one["score"]) == ("aa", {"text": ["aa"]}, 0.25) and "score" not in other
    assert (one["original_width"], one["original_height"]) == (WIDTH, HEIGHT)
    view = parse(tmp_path / "out/x/label_config.xml").getroot()
    (tag,) = (tag for tag in view if tag.get("name") == one["from_name"])
    assert tag.tag.lower() == one["type"] and tag.get("toName") == one["to_name"] == "image"
    assert [label.get("value") for label in tag] == ['a "b" & <c>', "ring"]
    assert one["value"]["brushlabels"] == ["ring"] and other["value"]["brushlabels"] == ['a "b" & <c>']
    drawn = decode_brush(one["value"]["rle"], HEIGHT, WIDTH)
    assert rle.encode(drawn) == square(2, 3, 5)


def test_the_address_of_images_is_chosen(tmp_path: Path) -> None:
    first, _ = tasks(tmp_path / "out", image_url="s3://bucket/images/")
    assert first["data"]["image"] == "s3://bucket/images/night/%C3%A4%20b%231.png"


def test_cvat_has_ids_and_scores_and_labels_that_take_them(tmp_path: Path) -> None:
    write_frames(tmp_path, "x", "cvat", FRAMES, CLASSES)
    masks = parse(tmp_path / "x.xml").getroot().findall("image/mask")
    found = [{one.get("name"): one.text for one in mask.findall("attribute")} for mask in masks]
    assert found == [{"point_id": "aa", "score": "0.25"}, {"point_id": "bb"}]
    write_labels(tmp_path / "labels.json", CLASSES)
    labels = json.loads((tmp_path / "labels.json").read_text())
    assert [(one["name"], one["type"]) for one in labels] == [
        ('a "b" & <c>', "any"), ("ring", "any"), ("reviewed", "tag")
    ]  # fmt: skip
    assert [one["name"] for one in labels[0]["attributes"]] == ["point_id", "score"]


def test_a_class_called_reviewed_is_no_tag(tmp_path: Path) -> None:
    write_labels(tmp_path / "labels.json", [Category(1, "reviewed")])
    (label,) = json.loads((tmp_path / "labels.json").read_text())
    assert label["type"] == "any"


@pytest.mark.parametrize("attributes", [False, True])
def test_coco_has_attributes_where_a_tool_keeps_them(tmp_path: Path, attributes: bool) -> None:
    write_frames(tmp_path, "x", "coco", FRAMES, CLASSES, attributes=attributes)
    one, other = json.loads((tmp_path / "x.json").read_text())["annotations"]
    assert (one["point_id"], one["score"], other["point_id"]) == ("aa", 0.25, "bb")
    assert one.get("attributes") == ({"point_id": "aa", "score": 0.25} if attributes else None)
    assert other.get("attributes") == ({"point_id": "bb"} if attributes else None)


def test_colours_differ_and_stay() -> None:
    assert len(set(colors(60))) == 60 and colors(60)[:5] == colors(5)
