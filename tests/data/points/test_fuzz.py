"""Fuzzing: for any bytes or documents, an importer returns records or raises our own error, and so does merging.

Each importer is fed with arbitrary trees of its own keys, whole documents with values changed, documents cut or with
bytes changed, and arbitrary bytes. `pytest -m slow` tries 10,000 of each importer.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from roifile import ROI_TYPE, ImagejRoi

from data.points import IMPORTERS, SNIFFED, importer_for
from data.points.file import PointFile
from data.points.folder import read_folder
from data.points.merge import resolve
from data.tables import IMAGES, INSTANCES, Category, DataError, Split, write_split


def _words(text: str) -> st.SearchStrategy[str]:
    return st.sampled_from(text.split())


TEXTS = st.one_of(
    st.text(st.characters(codec=None), max_size=6),  # lone surrogates included
    st.sampled_from(
        ["a.png", "bolt", "", "1", "../a.png", "nan", "1,2", "1,2;3", "point", "keypointlabels", "=1+1"]
    ),
    st.sampled_from(
        ["http://[x", "/data/local-files/?d=a.png", "s3://b/a.png", "/x?fileuri=YS5wbmc=", "//", "C:\\a"]
    ),
)
NUMBERS = st.one_of(
    st.integers(-3, 50),
    st.floats(),
    st.sampled_from([10**400, -(10**30), 1e308, 5e-324, 2**63, True, False]),
)
KEYS = _words(
    "annotations images categories id image_id category_id file_name name point keypoints annotator "
    "labelled_at width height data image result value type x y keypointlabels original_width "
    "original_height created_at updated_at completed_by completions was_cancelled file_upload project "
    "labels choices item_index to_name shapes imagePath imageWidth imageHeight shape_type label points "
    "_via_img_metadata filename regions shape_attributes region_attributes cx cy size metadata view file "
    "attribute vid xy av fid_list fname aname options 1 features geometry coordinates properties classification "
    "names classes predictions point_coords point_labels parentID is_positive group_id flags outside"
)
TREES = st.recursive(
    st.one_of(st.none(), NUMBERS, TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(KEYS, TEXTS), inner, max_size=6)
    ),
    max_leaves=25,
)
"""JSON values whose objects have the formats' own keys."""

KEYPOINT = {
    "id": "r", "type": "keypointlabels", "original_width": 40, "original_height": 24, "to_name": "image",
    "value": {"x": 10, "y": 20, "keypointlabels": ["bolt"]},
}  # fmt: skip
ANNOTATION = {
    "id": 2,
    "result": [KEYPOINT],
    "completed_by": {"email": "a"},
    "updated_at": "2024-01-01T00:00:00Z",
}
REGION = {"shape_attributes": {"name": "point", "cx": 3, "cy": 4}, "region_attributes": {"class": "bolt"}}
WHOLE: dict[str, Any] = {
    "coco": {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 24}],
        "categories": [{"id": 5, "name": "bolt"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 5, "point": [3, 4.5], "annotator": "a"},
            {"id": 2, "image_id": 1, "category_id": 5, "keypoints": [9, 9, 2]},
        ],
    },
    "label_studio": [
        {"id": 1, "project": 1, "data": {"image": "/data/upload/1/0a1b2c3d-a.png"}, "annotations": [ANNOTATION]},
        {"id": 2, "image": "a.png", "kp": [{"x": 1, "y": 1, "keypointlabels": ["bolt"], "original_width": 40}]},
    ],
    "labelme": {
        "imagePath": "a.png", "imageWidth": 40, "imageHeight": 24,
        "shapes": [{"label": "bolt", "shape_type": "point", "points": [[1, 2]]}],
    },
    "via": {"_via_img_metadata": {"a.png1": {"filename": "a.png", "regions": [REGION, REGION]}}},
    "via3": {
        "metadata": {"m": {"vid": "1", "xy": [1, 3, 4], "av": {"1": "0"}}},
        "view": {"1": {"fid_list": ["1"]}},
        "file": {"1": {"fname": "a.png"}},
        "attribute": {"1": {"aname": "class", "options": {"0": "bolt"}}},
    },
    "geojson": {
        "type": "FeatureCollection",
        "features": [
            {"type": "Feature", "id": "u", "geometry": {"type": "MultiPoint", "coordinates": [[3, 4], [5.5, 6]]},
             "properties": {"classification": {"name": "bolt", "names": ["bolt"]}, "name": "nut"}},
        ],
    },
    "dotdotgoose": {"classes": ["bolt"], "points": {"a.png": {"bolt": [{"x": 3, "y": 4.5}]}}},
}  # fmt: skip
MARK = {"x": 3.5, "y": 4, "tool": 0, "frame": 0, "tool_label": "bolt"}
CELLS = {
    "annotations": [{"task": "T0", "value": [MARK, {"task": "T1", "value": [MARK]}]}],
    "subject_data": {"1": {"Filename": "a.png", "image2": "b.png"}},
    "metadata": {"subject_dimensions": [{"naturalWidth": 40, "naturalHeight": 24}]},
    "kp": [{"x": 1, "y": 1, "keypointlabels": ["bolt"], "original_width": 40, "original_height": 24}],
}
"""Columns of tables whose cells are JSON."""

TAGS = _words("annotations meta task job project tasks image track points box id created dumped source")
MARKER_TAGS = _words(
    "Image_Properties Image_Filename Marker_Data Marker_Type Type Name Marker MarkerX MarkerY MarkerZ"
)
NAMES = _words("id name label points frame outside width height task_id subset xtl original_size source")


def changed(document: Any, path: list[int], value: Any) -> Any:
    """The document with one value, found by following `path` as far as it goes, replaced."""
    if not path or not isinstance(document, dict | list) or not document:
        return value
    keys = list(document) if isinstance(document, dict) else list(range(len(document)))
    key = keys[path[0] % len(keys)]
    copy: Any = dict(document) if isinstance(document, dict) else list(document)
    copy[key] = changed(document[key], path[1:], value)
    return copy


def element(tag: str, attributes: dict[str, str], inside: list[str]) -> str:
    attrs = " ".join(f"{name}={quoteattr(value)}" for name, value in attributes.items())
    return f"<{tag} {attrs}>{''.join(inside)}</{tag}>"


XML_TEXT = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=6),
    st.sampled_from(["1", "1,2", "1,2;3,4", "10", "a.png", "bolt"]),
)
XML = st.recursive(
    st.builds(element, TAGS, st.dictionaries(NAMES, XML_TEXT, max_size=4), st.just([])),
    lambda inner: st.builds(
        element, TAGS, st.dictionaries(NAMES, XML_TEXT, max_size=4), st.lists(inner, max_size=4)
    ),
    max_leaves=12,
).map(lambda inside: f"<annotations>{inside}</annotations>")

MARKERS = st.recursive(
    st.builds(lambda tag, text: f"<{tag}>{escape(text)}</{tag}>", MARKER_TAGS, XML_TEXT),
    lambda inner: st.builds(element, MARKER_TAGS, st.just({}), st.lists(inner, max_size=4)),
    max_leaves=12,
).map(lambda inside: f"<CellCounter_Marker_File>{inside}</CellCounter_Marker_File>")

HEADERS = st.sampled_from(["x", "y", "image", "class", "id", "annotator", "date", "", "x", "X", "filename"])
CELLS_OF_TEXT = st.one_of(
    TEXTS, st.floats().map(str), st.sampled_from(['"', '""', ",", ";", "\n", "\t", "1,5"])
)
VIA_HEAD = "filename,file_size,region_shape_attributes,region_attributes"


@st.composite
def tables(draw: st.DrawFn, header: str | None = None) -> str:
    delimiter = draw(st.sampled_from(",;\t|"))
    rows = draw(st.lists(st.lists(CELLS_OF_TEXT, max_size=5), max_size=5))
    first = header or draw(
        st.one_of(
            st.just(f"image{delimiter}x{delimiter}y"), st.lists(HEADERS, max_size=5).map(delimiter.join)
        )
    )
    return "\n".join([first, *(delimiter.join(row) for row in rows)])


@st.composite
def json_tables(draw: st.DrawFn, columns: tuple[str, ...]) -> str:
    """Tables with cells of JSON, changed or arbitrary."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=draw(st.sampled_from(",,\t")))
    writer.writerow(columns)
    for _ in range(draw(st.integers(0, 3))):
        row = []
        for name in columns:
            whole = st.builds(
                changed, st.just(CELLS.get(name, "1")), st.lists(st.integers(0, 9), max_size=6), TREES
            )
            cell = draw(st.one_of(whole, whole, TREES, TEXTS))
            row.append(cell if isinstance(cell, str) else json.dumps(cell))
        writer.writerow([cell.encode("utf-8", "surrogatepass").decode("utf-8", "replace") for cell in row])
    return buffer.getvalue()


@st.composite
def selections(draw: st.DrawFn) -> bytes:
    """A .roi with some bytes changed, or an archive of them."""
    made = []
    for _ in range(draw(st.integers(1, 3))):
        points = draw(st.lists(st.tuples(st.floats(width=32), st.floats(width=32)), min_size=1, max_size=3))
        one = ImagejRoi.frompoints(
            np.array([[3, 4], [5, 6]]), name=draw(st.sampled_from(["bolt", "a.png", "0001"]))
        )
        one.roitype = draw(st.sampled_from([ROI_TYPE.POINT, ROI_TYPE.POINT, ROI_TYPE.POLYGON]))
        if draw(st.booleans()):
            one.subpixel_coordinates = np.array(points, np.float32)
            one.integer_coordinates = np.zeros((len(points), 2), np.int32)
            one.n_coordinates = len(points)
        one.position, one.group = draw(st.integers(0, 3)), draw(st.integers(0, 2))
        content = bytearray(one.tobytes())
        for at in draw(st.lists(st.integers(4, len(content) - 1), max_size=3)):
            content[at] = draw(st.integers(0, 255))
        made.append(bytes(content))
    if draw(st.booleans()):
        return made[0]
    buffer = io.BytesIO()
    with zipfile.ZipFile(
        buffer, "w", draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    ) as file:
        for n, content in enumerate(made):
            file.writestr(draw(st.sampled_from([f"{n}.roi", f"{n}.txt"])), content)
    return buffer.getvalue()


YOLO = st.lists(
    st.lists(
        st.one_of(st.sampled_from(["0", "0.5", "1", ".25", "2"]), CELLS_OF_TEXT), min_size=1, max_size=9
    ),
    max_size=4,
).map(lambda rows: "\n".join(" ".join(row) for row in rows))


@st.composite
def parquets(draw: st.DrawFn) -> bytes:
    count = draw(st.integers(0, 3))
    columns = {}
    for name in draw(st.lists(HEADERS, min_size=1, max_size=5, unique=True)):
        values, kind = draw(
            st.sampled_from([
                (st.floats(), pa.float64()), (st.integers(-9, 9), pa.int64()), (st.booleans(), pa.bool_()),
                (st.text(st.characters(codec="utf-8"), max_size=5), pa.string()), (st.none(), pa.null()),
                (st.lists(st.integers(0, 3), max_size=2), pa.list_(pa.int8())), (st.dates(), pa.date32()),
                (st.binary(max_size=4), pa.binary()), (st.decimals(-99, 99, places=2), pa.decimal128(6, 2)),
            ])
        )  # fmt: skip
        column = draw(st.lists(st.one_of(st.none(), values), min_size=count, max_size=count))
        columns[name] = pa.array(column, kind)
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


TEXT_DOCUMENTS: dict[str, st.SearchStrategy[str]] = {
    "cvat": XML,
    "cell_counter": MARKERS,
    "csv": st.one_of(tables(), tables("image,x,y,class")),
    "via_csv": st.one_of(tables(), tables(VIA_HEAD)),
    "imagej_results": st.one_of(tables(" ,Label,X,Y,Counter"), tables("Label,Area,X,Y,Slice")),
    "yolo_pose": YOLO,
    "zooniverse": json_tables(("classification_id", "created_at", "annotations", "subject_data", "metadata")),
    "label_studio_csv": json_tables(("id", "annotation_id", "annotator", "lead_time", "image", "kp")),
}


def _documents(name: str) -> st.SearchStrategy[bytes]:
    """Documents of one format, from arbitrary ones to nearly whole ones."""
    if name == "parquet":
        return parquets()
    if name == "imagej_roi":
        return selections()
    if name in TEXT_DOCUMENTS:
        return TEXT_DOCUMENTS[name].map(_encode)
    whole = st.builds(changed, st.just(WHOLE[name]), st.lists(st.integers(0, 9), max_size=8), TREES)
    twice = st.builds(changed, whole, st.lists(st.integers(0, 9), max_size=8), TREES)
    return st.one_of(TREES, whole, twice).map(lambda tree: json.dumps(tree).encode())


@st.composite
def contents(draw: st.DrawFn, name: str) -> bytes:
    """A document, or one that was damaged, or any bytes."""
    content = draw(st.one_of(_documents(name), _documents(name), st.binary(max_size=60)))
    damage = draw(st.sampled_from(["none", "none", "cut", "change", "mark", "encoding"]))
    if damage == "cut":
        return content[: draw(st.integers(0, len(content)))]
    if damage == "change" and content:
        at = draw(st.integers(0, len(content) - 1))
        return content[:at] + draw(st.binary(max_size=3)) + content[at + 1 :]
    if damage == "mark":
        return b"\xef\xbb\xbf" + content
    if damage == "encoding":
        return content.decode("latin-1").encode("utf-16")
    return content


@pytest.fixture(scope="module")
def weak(tmp_path_factory: pytest.TempPathFactory) -> Split:
    root = tmp_path_factory.mktemp("weak")
    rows = [
        dict(zip(IMAGES.names, (i, name, name, 40, 24, "", "weak", "point", "ok"), strict=True))
        for i, name in ((1, "a.png"), (2, "night/b.png"), (3, "day/b.png"))
    ]
    images = pa.Table.from_pylist(rows, schema=IMAGES)
    write_split(root, images, INSTANCES.empty_table(), [Category(5, "bolt"), Category(9, "nut")], "images")
    return Split.open(root)


def tried(name: str, content: bytes, weak: Split, folder: Path) -> None:
    path = folder / f"fuzz.{name}"
    path.write_bytes(content)
    found = read_folder(path, name, SNIFFED)
    assert bool(found.faults) != bool(found.files)
    for fault in found.faults:
        assert all((fault.file, fault.record, fault.found, fault.expected, fault.next_step))
        str(fault).encode()
    if found.records:
        points, rejected = resolve(found.records, weak, holders=found.holders, radius=2.0)
        assert points.num_rows + rejected.num_rows == len(found.records)
    file = PointFile(path)
    try:
        importer_for(file).read(file, SNIFFED)
    except DataError as error:
        str(error).encode()


def fuzz(examples: int) -> Callable[..., None]:
    def check(name: str, weak: Split, folder: Path) -> None:
        @settings(
            max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
        )
        @given(contents(name))
        def each(content: bytes) -> None:
            tried(name, content, weak, folder)

        each()

    return check


@pytest.mark.parametrize("name", IMPORTERS)
def test_only_our_own_errors(name: str, weak: Split, tmp_path: Path) -> None:
    fuzz(50)(name, weak, tmp_path)


@pytest.mark.fuzz
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", IMPORTERS)
def test_only_our_own_errors_10_000_times(name: str, weak: Split, tmp_path: Path) -> None:
    fuzz(10_000)(name, weak, tmp_path)
