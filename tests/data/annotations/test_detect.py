"""Files and folders of no format, of formats that aren't read, and of several formats."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.annotations.describe import describe
from data.annotations.detect import READABLE, format_of
from data.annotations.read import FORMATS
from data.errors import DataError
from tasks.common.config import IngestConfig
from tests.data.scalabel_files import frames, written

COCO = {"images": [], "annotations": [], "categories": []}
LABELME = {"version": "5.4.1", "flags": {}, "shapes": [], "imagePath": "a.jpg"}
TASKS = [{"id": 1, "annotations": [], "data": {"image": "a.jpg"}}]
LINE = "0 0.1 0.1 0.5 0.1 0.5 0.5\n"


def zipped() -> bytes:
    """A megabyte of a zip that unpacks to a gigabyte."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.json", "w") as inner:
        for _ in range(1000):
            inner.write(bytes(1_000_000))
    return out.getvalue()


NDJSON = '{"type": "dataset", "task": "segment", "class_names": {"0": "cat"}}\n{"type": "image", "file": "a.jpg"}\n'
LABELBOX = '{"data_row": {"id": "1"}, "projects": {}}\n{"data_row": {"id": "2"}}\n'


@pytest.mark.parametrize(
    ("name", "content", "found", "step"),
    [
        (
            "a.ndjson",
            NDJSON,
            "lines of JSON (NDJSON, as Ultralytics' platform writes), the first with",
            "Datumaro",
        ),
        ("a.ndjson", LABELBOX, "lines of JSON (NDJSON, as Labelbox writes)", "convert it to COCO"),
        ("a.zip", zipped, "a zip archive", "unpack it"),  # made by the test: it takes seconds
        ("a.json.gz", b"\x1f\x8b\x08" + bytes(20), "a gzip archive", "unpack it"),
        ("a.json", '{"_via_settings": {}, "_via_img_metadata": {}}', "a VIA project", "export it as COCO"),
        ("a.json", '{"type": "FeatureCollection", "features": []}', "GeoJSON", "exportLabeledImage"),
        (
            "a.json",
            '{"dm_format_version": "1.0", "items": [], "dataset": 1}',
            "Datumaro's JSON",
            "datum convert",
        ),
        ("a.xml", "<annotation/>", "boxes of Pascal VOC, without masks", "Datumaro"),
        ("a.roi", b"Iout" + bytes(60), "not readable as JSON", "export the file again"),
    ],
)
def test_files_that_arent_read(tmp_path: Path, name: str, content: Any, found: str, step: str) -> None:
    path = tmp_path / name
    content = content() if callable(content) else content
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for read in (format_of, describe):
        with pytest.raises(DataError) as caught:
            read(path)
        (fault,) = caught.value.faults
        assert fault.found.startswith(found) and step in fault.next_step
        assert "broken" not in str(fault)
        assert fault.expected == READABLE


def put(folder: Path, *names: str) -> Path:
    """Files whose kind is that of the first part of their name."""
    mask = np.zeros((4, 5), np.uint8)
    mask[1, 1:3] = 1
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = path.name.partition("_")[0]
        values = {"coco": COCO, "labelme": LABELME, "tasks": TASKS, "scalabel": frames()}
        if kind in values:
            written(path, values[kind])
        elif kind == "mask" or path.suffix == ".png":
            Image.fromarray(mask).save(path)
        else:
            path.write_text({"yolo": LINE, "cvat": "<annotations/>"}.get(kind, "notes"))
    return folder


@pytest.mark.parametrize(
    ("names", "format"),
    [
        (("labelme_1.json", "sub/labelme_2.json", "1.png", "2.png"), "labelme"),
        (("coco_.json", "1.png"), "coco"),
        (("tasks_1.json", "readme.txt"), "label-studio"),
        (("cvat_1.xml", "1.png"), "cvat"),
        (("labels/yolo_1.txt", "labels/yolo_2.txt", "images/1.png", "readme.txt"), "yolo-seg"),
        (("1.png", "2.png", "notes.csv"), "label-maps"),
        (("img_1.png", "img_1_masks.png", "img_1_outlines.txt"), "label-maps"),
        (("SegmentationObject/1.png", "SegmentationClass/1.png", "Annotations/1.xml"), "voc"),
        (("gtFine/1_gtFine_instanceIds.png", "gtFine/1_gtFine_color.png", "gtFine/coco_.json"), "cityscapes"),
    ],
)
def test_folders(tmp_path: Path, names: tuple[str, ...], format: str) -> None:
    assert format_of(put(tmp_path / "set", *names)) == format


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (
            ("labelme_1.json", "yolo_1.txt"),
            "several formats: labelme (labelme_1.json); yolo-seg (yolo_1.txt)",
        ),
        (("coco_1.json", "labelme_1.json", "cvat_.xml"), "several formats: coco (coco_1.json); labelme (lab"),
        (
            ("labelme_1.json", "1_masks.png"),
            "several formats: labelme (labelme_1.json); label-maps (1_masks.png)",
        ),
        (("a.csv", "b.docx"), "no label files; 2 files .csv, .docx"),
    ],
)
def test_folders_of_several_formats_and_of_none(tmp_path: Path, names: tuple[str, ...], found: str) -> None:
    with pytest.raises(DataError) as caught:
        format_of(put(tmp_path / "set", *names))
    (fault,) = caught.value.faults
    assert fault.found.startswith(found) and fault.expected == READABLE
    assert ("ingest.format" in fault.next_step) == found.startswith("several")


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="an empty folder"):
        format_of(tmp_path)


def test_several_coco_files_of_a_folder_are_named(tmp_path: Path) -> None:
    put(tmp_path, "coco_1.json", "coco_2.json")
    faults = describe(tmp_path).faults
    assert [fault.found for fault in faults] == ["2 JSON files (coco_1.json, coco_2.json)"]


def test_params_have_the_same_formats() -> None:
    annotation: Any = IngestConfig.model_fields["format"].annotation
    assert set(annotation.__args__) == {"auto", *FORMATS}


def test_a_list_of_a_thousand_tasks_is_no_scalabel(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(TASKS * 1000))
    assert format_of(tmp_path / "a.json") == "label-studio"
