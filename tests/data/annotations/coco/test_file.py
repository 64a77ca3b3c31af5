from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pycocotools.coco import COCO

from data.annotations.coco.file import (
    CocoFile,
    read_coco,
    to_instances,
    write_coco,
    write_json,
    write_results,
)
from data.errors import DataError
from data.masks import rle as masks
from data.masks.polygons import from_polygons
from data.tables import IMAGES, Category, Split

SQUARE = [[1.0, 1.0, 5.0, 1.0, 5.0, 5.0, 1.0, 5.0]]


def document(**change: Any) -> dict[str, Any]:
    """A small valid file: a two-part polygon, a hole as RLE, a crowd, an image without objects."""
    hole = np.zeros((8, 9), dtype=bool)
    hole[1:7, 1:7] = True
    hole[3:5, 3:5] = False
    crowd = {"size": [8, 9], "counts": [10, 20, 42]}
    return {
        "images": [
            {"id": 2, "file_name": "b/2.png", "width": 9, "height": 8},
            {"id": 1, "file_name": "1.png", "width": 9, "height": 8},
        ],
        "categories": [{"id": 5, "name": "bolt"}, {"id": 3, "name": "nut"}],
        "annotations": [
            {"id": 12, "image_id": 2, "category_id": 5, "segmentation": [*SQUARE, [6, 5, 9, 5, 9, 8, 6, 8]]},
            {
                "id": 11,
                "image_id": 2,
                "category_id": 3,
                "segmentation": {"size": [8, 9], "counts": masks.encode(hole).decode()},
                "area": 30.5,
                "bbox": [1, 1, 6, 6],
            },
            {"id": 13, "image_id": 2, "category_id": 3, "segmentation": crowd, "iscrowd": 1, "bbox": None},
        ],
    } | change


def written(folder: Path, value: Any) -> Path:
    path = folder / "labels.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def read_both(path: Path, **options: Any) -> CocoFile:
    """The result of reading record by record, after a check that reading in batches gives the same rows and faults."""
    outcomes: list[Any] = []
    for keep in (False, True):
        try:
            coco = read_coco(path, keep_annotations=keep, **options)
        except DataError as error:
            outcomes.append(error.faults)
        else:
            table = to_instances(coco)
            names = [(row["id"], row["file_name"], row["width"], row["height"]) for row in coco.images]
            outcomes.append((table.schema, table.to_pylist(), names, coco.categories, coco.path))
    assert outcomes[0] == outcomes[1]
    return read_coco(path, **options)


def test_a_file_is_read_with_everything_in_it(tmp_path: Path) -> None:
    coco = read_both(written(tmp_path, document()))
    assert [row["id"] for row in coco.images] == [1, 2]  # the image without objects too
    assert coco.categories == [Category(3, "nut"), Category(5, "bolt")]
    rows = to_instances(coco).to_pylist()
    assert [row["instance_id"] for row in rows] == [11, 12, 13]
    assert [row["iscrowd"] for row in rows] == [False, False, True]
    assert [row["area"] for row in rows] == [30.5, 16 + 9, 20]  # the file's own where it has one
    assert [row["bbox_xywh"] for row in rows] == [[1, 1, 6, 6], [1, 1, 8, 7], [1, 0, 3, 8]]
    hole = masks.decode(rows[0]["rle_counts"], 8, 9)
    assert hole.sum() == 32
    assert not hole[3:5, 3:5].any()
    assert {row["source"] for row in rows} == {"annotator"}
    assert {row["score"] for row in rows} == {None}


def test_masks_are_those_of_pycocotools(tmp_path: Path) -> None:
    path = written(tmp_path, document())
    reference = COCO(str(path))
    for row in to_instances(read_both(path)).to_pylist():
        expected = reference.annToMask(reference.anns[row["instance_id"]])
        assert np.array_equal(masks.decode(row["rle_counts"], 8, 9), expected)


PARENT = [{"id": 0, "name": "nut", "supercategory": "none"}, {"id": 3, "name": "nut", "supercategory": "nut"}]


def test_a_parent_of_its_own_name_is_left_out(tmp_path: Path) -> None:
    """Roboflow's class tables are so."""
    path = tmp_path / "roboflow.json"
    for rows in ([], [ANNOTATION | {"category_id": 3}]):
        path.write_text(
            json.dumps({"images": [IMAGE | {"id": 1}], "annotations": rows, "categories": PARENT})
        )
        for keep in (True, False):
            found = read_coco(path, keep_annotations=keep)
            assert [tuple(one) for one in found.categories] == [(3, "nut")]
    used = [ANNOTATION | {"category_id": n, "id": 20 + n} for n in (0, 3)]
    path.write_text(json.dumps({"images": [IMAGE | {"id": 1}], "annotations": used, "categories": PARENT}))
    with pytest.raises(DataError, match="two categories of this name"):
        read_coco(path)


GROUP = [
    {"id": 0, "name": "animals", "supercategory": "none"},
    {"id": 1, "name": "cat", "supercategory": "animals"},
    {"id": 2, "name": "facade", "supercategory": "facade"},
    {"id": 3, "name": "door", "supercategory": "facade"},
]


@pytest.mark.parametrize(("used", "names"), [((1,), "cat facade door"), ((0, 1), "animals cat facade door")])
def test_a_supercategory_without_annotations_is_no_class(
    tmp_path: Path, used: tuple[int, ...], names: str
) -> None:
    """Roboflow's class tables have one; a class that is its own supercategory stays."""
    rows = [ANNOTATION | {"category_id": n, "id": 20 + n} for n in used]
    path = written(tmp_path, {"images": [IMAGE | {"id": 1}], "annotations": rows, "categories": GROUP})
    assert [one.name for one in read_both(path).categories] == names.split()


def test_annotations_without_ids_are_numbered(tmp_path: Path) -> None:
    rows = [{key: ANNOTATION[key] for key in ANNOTATION if key != "id"} | {"area": n} for n in (15, 16, 17)]
    content = {"images": [IMAGE | {"id": 1}], "annotations": rows, "categories": [{"id": 3, "name": "nut"}]}
    found = to_instances(read_both(written(tmp_path, content))).to_pylist()
    assert [(row["instance_id"], row["area"]) for row in found] == [(1, 15), (2, 16), (3, 17)]
    rows[0]["id"] = 7
    with pytest.raises(DataError, match=r"annotation #1: found id None; expected a whole number as id"):
        read_both(written(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "not readable as JSON"),
        ('{"images": [', "not readable as JSON"),
        ("[" * 100_000, "not readable as JSON"),
        ("[]", "no list 'images'"),
        ('{"images": {}, "annotations": [], "categories": []}', "no list 'images'"),
        ("3", "no list 'annotations'"),
    ],
)
def test_files_that_are_no_coco_are_refused(tmp_path: Path, content: str, found: str) -> None:
    with pytest.raises(DataError, match=found):
        read_both(written(tmp_path, content))
    with pytest.raises(DataError, match="no such file"):
        read_both(tmp_path / "absent.json")


IMAGE = {"id": 9, "file_name": "9.png", "width": 9, "height": 8}
ANNOTATION = {"id": 20, "image_id": 1, "category_id": 3, "segmentation": SQUARE}


@pytest.mark.parametrize(
    ("part", "record", "named", "found"),
    [
        ("images", "text", "image #2", "str"),
        ("images", {"file_name": "9.png"}, "image #2", "id None"),
        ("images", IMAGE | {"id": "9"}, "image #2", "id '9'"),
        ("images", IMAGE | {"id": 1}, "image 1 (#2)", "earlier record"),
        ("images", IMAGE | {"file_name": None}, "image 9", "file_name None"),
        ("images", IMAGE | {"file_name": "../9.png"}, "image 9", "file_name"),
        ("images", IMAGE | {"file_name": "/etc/passwd"}, "image 9", "file_name"),
        ("images", IMAGE | {"width": 0}, "image 9", "width 0"),
        ("images", IMAGE | {"height": None}, "image 9", "height None"),
        ("images", IMAGE | {"height": 8.5}, "image 9", "height 8.5"),
        ("images", IMAGE | {"width": 10**6, "height": 10**6}, "image 9", "pixels"),
        ("categories", {"id": 3, "name": "bolt"}, "category 3 (#2)", "earlier record"),
        ("categories", {"id": 4}, "category 4", "name None"),
        ("categories", {"id": 4, "name": "nut"}, "category 'nut'", "two categories"),
        ("annotations", None, "annotation #3", "NoneType"),
        ("annotations", ANNOTATION | {"id": 11}, "annotation 11 (#3)", "earlier record"),
        ("annotations", ANNOTATION | {"id": True}, "annotation #3", "id True"),
        ("annotations", ANNOTATION | {"image_id": 77}, "annotation 20", "image_id 77"),
        ("annotations", ANNOTATION | {"image_id": [1]}, "annotation 20", "image_id [1]"),
        ("annotations", ANNOTATION | {"category_id": 4}, "annotation 20", "category_id 4"),
        ("annotations", ANNOTATION | {"category_id": None}, "annotation 20", "category_id None"),
        ("annotations", ANNOTATION | {"iscrowd": 2}, "annotation 20", "iscrowd 2"),
        ("annotations", ANNOTATION | {"iscrowd": [1]}, "annotation 20", "iscrowd [1]"),
        ("annotations", ANNOTATION | {"area": -1}, "annotation 20", "area -1"),
        ("annotations", ANNOTATION | {"area": "big"}, "annotation 20", "area 'big'"),
        ("annotations", ANNOTATION | {"bbox": [1, 2, 3]}, "annotation 20", "bbox [1, 2, 3]"),
        ("annotations", ANNOTATION | {"bbox": [1, 2, -3, 4]}, "annotation 20", "bbox"),
        ("annotations", ANNOTATION | {"segmentation": []}, "annotation 20", "no segmentation"),
        ("annotations", ANNOTATION | {"segmentation": [[1, 1, 2, 2]]}, "annotation 20", "4 numbers"),
        (
            "annotations",
            ANNOTATION | {"segmentation": {"size": [9, 8], "counts": "x"}},
            "annotation 20",
            "size",
        ),
        (
            "annotations",
            ANNOTATION | {"segmentation": {"size": [8, 9], "counts": [1]}},
            "annotation 20",
            "1 pix",
        ),
    ],
)
def test_each_bad_record_is_named_with_what_was_found(
    tmp_path: Path, part: str, record: Any, named: str, found: str
) -> None:
    good = document()
    path = written(tmp_path, good | {part: [*good[part], record]})
    with pytest.raises(DataError) as caught:
        read_both(path)
    (fault,) = caught.value.faults
    assert fault.file == str(path)
    assert fault.record == named
    assert found in fault.found


def test_all_bad_records_are_reported_together(tmp_path: Path) -> None:
    good = document()
    bad = [ANNOTATION | {"id": n, "category_id": 4} for n in range(100, 180)]
    images = [*good["images"], IMAGE | {"width": -1}]
    on_bad_image = ANNOTATION | {"image_id": 9}  # the image is faulty, not the annotations on it
    value = good | {"images": images, "annotations": [*good["annotations"], on_bad_image, *bad]}
    with pytest.raises(DataError) as caught:
        read_both(written(tmp_path, value))
    assert len(caught.value.faults) == 81
    assert "and 31 more" in str(caught.value)


def test_files_of_weak_images_need_no_masks(tmp_path: Path) -> None:
    box = {"id": 20, "image_id": 1, "category_id": 3, "bbox": [1, 1, 2, 2]}
    path = written(tmp_path, document(annotations=[*document()["annotations"], box]))
    with pytest.raises(DataError, match="no segmentation"):
        read_both(path)
    coco = read_both(path, need_masks=False)
    assert len(coco.annotations) == 4
    assert to_instances(coco).num_rows == 3


def test_written_files_read_back_the_same(make_split: Callable[..., Split], tmp_path: Path) -> None:
    split = make_split()
    write_coco(tmp_path / "out.json", split.images, split.instances, split.categories)
    coco = read_both(tmp_path / "out.json")
    assert to_instances(coco).equals(split.instances)
    assert coco.categories == split.categories
    assert [row["file_name"] for row in coco.images] == split.images["file_name"].to_pylist()


def test_numbers_are_written_as_they_were_read(tmp_path: Path) -> None:
    annotation = ANNOTATION | {"area": 15.23, "bbox": [472.5, 86.0, 39.74, 58.19]}
    instances = to_instances(read_both(written(tmp_path, document(annotations=[annotation]))))
    images = pa.table(
        {n: [v] for n, v in zip(IMAGES.names, (1, "1.png", "1.png", 9, 8, "", "", "", ""), strict=True)}
    )
    write_coco(tmp_path / "out.json", images, instances, [Category(3, "nut")])
    (row,) = json.loads((tmp_path / "out.json").read_text())["annotations"]
    assert (row["area"], row["bbox"]) == (15.23, [472.5, 86.0, 39.74, 58.19])


def test_results_are_what_cocoeval_loads(tmp_path: Path) -> None:
    path = written(tmp_path, document(info={}))
    counts = from_polygons(SQUARE, 8, 9)
    row = {"image_id": 2, "category_id": 5, "score": np.float32(0.25), "height": 8, "width": 9}
    write_results(tmp_path / "results.json", [row | {"rle_counts": counts}] * 2)
    loaded = COCO(str(path)).loadRes(str(tmp_path / "results.json"))
    assert [ann["score"] for ann in loaded.anns.values()] == [0.25, 0.25]
    assert loaded.annToMask(loaded.anns[1]).sum() == 16
    write_results(tmp_path / "none.json", [])
    assert json.loads((tmp_path / "none.json").read_text()) == []


def test_json_is_whole_or_absent(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json({"score": float("nan")}, tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "images", "instances", "crowds"),
    [
        ("data/nuclei/val.json", 132, 5324, 0),
        ("data/facade/val.json", 132, 4036, 0),
        ("fixtures/coco_golden/instances_val2014_100.json", 100, 839, 9),
    ],
)
def test_real_files_give_the_masks_of_pycocotools(
    shared_dir: Path, name: str, images: int, instances: int, crowds: int
) -> None:
    path = shared_dir / name
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    coco = read_both(path)
    table = to_instances(coco)
    assert (len(coco.images), table.num_rows) == (images, instances)
    assert sum(table["iscrowd"].to_pylist()) == crowds
    reference = COCO(str(path))
    for row in table.to_pylist()[:: max(1, instances // 400)]:
        expected = reference.annToRLE(reference.anns[row["instance_id"]])
        given = expected["counts"]
        assert row["rle_counts"] == (given.encode() if isinstance(given, str) else given)


def test_rles_of_another_size_than_their_image_are_one_fault_an_image(tmp_path: Path) -> None:
    rle = {"size": [10, 20], "counts": [100, 50, 50]}
    images = [{"id": i, "file_name": f"{i}.png", "width": 10, "height": 20} for i in (1, 2)]
    annotations = [
        {"id": i, "image_id": 1 + i // 9, "category_id": 1, "segmentation": rle} for i in range(1, 10)
    ]
    path = tmp_path / "a.json"
    categories = [{"id": 1, "name": "c"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    with pytest.raises(DataError) as caught:
        read_coco(path)
    one, alone = caught.value.faults
    assert (one.record, one.expected) == ("image 1", "[20, 10], as in the image's record")
    assert one.found == "RLEs of size [height, width] = [10, 20] in 8 annotations, the first 1"
    assert (alone.record, alone.found) == (
        "annotation 9", "segmentation: an RLE of size [10, 20], for [height, width] = [20, 10]",
    )  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["fixtures/coco_golden/instances_val2014_100.json", "data/facade/val.json", "data/nuclei/val.json"],
)
def test_areas_of_real_files_stay(shared_dir: Path, name: str) -> None:
    """Of polygons, of masks, and (facade) of boxes."""
    coco = read_coco(shared_dir / name, keep_annotations=False)
    assert coco.wrong_areas.count == 0
    given = {row["id"]: row["area"] for row in json.loads((shared_dir / name).read_text())["annotations"]}
    used = dict(zip(*(to_instances(coco)[key].to_pylist() for key in ("instance_id", "area")), strict=True))
    assert used == {i: float(np.float32(area)) for i, area in given.items()}
