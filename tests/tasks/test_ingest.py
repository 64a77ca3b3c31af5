from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from data.annotations.frames import name_id
from data.tables import DataError, Split, read_parquet
from tasks.common.config import Params
from tasks.ingest import run
from tasks.intake.rejected import REJECTED_IMAGES

Documents = dict[str, dict[str, Any]]


def document(first: int, count: int, masks: bool) -> dict[str, Any]:
    """A COCO file of `count` 20 x 10 images, ids from `first`."""
    images = [
        {"id": i, "file_name": f"{i}.png", "width": 20, "height": 10} for i in range(first, first + count)
    ]
    annotations = [
        {
            "id": 10 * row["id"],
            "image_id": row["id"],
            "category_id": 1,
            "segmentation": [[2, 2, 8, 2, 8, 8, 2, 8]],
        }
        for row in images
        if masks
    ]
    categories = [{"id": 1, "name": "cat"}, {"id": 5, "name": "dog"}]
    return {"images": images, "annotations": annotations, "categories": categories}


@pytest.fixture
def documents() -> Documents:
    return {
        "strong": document(1, 2, masks=True),
        "val": document(3, 1, masks=True),
        "weak": document(4, 3, masks=False),
        "kept_aside": document(4, 2, masks=True),
    }


@pytest.fixture
def ingest(
    tmp_path: Path, recipe: dict[str, Any], params_of: Callable[[dict[str, Any]], Params]
) -> Callable[..., Path]:
    """Writes the documents and seven images, and ingests them; returns the workspace."""

    def go(
        documents: Documents, *, images: range = range(1, 8), root: str = "images", **changes: Any
    ) -> Path:
        source = tmp_path / "source"
        (source / "images").mkdir(parents=True, exist_ok=True)
        for i in images:
            cv2.imwrite(str(source / "images" / f"{i}.png"), np.full((10, 20, 3), i, np.uint8))
        for name, content in documents.items():
            (source / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        recipe["ingest"] |= {"images": str(source / root), "annotations": str(source), **changes}
        run(params_of(recipe), tmp_path / "workspace")
        return tmp_path / "workspace"

    return go


def test_four_splits(ingest: Callable[..., Path], documents: Documents) -> None:
    splits = {path.name: Split.open(path) for path in sorted((ingest(documents) / "dataset").iterdir())}
    found = {
        name: (split.images["image_id"].to_pylist(), len(split.instances)) for name, split in splits.items()
    }
    assert found == {
        "strong": ([1, 2], 2), "val": ([3], 1), "weak": ([4, 5, 6], 0), "kept_aside": ([4, 5], 2),
    }  # fmt: skip
    assert {c.name for c in splits["weak"].categories} == {"cat", "dog"}
    assert splits["kept_aside"].images["label"].to_pylist() == ["mask", "mask"]


def test_weak_images_are_all_that_no_file_lists(ingest: Callable[..., Path], documents: Documents) -> None:
    weak = Split.open(ingest(documents, weak=None, kept_aside=None) / "dataset" / "weak")
    names = dict(zip(weak.images["file_name"].to_pylist(), weak.images["image_id"].to_pylist(), strict=True))
    assert set(names) == {"4.png", "5.png", "6.png", "7.png"}
    ingest(documents, images=range(1, 12), weak=None, kept_aside=None)
    more = Split.open(weak.root)
    later = dict(zip(more.images["file_name"].to_pylist(), more.images["image_id"].to_pylist(), strict=True))
    assert names.items() <= later.items()  # ids don't move when images are added
    assert len(later) == 8


def test_weak_images_take_the_ids_of_kept_aside_ones(
    ingest: Callable[..., Path], documents: Documents
) -> None:
    weak = Split.open(ingest(documents, weak=None) / "dataset" / "weak")
    assert {4, 5} < set(weak.images["image_id"].to_pylist())


def break_category(d: Documents) -> None:
    d["strong"]["annotations"][0]["category_id"] = 9


def break_image_id(d: Documents) -> None:
    d["val"]["annotations"][0]["image_id"] = 99


def break_size(d: Documents) -> None:
    d["strong"]["images"][1]["width"] = 21


def break_file_name(d: Documents) -> None:
    d["weak"]["images"][0]["file_name"] = "gone.png"
    d["kept_aside"]["images"][0]["file_name"] = "gone.png"


def break_escape(d: Documents) -> None:
    d["strong"]["images"][0]["file_name"] = "../secret.png"


def break_overlap(d: Documents) -> None:
    d["val"]["images"].append(d["strong"]["images"][0])


def break_kept_aside(d: Documents) -> None:
    d["kept_aside"]["images"].append({"id": 7, "file_name": "7.png", "width": 20, "height": 10})


def break_names(d: Documents) -> None:
    d["val"]["categories"][0]["name"] = "cat "


def break_spelling(d: Documents) -> None:
    d["val"]["images"][0]["file_name"] = "./1.png"


def break_twice(d: Documents) -> None:
    d["strong"]["images"].append({"id": 8, "file_name": "1.png", "width": 20, "height": 10})


CASES = [
    (break_spelling, ["val.json: image 3 (1.png): found file_name '1.png' in strong too"]),
    (break_twice, ["strong.json: file_name '1.png': found 2 images of this name"]),
    (break_category, ["strong.json: annotation 10: found category_id 9", "in this file (1, 5)"]),
    (break_image_id, ["val.json: annotation 30: found image_id 99"]),
    (break_size, ["2.png: image 2: found 20 x 10 pixels; expected 21 x 10"]),
    (break_file_name, ["gone.png: image 4: found no such file"]),
    (break_escape, ["strong.json: image 1: found file_name '../secret.png'"]),
    (break_overlap, ["val.json: image 1 (1.png): found file_name '1.png' in strong too"]),
    (break_kept_aside, ["kept_aside.json: image 7 (7.png): found an image that isn't among the weak ones"]),
    (break_names, ["val.json: category 1: found name 'cat ', which looks the same as another one, 'cat'"]),
]


@pytest.mark.parametrize(("damage", "expected"), CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_bad_input_is_named_and_nothing_is_written(
    ingest: Callable[..., Path], documents: Documents, tmp_path: Path, damage: Any, expected: list[str]
) -> None:
    damage(documents)
    with pytest.raises(DataError) as caught:
        ingest(documents)
    for text in expected:
        assert text in str(caught.value)
    assert not (tmp_path / "workspace").exists()


@pytest.mark.parametrize(
    ("weak", "number", "found", "step"),
    [
        ("weak.json", 1, "an image of strong too", "leave it in strong alone"),
        (None, 3, "an image of val too", "leave it in val alone"),
        ("weak.json", 7, "an image that isn't among the weak ones", "list it among the weak images too"),
        (None, 99, "an image that isn't among the weak ones", "correct its file_name"),
    ],
)
def test_images_kept_aside_must_be_weak(
    ingest: Callable[..., Path], documents: Documents, weak: str | None, number: int, found: str, step: str
) -> None:
    row = {"id": number, "file_name": f"{number}.png", "width": 20, "height": 10}
    documents["kept_aside"]["images"].append(row)
    with pytest.raises(DataError) as caught:
        ingest(documents, weak=weak)
    record = f"kept_aside.json: image {number} ({number}.png)"
    (fault,) = [one for one in caught.value.faults if f"image {number} " in str(one)]
    assert f"{record}: found {found}; expected weak images, with the same file_name" in str(fault)
    assert step in str(fault)


def test_a_truncated_image_and_a_link_that_leads_out_are_told_before_training(
    ingest: Callable[..., Path], documents: Documents, tmp_path: Path
) -> None:
    ingest(documents)
    folder = tmp_path / "source" / "images"
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:-12])
    (tmp_path / "elsewhere.png").write_bytes((folder / "3.png").read_bytes())
    (folder / "3.png").unlink()
    (folder / "3.png").symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(DataError) as caught:
        ingest(documents, images=range(0))
    text = str(caught.value)
    assert "1.png: image 1: found a truncated file" in text
    assert "image 3: found a path that leaves the image root" in text


def test_images_behind_a_linked_folder_are_told_not_overlooked(
    ingest: Callable[..., Path], documents: Documents, tmp_path: Path
) -> None:
    ingest(documents, weak=None)
    images, elsewhere = tmp_path / "source" / "images", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (images / "7.png").rename(elsewhere / "7.png")
    (images / "camera").symlink_to(elsewhere)
    with pytest.raises(DataError, match=r"camera/7\.png: image \d+: found a path that leaves the image"):
        ingest(documents, images=range(0), weak=None)
    workspace = ingest(documents, images=range(0), weak=None, on_reject="report")
    (row,) = read_parquet(workspace / "dataset" / "weak" / "rejected.parquet", REJECTED_IMAGES).to_pylist()
    assert (row["file_name"], row["reason"]) == ("camera/7.png", "unsafe_path")


def test_faults_of_all_files_are_listed_together(
    ingest: Callable[..., Path], documents: Documents, tmp_path: Path
) -> None:
    break_category(documents)
    break_image_id(documents)
    with pytest.raises(DataError) as caught:
        ingest(documents)
    assert len(caught.value.faults) == 2
    documents["strong"]["annotations"][0]["category_id"] = 1
    documents["val"]["annotations"][0]["image_id"] = 3
    for name in ("1.png", "6.png"):
        (tmp_path / "source" / "images" / name).unlink()
    with pytest.raises(DataError) as caught:
        ingest(documents, images=range(0))
    assert [fault.record for fault in caught.value.faults] == ["image 1", "image 6"]


def spoil(folder: Path) -> None:
    """One bad image a split: cut, empty, of another size than its record's."""
    (folder / "1.png").write_bytes((folder / "2.png").read_bytes()[:-12])
    (folder / "4.png").write_bytes(b"")
    cv2.imwrite(str(folder / "6.png"), np.zeros((20, 10, 3), np.uint8))


def test_with_report_bad_images_are_listed_and_left_out_with_their_annotations(
    ingest: Callable[..., Path], documents: Documents, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ingest(documents)
    spoil(tmp_path / "source" / "images")
    workspace = ingest(documents, images=range(0), on_reject="report")
    assert "Next: restore the file, or remove its records." in caplog.text  # not: set what is set already
    found = {}
    for name in ("strong", "weak", "val", "kept_aside"):
        folder = workspace / "dataset" / name
        split, manifest = Split.open(folder), json.loads((folder / "manifest.json").read_text())
        rejected = read_parquet(folder / "rejected.parquet", REJECTED_IMAGES).to_pylist()
        assert manifest["counts"]["rejected"] == len(rejected)
        assert manifest["counts"]["instances_left_out"] == sum(row["annotations"] for row in rejected)
        found[name] = (
            split.images["image_id"].to_pylist(),
            split.instances["image_id"].to_pylist(),
            [(row["image_id"], row["reason"], row["annotations"]) for row in rejected],
        )
    assert found == {
        "strong": ([2], [2], [(1, "truncated", 1)]),
        "weak": ([5], [], [(4, "empty", 0), (6, "size", 0)]),
        "val": ([3], [3], []),
        "kept_aside": ([5], [5], [(4, "empty", 1)]),
    }
    row = read_parquet(workspace / "dataset/weak/rejected.parquet", REJECTED_IMAGES).to_pylist()[1]
    assert row["file"].endswith("source/images/6.png") and row["record"] == "image 6"
    assert (row["found"], row["expected"]) == ("10 x 20 pixels", "20 x 10, as its record says")


def spoil_annotations(documents: Documents) -> None:
    """An unknown class, and a part of two corners beside a sound one; the rest is unusual, and fine."""
    sound = documents["strong"]["annotations"][0]
    documents["strong"]["annotations"] += [
        sound | {"id": 901, "category_id": 99},
        sound | {"id": 902, "segmentation": [[1, 1, 3, 3], [2, 2, 8, 2, 8, 8]]},
        sound | {"id": 903, "area": None, "iscrowd": None, "bbox": []},
        sound | {"id": 904, "segmentation": []},
    ]


def test_with_report_bad_annotations_are_set_aside(ingest: Callable[..., Path], documents: Documents) -> None:
    spoil_annotations(documents)
    workspace = ingest(documents, on_reject="report")
    folder = workspace / "dataset" / "strong"
    found = read_parquet(folder / "rejected.parquet", REJECTED_IMAGES).to_pylist()
    assert [(row["record"], row["reason"], row["found"]) for row in found] == [
        ("annotation 902", "annotation", "segmentation: part 1 of 2 has 4 numbers; left out"),
        ("annotation 901", "annotation", "category_id 99"),
        ("annotation 904", "annotation", "no segmentation"),
    ]
    ids = Split.open(folder).instances["instance_id"].to_pylist()
    assert set(ids) >= {902, 903} and not {901, 904} & set(ids)
    assert json.loads((folder / "manifest.json").read_text())["counts"]["annotations_rejected"] == 3


def test_with_stop_bad_annotations_end_the_run(ingest: Callable[..., Path], documents: Documents) -> None:
    spoil_annotations(documents)
    with pytest.raises(DataError) as caught:
        ingest(documents)
    assert [fault.record for fault in caught.value.faults] == [f"annotation {n}" for n in (901, 902, 904)]


@pytest.mark.parametrize(
    ("crowd", "expected"), [("keep", {1: True, 2: False}), ("objects", {1: False, 2: False})]
)
def test_crowds_may_be_objects(
    ingest: Callable[..., Path], documents: Documents, crowd: str, expected: dict[int, bool]
) -> None:
    documents["strong"]["annotations"][0]["iscrowd"] = 1
    split = Split.open(ingest(documents, crowd=crowd) / "dataset" / "strong")
    assert (
        dict(
            zip(split.instances["image_id"].to_pylist(), split.instances["iscrowd"].to_pylist(), strict=True)
        )
        == expected
    )


def test_with_stop_they_are_all_told_and_nothing_is_written(
    ingest: Callable[..., Path], documents: Documents, tmp_path: Path
) -> None:
    ingest(documents)
    before = {path: path.read_bytes() for path in (tmp_path / "workspace").rglob("*") if path.is_file()}
    spoil(tmp_path / "source" / "images")
    with pytest.raises(DataError) as caught:
        ingest(documents, images=range(0))
    assert [fault.record for fault in caught.value.faults] == ["image 1", "image 4", "image 6"]
    after = {path: path.read_bytes() for path in (tmp_path / "workspace").rglob("*") if path.is_file()}
    assert after == before


def test_a_split_without_a_usable_image_ends_the_run(
    ingest: Callable[..., Path], documents: Documents, tmp_path: Path
) -> None:
    documents["val"]["images"][0]["width"] = 19
    with pytest.raises(
        DataError, match=r"1 images were rejected \(20 x 10 pixels: 1\)(.|\n)*3\.png: image 3: found 20 x 10"
    ):
        ingest(documents, on_reject="report")
    assert not (tmp_path / "workspace").exists()


def test_masks_kept_aside_of_another_size_than_the_image_are_refused(
    ingest: Callable[..., Path], documents: Documents
) -> None:
    documents["kept_aside"]["images"][0] |= {"width": 40, "height": 20}
    with pytest.raises(DataError, match=r"4\.png: image 4: found 20 x 10 pixels; expected 40 x 20"):
        ingest(documents)


def test_a_record_with_the_size_before_the_exif_turn_is_told_why(
    ingest: Callable[..., Path], documents: Documents, tmp_path: Path
) -> None:
    ingest(documents)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = io.BytesIO()
    Image.new("RGB", (20, 10)).save(turned, "PNG", exif=exif)
    (tmp_path / "source/images/1.png").write_bytes(turned.getvalue())
    with pytest.raises(DataError, match=r"10 x 20 pixels as shown \(EXIF orientation 6 turns it\)"):
        ingest(documents, images=range(0))
    documents["strong"]["images"][0] |= {"width": 10, "height": 20}
    strong = Split.open(ingest(documents, images=range(0)) / "dataset/strong")
    assert strong.image(0)["width"] == 10


def test_the_same_images_give_the_same_bytes(ingest: Callable[..., Path], documents: Documents) -> None:
    """However the threads that check them are scheduled."""
    names = (
        f"{split}/{file}" for split in ("strong", "weak") for file in ("images.arrow", "rejected.parquet")
    )
    files = list(names)
    first = [(ingest(documents) / "dataset" / name).read_bytes() for name in files]
    for _ in range(3):
        assert [(ingest(documents) / "dataset" / name).read_bytes() for name in files] == first


def ids(workspace: Path, split: str) -> dict[str, int]:
    """Image ids by name."""
    images = Split.open(workspace / "dataset" / split).images
    return dict(zip(images["file_name"].to_pylist(), images["image_id"].to_pylist(), strict=True))


def renumbered(content: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """The document with images numbered from 0, of other names."""
    for n, (row, name) in enumerate(zip(content["images"], names, strict=True)):
        row |= {"id": n, "file_name": name}
    for n, row in enumerate(content["annotations"]):
        row |= {"id": n, "image_id": n}
    return content


def test_several_files_of_a_split_are_joined(ingest: Callable[..., Path], documents: Documents) -> None:
    documents["strong"] = renumbered(documents["strong"], ["1.png", "2.png"])
    documents["more"] = renumbered(document(1, 1, masks=True), ["7.png"])
    documents["val"] = renumbered(documents["val"], ["3.png"])
    documents["more"]["categories"] = [{"id": 1, "name": "dog"}, {"id": 2, "name": "hen"}]
    workspace = ingest(documents, strong=["strong.json", "more.json"])
    assert ids(workspace, "strong") == {"1.png": 0, "2.png": 1, "7.png": name_id("7.png")}
    assert ids(workspace, "val") == {"3.png": name_id("3.png")}
    strong = Split.open(workspace / "dataset" / "strong")
    assert strong.categories == [(1, "cat"), (2, "hen"), (5, "dog")]
    by_image = dict(
        zip(
            strong.instances["image_id"].to_pylist(), strong.instances["category_id"].to_pylist(), strict=True
        )
    )
    assert by_image == {0: 1, 1: 1, name_id("7.png"): 5}


def test_a_file_that_is_named_twice_is_a_fault(ingest: Callable[..., Path], documents: Documents) -> None:
    with pytest.raises(DataError, match=r"strong\.json: file: found 2 times in strong; expected once"):
        ingest(documents, strong=["strong.json", "./strong.json"])


def test_val_may_be_a_share_of_strong(
    ingest: Callable[..., Path], documents: Documents, caplog: pytest.LogCaptureFixture
) -> None:
    documents["strong"] = document(1, 4, masks=True)
    documents["strong"]["annotations"][0]["category_id"] = 5
    documents["strong"]["annotations"][3]["category_id"] = 5
    del documents["val"]
    caplog.set_level("INFO")
    workspace = ingest(documents, val=0.3, weak=None, kept_aside=None)
    strong, val = ids(workspace, "strong"), ids(workspace, "val")
    assert strong | val == {f"{n}.png": n for n in (1, 2, 3, 4)}
    assert len(strong) == len(val) == 2  # each of two classes of two images is on both sides
    assert len({1, 4} & set(strong.values())) == 1
    folder = workspace / "dataset" / "val"
    assert json.loads((folder / "manifest.json").read_text())["share_of_strong"] == {
        "share": 0.3, "images": 2, "of": 4,
    }  # fmt: skip
    assert "ingest: val: 2 of the 4 images of strong, for a share of 0.3" in caplog.text
    assert Split.open(folder).instances["image_id"].to_pylist() == sorted(val.values())
    assert set(ids(workspace, "weak")) == {"5.png", "6.png", "7.png"}


@pytest.mark.parametrize(
    "name",
    ["one.png", "train/one.png", "/data/set/train/one.png", "C:\\set\\train\\one.png", "../train/one.png"],
)
def test_images_are_found_by_the_end_of_their_path(
    ingest: Callable[..., Path], documents: Documents, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "source" / "images"
    (folder / "train").mkdir(parents=True)
    cv2.imwrite(str(folder / "train" / "one.png"), np.full((10, 20, 3), 9, np.uint8))
    documents["strong"]["images"][0]["file_name"] = name
    workspace = ingest(documents, weak=None)
    assert ids(workspace, "strong") == {"train/one.png": 1, "2.png": 2}
    assert "train/one.png" not in ids(workspace, "weak")


def test_a_name_that_fits_several_images_is_a_fault_of_its_record(
    ingest: Callable[..., Path], documents: Documents, tmp_path: Path
) -> None:
    for place in ("a", "b"):
        folder = tmp_path / "source" / "images" / place
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / "one.png"), np.full((10, 20, 3), ord(place), np.uint8))
    documents["strong"]["images"][0]["file_name"] = "one.png"
    message = r"one\.png: image 1: found 2 image files that the name fits: a/one\.png, b/one\.png; expected the path"
    with pytest.raises(DataError, match=message):
        ingest(documents)
    workspace = ingest(documents, on_reject="report")
    assert ids(workspace, "strong") == {"2.png": 2}
    (row,) = read_parquet(workspace / "dataset/strong/rejected.parquet", REJECTED_IMAGES).to_pylist()
    assert (row["reason"], row["annotations"]) == ("ambiguous", 1)


def test_a_missing_folder_of_images_is_one_fault(ingest: Callable[..., Path], documents: Documents) -> None:
    with pytest.raises(DataError) as caught:
        ingest(documents, root="absent")
    assert [fault.found for fault in caught.value.faults] == ["no such folder"]
