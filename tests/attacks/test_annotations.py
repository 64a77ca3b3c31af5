"""Annotation files that say two things, or what can't be: nothing of them is taken without a word."""

from __future__ import annotations

import codecs
import gzip
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from data.annotations.categories import load_categories
from data.annotations.results import read_results
from data.tables import Split
from tasks import ingest
from tasks.common.config import Params, load_params
from tasks.tools.export_labels import ExportRequest, export_labels
from tests.attacks.attack import Attack, check
from tests.tasks.conftest import ROOT

WIDTH, HEIGHT = 40, 24
SQUARE = [[2, 2, 12, 2, 12, 12, 2, 12]]  # 100 pixels
HALF = "\ud800"
"""Of a surrogate pair: JSON can hold it, UTF-8 can't."""
Json = dict[str, Any]


def annotation(**change: Any) -> Json:
    return {"id": 10, "image_id": 1, "category_id": 1, "segmentation": SQUARE} | change


def document(*rows: Any, image: Json | None = None, **change: Any) -> Json:
    """A COCO file of one image; without rows one square on it."""
    images = [{"id": 1, "file_name": "1.png", "width": WIDTH, "height": HEIGHT} | (image or {})]
    categories = [{"id": 1, "name": "bolt"}, {"id": 2, "name": "nut"}]
    return {"images": images, "annotations": list(rows or [annotation()]), "categories": categories} | change


def text(*rows: Any, **change: Any) -> str:
    return json.dumps(document(*rows, **change))


class Place:
    """A project of three images: strong, val, and one that no file lists."""

    def __init__(self, root: Path, params: Params, logs: pytest.LogCaptureFixture) -> None:
        self.root, self.params, self.logs = root, params, logs
        for folder in ("images", "labels"):
            (root / folder).mkdir()
        for n in (1, 2, 3):
            cv2.imwrite(str(root / f"images/{n}.png"), np.full((HEIGHT, WIDTH, 3), n, np.uint8))
        self.put("val.json", text(annotation(image_id=2), image={"id": 2, "file_name": "2.png"}))

    def put(self, name: str, content: str | bytes | Json | list[Any]) -> Path:
        raw = content if isinstance(content, str | bytes) else json.dumps(content)
        path = self.root / "labels" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(raw.encode() if isinstance(raw, str) else raw)
        return path

    def ingest(self, strong: str = "strong.json", on_reject: str = "stop", **change: Any) -> str:
        """Ingests; what was logged, and the manifests. A refused run leaves nothing."""
        section = self.params.ingest.model_copy(
            update={"images": "images", "annotations": "labels", "strong": strong, "weak": None, "kept_aside": None,
                    "on_reject": on_reject} | change
        )  # fmt: skip
        try:
            ingest.run(self.params.model_copy(update={"ingest": section}), Path("workspace"))
        except Exception:
            assert not (self.root / "workspace/dataset").exists()
            assert not list(self.root.rglob("*.partial"))
            raise
        manifests = [path.read_text("utf-8") for path in sorted(self.root.rglob("manifest.json"))]
        return "\n".join([self.logs.text, *manifests])

    def split(self, name: str = "strong") -> Split:
        return Split.open(self.root / "workspace/dataset" / name)


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params(ROOT / "params.yaml")


@pytest.fixture
def place(
    tmp_path: Path, params: Params, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Place:
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO)
    return Place(tmp_path, params, caplog)


def strong(content: str | bytes | Json | list[Any], on_reject: str = "stop") -> Callable[[Place], str]:
    """Ingests a strong file of this content."""

    def act(place: Place) -> str:
        place.put("strong.json", content)
        return place.ingest(on_reject=on_reject)

    return act


def reported(*rows: Any, **change: Any) -> Callable[[Place], str]:
    return strong(text(*rows, **change), "report")


TWO_IMAGES = text().replace('"image_id": 1', '"image_id": 7, "image_id": 1')


def aside_with_report(place: Place) -> str:
    good = json.dumps(annotation(id=11))
    place.put("strong.json", TWO_IMAGES.replace('"annotations": [', f'"annotations": [{good}, '))
    said = place.ingest(on_reject="report")
    assert place.split().instances["instance_id"].to_pylist() == [11]
    return said


def scalabel_twice(place: Place) -> str:
    frame = {"name": "1.png", "size": {"width": WIDTH, "height": HEIGHT}, "labels": []}
    place.put("strong.json", json.dumps([frame]).replace('"name"', '"name": "3.png", "name"'))
    return place.ingest()


def results_twice(place: Place) -> str:
    row = {"image_id": 1, "category_id": 1, "segmentation": SQUARE, "score": 0.5}
    path = place.put("found.json", json.dumps([row]).replace('"score"', '"score": 0.9, "score"'))
    return str(read_results(path, {1: (HEIGHT, WIDTH)}, {1}))


def classes_twice(place: Place) -> str:
    return str(load_categories(place.put("categories.json", '[{"id": 1, "id": 2, "name": "bolt"}]')))


def area_of_another_size(place: Place) -> str:
    rows = [
        annotation(area=40_000),
        annotation(id=11, area=1),
        annotation(id=12, area=130),
        annotation(id=13),
    ]
    place.put("strong.json", document(*rows))
    said = place.ingest()
    assert place.split().instances["area"].to_pylist() == [100, 100, 130, 100]
    return said


def area_of_the_box(place: Place) -> str:
    place.put("strong.json", document(annotation(segmentation=[[1, 1, 31, 21, 24, 21]], area=600)))
    said = place.ingest()
    assert place.split().instances["area"].to_pylist() == [600]
    return said


def boxes_in_val(place: Place) -> str:
    rows = [{"id": n, "image_id": 2, "category_id": 1, "bbox": [1, 1, 5, 5]} for n in range(120)]
    place.put("val.json", document(*rows, image={"id": 2, "file_name": "2.png"}))
    return reported()(place)


def missing_images(place: Place) -> str:
    return reported(image={"file_name": "gone.png"})(place)


def no_utf8_on_disk(place: Place) -> str:
    """Weak images are whatever lies there: among them a name of bytes that are no UTF-8."""
    os.link("images/3.png", os.fsencode("images/") + b"caf\xe9.png")
    said = reported()(place)
    assert place.split("weak").images["file_name"].to_pylist() == ["3.png"]
    return said


def half_in_point_id(place: Place) -> str:
    path = place.put("strong.json", document(annotation(point_id=HALF, score=0.5)))
    export_labels(ExportRequest("file", "coco", annotations=path), Path("out"), Path("workspace"))
    return Path("out/strong.json").read_text("utf-8")


def pipe(place: Place) -> str:
    os.mkfifo("labels/strong.json")
    return place.ingest()


def device(place: Place) -> str:
    Path("labels/strong.json").symlink_to("/dev/zero")
    return place.ingest()


def passwords(place: Place) -> str:
    Path("labels/strong.json").symlink_to("/etc/passwd")
    return place.ingest()


def with_classes(*names: str) -> str:
    """The file with further classes, from id 3."""
    classes = document()["categories"] + [{"id": n, "name": name} for n, name in enumerate(names, 3)]
    return text(categories=classes)


def crossing(count: int) -> list[float]:
    """A polygon of so many corners anywhere on the image."""
    corners = np.random.default_rng(0).random((count, 2)) * [WIDTH, HEIGHT]
    return corners.round(1).ravel().tolist()


def with_literal(literal: str) -> str:
    """The square with a corner that JSON has no number for."""
    return text(annotation(segmentation=[["X", 2, 12, 2, 12, 12]])).replace('"X"', literal)


def rle(counts: Any, size: Any = (HEIGHT, WIDTH)) -> Json:
    return annotation(segmentation={"size": list(size), "counts": counts})


PIXELS = HEIGHT * WIDTH
ATTACKS = [
    Attack("an image_id twice, so that a mask lies on another image", strong(TWO_IMAGES),
           ("strong.json", "annotation 10", "key 'image_id' twice", "Next: ")),
    Attack("the same with report: set aside, not guessed", aside_with_report,
           ("rejected", "key 'image_id' twice", '"annotations_rejected": 1'), refused=False),
    Attack("a second, empty list of annotations", strong(text()[:-1] + ', "annotations": []}'),
           ("strong.json: file: found key 'annotations' twice",)),
    Attack("a key twice, once in escapes", strong(text().replace('"image_id"', r'"image\u005fid": 7, "image_id"')),
           ("key 'image_id' twice",)),
    Attack("a key twice within an RLE",
           strong(text(rle([PIXELS])).replace('"counts"', '"counts": [0, 960], "counts"')),
           ("annotation 10", "'counts' of segmentation twice")),
    Attack("a file_name twice, beside texts full of colons",
           strong(text(note="a:b::c", info={"u": "x:"}).replace('"file_name"', '"file_name" : "3.png", "file_name"')),
           ("image 1", "key 'file_name' twice")),
    Attack("a key twice in what is of no use", strong(text(licenses=[{"a": 1}]).replace('"a"', '"a": ":", "a"')),
           ("licenses #0", "key 'a' twice")),
    Attack("a key twice in the outermost object's own objects",
           strong(text(info={"b": 1}).replace('"b"', '"b": 2, "b"')), ("info", "key 'b' twice")),
    Attack("a frame of two names", scalabel_twice, ("record #0", "key 'name' twice")),
    Attack("a result of two scores", results_twice, ("found.json: record #0", "key 'score' twice")),
    Attack("a class of two ids", classes_twice, ("categories.json: record #0 (id 2)", "key 'id' twice")),
    Attack("areas of another resolution", area_of_another_size,
           ("2 annotations have an area that can't be their mask's",
            "annotation 10: area 40000, of a mask of 100 pixels", '"areas_replaced"'), refused=False),
    Attack("areas of boxes, which some tools write, stay", area_of_the_box, hidden=("area",), refused=False),
    Attack("a strong file all of whose annotations are rejected",
           reported(annotation(category_id=9), annotation(id=11, segmentation=[[1, 1, 2, 2]])),
           ("strong.json: annotations: found no object with a mask", "2 annotations and 0 images were rejected",
            "category_id 9", "annotation 11")),
    Attack("a val file of boxes alone", boxes_in_val,
           ("val.json", "no object with a mask", "no segmentation: 120", "and 71 more", "measure with")),
    Attack("strong images that show nothing", strong(document(annotations=[])),
           ("strong.json: annotations: found no object with a mask on 1 images", "give images with masks")),
    Attack("a strong file of crowds", strong(text(annotation(iscrowd=1))),
           ("all 1 annotations are crowds", "ingest.crowd: objects")),
    Attack("a strong file of empty masks", strong(text(rle([PIXELS]))), ("no object with a mask",)),
    Attack("strong images that are all gone", missing_images, ("0 annotations and 1 images were rejected", "gone.png")),
    Attack("half a character in a file name", strong(text(image={"file_name": f"1{HALF}.png"})),
           ("image 1: found file_name", r"\ud800", "UTF-8")),
    Attack("half a character in a class", strong(text(categories=[{"id": 1, "name": HALF}])),
           ("category 1: found name", r"\ud800", "UTF-8")),
    Attack("half a character in a frame", strong([{"name": f"{HALF}.png", "labels": []}]), ("frame #0", r"\ud800")),
    Attack("half a character in a config's class",
           strong({"frames": [{"name": "1.png"}], "config": {"categories": [f"a{HALF}"]}}),
           ("config.categories", r"\ud800", "UTF-8")),
    Attack("half a character in a click's name, written out again", half_in_point_id, ('"point_id":"\\\\ud800"',),
           refused=False),
    Attack("an image file whose name is no UTF-8", no_utf8_on_disk, ("rejected", r"caf\udce9.png"), refused=False),
    Attack("two classes that look the same", strong(with_classes("vis", "vis ")),
           ("category 4: found name 'vis '", "'vis'")),
    Attack("two classes of one name in two forms of Unicode",
           strong(with_classes("caf\u00e9", "cafe\u0301")), ("category 4: found name", r"'caf\xe9'")),
    Attack("a class of id 0", strong(with_classes("dust").replace('"id": 3', '"id": 0')), ('"categories": 3',),
           refused=False),
    Attack("run lengths beyond 64 bits", strong(text(rle([2**64, PIXELS]))), ("annotation 10", "whole number")),
    Attack("run lengths that would wrap round 32 bits to the image's size", strong(text(rle([2**32, PIXELS]))),
           ("annotation 10", "runs of")),
    Attack("run lengths that are floats and true", strong(text(rle([float(PIXELS - 1), True]))),
           ("annotation 10", "whole number")),
    Attack("a corner that is NaN", strong(with_literal("NaN")), ("annotation 10", "not a finite number")),
    Attack("a corner at Infinity", strong(with_literal("-Infinity")), ("annotation 10", "not a finite number")),
    Attack("a corner at 1e308", strong(with_literal("1e308")), ("annotation 10", "far outside")),
    Attack("a corner at 1e999", strong(with_literal("1e999")), ("annotation 10", "not a finite number")),
    Attack("a corner of 5,000 digits", strong(with_literal("9" * 5000)), ("strong.json", "JSON")),
    Attack("a polygon of two corners", strong(text(annotation(segmentation=[[1, 1, 5, 5]]))),
           ("annotation 10", "4 numbers")),
    Attack("a polygon of 100,000 corners that crosses itself",
           strong(text(annotation(segmentation=[crossing(100_000)]))), ('"instances": 1',), refused=False),
    Attack("a polygon of a million corners",
           strong(text(annotation(segmentation=[crossing(1_000_000)]))), ("annotation 10", "outline of")),
    Attack("an id that is a float", strong(text(annotation(id=10.0))), ("annotation #0: found id 10.0",)),
    Attack("an id that is true", strong(text(annotation(image_id=True))), ("annotation 10: found image_id True",)),
    Attack("an id that is a text", strong(text(annotation(category_id="1"))),
           ("annotation 10: found category_id '1'",)),
    Attack("an id of 2^63", strong(text(annotation(id=2**63))), ("annotation #0: found id 9",)),
    Attack("an id of a megabyte", strong(text(annotation(id="9" * 10**6))), ("annotation #0: found id '999",),
           ("9" * 400,)),
    Attack("an image of another size than its record says", strong(text(image={"width": WIDTH - 1})),
           ("1.png", "39 x 24, as its record says")),
    Attack("the same image under two ids", strong(document(images=[
               {"id": n, "file_name": "1.png", "width": WIDTH, "height": HEIGHT} for n in (1, 5)])),
           ("file_name '1.png'", "2 images of this name")),
    Attack("UTF-16 with its mark", strong(codecs.BOM_UTF16_LE + text().encode("utf-16-le")), ('"instances": 1',),
           refused=False),
    Attack("UTF-8 with a mark", strong(codecs.BOM_UTF8 + text().encode()), ('"instances": 1',), refused=False),
    Attack("a null byte in the middle", strong(text().replace('"bolt"', '"bo\0lt"')),
           ("strong.json", "not readable as JSON")),
    Attack("gzip under .json", strong(gzip.compress(text().encode())), ("strong.json", "a gzip archive")),
    Attack("100,000 brackets", strong(text().replace('"bolt"', "[" * 100_000 + "]" * 100_000)),
           ("strong.json", "nested too deeply")),
    Attack("a second document behind the first", strong(text() + text()), ("strong.json", "not readable as JSON")),
    Attack("a named pipe in the file's place", pipe, ("strong.json", "not a regular file")),
    Attack("a link to an endless device", device, ("strong.json", "not a regular file")),
    Attack("a link to a file of passwords", passwords, ("strong.json", "JSON"), ("root:",)),
]  # fmt: skip


def test_there_are_enough_and_they_differ() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 25


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_nothing_wrong_passes(attack: Attack, place: Place) -> None:
    check(attack, place)
