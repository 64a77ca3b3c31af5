from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from data.annotations.coco.file import CocoFile, to_instances
from data.annotations.frames import name_id
from data.annotations.join import ImageIds, join_classes, join_files
from data.masks import rle
from data.tables import Category


def mask(n: int) -> dict[str, Any]:
    """A row of n pixels, of a 4 x 9 image."""
    drawn = np.zeros((4, 9), bool)
    drawn[1, :n] = True
    return {"size": [4, 9], "counts": rle.encode(drawn)}


def file(path: str, images: dict[int, str], masks: list[tuple[int, int, int, int]], *names: str) -> CocoFile:
    """Masks as (id, image, class, pixels), classes with ids from 1."""
    return CocoFile(
        [{"id": i, "file_name": name, "width": 9, "height": 4} for i, name in sorted(images.items())],
        [{"id": i, "image_id": image, "category_id": c, "segmentation": mask(n)} for i, image, c, n in masks],
        [Category(n, name) for n, name in enumerate(names, start=1)],
        path,
    )


def joined(*files: CocoFile, ids: ImageIds | None = None) -> tuple[CocoFile, list[Category]]:
    categories, classes, faults = join_classes(files)
    coco, more = join_files(files, ids or ImageIds(), classes)
    assert not faults and not more
    return coco, categories


def rows(coco: CocoFile) -> list[tuple[int, int, int, int]]:
    return [
        (row["instance_id"], row["image_id"], row["category_id"], int(row["area"]))
        for row in to_instances(coco).to_pylist()
    ]


def test_one_file_stays_as_it_is() -> None:
    one = file("a", {3: "x", 7: "y"}, [(9, 7, 2, 3)], "cat", "dog")
    coco, categories = joined(one)
    assert coco is one
    assert categories == [(1, "cat"), (2, "dog")]


def test_files_that_dont_clash_keep_their_ids() -> None:
    coco, categories = joined(
        file("a", {3: "x"}, [(9, 3, 1, 3)], "cat"), file("b", {1: "y"}, [(4, 1, 1, 2)], "cat")
    )
    assert [(row["id"], row["file_name"]) for row in coco.images] == [(1, "y"), (3, "x")]
    assert rows(coco) == [(4, 1, 1, 2), (9, 3, 1, 3)]
    assert categories == [(1, "cat")]


def test_images_numbered_alike_are_different_ones() -> None:
    """As Roboflow and labelme2coco number the images of train and valid: both from 0."""
    coco, _ = joined(
        file("train", {0: "a", 1: "b"}, [(0, 0, 1, 1), (1, 1, 1, 2)], "cat"),
        file("valid", {0: "c", 1: "b", 2: "d"}, [(0, 0, 1, 3), (1, 1, 1, 4), (2, 2, 1, 5)], "cat"),
    )
    named = {row["file_name"]: row["id"] for row in coco.images}
    assert named == {"a": 0, "b": 1, "c": name_id("c"), "d": 2}
    areas = {(image, area) for _, image, _, area in rows(coco)}
    assert areas == {(0, 1), (1, 2), (1, 4), (2, 5), (name_id("c"), 3)}
    assert len({own for own, *_ in rows(coco)}) == 5


def test_ids_are_unique_over_splits_and_dont_depend_on_the_number_of_images() -> None:
    ids = ImageIds()
    train, _ = joined(file("train", {0: "a", 1: "b"}, [], "cat"), ids=ids)
    valid, _ = joined(file("valid", {0: "c", 1: "d"}, [], "cat"), ids=ids)
    assert [row["id"] for row in train.images] == [0, 1]
    assert {row["id"] for row in valid.images} == {name_id("c"), name_id("d")}
    assert ids.assign("a", 77) == 0  # the same image, whatever another file's id
    assert ids.assign("e", name_id("c")) == name_id("e")


def test_classes_are_joined_by_name() -> None:
    first, second = file("a", {1: "x"}, [], "cat", "dog"), file("b", {2: "y"}, [], "dog", "hen", "cat")
    categories, changes, faults = join_classes([first, second])
    assert categories == [(1, "cat"), (2, "dog"), (4, "hen")]
    assert changes == [{}, {1: 2, 2: 4, 3: 1}] and not faults
    coco, _ = joined(first, file("b", {2: "y"}, [(1, 2, 1, 3), (2, 2, 3, 5)], "dog", "hen", "cat"))
    assert [(c, area) for _, _, c, area in rows(coco)] == [(2, 3), (1, 5)]


def test_a_class_keeps_its_number_where_no_other_has_it() -> None:
    categories, changes, _ = join_classes(
        [CocoFile([], [], [Category(5, "cat")], "a"), CocoFile([], [], [Category(2, "hen")], "b")]
    )
    assert (categories, changes) == ([(2, "hen"), (5, "cat")], [{}, {}])


@pytest.mark.parametrize(("own", "other"), [("cat", "cat "), ("c\u00e1t", "ca\u0301t")])
def test_names_that_look_the_same_are_a_fault(own: str, other: str) -> None:
    _, _, faults = join_classes([file("a", {}, [], own), file("b", {}, [], other)])
    assert [(fault.file, fault.record) for fault in faults] == [("b", "category 1")]


def test_a_mask_that_two_files_have_counts_once() -> None:
    coco, _ = joined(
        file("a", {1: "x"}, [(1, 1, 1, 3), (2, 1, 1, 5)], "cat"),
        file("b", {8: "x"}, [(1, 8, 1, 5), (2, 8, 1, 6)], "cat"),
    )
    assert sorted(area for *_, area in rows(coco)) == [3, 5, 6]
    assert len(coco.images) == 1


def test_an_image_of_two_sizes_is_a_fault() -> None:
    wide = file("b", {8: "x"}, [], "cat")
    wide.images[0]["width"] = 10
    _, faults = join_files([file("a", {1: "x"}, [], "cat"), wide], ImageIds(), [{}, {}])
    assert [(fault.file, fault.found) for fault in faults] == [("b", "10 x 4 pixels, and 9 x 4 in a")]
