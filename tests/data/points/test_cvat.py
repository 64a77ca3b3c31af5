from __future__ import annotations

from data.points import Options, PointRecord
from data.points.record import Problem, Unit
from tests.data.points.conftest import Read

META = "<meta><{0}><id>7</id><created>2024-01-01</created>{1}</{0}><dumped>2024-02-01</dumped></meta>"


def image(body: str, meta: str = "", **attributes: str) -> str:
    said = " ".join(f'{name}="{value}"' for name, value in attributes.items())
    head = f'<image id="3" name="in/a.png" width="40" height="24" {said}>'
    return f"<annotations>{meta}{head}{body}</image></annotations>"


def test_several_coordinates_are_several_records(read: Read) -> None:
    meta = META.format("job", "<assignee><username>ann</username></assignee>")
    unit, *records = read("cvat", image('<points label="bolt" points="1.5,2;3,4.25"/>', meta))
    assert unit == Unit("clicks", "cvat job 7 of 2024-01-01: image in/a.png", "2024-02-01")
    assert records == [
        PointRecord(
            "clicks", f"image in/a.png, shape #0, point {k}", "in/a.png", "bolt", x, y, "ann",
            size=(40, 24), unit=unit.name, key=f"in/a.png bolt {x},{y}",
        )
        for k, (x, y) in enumerate([(1.5, 2.0), (3.0, 4.25)])
    ]  # fmt: skip


def test_other_shapes_are_set_aside_and_tags_are_no_shapes(read: Read) -> None:
    body = (
        '<tag label="blurred"/><box label="bolt"/><polygon label="bolt"/><points label="bolt" points="1,2"/>'
    )
    records = read("cvat", image(body))
    assert [r.problem and r.problem.reason for r in records if isinstance(r, PointRecord)] == [
        "not_a_point", "not_a_point", None,
    ]  # fmt: skip


def test_an_id_does_not_shift_when_shapes_before_it_go(read: Read) -> None:
    body = '<points label="bolt" points="1,2"/>'
    (_, before) = read("cvat", image('<points label="bolt" points="9,9"/>' + body))
    (after,) = read("cvat", image(body))
    assert isinstance(before, PointRecord) and isinstance(after, PointRecord)
    assert before.point_id == after.point_id


def test_images_of_a_project_s_tasks_of_one_name_are_told_apart(read: Read) -> None:
    meta = (
        "<meta><project><tasks><task><id>7</id><created>then</created></task></tasks></project>"
        "<dumped>2024</dumped></meta>"
    )
    unit, record = read(
        "cvat", image('<points label="bolt" points="1,2"/>', meta, subset="Train", task_id="7")
    )
    assert isinstance(unit, Unit) and isinstance(record, PointRecord)
    assert unit.name == "cvat task 7 of then: image Train/in/a.png"
    assert (record.image, record.also) == ("Train/in/a.png", ("in/a.png",))


def test_tracks_say_frames(read: Read) -> None:
    size = "<original_size><width>40</width><height>24</height></original_size><source>film.mp4</source>"
    document = f"""<annotations>{META.format("task", size)}<track id="2" label="bolt">
        <points frame="7" outside="0" points="1,2;3,4"/><points frame="8" outside="1" points="1,2;3,4"/>
        <box frame="9" outside="1"/></track></annotations>"""
    unit, *records = read("cvat", document, options=Options(None, "{video}/{frame:03d}"))
    assert isinstance(unit, Unit) and unit.name == "cvat task 7 of 2024-01-01: tracks"
    told = [(r.source_record, r.image, r.x, r.problem) for r in records if isinstance(r, PointRecord)]
    assert told == [
        ("track 2, frame 7, point 0", "film/007", 1.0, None),
        ("track 2, frame 7, point 1", "film/007", 3.0, None),
        ("track 2, frame 8", "film/008", None, Problem("outside_frame", "outside=1", "an object that is in the frame")),
        ("track 2, frame 9", "film/009", None, Problem("not_a_point", "<box>", "<points>")),
    ]  # fmt: skip
    assert all(isinstance(r, PointRecord) and r.size == (40, 24) for r in records)
