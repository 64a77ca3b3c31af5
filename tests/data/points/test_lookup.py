from __future__ import annotations

from typing import Any

import pytest

from data.points.lookup import COMPARED, NEIGHBOURS, Categories, Images, Names
from data.points.record import Problem
from data.tables import Split


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a.png"], 1),
        (["night/b.png"], 2),
        (["day/b.png"], 3),
        (["b.png"], None),  # two images have this bare name
        (["in/night/b.png"], 2),  # a folder of the tool's own before it
        (["/mnt/x/a.png"], 1),
        (["c.png"], 4),
        (["day/c.png"], None),  # only night/c.png is there: another image
        (["night\\c.png"], 4),
        (["C:\\data\\night\\c.png"], 4),
        (["c"], 4),  # a frame, or a table's name
        (["night/c"], 4),
        (["day/c"], None),
        (["b"], None),
        (["x.png", "a.png"], 1),  # other names, in their order
        (["b.png", "day/b.png"], 3),
        (["2"], 2),
        ([2], 2),
        ([17], None),
        ([10**30], None),
        ([""], None),
        ([None], None),
        (["../a.png"], 1),  # names are looked up, never opened
    ],
)
def test_images(weak: Split, values: list[Any], expected: int | None) -> None:
    found = Images(weak).find(values[0], tuple(values[1:]))
    assert found == expected if expected is not None else isinstance(found, Problem)


def test_categories_go_through_the_mapping(weak: Split) -> None:
    categories = Categories(weak, {"Screw": "bolt", "": "washer", "dirt": None, "7": "bolt"})
    assert [categories.find(value) for value in ("Screw", None, 7, "washer", 9)] == [5, 9, 5, 9, 9]
    left_out, unknown = categories.find("dirt"), categories.find("gear")
    assert isinstance(left_out, Problem) and left_out.reason == "ignored_class"
    assert isinstance(unknown, Problem) and unknown.reason == "unknown_category"


def test_the_only_class_needs_no_saying(weak: Split) -> None:
    assert isinstance(Categories(weak, None).find(None), Problem)
    only = Split(weak.root, weak.images, weak.instances, weak.categories[:1], weak.image_root)
    assert Categories(only, None).find(None) == 5
    assert isinstance(Categories(only, None).find("screw"), Problem)


def test_near_names_are_found_among_many_without_comparing_all() -> None:
    names = Names("image", {i: f"folder {i % 9}/image_{i:06d}.png" for i in range(5000)})
    expected = names.problem("folder 4/image_000004.jpg").expected
    assert "folder 4/image_000004.png" in expected
    assert len(names._likely("x")) <= 4 * NEIGHBOURS
    for n in range(COMPARED):
        names.problem(f"other {n}")
    assert "nearest" not in names.problem("folder 4/image_000004.jpg").expected
