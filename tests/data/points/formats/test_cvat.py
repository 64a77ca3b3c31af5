from __future__ import annotations

import pytest

from data.errors import DataError
from data.points import SNIFFED, Options, PointRecord
from data.points.record import Problem, Unit
from tests.data.points.conftest import Read

META = "<meta><{0}><id>7</id><created>2024-01-01</created>{1}</{0}><dumped>2024-02-01</dumped></meta>"


def image(body: str, meta: str = "", **attributes: str) -> str:
    given = " ".join(f'{name}="{value}"' for name, value in attributes.items())
    head = f'<image id="3" name="in/a.png" width="40" height="24" {given}>'
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


def test_images_of_a_project_s_tasks_of_one_name_are_distinguished(read: Read) -> None:
    meta = (
        "<meta><project><tasks><task><id>7</id><created>then</created></task></tasks></project>"
        "<dumped>2024</dumped></meta>"
    )
    unit, record = read(
        "cvat", image('<points label="bolt" points="1,2"/>', meta, subset="Train", task_id="7")
    )
    assert isinstance(unit, Unit) and isinstance(record, PointRecord)
    # The name of ids, and the one that an export of the task gives it.
    assert (unit.name, unit.also) == (
        "cvat task 7 of then: image Train/in/a.png", ("cvat task 7 of then: image in/a.png",),
    )  # fmt: skip
    assert (record.image, record.also) == ("Train/in/a.png", ("in/a.png",))


def test_tracks_say_frames(read: Read) -> None:
    size = "<original_size><width>40</width><height>24</height></original_size><source>film.mp4</source>"
    document = f"""<annotations>{META.format("task", size)}<track id="2" label="bolt">
        <points frame="7" outside="0" points="1,2;3,4"/><points frame="8" outside="1" points="1,2;3,4"/>
        <box frame="9" outside="1"/></track></annotations>"""
    unit, *records = read("cvat", document, options=Options(None, "{video}/{frame:03d}"))
    assert isinstance(unit, Unit) and unit.name == "cvat task 7 of 2024-01-01: tracks"
    found_records = [
        (r.source_record, r.image, r.x, r.problem) for r in records if isinstance(r, PointRecord)
    ]
    assert found_records == [
        ("track 2, frame 7, point 0", "film/007", 1.0, None),
        ("track 2, frame 7, point 1", "film/007", 3.0, None),
        ("track 2, frame 8", "film/008", None, Problem("outside_frame", "outside=1", "an object that is in the frame")),
        ("track 2, frame 9", "film/009", None, Problem("not_a_point", "<box>", "<points>")),
    ]  # fmt: skip
    assert all(isinstance(r, PointRecord) and r.size == (40, 24) for r in records)


def videos(*tracks: str, second: str = "<source>v2.mp4</source>") -> str:
    size = "<original_size><width>40</width><height>24</height></original_size>"
    tasks = f"<task><id>1</id><created>A</created><source>v1.mp4</source>{size}</task>"
    tasks += f"<task><id>2</id><created>B</created>{second}</task>"
    points = '<points frame="0" outside="0" points="5,6"/>'
    body = "".join(f'<track id="{n}" label="bolt" {task}>{points}</track>' for n, task in enumerate(tracks))
    meta = f"<meta><project><id>3</id><tasks>{tasks}</tasks></project><dumped>now</dumped></meta>"
    return f"<annotations>{meta}{body}</annotations>"


FIRST, SECOND = 'task_id="1" subset="default"', 'task_id="2" subset="default"'


def test_tracks_of_a_project_are_of_their_tasks(read: Read) -> None:
    found = read("cvat", videos(FIRST, SECOND, FIRST), options=Options(None, "{video}/{frame}"))
    found_records = [(r.source_record, r.image, r.size, r.unit) for r in found if isinstance(r, PointRecord)]
    assert found_records == [
        ("track 0, frame 0", "v1/0", (40, 24), "cvat task 1 of A: tracks"),
        ("track 2, frame 0", "v1/0", (40, 24), "cvat task 1 of A: tracks"),
        ("track 1, frame 0", "v2/0", None, "cvat task 2 of B: tracks"),
    ]
    units = [item for item in found if isinstance(item, Unit)]
    assert [(unit.name, unit.version) for unit in units] == [
        ("cvat task 1 of A: tracks", "now"), ("cvat task 2 of B: tracks", "now"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("document", "pattern", "good"),
    [
        (videos(FIRST, SECOND), SNIFFED.frame_name, False),
        (videos(FIRST, SECOND), "{video}_{frame}", True),
        (videos(FIRST, SECOND, second=""), "{video}_{frame}", False),
        (videos(FIRST, FIRST), SNIFFED.frame_name, True),  # the other video has no track
        (videos(""), "{video}_{frame}", False),  # of which video?
    ],
)
def test_frames_of_several_videos_must_be_distinguished(
    read: Read, document: str, pattern: str, good: bool
) -> None:
    if good:
        assert read("cvat", document, options=Options(None, pattern))
    else:
        with pytest.raises(DataError, match=r"project of 2 tasks.*put \{video\} into points\.frame_name"):
            read("cvat", document, options=Options(None, pattern))


def test_names_that_other_exports_give_a_unit(read: Read) -> None:
    def segments(*ranges: tuple[int, int, int]) -> str:
        rows = [f"<segment><id>{i}</id><start>{a}</start><stop>{b}</stop></segment>" for i, a, b in ranges]
        return f"<segments>{''.join(rows)}</segments>"

    body = '<points label="bolt" points="1,2"/>'
    job = image(body, META.format("job", segments((4, 0, 1))))
    task = image(body, META.format("task", segments((4, 0, 1), (5, 2, 3))))
    overlap = image(body, META.format("task", segments((4, 0, 3), (5, 2, 5))))
    # The image is frame 3, which is the second of every third from 0 on.
    stepped = image(
        body, META.format("task", "<frame_filter>step=3</frame_filter>" + segments((4, 0, 1), (5, 2, 3)))
    )
    first, second = "cvat segment 4 0-1: image in/a.png", "cvat segment 5 2-3: image in/a.png"
    for document, also, parts in (
        (job, (first,), ()),
        (task, (second,), ()),
        (stepped, (first,), ()),
        (overlap, (), ("cvat segment 4 0-3: image in/a.png", "cvat segment 5 2-5: image in/a.png")),
    ):
        unit = read("cvat", document)[0]
        assert isinstance(unit, Unit) and (unit.also, unit.parts) == (also, parts)
