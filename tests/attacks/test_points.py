"""Point files that say two things, that aren't text or files, or whose coordinates are no pixels."""

from __future__ import annotations

import gzip
import io
import json
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from data.tables import IMAGES, INSTANCES, POINTS, Category, read_parquet, write_split
from flows.cli.main import app
from tasks import import_points
from tasks.common.config import Params, load_params
from tests.attacks.attack import Attack, check
from tests.tasks.conftest import ROOT

WIDTH, HEIGHT, COUNT = 400, 300, 6
HALF = "\ud800"
"""Of a surrogate pair: JSON can hold it, UTF-8 can't."""


class Place:
    """A project of six weak images and two classes."""

    def __init__(self, root: Path, params: Params, logs: pytest.LogCaptureFixture) -> None:
        self.root, self.params, self.logs = root, params, logs
        (root / "clicks").mkdir()
        rows = [
            dict(zip(IMAGES.names, (n, f"{n}.png", f"{n}.png", WIDTH, HEIGHT, "", "weak", "point", "ok"), strict=True))
            for n in range(1, COUNT + 1)
        ]  # fmt: skip
        images = pa.Table.from_pylist(rows, schema=IMAGES)
        classes = [Category(5, "bolt"), Category(9, "nut")]
        write_split(root / "workspace/dataset/weak", images, INSTANCES.empty_table(), classes, "images")

    def put(self, name: str | bytes, content: str | bytes | Any) -> Path:
        raw = content if isinstance(content, str | bytes) else json.dumps(content)
        path = Path(os.fsdecode(os.fsencode("clicks/") + os.fsencode(name)))
        path.write_bytes(raw.encode() if isinstance(raw, str) else raw)
        return path

    def run(self, on_reject: str = "stop", **change: Any) -> str:
        """Imports; what was logged, and the manifest. A refused import leaves nothing."""
        section = self.params.points.model_copy(update={"files": "clicks", "on_reject": on_reject} | change)
        try:
            import_points.run(self.params.model_copy(update={"points": section}), Path("workspace"))
        except Exception:
            assert not (self.root / "workspace/points").exists()
            raise
        return self.logs.text + (self.root / "workspace/points/manifest.json").read_text("utf-8")

    def points(self) -> list[dict[str, Any]]:
        return read_parquet(self.root / "workspace/points/points.parquet", POINTS).to_pylist()


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


GOOD = "image,x,y,class\n1.png,1.5,2,bolt\n"


def file(name: str, content: Any, on_reject: str = "stop", **change: Any) -> Callable[[Place], str]:
    """Imports a file."""

    def act(place: Place) -> str:
        place.put(name, content)
        return place.run(on_reject, **change)

    return act


def beside(name: str, content: Any) -> Callable[[Place], str]:
    """Imports a file beside a good one, with `report`: that one's point alone is there."""

    def act(place: Place) -> str:
        place.put("good.csv", GOOD)
        said = file(name, content, "report")(place)
        assert [row["source_file"] for row in place.points()] == ["good.csv"]
        return said

    return act


def coco(*rows: Any) -> str:
    return json.dumps(
        {"images": [{"id": 1, "file_name": "1.png"}], "annotations": list(rows or [CLICK]), "categories": []}
    )


CLICK = {"id": 7, "image_id": 1, "category_id": 5, "point": [3.5, 4.5]}
TASK = {"id": 3, "data": {"image": "1.png"}, "annotations": [{"id": 4, "result": [
    {"id": "r", "type": "keypointlabels", "original_width": WIDTH, "original_height": HEIGHT,
     "value": {"x": 10, "y": 20, "keypointlabels": ["bolt"]}}]}]}  # fmt: skip
LABELME = {"shapes": [{"label": "bolt", "shape_type": "point", "points": [[3.5, 4.5]]}], "imagePath": "1.png",
           "imageWidth": WIDTH, "imageHeight": HEIGHT}  # fmt: skip
VIA = {"1.png1": {"filename": "1.png", "regions": [
    {"shape_attributes": {"name": "point", "cx": 3, "cy": 4}, "region_attributes": {"class": "bolt"}}]}}  # fmt: skip


def twice(document: Any, key: str, value: str) -> str:
    """The document's text, in which the first of such keys has another value before."""
    return json.dumps(document).replace(f'"{key}":', f'"{key}": {value}, "{key}":', 1)


def via_cell(place: Place) -> str:
    cells = ['{"name": "point", "cx": 3, "cx": 30, "cy": 4}', '{"class": "bolt"}']
    quoted = ",".join('"' + cell.replace('"', '""') + '"' for cell in cells)
    return file("a.csv", f"filename,region_shape_attributes,region_attributes\n1.png,{quoted}\n")(place)


def classes(name: str, content: str) -> Callable[[Place], str]:
    def act(place: Place) -> str:
        place.put(name, content)
        return file("a.csv", GOOD, classes=name)(place)

    return act


def clicked(u: Any) -> str:
    """A table of clicks at x, y [K, 2], five an image in turn."""
    rows = [f"{n % COUNT + 1}.png,{x:.6f},{y:.6f},bolt" for n, (x, y) in enumerate(u.tolist())]
    return "image,x,y,class\n" + "\n".join(rows) + "\n"


def even(count: int = 120) -> Any:
    """Clicks x, y [K, 2] all over the images."""
    return np.random.default_rng(3).random((count, 2)) * [WIDTH, HEIGHT]


def doubtful(xy: Any, **change: Any) -> Callable[[Place], str]:
    """Imports clicks at x, y [K, 2], with `report`."""
    return file("a.csv", clicked(xy), "report", **change)


def mended(xy: Any, scale: Any) -> Callable[[Place], str]:
    """Imports clicks that a scale brings back to where `even` has them."""

    def act(place: Place) -> str:
        section = load_params(with_scale(scale)).points
        said = doubtful(xy, scale=section.scale)(place)
        found = sorted((row["x"], row["y"]) for row in place.points())
        assert np.allclose(found, sorted(map(tuple, even().tolist())), atol=1e-3)
        return said

    return act


def with_scale(value: Any) -> Path:
    text = (ROOT / "params.yaml").read_text("utf-8")
    assert "\n  scale: 1\n" in text
    path = Path("params.yaml")
    path.write_text(text.replace("\n  scale: 1\n", f"\n  scale: {value}\n"), encoding="utf-8")
    return path


def scale_of(value: Any) -> Callable[[Place], str]:
    return lambda _: str(load_params(with_scale(value)).points.scale)


def scale_of_one(place: Place) -> str:
    """The same bytes as without."""
    doubtful(even())(place)
    before = (place.root / "workspace/points/points.parquet").read_bytes()
    doubtful(even(), scale=load_params(with_scale(1)).points.scale)(place)
    assert (place.root / "workspace/points/points.parquet").read_bytes() == before
    return place.logs.text


def sized(place: Place) -> str:
    """labelme says the size of the image that was clicked; a factor holds for it too."""
    half = LABELME | {"imageWidth": WIDTH // 2, "imageHeight": HEIGHT // 2}
    said = file("a.json", half, scale=2.0)(place)
    assert [(row["x"], row["y"]) for row in place.points()] == [(7, 9)]
    return said


def one_of_two(place: Place) -> str:
    place.put("good.csv", clicked(even()))
    return file("small.csv", clicked(even() / 2 + 0.1), "report")(place)


def by_command(place: Place) -> str:
    path = place.put("a.csv", clicked(even() * 0.31))
    with_scale(1)
    done = CliRunner().invoke(app, ["import-points", str(path), "--json"])
    assert done.exit_code == 0
    (doubt,) = json.loads(done.stdout)["doubts"]
    shown = CliRunner().invoke(app, ["import-points", str(path)])
    assert shown.exit_code == 0
    return shown.stdout + doubt["next_step"]


def halves_everywhere(place: Place) -> str:
    task = json.loads(json.dumps(TASK))
    task["data"]["image"] = f"{HALF}.png"
    task["annotations"][0]["result"][0] |= {"id": HALF}
    task["annotations"][0] |= {"completed_by": HALF, "created_at": HALF}
    labelme = json.loads(json.dumps(LABELME))
    labelme["shapes"][0]["label"] = HALF
    place.put("b.json", labelme)
    place.put("c.json", coco(CLICK | {"id": HALF, "image_id": HALF, "category_id": HALF}))
    return file("a.json", [task])(place)


def name_of_bytes(place: Place) -> str:
    place.put(b"caf\xe9.csv", GOOD)
    said = place.run()
    assert [row["source_file"] for row in place.points()] == [r"caf\udce9.csv"]
    return said


def pipe(place: Place) -> str:
    os.mkfifo("clicks/a.json")
    return place.run()


def device(place: Place) -> str:
    Path("clicks/a.csv").symlink_to("/dev/zero")
    return place.run()


def circle(place: Place) -> str:
    Path("clicks/a.json").symlink_to("a.json")
    return place.run()


def folder(place: Place) -> str:
    Path("clicks/a.json").mkdir()
    place.put("a.json/b.csv", GOOD)
    return place.run()


def formulas(place: Place) -> str:
    path = place.put("a.csv", 'image,x,y,class\n"=HYPERLINK(""http://e"")",1.5,2,+bolt\n')
    with_scale(1)
    CliRunner().invoke(app, ["import-points", str(path), "--rejects", "no.csv"])
    said = Path("no.csv").read_text()
    assert not re.search(r'(^|,)"?[=+]', said, re.M)
    return said


def table(**columns: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def dictionaries(place: Place) -> str:
    names = pa.array(["1.png", "2.png"]).dictionary_encode()
    return file("a.parquet", table(image=names, x=[1.5, 2.5], y=[1.5, 2.5], label=pa.array(["bolt", "nut"])))(
        place
    )


def many_rows(place: Place) -> str:
    """A few kilobytes that say 11 million points."""
    content = table(x=pa.nulls(11_000_000), y=pa.nulls(11_000_000))
    assert len(content) < 50_000
    return file("a.parquet", content)(place)


def newest(place: Place) -> str:
    """Of two exports of an annotation the newest counts, wherever its clock stood."""
    for n, (name, time) in enumerate(
        (("a.json", "9999-12-31T23:59:59-14:00"), ("b.json", "0001-01-01T00:00:00+14:00"))
    ):
        task = json.loads(json.dumps(TASK))
        task["annotations"][0] |= {"updated_at": time, "created_at": "2024-01-01T00:00:00Z"}
        task["annotations"][0]["result"][0]["value"]["x"] = 10 + n
        place.put(name, [task])
    return place.run()


SILENT = ("likely", "WARNING")
ATTACKS = [
    Attack("a second, empty list of annotations", file("a.json", coco()[:-1] + ', "annotations": []}'),
           ("a.json: file: found key 'annotations' twice",)),
    Attack("the same with report: the whole file is left out", beside("a.json", coco()[:-1] + ', "annotations": []}'),
           ("key 'annotations' twice", '"files_rejected": 1'), refused=False),
    Attack("a click at two points", file("a.json", twice(json.loads(coco()), "point", "[1, 1]")),
           ("annotations #0 (id 7): found key 'point' twice",)),
    Attack("two such clicks, both of which are listed",
           file("a.json", coco(CLICK, CLICK | {"id": 8}).replace('"point"', '"point": 0, "point"')),
           ("2 faults", "(id 7)", "(id 8)")),
    Attack("a task of two images", file("a.json", twice([TASK], "image", '"2.png"')),
           ("record #0 (id 3), data: found key 'image' twice",)),
    Attack("a shape of two labels", file("a.json", twice(LABELME, "label", '"nut"')),
           ("shapes #0: found key 'label' twice",)),
    Attack("a region of two places", file("a.json", twice(VIA, "cx", "9")),
           ("regions #0, shape_attributes: found key 'cx' twice",)),
    Attack("a cell with a key twice", via_cell, ("line 2: found key 'cx' twice",)),
    Attack("a name that is mapped twice", classes("names.yaml", "bolt: nut\nbolt: bolt\n"),
           ("names.yaml: file: found name bolt: ", " 2 times", "lines 1, 2")),
    Attack("a name that a table maps twice", classes("names.csv", "a,b\nx,bolt\nx ,nut\n"), ("row 3", "'x' twice")),
    Attack("a name that is mapped in two forms of Unicode", classes("names.yaml", "caf\u00e9: nut\ncafe\u0301: bolt\n"),
           ("names.yaml", "twice: here, and as", r"caf\xe9")),
    Attack("a name that is mapped with and without a space", classes("names.yaml", 'x: nut\n"x ": bolt\n'),
           ("'x ' twice: here, and as 'x'",)),
    Attack("clicks in microns", doubtful(even() * 0.31),
           ("a.csv: points: found 120 points of 6 images within 3", "0% of them outside", "microns, as ImageJ",
            "points.scale: 3.3"), refused=False),
    Attack("clicks on images of half the size", doubtful(even() / 2), ("smaller copies", "points.scale: 2 "),
           refused=False),
    Attack("clicks on images of twice the size", doubtful(even() * 2),
           ("larger copies", "points.scale: 0.5 ", "outside_image"), refused=False),
    Attack("the same with stop: the cause is said first, and once", file("a.csv", clicked(even() * 2)),
           ("faults:\n  a.csv: points: found 120 points", "points.scale: 0.5 ", "outside_image")),
    Attack("clicks on images that were squeezed to squares", doubtful(even() * [0.6, 0.4]),
           ("points.scale: {x: 1.7, y: 2.57}",), refused=False),
    Attack("clicks as fractions", doubtful(even() / [WIDTH, HEIGHT]),
           ("fractions of the image's sides", "points.scale: {x: 400, y: 300}"), refused=False),
    Attack("clicks in percent", doubtful(100 * even() / [WIDTH, HEIGHT]),
           ("percent of the image's sides", "points.scale: {x: 4, y: 3}"), refused=False),
    Attack("clicks with x and y exchanged", doubtful(even()[:, ::-1]),
           ("x and y exchanged", "exchange points.columns.x and points.columns.y"), refused=False),
    Attack("clicks from the middle of the image", doubtful(even() - [WIDTH / 2, HEIGHT / 2]),
           ("another origin",), refused=False),
    Attack("one file of small images beside a good one", one_of_two,
           ("small.csv: points: found 120 points", "apply to all files: convert these"), ("good.csv:",), refused=False),
    Attack("what is wrong with the unit, from the command", by_command,
           ("doubtful", "microns, as ImageJ", "points.scale: 3.3"), refused=False),
    Attack("good clicks", doubtful(even()), hidden=SILENT, refused=False),
    Attack("a few clicks in a corner", doubtful(even(29) / 3), hidden=SILENT, refused=False),
    Attack("good clicks in the images' middle", doubtful(even() * 0.3 + [WIDTH * 0.35, HEIGHT * 0.35]), hidden=SILENT,
           refused=False),
    Attack("good clicks in the upper half", doubtful(even() * [1, 0.5]), hidden=SILENT, refused=False),
    Attack("microns, with their factor", mended(even() * 0.31, 1 / 0.31), hidden=SILENT, refused=False),
    Attack("fractions, with their factors", mended(even() / [WIDTH, HEIGHT], f"{{x: {WIDTH}, y: {HEIGHT}}}"),
           hidden=SILENT, refused=False),
    Attack("a factor for clicks whose file says the image's size", sized, hidden=SILENT, refused=False),
    Attack("a factor of 1, which changes no byte", scale_of_one, hidden=SILENT, refused=False),
    Attack("a factor of 0", scale_of(0), ("points.scale",)),
    Attack("a negative factor", scale_of("{x: 1, y: -2}"), ("points.scale", "y")),
    Attack("a factor that is infinite", scale_of(".inf"), ("points.scale",)),
    Attack("a factor of 10^300", scale_of("1e300"), ("points.scale",)),
    Attack("a factor that is no number", scale_of("two"), ("points.scale",)),
    Attack("a factor that is true", scale_of("true"), ("points.scale",)),
    Attack("a factor that is yes to some readers", scale_of("yes"), ("params.yaml", "quotes")),
    Attack("a factor for x alone", scale_of("{x: 2}"), ("points.scale", "y")),
    Attack("half a character in every text of three formats", halves_everywhere,
           ("unknown_image", "unknown_category", r"\ud800", "a.json", "b.json", "c.json"), (HALF,)),
    Attack("half a character in CSV, as some write it", file("a.csv", GOOD.encode() + b"\xed\xa0\x80.png,1.5,2,bolt\n"),
           ("a.csv: file: found bytes that are not UTF-8",)),
    Attack("a file whose name is no UTF-8", name_of_bytes, (r'"caf\\udce9.csv"',), refused=False),
    Attack("a named pipe", pipe, ("a.json", "not a regular file")),
    Attack("a link to an endless device", device, ("a.csv", "not a regular file")),
    Attack("a link to itself", circle, ("a.json", "unreadable", "Next: ")),
    Attack("a folder that is called like a file", folder, ('"points": 1',), refused=False),
    Attack("gzip under .json", file("a.json", gzip.compress(coco().encode())), ("a gzip archive",)),
    Attack("100,000 brackets", file("a.json", "[" * 100_000), ("a.json", "nested too deeply")),
    Attack("a coordinate of 5,000 digits", file("a.json", coco().replace("3.5", "9" * 5000)),
           ("a.json", "broken JSON")),
    Attack("a coordinate at Infinity", file("a.json", coco().replace("3.5", "Infinity")),
           ("annotation 7", "bad_point")),
    Attack("a coordinate of 1e999 in CSV", file("a.csv", GOOD + "1.png,1e999,2,bolt\n"), ("line 3", "bad_point")),
    Attack("cells that are formulas", formulas, ("'=HYPERLINK",), refused=False),
    Attack("line breaks within quotes, and CRLF",
           file("a.csv", 'image,x,y,class,"no\r\nte"\r\n1.png,1.5,2,bolt,"a\r\nb"\r\n'),
           ('"points": 1',), refused=False),
    Attack("XML in an encoding that nobody knows",
           file("a.xml", '<?xml version="1.0" encoding="utf-7"?><annotations/>'), ("a.xml", "broken XML")),
    Attack("Parquet whose names are a dictionary", dictionaries, ('"points": 2',), refused=False),
    Attack("Parquet of objects in objects", file("a.parquet", table(image=[{"a": [1]}], x=[1.5], y=[1.5])),
           ("column 'image'", "text or whole numbers")),
    Attack("Parquet of more rows than there are clicks in the world", many_rows, ("11,000,000 rows", "at most")),
    Attack("clocks at both ends of time", newest, ("a.json", '"set_aside": 1'), refused=False),
    Attack("a class with a space at its end", file("a.json", LABELME | {"shapes": [
               LABELME["shapes"][0] | {"label": "bolt "}]}), ("unknown_category", "'bolt '", "nearest: bolt")),
]  # fmt: skip


def test_there_are_enough_and_they_differ() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 20


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_nothing_wrong_passes(attack: Attack, place: Place) -> None:
    check(attack, place)
