"""Whatever is in a file: masks, or a DataError that names the file."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data.annotations.coco.file import to_instances
from data.annotations.describe import describe
from data.annotations.formats.label_studio import decode_brush
from data.annotations.frames import ImageFolder
from data.annotations.read import read_annotations
from data.annotations.records import ReadOptions
from data.errors import DataError
from tests.data.fuzzing import any_json, few_times

NUMBER = st.integers(-3, 30) | st.integers() | st.floats()
ANY = any_json(NUMBER)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageFolder:
    folder = tmp_path_factory.mktemp("images")
    Image.fromarray(np.zeros((16, 24, 3), np.uint8)).save(folder / "a.png")
    return ImageFolder(folder)


def check(path: Path, format: str, images: ImageFolder) -> None:
    for reject in (True, False):
        try:
            to_instances(read_annotations(path, format, ReadOptions(images=images, reject=reject)))
        except DataError as error:
            str(error).encode()


def keys(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names, ANY))


CORNERS = st.lists(st.lists(NUMBER, min_size=2, max_size=2), min_size=2, max_size=5)
SHAPES = st.lists(
    st.builds(
        lambda shape, kind, points: (
            shape | {"shape_type": kind} | ({} if points is None else {"points": points})
        ),
        keys("label", "points", "group_id", "mask"),
        st.sampled_from(["polygon", "circle", "rectangle", "mask", "point", None, [], 3]),
        st.none() | CORNERS,
    )
    | ANY,
    max_size=3,
)


@st.composite
def labelme(draw: st.DrawFn) -> Any:
    document = draw(keys("imagePath", "imageHeight", "imageWidth", "flags")) | {"shapes": draw(SHAPES)}
    if draw(st.booleans()):
        document |= {"imagePath": "a.png", "imageHeight": 16, "imageWidth": 24}
    return document


VALUE = keys(
    "points", "x", "y", "width", "height", "rotation", "radiusX", "radiusY", "rle", "polygonlabels", "labels"
)  # fmt: skip
KINDS = ("polygonlabels", "brushlabels", "ellipselabels", "rectanglelabels", "labels", "polygon", None, [], 3)
REGION = st.builds(
    lambda row, value, kind, points: (
        row
        | {
            "type": kind,
            "value": value | ({} if points is None else {"points": points, "polygonlabels": ["cat"]}),
        }
    ),
    keys("id", "original_width", "original_height", "to_name"),
    VALUE,
    st.sampled_from(KINDS),
    st.none() | CORNERS,
)


@st.composite
def tasks(draw: st.DrawFn) -> Any:
    regions = draw(st.lists(REGION | ANY, max_size=3))
    if draw(st.booleans()):
        regions = [
            {"original_width": 24, "original_height": 16} | row if isinstance(row, dict) else row
            for row in regions
        ]
    annotation = draw(keys("was_cancelled", "updated_at", "id")) | {"result": regions}
    task = {
        "id": draw(ANY),
        "data": draw(keys("image", "text")),
        "annotations": draw(st.lists(ANY, max_size=1)),
    }
    task["annotations"].append(annotation)
    if draw(st.booleans()):
        task["data"] = {"image": "a.png"}
    return [*draw(st.lists(ANY, max_size=1)), task]


def put(folder: Path, value: Any) -> Path:
    path = folder / "a.json"
    path.write_text(json.dumps(value), "utf-8", "surrogatepass")
    return path


@few_times
@given(value=labelme())
def test_labelme(value: Any, tmp_path: Path, images: ImageFolder) -> None:
    check(put(tmp_path, value), "labelme", images)


@few_times
@given(value=tasks())
def test_label_studio(value: Any, tmp_path: Path, images: ImageFolder) -> None:
    check(put(tmp_path, value), "label-studio", images)


@few_times
@given(
    lines=st.lists(
        st.lists(st.floats(-0.2, 1.2) | st.text(max_size=3) | st.integers(), max_size=9), max_size=4
    )
)
def test_yolo(lines: Any, tmp_path: Path, images: ImageFolder) -> None:
    (tmp_path / "data.yaml").write_text("names: [cat]")
    text = "\n".join(" ".join(map(str, line)) for line in lines)
    (tmp_path / "a.txt").write_text(text, "utf-8", "surrogatepass")
    check(tmp_path, "yolo-seg", images)


@few_times
@given(data=st.lists(st.integers(0, 255), max_size=40), height=st.integers(1, 5), width=st.integers(1, 5))
def test_brushes(data: list[int], height: int, width: int) -> None:
    for given_data in (data, [*(4 * height * width).to_bytes(4, "big"), *data]):
        with contextlib.suppress(ValueError):
            assert decode_brush(given_data, height, width).shape == (height, width)


@few_times
@given(value=ANY | labelme() | tasks())
def test_any_json_is_described_or_refused(value: Any, tmp_path: Path, images: ImageFolder) -> None:
    with contextlib.suppress(DataError):
        describe(put(tmp_path, value), images)
