"""Bad point files: CSV, Parquet, Label Studio, labelme, VIA; and files without a record."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.bad_inputs.bad import Bad
from tests.bad_inputs.coco_xml import coco


def _task(*results: Any, **changes: Any) -> dict[str, Any]:
    annotation = {"id": 1, "result": list(results)}
    return {"id": 1, "data": {"image": "a.png"}, "annotations": [annotation]} | changes


def _keypoint(x: Any = 10, y: Any = 10, **changes: Any) -> dict[str, Any]:
    value = {"x": x, "y": y, "keypointlabels": ["bolt"]}
    own = {"id": "r1", "type": "keypointlabels", "original_width": 40, "original_height": 24, "value": value}
    return own | changes


def _labelme(*shapes: Any, **changes: Any) -> bytes:
    head = {"imagePath": "a.png", "imageWidth": 40, "imageHeight": 24, "shapes": list(shapes)}
    return json.dumps(head | changes).encode()


def _via(*regions: Any, **changes: Any) -> bytes:
    return json.dumps(
        {"a.png1": {"filename": "a.png", "size": 1, "regions": list(regions)} | changes}
    ).encode()


def _region(cx: Any = 3, cy: Any = 4, **attributes: Any) -> dict[str, Any]:
    return {"shape_attributes": {"name": "point", "cx": cx, "cy": cy}, "region_attributes": attributes}


def _parquet(**columns: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


EMPTY = (
    ("a.csv", b"image,x,y,class\n"),
    ("a.parquet", _parquet(image=pa.array([], pa.string()), x=pa.array([], "f8"), y=pa.array([], "f8"))),
    ("a.json", coco()),
    ("a.xml", b"<annotations><meta/></annotations>"),
)
"""Files without a record: nobody has clicked yet, which is no fault."""


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("clicks.csv", "image,x,y\n")
    return buffer.getvalue()


TABLE_CASES = (
    Bad("an empty file", "a.csv", b"", refused="an empty file"),
    Bad("blank lines alone", "a.csv", b"\n  \n\n", refused="an empty file"),
    Bad("a zip disguised as CSV", "a.csv", _zip(), refused="a zip archive"),
    Bad("an image among the points", "a.png", b"\x89PNG\r\n\x1a\n" + bytes(40), refused="an image (PNG)"),
    Bad(
        "a README among the points", "README.md", b"# Clicks\nof June\n", refused="move it out of the folder"
    ),
    Bad(
        "Latin-1",
        "a.csv",
        "image,x,y,class\na.png,1.5,2,Schlüssel\n".encode("latin-1"),
        refused="not UTF-8 text",
    ),
    Bad("null bytes in CSV", "a.csv", b"image,x,y,class\na.png,1.5,\0,bolt\n", refused="binary data"),
    Bad("no header", "a.csv", b"a.png,3,4,bolt\n", refused="a column for x"),
    Bad("other headers", "a.csv", b"picture,column,row\na.png,3,4\n", refused="points.columns"),
    Bad("a header twice", "a.csv", b"image,x,x,y,class\na.png,1,1,2,bolt\n", refused="x more than once"),
    Bad(
        "a quote that doesn't end",
        "a.csv",
        b'image,x,y,class\na.png,1.5,2,bolt\n"a.png,3,4,bolt\n',
        refused="quotes in pairs",
    ),
    Bad(
        "a cell of a megabyte",
        "a.csv",
        b"image,x,y,class\n" + b"a" * 1_000_000 + b",1,2,bolt\n",
        refused="field larger",
    ),
    Bad(
        "rows of other lengths",
        "a.csv",
        b"image,x,y,class\na.png,1.5\na.png,1.5,2,bolt,9\na.png,1.5,2,bolt\n",
        None,
        ("bad_record",) * 2,
        1,
    ),
    Bad(
        "cells that are no numbers",
        "a.csv",
        b"image,x,y,class\na.png,nan,1,bolt\na.png,inf,1,bolt\na.png,1_0,1,bolt\na.png,,1,bolt\na.png,0x1F,1,bolt\na.png,=1+1,2,bolt\n",
        None,
        ("bad_point",) * 6,
    ),
    Bad(
        "Parquet, truncated",
        "a.parquet",
        _parquet(image=["a.png"], x=[1.5], y=[2.0])[:-30],
        refused="unreadable",
    ),
    Bad("Parquet, four bytes of it", "a.parquet", b"PAR1", refused="unreadable"),
    Bad(
        "Parquet with x as text",
        "a.parquet",
        _parquet(image=["a.png"], x=["1.5"], y=[2.0], label=["bolt"]),
        refused="numbers",
    ),
    Bad(
        "Parquet with images as numbers",
        "a.parquet",
        _parquet(image=[1.5], x=[1.5], y=[2.0]),
        refused="text or whole numbers",
    ),
    Bad("Parquet with lists", "a.parquet", _parquet(image=["a.png"], x=[[1.5]], y=[2.0]), refused="numbers"),
    Bad("Parquet without x", "a.parquet", _parquet(image=["a.png"], y=[2.0]), refused="a column for x"),
    Bad(
        "Parquet with nulls and NaN",
        "a.parquet",
        _parquet(
            image=["a.png", "a.png", None], x=[None, float("nan"), 1.5], y=[2.0, 2.0, 2.0], label=["bolt"] * 3
        ),
        None,
        ("bad_point", "bad_point", "unknown_image"),
    ),
)

TOOL_CASES = (
    Bad(
        "percent above 100",
        "a.json",
        json.dumps([_task(_keypoint(101), _keypoint(50, -1, id="r2"))]).encode(),
        None,
        ("outside_image",) * 2,
    ),
    Bad(
        "exactly 100 percent",
        "a.json",
        json.dumps([_task(_keypoint(100, 100))]).encode(),
        None,
        ("outside_image",),
    ),
    Bad(
        "no size of the image",
        "a.json",
        json.dumps([_task(_keypoint(original_width=None), _keypoint(id="2", original_height=0))]).encode(),
        None,
        ("bad_point",) * 2,
    ),
    Bad(
        "percents that are none",
        "a.json",
        json.dumps(
            [_task(_keypoint("10"), _keypoint(float("nan"), id="r2"), _keypoint(None, id="r3"))]
        ).encode(),
        None,
        ("bad_point",) * 3,
    ),
    Bad(
        "tasks of other types",
        "a.json",
        json.dumps([1, None, _task(_keypoint())]).encode(),
        None,
        ("bad_record",) * 2,
        1,
    ),
    Bad(
        "annotations and results of other types",
        "a.json",
        json.dumps([_task(annotations=[3, {"id": 2, "result": "x"}]), _task(5, _keypoint())]).encode(),
        None,
        ("bad_record",) * 3,
        1,
    ),
    Bad(
        "two labels on a keypoint",
        "a.json",
        json.dumps([_task(_keypoint(value={"x": 1, "y": 1, "keypointlabels": ["bolt", "nut"]}))]).encode(),
        None,
        ("bad_point",),
    ),
    Bad(
        "a task without an image",
        "a.json",
        json.dumps([_task(_keypoint(), data={})]).encode(),
        None,
        ("unknown_image",),
    ),
    Bad(
        "addresses that are none",
        "a.json",
        json.dumps(
            [
                _task(_keypoint(), data={"image": image}, id=n)
                for n, image in enumerate(["http://[bad", "/x?d=", "//", "s3://"])
            ]
        ).encode(),
        None,
        ("unknown_image",) * 4,
    ),
    Bad(
        "labelme shapes of other types",
        "a.json",
        _labelme(
            None,
            {"shape_type": "point", "label": "bolt", "points": [1, 2]},
            {"shape_type": "point", "label": "bolt", "points": [[1, 2], [3, 4]]},
        ),
        None,
        ("bad_record", "bad_point", "bad_point"),
    ),
    Bad(
        "labelme of another image size",
        "a.json",
        _labelme({"shape_type": "point", "label": "bolt", "points": [[1, 2]]}, imageWidth=41),
        None,
        ("other_size",),
    ),
    Bad(
        "labelme without an image",
        "x.json",
        _labelme({"shape_type": "point", "label": "bolt", "points": [[1, 2]]}, imagePath=None),
        None,
        ("unknown_image",),
    ),
    Bad(
        "VIA regions of other types",
        "a.json",
        _via(None, {"shape_attributes": 3}, _region("1"), _region(None)),
        None,
        ("bad_record", "bad_record", "bad_point", "bad_point"),
    ),
    Bad(
        "VIA with two attributes that may be the class",
        "a.json",
        _via(_region(colour="red", size="big")),
        None,
        ("bad_point",),
    ),
    Bad(
        "VIA CSV with cells that are no JSON",
        "a.csv",
        b'filename,file_size,region_shape_attributes,region_attributes\na.png,1,"{""name"":",{}\n',
        None,
        ("bad_record",),
    ),
    Bad(
        "VIA 3 regions of other types",
        "a.json",
        json.dumps(
            {
                "attribute": {},
                "file": {"1": {"fname": "a.png"}},
                "view": {"1": {"fid_list": [1]}},
                "metadata": {"a": None, "b": {"vid": "1", "xy": [1, "x", 2]}, "c": {"vid": "1", "xy": [1]}},
            }
        ).encode(),
        None,
        ("bad_record", "bad_point", "bad_point"),
    ),
)
