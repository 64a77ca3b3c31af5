"""Bad files of masks and of results, and what is said of each.

``python -m tests.bad_inputs.masks FOLDER`` writes them, to look at or to feed to other tools.
"""

from __future__ import annotations

import io
import json
import sys
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 9, 8
SQUARE = [1.0, 1.0, 5.0, 1.0, 5.0, 5.0, 1.0, 5.0]
CORNERS = [[1.0, 1.0], [5.0, 1.0], [5.0, 5.0], [1.0, 5.0]]
BILLION = 10**9


class Bad(NamedTuple):
    """A bad file, or a folder of them.

    Attributes:
        case: what is wrong.
        name: of the file or folder.
        files: contents by name; of a folder's files below it.
        said: parts of the report, one of each fault at least.
        faults: how many there are.
    """

    case: str
    name: str
    files: dict[str, bytes]
    said: tuple[str, ...]
    faults: int = 1


def encoded(value: Any) -> bytes:
    """JSON, or what is text already."""
    return (value if isinstance(value, str) else json.dumps(value)).encode()


def image(**change: Any) -> dict[str, Any]:
    """A record of image 1."""
    return {"id": 1, "file_name": "1.png", "width": WIDTH, "height": HEIGHT} | change


def annotation(**change: Any) -> dict[str, Any]:
    """A square on image 1."""
    return {"id": 10, "image_id": 1, "category_id": 3, "segmentation": [SQUARE]} | change


def coco(**change: Any) -> dict[str, Any]:
    """A good COCO file."""
    good = {"images": [image()], "annotations": [annotation()], "categories": [{"id": 3, "name": "car"}]}
    return good | change


def frame(**change: Any) -> dict[str, Any]:
    """A frame with a car."""
    size = {"width": WIDTH, "height": HEIGHT}
    return {"name": "1.png", "size": size, "labels": [label()]} | change


def label(**change: Any) -> dict[str, Any]:
    """A car of straight edges."""
    poly2d = [{"vertices": CORNERS, "types": "LLLL", "closed": True}]
    return {"id": "a", "category": "car", "poly2d": poly2d} | change


def outline(**change: Any) -> list[dict[str, Any]]:
    """A poly2d of one outline."""
    return [{"vertices": CORNERS, "types": "LLLL", "closed": True} | change]


def png(rgba: Any) -> bytes:
    """A PNG of these pixels."""
    out = io.BytesIO()
    Image.fromarray(np.asarray(rgba, dtype=np.uint8)).save(out, format="PNG")
    return out.getvalue()


def pixels(row: int = 0, value: tuple[int, ...] = (0, 0, 0, 0)) -> np.ndarray:
    """A bitmask with a car, and one pixel more."""
    rgba = np.zeros((HEIGHT, WIDTH, 4), dtype=np.uint8)
    rgba[2:5, 2:5] = (3, 0, 0, 1)
    rgba[row, 0] = value
    return rgba


def bomb() -> bytes:
    """A PNG whose header says 60,000 x 60,000 pixels."""
    content = bytearray(png(pixels()))
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


def _coco(case: str, value: Any, *said: str, faults: int = 1) -> Bad:
    return Bad(case, "strong.json", {"strong.json": encoded(value)}, said, faults)


def _rle(case: str, segmentation: Any, *said: str) -> Bad:
    return _coco(case, coco(annotations=[annotation(segmentation=segmentation)]), "annotation 10", *said)


SIZE = [HEIGHT, WIDTH]
COCO_CASES = [
    _coco("an empty file", "", "not readable as JSON", "expected COCO JSON"),
    _coco("a truncated file", json.dumps(coco())[:-40], "not readable as JSON"),
    _coco("brackets without end", '{"images":' + "[" * 100_000, "not readable as JSON"),
    _coco("a number of 5,000 digits", '{"images":' + "1" * 5000 + "}", "not readable as JSON"),
    _coco("bytes that are no text", "\x00\x01\x02", "not readable as JSON"),
    _coco("labelme's format", {"version": "5.0", "shapes": {}, "imagePath": "1.png"}, "an object with 'version'"),
    _coco("no annotations", {"images": [], "categories": []}, "no list 'annotations'"),
    _coco("two images of one id", coco(images=[image(), image()]), "image 1 (#1)", "ids that differ"),
    _coco("an image that leaves the root", coco(images=[image(file_name="../none.png")]), "'../none.png'"),
    _coco("an image of 10^18 pixels", coco(images=[image(width=BILLION, height=BILLION)]), "1000000000 x"),
    _coco("an unknown image", coco(annotations=[annotation(image_id=7)]), "annotation 10", "image_id 7"),
    _coco("an unknown class", coco(annotations=[annotation(category_id=9)]), "category_id 9"),
    _coco("an annotation without a mask", coco(annotations=[annotation(segmentation=[])]), "no segmentation"),
    _coco("an area that is no number", coco(annotations=[annotation(area=float("nan"))]), "area nan"),
    _rle("a polygon of two points", [[1, 1, 2, 2]], "4 numbers"),
    _rle("a polygon with NaN", [[1, 1, 2, 2, float("nan"), 3]], "not a finite number"),
    _rle("a polygon far outside", [[0, 0, 1e12, 0, 0, 5]], "far outside"),
    _rle("an RLE of 10^18 pixels", {"size": [BILLION, BILLION], "counts": "0"}, "of size [1000000000"),
    _rle("an RLE of width and height swapped", {"size": [WIDTH, HEIGHT], "counts": [72]}, "of size [9, 8]"),
    _rle("an RLE that doesn't fill its image", {"size": SIZE, "counts": [10, 5]}, "15 pixels, for 8 x 9"),
    _rle("an RLE with negative runs", {"size": SIZE, "counts": [80, -8]}, "0 or more"),
    _rle("an RLE whose runs overflow", {"size": SIZE, "counts": "ooooooooooooo0"}, "9 digits"),
    _rle("an RLE of other characters", {"size": SIZE, "counts": "ä~ "}, "outside '0'..'o'"),
    _coco(
        "many bad records",
        coco(annotations=[annotation(id=n, category_id=4) for n in range(70)]),
        "70 faults", "and 20 more",
        faults=70,
    ),
]  # fmt: skip


def _frames(case: str, value: Any, *said: str, faults: int = 1) -> Bad:
    return Bad(case, "frames.json", {"frames.json": encoded(value)}, said, faults)


def _label(case: str, *said: str, **change: Any) -> Bad:
    return _frames(case, [frame(labels=[label(**change)])], "frame #0 '1.png', label 'a'", *said)


SCALABEL_CASES = [
    _frames("no frame", [], "no frames"),
    _frames("COCO results as annotations", [{"image_id": 1, "score": 0.5}], "a list of COCO results"),
    _frames("a frame without a name", [frame(name=None)], "frame #0", "name None"),
    _frames("a frame that leaves the root", [frame(name="/etc/passwd")], "'/etc/passwd'"),
    _frames("a frame of 10^18 pixels", [frame(size={"width": BILLION, "height": BILLION})], "size {'width': 1000"),
    _frames("a config of 10^18 pixels", {"frames": [frame()], "config": {"imageSize": {"width": BILLION,
            "height": BILLION}}}, "config.imageSize"),
    _frames("a frame without size and image", [frame(name="7.png", size=None)], "no size, and", "7.png"),
    _frames("two frames of one name", [frame(), frame()], "frame #1 '1.png'", "names that differ"),
    _frames("classes nested wrongly", {"frames": [frame()], "config": {"categories": [{"subcategories": []}]}},
            "config.categories", "category 'car'", faults=2),
    _label("a misspelt class", "category 'cra'", "'car', the nearest", category="cra"),
    _label("a label without a mask", "neither rle nor poly2d nor box2d", poly2d=None),
    _label("a lane, not an area", "closed False: a line", poly2d=outline(closed=False)),
    _label("types of another length", "4 vertices and 3 types", poly2d=outline(types="LLL")),
    _label("a curve with one control point", "types 'LCLL'", poly2d=outline(types="LCLL")),
    _label("curves that would fill memory", "points when drawn",
           poly2d=outline(vertices=[[0, 0], [27, 0], [0, 27]] * 60_000, types="LCC" * 60_000)),
    _label("a vertex far outside", "far outside", poly2d=outline(vertices=[[1e9, 0], *CORNERS[1:]])),
    _label("an RLE of a label of 10^18 pixels", "of size [1000000000", rle={"size": [BILLION, BILLION], "counts": "0"}),
    _label("a flag that is no flag", "crowd 'no'", attributes={"crowd": "no"}),
    _label("a box upside down", "x1 <= x2", poly2d=None, box2d={"x1": 5, "y1": 5, "x2": 1, "y2": 1}),
]  # fmt: skip


def _bits(case: str, content: bytes, *said: str, name: str = "1.png") -> Bad:
    return Bad(case, "bits", {f"bits/{name}": content}, said)


BITMASK_CASES = [
    _bits("a bitmask without its image", png(pixels()), "image: found none", "one image 7.*", name="7.png"),
    _bits("a colormap", png(pixels()[..., :3]), "a colour image"),
    _bits("a truncated bitmask", png(pixels())[:50], "not readable"),
    _bits("an empty bitmask", b"", "not readable"),
    _bits("a JPEG by another name", b"\xff\xd8\xff\xe0" + bytes(100), "not readable"),
    _bits("a bitmask of 3.6 billion pixels", bomb(), "PNG"),
    _bits("an object of two classes", png(pixels(7, (4, 0, 0, 1))), "object 1", "differ in class or flags"),
    _bits("an unknown class of a bitmask", png(pixels(7, (77, 0, 0, 2))), "object 2", "R = 77"),
    _bits("unknown flags", png(pixels(7, (3, 64, 0, 2))), "object 2", "G = 64"),
    _bits("a class without an object", png(pixels(7, (3, 0, 0, 0))), "1 with a class but no object's number"),
    Bad("a folder with no bitmask", "bits", {"bits/readme.txt": b"see there"}, ("no label files",)),
]


def _yolo(case: str, lines: str, *said: str, faults: int = 1) -> Bad:
    return Bad(
        case, "set", {"set/data.yaml": b"names: [car]", "set/labels/1.txt": lines.encode()}, said, faults
    )


def _tiff(values: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(values).save(out, format="TIFF", compression="tiff_deflate")
    return out.getvalue()


SQUARE_MAP = pixels()[..., 3]
TOOL_CASES = [
    Bad("a label map without its image", "maps", {"maps/7.png": png(SQUARE_MAP)}, ("no image '7'", "1.png")),
    Bad("a label map of another size", "maps", {"maps/1.png": png(SQUARE_MAP[:5])},
        ("1.png: image", "found 9 x 8 pixels; expected 9 x 5")),
    Bad("a label map of 300,000 objects", "maps", {"maps/1.tif": _tiff(
        np.arange(300_000, dtype=np.int32).reshape(500, 600).repeat(3, 1))}, ("299,999 different values",)),
    Bad("label maps that are photographs", "maps", {f"maps/{n}.png": png(
        np.random.default_rng(n).integers(0, 255, (64, 64))) for n in (1, 2)}, ("as in a photograph",), 2),
    _yolo("coordinates of YOLO in pixels", "0 1 1 5 1 5 5\n0 0.1 0.1 7.5 0.1 0.5 0.5", "line 1", "line 2",
          "coordinate 7.5", "from 0 to 1", faults=2),
    _yolo("a class of YOLO without a name", "3 0.1 0.1 0.5 0.1 0.5 0.5", "class 3", "0 to 0"),
    Bad("labels of YOLO without classes", "set", {"set/labels/1.txt": b"0 0 0 1 0 1 1"}, ("no file of classes",)),
    Bad("several formats in a folder", "all", {
        "all/a.json": encoded({"version": "5", "shapes": [], "imagePath": "1.png"}),
        "all/b.txt": b"0 0 0 1 0 1 1", "all/1_mask.png": png(SQUARE_MAP)},
        ("several formats: labelme (a.json); yolo-seg (b.txt); label-maps (1_mask.png)", "ingest.format")),
    Bad("an archive", "masks.zip", {"masks.zip": b"PK\x03\x04" + bytes(1000)}, ("a zip archive", "unpack it")),
    Bad("lines of JSON", "a.ndjson", {"a.ndjson": b'{"a": 1}\n{"a": 2}\n'}, ("lines of JSON", "Datumaro")),
    Bad("XML of CVAT with an entity", "a.xml", {
        "a.xml": b'<!DOCTYPE a [<!ENTITY b "c">]><annotations>&b;</annotations>'}, ("document type or entity",)),
    Bad("XML of CVAT cut short", "a.xml", {"a.xml": b"<annotations><image>"}, ("not readable as XML",)),
    Bad("a polygon of labelme with two corners", "a.json", {"a.json": encoded({
        "version": "5", "shapes": [{"label": "car", "points": [[1, 1], [2, 2]]}], "imagePath": "1.png",
        "imageHeight": HEIGHT, "imageWidth": WIDTH})}, ("shape #0", "part 0 with 4 numbers")),
    Bad("a brush of Label Studio that is cut", "a.json", {"a.json": encoded([{
        "id": 1, "data": {"image": "1.png"}, "annotations": [{"id": 2, "result": [{
            "id": "r", "type": "brushlabels", "original_width": WIDTH, "original_height": HEIGHT,
            "value": {"format": "rle", "brushlabels": ["car"], "rle": [0, 0, 1, 32, 57, 27]}}]}]}])},
        ("result r", "rle that ends too early")),
    Bad("a palette of VOC without classes", "voc", {
        "voc/SegmentationObject/1.png": png(SQUARE_MAP), "voc/SegmentationClass/1.png": png(SQUARE_MAP * 0)},
        ("object 1", "class none")),
]  # fmt: skip
MASK_CASES = [*COCO_CASES, *SCALABEL_CASES, *BITMASK_CASES, *TOOL_CASES]


def result(**change: Any) -> dict[str, Any]:
    """A detection of the square."""
    return {"image_id": 1, "category_id": 3, "score": 0.5, "segmentation": [SQUARE]} | change


def _results(case: str, value: Any, *said: str, faults: int = 1) -> Bad:
    return Bad(case, "results.json", {"results.json": encoded(value)}, said, faults)


RESULT_CASES = [
    _results("an instances file as results", coco(), "an object with 'annotations', 'categories', 'images'"),
    _results("results cut short", json.dumps([result()])[:-5], "not readable as JSON"),
    _results("a result of an unknown image", [result(), result(image_id=5)], "result #1", "image_id 5"),
    _results("a result of an unknown class", [result(category_id=5)], "category_id 5", "(3)"),
    _results("a score that is NaN", [result(score=float("nan"))], "score nan"),
    _results("a score as text", [result(score="0.5")], "score '0.5'"),
    _results("a result without a mask", [{"image_id": 1, "category_id": 3, "score": 1, "bbox": [1, 1, 2, 2]}],
             "no segmentation"),
    _results("a result of 10^18 pixels", [result(segmentation={"size": [BILLION, BILLION], "counts": "0"})],
             "of size [1000000000"),
    _results("results that are no objects", [3, None], "result #0", "result #1", faults=2),
]  # fmt: skip


def main(folder: str) -> None:
    """Writes each case into a folder of its own."""
    for n, bad in enumerate([*MASK_CASES, *RESULT_CASES]):
        for name, content in bad.files.items():
            path = Path(folder) / f"{n:02d} {bad.case.replace('/', ' ')}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


if __name__ == "__main__":
    main(sys.argv[1])
