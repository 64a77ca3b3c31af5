"""labelme, CVAT and Label Studio: each kind of shape, and what is wrong with them."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.annotations.formats.label_studio import decode_brush
from data.annotations.frames import ImageFolder
from data.annotations.read import read_annotations
from data.annotations.records import ReadOptions
from data.errors import DataError
from data.storage import is_safe
from tests.data.annotations.formats.conftest import HEIGHT, WIDTH, read

Images = Callable[..., ImageFolder]
CAT = ("cat", 54, (3, 2, 9, 6))
CORNERS = [[3, 2], [12, 2], [12, 8], [3, 8]]


def shape(kind: str, points: Any = CORNERS, label: Any = "cat", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None} | more


def labelme(path: Path, *shapes: Any, **more: Any) -> Path:
    document = {
        "version": "5.4.1",
        "flags": {},
        "shapes": list(shapes),
        "imagePath": "a.jpg",
        "imageData": None,
    }
    path.write_text(json.dumps(document | {"imageHeight": HEIGHT, "imageWidth": WIDTH} | more))
    return path


def png(pixels: np.ndarray) -> str:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def regions(path: Path, images: ImageFolder) -> list[tuple[int, int]]:
    """Class and iscrowd of each annotation."""
    coco = read_annotations(path, options=ReadOptions(images=images))
    return [(row["category_id"], row["iscrowd"]) for row in coco.annotations]


def test_shapes_of_labelme(tmp_path: Path, images: Images, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    painted = np.array([[255, 0, 255], [0, 255, 0]], np.uint8)
    path = labelme(
        tmp_path / "a.json",
        shape("polygon"),
        shape("mask", [[20, 10], [22, 11]], "hole", mask=png(painted)),
        shape("circle", [[12, 8], [12, 11]], "ring"),
        shape("polygon", [[0, 0], [2, 0], [2, 2], [0, 2]], "two", group_id=4),
        shape("polygon", [[5, 10], [7, 10], [7, 12], [5, 12]], "two", group_id=4),
        shape("rectangle", [[9, 9], [4, 4]], "box"),
        shape("point", [[1, 1]]),
    )
    found = read(path, images())["a"]
    name, area, box = found.pop(2)
    assert (name, box) == ("ring", (9, 5, 6, 6)) and abs(area - 9 * np.pi) < 1
    assert found == [CAT, ("hole", 3, (20, 10, 3, 2)), ("two", 8, (0, 0, 7, 12))]
    assert sum(crowd for _, crowd in regions(path, images())) == 1
    assert "shapes that aren't masks are left out: point 1" in caplog.text


@pytest.mark.parametrize(
    "name", ["a.jpg", "..\\images\\a.jpg", "C:\\data\\a.jpg", "../somewhere/a.jpg", None, "frames/a.jpg"]
)
def test_images_of_labelme(tmp_path: Path, images: Images, name: str | None) -> None:
    path = labelme(tmp_path / "a.json", shape("polygon"), imagePath=name, imageHeight=None)
    assert read(path, images("sub/a.jpg", "b.jpg")) == {"a": [CAT]}


LABELME = [
    (shape("polygon", [[1, 1], [2, 2]]), "part 0 with 4 numbers"),
    (shape("polygon", "x"), "points 'x'"),
    (shape("polygon", [[1, 1], [2, float("nan")], [3, 3]]), "points"),
    (shape("polygon", label=None), "class None"),
    (shape("polygon", [[1, 1], [900, 2], [3, 3]]), "part 0 with a vertex far outside"),
    (
        shape("mask", [[22, 10], [24, 11]], mask=png(np.ones((2, 3), np.uint8))),
        "a mask of 3 x 2 pixels at 22,10",
    ),
    (shape("mask", [[1, 1], [2, 2]], mask="no"), "a mask that can't be read"),
    (shape("mask", [[1, 1], [2, 2]], mask=None), "a mask that can't be read"),
    (shape("circle", CORNERS), "points"),
    (shape("star"), "points"),
    (shape("star", [[1, 1], [2, 2]]), "shape_type 'star'"),
    (7, "int"),
]


def test_bad_shapes_of_labelme_are_all_listed(tmp_path: Path, images: Images) -> None:
    labelme(tmp_path / "a.json", *(bad for bad, _ in LABELME), shape("polygon"))
    labelme(tmp_path / "b.json", imagePath="none.jpg")
    with pytest.raises(DataError) as caught:
        read_annotations(tmp_path, "labelme", ReadOptions(images=images()))
    found = [(Path(fault.file).name, fault.record, fault.found) for fault in caught.value.faults]
    for n, (_, expected) in enumerate(LABELME):
        assert found[n][:2] == ("a.json", f"shape #{n}") and found[n][2].startswith(expected)
    assert found[len(LABELME) :] == [("b.json", "imagePath", "no image 'none.jpg'")]


def cvat(path: Path, *shapes: str, image: str = 'name="a.jpg"', labels: str = "cat dog") -> Path:
    names = "".join(f"<label><name>{name}</name></label>" for name in labels.split())
    size = f'width="{WIDTH}" height="{HEIGHT}"'
    path.write_text(
        f"<annotations><version>1.1</version><meta><job><labels>{names}</labels></job></meta>"
        f'<image id="0" {image} {size}>{"".join(shapes)}</image></annotations>'
    )
    return path


# Lengths of runs as cvat_sdk.masks.encode_mask gives them for [[0, 1, 1], [0, 1, 0]].
PAINTED = '<mask label="dog" rle="1, 2, 1, 1, 1" left="20" top="10" width="3" height="2" z_order="0"></mask>'


def test_shapes_of_cvat(tmp_path: Path, images: Images, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    path = cvat(
        tmp_path / "annotations.xml",
        '<polygon label="cat" points="3,2;12,2;12,8;3,8" z_order="0"/>',
        PAINTED,
        '<ellipse label="dog" cx="6" cy="12" rx="4" ry="2" rotation="0.0"/>',
        '<polygon label="cat" points="0,0;2,0;2,2;0,2" group_id="3"/>',
        '<polygon label="cat" points="14,0;16,0;16,2;14,2" group_id="3"/>',
        '<box label="cat" xtl="0" ytl="0" xbr="16" ybr="2" group_id="3"/>',
        '<box label="dog" xtl="1" ytl="1" xbr="5" ybr="5"/>',
        '<points label="cat" points="1,1"/>',
    )
    found = read(path, images())["a"]
    assert found[:2] == [("cat", 8, (0, 0, 16, 2)), CAT]
    assert ("dog", 3, (21, 10, 2, 2)) in found
    ellipse = next(one for one in found if one[0] == "dog" and one[1] > 3)
    assert ellipse[2] == (2, 10, 8, 4) and abs(ellipse[1] - np.pi * 8) < 3
    coco = read_annotations(path, options=ReadOptions(images=images()))
    assert coco.categories == [(1, "cat"), (2, "dog")]
    assert [row["iscrowd"] for row in coco.annotations].count(1) == 1
    assert "left out: box of a mask 1, points 1" in caplog.text


CVAT = [
    ('<polygon label="cat" points="3,2;12,2"/>', "<polygon>: part 0 with 4 numbers"),
    ('<polygon label="cat" points="3,2;12;1,2"/>', "<polygon>: points"),
    ('<polygon label="cat" points="3,2;12,x;1,2"/>', "<polygon>: could not convert"),
    ('<polygon label="cat" points="3,2;12,nan;1,2"/>', "<polygon>: nan is no finite number"),
    ('<polygon points="3,2;12,2;1,2"/>', "class None"),
    (
        '<mask label="cat" rle="1, 9" left="0" top="0" width="3" height="2"/>',
        "<mask>: an rle of 10 pixels in a box of",
    ),
    (
        '<mask label="cat" rle="1, 2" left="22" top="0" width="3" height="2"/>',
        "<mask>: a box of 3 x 2 pixels at 22,0",
    ),
    (
        '<mask label="cat" rle="" left="2" top="0" width="3" height="2"/>',
        "<mask>: rle, left, top, width or height",
    ),
    ('<mask label="cat" rle="999999999999" left="2" top="0" width="3" height="2"/>', "<mask>: rle, left"),
    ('<ellipse label="cat" cx="6" cy="12" rx="4"/>', "<ellipse>: could not convert"),
]


def test_bad_shapes_of_cvat_are_all_listed(tmp_path: Path, images: Images) -> None:
    path = cvat(tmp_path / "annotations.xml", *(bad for bad, _ in CVAT))
    with pytest.raises(DataError) as caught:
        read(path, images())
    assert len(caught.value.faults) == len(CVAT)
    for n, (_, expected) in enumerate(CVAT):
        assert caught.value.faults[n].record == f"image a.jpg, shape #{n}"
        assert caught.value.faults[n].found.startswith(expected)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('<!DOCTYPE x [<!ENTITY e "z">]><annotations>&e;</annotations>', "an XML document type or entity"),
        ("<annotations>", "not readable as XML"),
        (
            '<annotations><track id="0" label="cat"><polygon frame="0"/></track></annotations>',
            "tracks of a video",
        ),
        ("<annotation><object/></annotation>", "boxes of Pascal VOC, without masks, root <annotation>"),
        ("<svg/>", "XML, root <svg>"),
    ],
)
def test_other_xml(tmp_path: Path, images: Images, text: str, found: str) -> None:
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(DataError, match=found):
        read(tmp_path / "a.xml", images())


def task(*results: Any, number: int = 1, **more: Any) -> dict[str, Any]:
    annotation = {"id": 10 * number, "result": list(results), "updated_at": "2024-01-02T00:00:00Z"}
    return {"id": number, "data": {"image": "s3://bucket/set/a.jpg"}, "annotations": [annotation]} | more


def region(kind: str, value: dict[str, Any], label: Any = ("cat",), **more: Any) -> dict[str, Any]:
    row = {
        "id": "r", "type": kind, "from_name": "label", "to_name": "image", "original_width": WIDTH,
        "original_height": HEIGHT, "image_rotation": 0, "value": value | ({kind: list(label)} if label else {}),
    }  # fmt: skip
    return row | more


POLYGON = {"points": [[x / WIDTH * 100, y / HEIGHT * 100] for x, y in CORNERS], "closed": True}
# Written by label_studio_converter.brush.mask2rle.
MASK = [[0, 1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0, 1], [0, 1, 0, 0, 1, 1, 1], [1, 0, 0, 0, 1, 0, 0],
        [0, 0, 0, 1, 1, 0, 0]]  # fmt: skip
BRUSH = [0, 0, 0, 140, 57, 27, 252, 96, 22, 255, 240, 216, 4, 127, 241, 128, 71, 255, 24, 4, 127, 243, 128, 95, 255,
         182, 1, 31, 254, 19, 0, 159, 254, 112, 0]  # fmt: skip


def test_a_brush_of_label_studio() -> None:
    assert decode_brush(BRUSH, 5, 7).astype(int).tolist() == MASK
    for data, size, found in [
        (BRUSH, (7, 6), "rle of 140 values, not 4 for each of 6 x 7 pixels"),
        (BRUSH[:-4], (5, 7), "rle that ends too early"),
        ([], (5, 7), "rle that ends too early"),
        (
            [0, 0, 0, 4, 63, 255, 252, 255, 255, 0],
            (1, 1),
            "rle that is longer than the image",
        ),
        ("AAAA", (5, 7), "rle that is no list of bytes"),
        ([0, 0, 0, 400], (5, 7), "rle that is no list of bytes"),
    ]:
        with pytest.raises(ValueError, match=found):
            decode_brush(data, *size)


def test_shapes_of_label_studio(tmp_path: Path, images: Images, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    path = tmp_path / "tasks.json"
    ellipse = {"x": 25, "y": 75, "radiusX": 100 * 4 / 24, "radiusY": 100 * 2 / 16, "rotation": 0}
    old = {
        "id": 3,
        "updated_at": "2023-01-01T00:00:00Z",
        "result": [region("polygonlabels", POLYGON, ["old"])],
    }
    content = task(
        region("polygonlabels", POLYGON),
        region("ellipselabels", ellipse, ["dog"]),
        region("rectanglelabels", {"x": 10, "y": 10, "width": 30, "height": 30, "rotation": 0}),
        region("keypointlabels", {"x": 10, "y": 10, "width": 1}),
        region("polygon", POLYGON | {"points": [[0, 0], [50, 0], [50, 50]]}, None, id="own"),
        region("labels", {"labels": ["pig"]}, None, id="own"),
        {"type": "choices", "value": {"choices": ["good"]}},
    )
    content["annotations"].append(old)
    path.write_text(json.dumps([content, {"id": 2, "data": {"image": "b.jpg"}, "annotations": []}]))
    found = read(path, images())
    assert found.keys() == {"a"}
    assert found["a"][0] == CAT
    assert found["a"][1][0] == "dog" and found["a"][1][2] == (2, 10, 8, 4)
    assert found["a"][2][0] == "pig" and found["a"][2][2] == (1, 0, 11, 8)
    assert len(found["a"]) == 3
    for text in ("keypointlabels 1", "task without annotation 1", "older annotation of a task 1"):
        assert text in caplog.text


def test_label_studios_json_min(tmp_path: Path, images: Images) -> None:
    row = POLYGON | {"polygonlabels": ["cat"], "original_width": WIDTH, "original_height": HEIGHT}
    content = [{"image": "/data/upload/1/1a2b3c4d-a.jpg", "id": 1, "label": [row], "annotator": 1}]
    path = tmp_path / "min.json"
    path.write_text(json.dumps(content))
    assert read(path, images()) == {"a": [CAT]}


STUDIO = [
    (region("polygonlabels", POLYGON, ["cat", "dog"]), "labels ['cat', 'dog']"),
    (region("polygonlabels", POLYGON, []), "labels []"),
    (region("polygonlabels", {"points": [[1, 1], [2, 2]]}), "part 0 with 4 numbers"),
    (region("polygonlabels", {"points": [[1], [2]]}), "not enough values to unpack"),
    (region("polygonlabels", {"points": [["a", "b"], [2, 3], [4, 5]]}), "could not convert"),
    (region("brushlabels", {"format": "rle", "rle": BRUSH}), "rle of 140 values"),
    (region("ellipselabels", {"x": 1, "y": None, "radiusX": 3, "radiusY": 4}), "x, y, radiusX, radiusY"),
    (region("polygonlabels", POLYGON, original_width=99), "99 x 16 pixels"),
]


def test_bad_regions_of_label_studio_are_all_listed(tmp_path: Path, images: Images) -> None:
    path = tmp_path / "tasks.json"
    tasks = [
        task(*(bad | {"id": f"r{n}"} for n, (bad, _) in enumerate(STUDIO))),
        7,
        task(data={"image": "no.jpg"}),
    ]
    path.write_text(json.dumps(tasks))
    with pytest.raises(DataError) as caught:
        read(path, images())
    found = [(fault.record, fault.found) for fault in caught.value.faults]
    for n, (_, expected) in enumerate(STUDIO):
        assert found[n][0] == f"task 1, result r{n}" and found[n][1].startswith(expected)
    assert found[len(STUDIO) :] == [("task #1", "int"), ("task 1", "no image 'no.jpg'")]


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "..\\secret.png", "a.jpg/../../b", "\0", ""]
)
@pytest.mark.parametrize("listed", [True, False])
def test_names_that_lead_out_of_the_images_are_no_images(
    tmp_path: Path, images: Images, name: str, listed: bool
) -> None:
    """With a folder of images only its files are found; without one a name must stay below it."""
    files = [labelme(tmp_path / "labelme.json", shape("polygon"), imagePath=name)]
    (tmp_path / "studio.json").write_text(
        json.dumps([task(region("polygonlabels", POLYGON), data={"image": name})])
    )
    files.append(tmp_path / "studio.json")
    if name.isprintable():
        files.append(cvat(tmp_path / "cvat.xml", image=f'name="{name}"'))
    options = ReadOptions(images=images() if listed else None)
    for path in files:
        try:
            coco = read_annotations(path, options=options)
        except DataError:
            continue
        assert all(is_safe(row["file_name"]) for row in coco.images)
        assert not listed or not coco.images or name in ("", "a.jpg/../../b")
