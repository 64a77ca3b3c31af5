from __future__ import annotations

import hashlib
import time
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
        (["2"], None),  # a text is a name
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


def split_of(weak: Split, names: dict[int, str]) -> Split:
    """A split of images of these ids and names."""
    like = weak.images.slice(0, 1).to_pylist()[0]
    rows = [like | {"image_id": i, "file_name": name} for i, name in names.items()]
    images = pa.Table.from_pylist(rows, schema=weak.images.schema)
    return Split(weak.root, images, weak.instances, weak.categories, weak.image_root)


@pytest.mark.parametrize(
    ("value", "may_be_id", "expected"),
    [
        ("0", False, 1),
        ("0", True, 1),  # no image has the id 0
        ("1", False, 2),
        ("1", True, "0.png, and a name of 1.png"),
        (1, True, 1),
        (1, False, 1),
        ("1.png", True, 2),
        ("12", True, 12),  # the id and the name of one image
        ("7", False, None),
        ("7", True, 7),  # no image is called so
        ("3", True, "seven.png, and a name of a/3.png, b/3.png"),
        ("3", False, None),
    ],
)
def test_a_text_of_digits_is_a_name_and_an_id_only_where_it_can_be_no_other(
    weak: Split, value: str | int, may_be_id: bool, expected: int | str | None
) -> None:
    names = {1: "0.png", 2: "1.png", 12: "12.png", 3: "seven.png", 7: "x.png", 20: "a/3.png", 21: "b/3.png"}
    found = Images(split_of(weak, names)).find(value, may_be_id=may_be_id)
    if isinstance(expected, int):
        assert found == expected
    else:
        assert isinstance(found, Problem) and found.reason == "unknown_image"
        assert (expected or "") in found.found


def plainly(names: dict[int, str], value: str) -> list[int]:
    """Images whose path ends alike, by comparing with each one."""
    best: dict[int, list[int]] = {}
    *folders, bare = PurePosixPath(value).parts or ("",)
    for stems in (False, True):
        for image_id, name in names.items():
            *own, last = PurePosixPath(name).parts
            last = last.rpartition(".")[0] if stems else last
            common = min(len(folders), len(own))
            if bare == last and folders[len(folders) - common :] == own[len(own) - common :]:
                best.setdefault(common, []).append(image_id)
        if best or bare.endswith(".png"):
            break
    return best[max(best)] if best else []


FOLDERS = st.lists(st.sampled_from(["a", "b", "c d"]), max_size=3).map(
    lambda parts: "".join(f"{p}/" for p in parts)
)
BARE = st.sampled_from(["a", "b", "1", "x.1"])


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.sets(st.tuples(FOLDERS, BARE, st.sampled_from([".png", ".jpg"])), min_size=1, max_size=12),
    st.tuples(st.sampled_from(["", "/", "../", "./"]), FOLDERS, BARE, st.sampled_from(["", ".png", ".tif"])),
)
def test_ends_of_paths_are_found_as_by_comparing_with_each_one(
    weak: Split, images: set[tuple[str, str, str]], value: tuple[str, str, str, str]
) -> None:
    names = {n: "".join(parts) for n, parts in enumerate(sorted(images), 1)}
    exactly = [image_id for image_id, name in names.items() if name == "".join(value)]
    expected = exactly or plainly(names, "".join(value))
    found = Images(split_of(weak, names)).find("".join(value))
    assert found == expected[0] if len(expected) == 1 else isinstance(found, Problem)


def test_twenty_thousand_images_of_one_bare_name_take_seconds(weak: Split) -> None:
    images = Images(split_of(weak, {n: f"{n:05d}/image.png" for n in range(20_000)}))
    started = time.process_time()
    assert [images.find(f"data/{n:05d}/image.png") for n in range(20_000)] == list(range(20_000))
    assert (
        time.process_time() - started < 20
    )  # a fraction of one on a quiet core; comparing with each takes days


def test_categories_go_through_the_mapping(weak: Split) -> None:
    categories = Categories(weak, {"Screw": "bolt", "": "washer", "dirt": None, "7": "bolt"})
    assert [categories.find(value) for value in ("Screw", None, 7, "washer", 9)] == [5, 9, 5, 9, 9]
    left_out, unknown = categories.find("dirt"), categories.find("gear")
    assert isinstance(left_out, Problem) and left_out.reason == "ignored_class"
    assert isinstance(unknown, Problem) and unknown.reason == "unknown_category"


@pytest.mark.parametrize(
    ("classes", "name", "expected"),
    [
        (None, "Bolt", 5),
        (None, "WASHER", 9),
        (None, "bolts", None),
        ({"Screw": "bolt"}, "screw", 5),  # names of the mapping too
        ({"dirt": None}, "Dirt", "ignored_class"),
        ({"bolt": "washer"}, "Bolt", 9),  # as in the mapping for `bolt`
        ({"BOLT": "washer"}, "Bolt", None),  # bolt or BOLT?
        ({"BOLT": "washer"}, "bolt", 5),  # the very name
    ],
)
def test_a_class_that_differs_in_case_alone(
    weak: Split, classes: dict[str, str | None] | None, name: str, expected: int | str | None
) -> None:
    found = Categories(weak, classes).find(name)
    if isinstance(expected, int):
        assert found == expected
    else:
        assert isinstance(found, Problem) and found.reason == (expected or "unknown_category")


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


def test_other_hashes_are_no_hints() -> None:
    digest = [hashlib.sha256(str(n).encode()).hexdigest() + ".png" for n in range(50)]
    names = Names("image", dict(enumerate(digest[:40])))
    for unknown in digest[40:]:
        assert "nearest" not in names.problem(unknown).expected
    for slip in (digest[0][1:], digest[0].replace(".png", ".jpg")):
        assert names.problem(slip).expected == f"a known image; the nearest: {digest[0]}"
