"""A folder of files is the truth: copies, corrections, overlapping exports, names."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from data.points import SNIFFED
from data.points.folder import read_folder
from data.points.merge import resolve
from data.points.record import SET_ASIDE
from data.tables import Split


def coco(*points: tuple[float, float], **changes: Any) -> str:
    rows = [
        {"id": n, "image_id": 1, "category_id": 5, "point": list(xy)} | changes for n, xy in enumerate(points)
    ]
    return json.dumps({"images": [], "categories": [], "annotations": rows})


def studio(updated_at: str, *points: tuple[str, float, float], annotation: int = 8) -> str:
    results = [
        {"id": n, "type": "keypointlabels", "original_width": 40, "original_height": 24,
         "value": {"x": x / 0.4, "y": y / 0.24, "keypointlabels": ["bolt"]}}
        for n, x, y in points
    ]  # fmt: skip
    times = {"created_at": "2024-05-01T10:00:00Z", "updated_at": updated_at}
    done = {"id": annotation, "result": results, "completed_by": 1, **times}
    return json.dumps([{"id": 3, "project": 1, "data": {"image": "a.png"}, "annotations": [done]}])


def cvat(dumped: str, *points: tuple[float, float], name: str = "a.png") -> str:
    body = "".join(f'<points label="bolt" points="{x},{y}"/>' for x, y in points)
    return (
        f"<annotations><meta><task><id>7</id><created>2024</created></task><dumped>{dumped}</dumped></meta>"
        f'<image id="0" name="{name}" width="40" height="24">{body}</image></annotations>'
    )


class Place:
    """A folder of point files and what an import of it gives."""

    def __init__(self, root: Path, weak: Split) -> None:
        self.root = root
        self.weak = weak

    def put(self, name: str, content: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(content, encoding="utf-8")

    def points(self) -> dict[str, tuple[float, float]]:
        """Each point's place by its id; other records must need no correction."""
        found = read_folder(self.root, "auto", SNIFFED, weak=self.weak)
        assert not found.faults
        kept, rejected = resolve(found.records, self.weak, holders=found.holders)
        assert set(rejected["reason"].to_pylist()) <= SET_ASIDE
        columns = [kept[name].to_pylist() for name in ("point_id", "x", "y")]
        return {i: (round(x, 3), round(y, 3)) for i, x, y in zip(*columns, strict=True)}


@pytest.fixture
def place(tmp_path: Path, weak: Split) -> Place:
    return Place(tmp_path / "in", weak)


@pytest.mark.parametrize(
    "content",
    [coco((1.5, 2), (3.5, 4)), studio("2024-05-02T10:00:00Z", ("r", 3, 4)), cvat("2024-06", (1.5, 2))],
)
@pytest.mark.parametrize("copy", ["clicks (1).dat", "a copy of clicks.dat", "old/clicks.dat"])
def test_the_same_file_again_adds_nothing_and_keeps_the_ids(place: Place, content: str, copy: str) -> None:
    place.put("clicks.dat", content)
    before = place.points()
    place.put(copy, content)
    assert place.points() == before
    files = {file.name: file.same_as for file in read_folder(place.root, "auto", SNIFFED).files}
    assert files == {"clicks.dat": None, copy: "clicks.dat"}


def labelme(x: float, y: float) -> str:
    shape = {"label": "bolt", "points": [[x, y]], "shape_type": "point"}
    return json.dumps({"shapes": [shape], "imagePath": "b.png", "imageHeight": 24, "imageWidth": 40})


TABLE = "x,y,class\n1.5,2,bolt\n"


@pytest.mark.parametrize(
    ("contents", "copies", "images"),
    [
        ({"a.csv": TABLE, "night/c.csv": TABLE}, {}, [1, 4]),
        ({"day/b.json": labelme(1, 2), "night/b.json": labelme(1, 2)}, {}, [2, 3]),
        # Copies: of another name, in another folder, of one image by two names, both ways by the alphabet.
        (
            {"a.csv": TABLE, "a (1).csv": TABLE, "0 a.csv": TABLE},
            {"a (1).csv": "a.csv", "0 a.csv": "a.csv"},
            [1],
        ),
        ({"0.csv": TABLE, "a.csv": TABLE}, {"0.csv": "a.csv"}, [1]),
        ({"c.csv": TABLE, "night/c.csv": TABLE, "a.csv": TABLE}, {"night/c.csv": "c.csv"}, [1, 4]),
        ({"day/b.json": labelme(1, 2), "b.json": labelme(1, 2)}, {"b.json": "day/b.json"}, [3]),
        (
            {"day/b.json": labelme(1, 2), "night/b.json": labelme(1, 2), "old/night/b.json": labelme(1, 2)},
            {"old/night/b.json": "night/b.json"},
            [2, 3],
        ),
    ],
)
def test_equal_bytes_about_different_images_are_no_copies(
    place: Place, contents: dict[str, str], copies: dict[str, str], images: list[int]
) -> None:
    for name, content in contents.items():
        place.put(name, content)
    found = read_folder(place.root, "auto", SNIFFED, weak=place.weak)
    assert not found.faults
    assert {file.name: file.same_as for file in found.files if file.same_as} == copies
    kept, rejected = resolve(found.records, place.weak, holders=found.holders)
    assert (sorted(kept["image_id"].to_pylist()), len(rejected)) == (images, 0)


def test_copies_of_a_file_that_cannot_be_read_are_one_fault(place: Place) -> None:
    for name in ("notes.csv", "a copy of notes.csv"):
        place.put(name, "dear diary\n")
    found = read_folder(place.root, "auto", SNIFFED, weak=place.weak)
    assert [Path(fault.file).name for fault in found.faults] == ["notes.csv"]
    assert [(file.name, file.same_as) for file in found.files] == [("a copy of notes.csv", "notes.csv")]


def test_a_corrected_file_replaces_its_own_points(place: Place) -> None:
    place.put("clicks.json", coco((1.5, 2), (3.5, 4), (5.5, 6)))
    place.put("other.json", coco((9.5, 9)))
    before = place.points()
    place.put("clicks.json", coco((1.5, 2), (30.5, 4)))  # the second was moved, the third removed
    after = place.points()
    assert sorted(after.values()) == [(1.5, 2.0), (9.5, 9.0), (30.5, 4.0)]
    assert after.keys() <= before.keys()


def test_of_equal_versions_the_first_file_counts(place: Place) -> None:
    for name, x in (("b.json", 9), ("a.json", 3), ("c.json", 12)):
        place.put(name, studio("2024-05-02T10:00:00Z", ("r1", x, 4)))
    assert list(place.points().values()) == [(3.0, 4.0)]


def test_of_an_annotation_in_several_exports_the_newest_counts_under_any_name(place: Place) -> None:
    place.put("a newer one.json", studio("2024-05-03T10:00:00Z", ("r1", 30, 4)))
    place.put("march.json", studio("2024-05-02T10:00:00Z", ("r1", 3, 4), ("r2", 5, 6)))
    assert list(place.points().values()) == [(30.0, 4.0)]  # r2 is gone in the newer one
    (place.root / "a newer one.json").unlink()
    older = place.points()
    assert sorted(older.values()) == [(3.0, 4.0), (5.0, 6.0)]
    place.put("b.json", studio("2024-05-03T10:00:00+00:00"))  # all of its results were removed
    assert place.points() == {}
    place.put("c.json", studio("2024-05-01T10:00:00Z", ("r1", 7, 7), annotation=9))  # another annotation
    assert list(place.points().values()) == [(7.0, 7.0)]


def test_a_later_dump_of_a_task_replaces_an_image_s_points(place: Place) -> None:
    place.put("z.xml", cvat("2024-02-01 10:00:00+00:00", (1.5, 2), (3.5, 4)))
    before = place.points()
    place.put("a.xml", cvat("2024-02-02 10:00:00.5+00:00", (1.5, 2), (9.5, 4)))
    place.put(
        "c.xml",
        cvat("2024-02-02 09:00:00+00:00", (5.5, 5), name="night/c.png")
        .replace('"40"', '"8"')
        .replace('"24"', '"8"'),
    )
    after = place.points()
    assert sorted(after.values()) == [(1.5, 2.0), (5.5, 5.0), (9.5, 4.0)]
    assert len(after.keys() & before.keys()) == 1  # the unmoved one keeps its id in another file


def cvat_of(kind: str, dumped: str, body: str, *jobs: str) -> str:
    """A file of a project, its task or one of its jobs; `jobs` are ID-FIRST-LAST."""
    parts = [job.split("-") for job in jobs]
    rows = [f"<segment><id>{i}</id><start>{a}</start><stop>{b}</stop></segment>" for i, a, b in parts]
    segments = f"<segments>{''.join(rows)}</segments>"
    meta = {
        "project": f"<project><tasks><task><id>7</id><created>T</created>{segments}</task></tasks></project>",
        "task": f"<task><id>7</id><created>T</created>{segments}</task>",
        "job": f"<job><id>90</id><created>J</created>{segments}</job>",
    }[kind]
    return f"<annotations><meta>{meta}<dumped>{dumped}</dumped></meta>{body}</annotations>"


def cvat_image(x: float, project: bool = False, frame: int = 0) -> str:
    owner = 'subset="Train" task_id="7"' if project else ""
    points = f'<points label="bolt" points="{x},2"/>'
    return f'<image id="{frame}" name="a.png" {owner} width="40" height="24">{points}</image>'


def cvat_track(x: float, project: bool = False) -> str:
    owner = 'task_id="7"' if project else ""
    return f'<track id="0" label="bolt" {owner}><points frame="0" outside="0" points="{x},2"/></track>'


@pytest.mark.parametrize("newer", ["project", "task", "job"])
@pytest.mark.parametrize("older", ["project", "task", "job"])
@pytest.mark.parametrize("what", [cvat_image, cvat_track])
def test_a_later_export_of_a_project_its_task_or_its_job_replaces_an_older_one(
    place: Place, what: Any, older: str, newer: str
) -> None:
    place.weak = Split(
        place.weak.root,
        place.weak.images.set_column(
            1, place.weak.images.schema.field(1), [["frame_000000.png", "a.png", "x.png", "y.png"]]
        ),
        place.weak.instances, place.weak.categories, place.weak.image_root,
    )  # fmt: skip
    for name, kind, dumped, x in (("z", older, "2024-01-01", 3), ("a", newer, "2024-01-02", 9)):
        place.put(f"{name} {kind}.xml", cvat_of(kind, dumped, what(x, kind == "project"), "4-0-9"))
    assert list(place.points().values()) == [(9.0, 2.0)]


def test_overlapping_jobs_are_warned_of(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.put("task.xml", cvat_of("task", "2024-01-01", cvat_image(3, frame=5), "4-0-6", "5-5-9"))
    place.put("job.xml", cvat_of("job", "2024-01-02", cvat_image(9, frame=5), "4-0-6"))
    assert sorted(place.points().values()) == [(3.0, 2.0), (9.0, 2.0)]
    assert "task.xml has the points of its part job.xml" in caplog.text
    caplog.clear()
    place.put("task.xml", cvat_of("task", "2024-01-01", cvat_image(3), "4-0-6", "5-5-9"))
    assert list(place.points().values()) == [(9.0, 2.0)]
    assert not caplog.text


def test_exports_without_ids_that_overlap_count_equal_points_once(place: Place) -> None:
    place.put("1.csv", "image,x,y,class\na.png,1.5,2,bolt\n")
    before = place.points()
    place.put("2.csv", "image,x,y,class\na.png,1.5,2,bolt\na.png,3.5,4,bolt\n")
    after = place.points()
    assert sorted(after.values()) == [(1.5, 2.0), (3.5, 4.0)]
    assert before.items() <= after.items()


def test_the_order_in_which_files_came_does_not_matter(place: Place, tmp_path: Path, weak: Split) -> None:
    contents = {
        "1.csv": "image,x,y,class\na.png,1.5,2,bolt\n",
        "2.csv": "image,x,y,class\na.png,1.5,2,bolt\n\n",
        "3.json": coco((3.5, 4)),
        "4.json": studio("2024-05-02T10:00:00Z", ("r1", 5, 6)),
        "5.json": studio("2024-05-03T10:00:00Z", ("r1", 7, 8)),
        "6.xml": cvat("2024", (9.5, 9.5)),
    }
    results = []
    for seed in range(4):
        other = Place(tmp_path / f"in {seed}", weak)
        for name in random.Random(seed).sample(sorted(contents), len(contents)):
            other.put(name, contents[name])
        results.append(other.points())
    assert all(result == results[0] for result in results)
    assert sorted(results[0].values()) == [(1.5, 2.0), (3.5, 4.0), (7.0, 8.0), (9.5, 9.5)]


def test_files_of_one_name_in_two_folders_are_two_files(place: Place) -> None:
    place.put("june/clicks.json", coco((1.5, 2)))
    place.put("july/clicks.json", coco((3.5, 4)))
    assert sorted(place.points().values()) == [(1.5, 2.0), (3.5, 4.0)]


def test_a_linked_folder_s_files_are_read(place: Place, tmp_path: Path) -> None:
    place.put("clicks.json", coco((1.5, 2)))
    there = Place(tmp_path / "there", place.weak)
    there.put("june/clicks.json", coco((3.5, 4)))
    (place.root / "alice").symlink_to(there.root)
    assert sorted(place.points().values()) == [(1.5, 2.0), (3.5, 4.0)]
    files = read_folder(place.root, "auto", SNIFFED).files
    assert [file.name for file in files] == ["alice/june/clicks.json", "clicks.json"]


def test_hidden_files_and_the_mapping_are_no_point_files(place: Place) -> None:
    place.put("clicks.json", coco((1.5, 2)))
    place.put(".DS_Store", "\0\0")
    place.put(".hidden/x.json", "{")
    place.put("classes.yaml", "Bolt: bolt")
    found = read_folder(place.root, "auto", SNIFFED, leave_out=place.root / "classes.yaml")
    assert [file.name for file in found.files] == ["clicks.json"] and not found.faults


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("README.md", "# Clicks", "text that begins with '# Clicks'"),
        ("photo.jpg", "\x7f", "text that begins with '\\x7f'"),
        ("config.xml", "<View/>", "XML <View>"),
        ("package.json", '{"name": "x"}', "JSON with keys 'name'"),
        ("notes.csv", "dear diary\n", "header dear diary"),
    ],
)
def test_a_stray_file_is_named_and_the_rest_is_read(
    place: Place, name: str, content: str, found: str
) -> None:
    place.put("clicks.json", coco((1.5, 2)))
    place.put(name, content)
    result = read_folder(place.root, "auto", SNIFFED)
    (fault,) = result.faults
    assert Path(fault.file).name == name
    assert fault.found.startswith(found)
    assert "move it out of the folder" in fault.next_step or name.endswith(".csv")
    assert len(result.records) == 1
