from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.annotations.coco.file import read_coco, write_json
from data.demo.split import SplitRequest, image_order, strong_count, write_split_files
from data.errors import DataError
from data.masks import rle as masks

REQUEST = SplitRequest(strong=0.2, seed=0, clicks="centre", jitter=0.1, folder="", val_folder="")
SIZE = (20, 30)
RARE = {3: 0.02, 2: 0.3, 1: 1.0}
"""The chance that an object is of each class."""


def rle(mask: np.ndarray) -> dict[str, Any]:
    return {"size": list(mask.shape), "counts": masks.encode(mask).decode("ascii")}


def document(images: int = 50, seed: int = 0) -> dict[str, Any]:
    """Images 1..n with some rectangles each: a rare class, a crowd now and then, an empty mask in image 4."""
    rng = np.random.default_rng(seed)
    rows, annotations = [], []
    for image_id in range(1, images + 1):
        rows.append(
            {
                "id": image_id,
                "file_name": f"i{image_id}.png",
                "height": SIZE[0],
                "width": SIZE[1],
                "licence": 1,
            }
        )
        for _ in range(int(rng.integers(0, 5))):
            x, y = int(rng.integers(0, 25)), int(rng.integers(0, 15))
            mask = np.zeros(SIZE, dtype=bool)
            mask[y : y + int(rng.integers(1, 9)), x : x + int(rng.integers(1, 9))] = True
            draw = rng.random()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": next(c for c, chance in RARE.items() if draw < chance),
                    "segmentation": rle(mask),
                    "iscrowd": int(rng.random() < 0.1),
                    "note": "kept",
                }
            )
    empty = {"id": 999, "image_id": 4, "category_id": 1, "segmentation": rle(np.zeros(SIZE, dtype=bool))}
    names = ["car", "bus", "tram", "plane"]
    return {
        "images": rows,
        "annotations": [*annotations, empty],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names, start=1)],
    }


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "train.json"
    write_json(document(), path)
    return path


def load(path: Path) -> Any:
    return json.loads(path.read_text())


def ids(path: Path) -> set[int]:
    return {row["id"] for row in load(path)["images"]}


@pytest.mark.parametrize("clicks", ["centre", "random", "jittered"])
def test_the_parts_are_the_whole_and_each_weak_object_has_one_click_on_it(
    source: Path, tmp_path: Path, clicks: Any
) -> None:
    summary = write_split_files(source, tmp_path / "out", replace(REQUEST, clicks=clicks))
    whole = load(source)
    strong, weak, kept = (
        load(tmp_path / "out" / f"{name}.json") for name in ("strong", "weak", "kept_aside")
    )
    for name in ("strong", "weak", "kept_aside"):
        read_coco(tmp_path / "out" / f"{name}.json")
    assert strong["images"] + weak["images"] != whole["images"]  # drawn, not the first ones
    by_id = {row["id"]: row for row in strong["images"] + weak["images"]}
    assert [by_id[row["id"]] for row in whole["images"]] == whole["images"]  # every field is kept
    assert len(by_id) == len(strong["images"]) + len(weak["images"])
    assert weak["annotations"] == [] and weak["images"] == kept["images"]
    annotations = sorted(strong["annotations"] + kept["annotations"], key=lambda row: row["id"])
    assert annotations == whole["annotations"]

    points = load(tmp_path / "out/points/clicks.json")["annotations"]
    clickable = {row["id"]: row for row in kept["annotations"] if row["id"] != 999 and not row["iscrowd"]}
    assert [row["id"] for row in points] == list(clickable)
    for row in points:
        target = clickable[row["id"]]
        assert (row["image_id"], row["category_id"]) == (target["image_id"], target["category_id"])
        x, y = row["point"]
        assert masks.decode(target["segmentation"]["counts"].encode(), *SIZE)[int(y), int(x)]
    assert summary["empty_masks"] == [999]
    assert summary["classes_without_mask"] == ["plane"]
    assert summary["classes_without_strong_image"] == []
    assert summary["counts"]["clicks"] == len(points)
    assert summary["crowds_without_click"] == sum(row.get("iscrowd", 0) for row in kept["annotations"])
    assert load(tmp_path / "out/split.json") == summary


def test_one_seed_gives_the_same_bytes_and_another_one_other_images(source: Path, tmp_path: Path) -> None:
    jittered = replace(REQUEST, clicks="jittered")
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_split_files(source, tmp_path / name, replace(jittered, seed=seed))
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.json"))
    assert len(files) == 5
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert ids(tmp_path / "a/strong.json") != ids(tmp_path / "c/strong.json")


def test_a_larger_share_holds_the_smaller_one_and_no_click_moves(source: Path, tmp_path: Path) -> None:
    strong: set[int] = set()
    clicks = None
    for n, share in enumerate((0.05, 0.1, 0.2, 0.5, 0.98)):
        write_split_files(source, tmp_path / str(n), replace(REQUEST, strong=share, clicks="random"))
        larger = ids(tmp_path / str(n) / "strong.json")
        assert strong < larger
        points = {row["id"]: row for row in load(tmp_path / str(n) / "points/clicks.json")["annotations"]}
        assert clicks is None or points.items() <= clicks.items()
        strong, clicks = larger, points


def test_all_images_can_be_strong(source: Path, tmp_path: Path) -> None:
    summary = write_split_files(source, tmp_path / "out", replace(REQUEST, strong=1.0))
    assert summary["counts"]["weak_images"] == summary["counts"]["clicks"] == 0
    assert summary["counts"]["strong_images"] == 50


classes_of_images = st.dictionaries(
    st.integers(0, 500), st.frozensets(st.integers(0, 9), max_size=4), max_size=40
)


@settings(max_examples=200)
@given(classes_of_images, st.integers(0, 100))
def test_the_first_images_cover_the_classes(classes: dict[int, frozenset[int]], seed: int) -> None:
    order = image_order(classes, seed)
    assert sorted(order) == sorted(classes)
    known = frozenset().union(*classes.values())
    covered: frozenset[int] = frozenset()
    for n in range(len(known) + 1):
        covered = frozenset().union(*(classes[image] for image in order[:n]))
        # Each of the first images brings a class, until there is none left to bring.
        assert len(covered) >= min(n, len(known))
    assert covered == known


@given(classes_of_images, st.integers(0, 100))
def test_images_without_a_rare_class_keep_their_order_when_others_come(
    classes: dict[int, frozenset[int]], seed: int
) -> None:
    plain = {image: frozenset[int]() for image in classes}
    more = {**plain, **{image: frozenset[int]() for image in range(1000, 1020)}}
    assert [image for image in image_order(more, seed) if image < 1000] == image_order(plain, seed)


def test_too_few_images_for_every_class_are_reported(source: Path, tmp_path: Path) -> None:
    summary = write_split_files(source, tmp_path / "out", replace(REQUEST, strong=1))
    strong = load(tmp_path / "out/strong.json")
    shown = {row["category_id"] for row in strong["annotations"]}
    names = {row["id"]: row["name"] for row in strong["categories"]}
    assert 3 in shown  # the rarest comes first
    assert summary["classes_without_strong_image"] == [names[c] for c in (1, 2) if c not in shown]


@pytest.mark.parametrize(
    ("strong", "images", "count"), [(0.05, 398, 20), (0.001, 50, 1), (1.0, 7, 7), (1, 7, 1), (20, 50, 20)]
)
def test_shares_and_counts(strong: float | int, images: int, count: int) -> None:
    assert strong_count(strong, images) == count


def test_folders_go_before_the_names_and_val_comes_along(source: Path, tmp_path: Path) -> None:
    request = replace(REQUEST, folder="train2017", val_folder="val2017")
    summary = write_split_files(source, tmp_path / "out", request, val=source)
    for name, folder in (("strong", "train2017"), ("weak", "train2017"), ("val", "val2017")):
        names = [row["file_name"] for row in load(tmp_path / "out" / f"{name}.json")["images"]]
        assert all(name.startswith(f"{folder}/i") for name in names)
    assert summary["counts"]["val_images"] == 50
    clicks = load(tmp_path / "out/points/clicks.json")
    assert clicks["images"] == load(tmp_path / "out/weak.json")["images"]


def test_all_faults_are_reported_at_once_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text(json.dumps({"images": [{"id": 1}], "annotations": []}))
    request = SplitRequest(strong=1.5, seed=-1, clicks="centre", jitter=-1, folder="../x", val_folder="/y")
    with pytest.raises(DataError) as caught:
        write_split_files(tmp_path / "train.json", tmp_path / "out", request, val=tmp_path / "none.json")
    records = [fault.record for fault in caught.value.faults]
    assert records == ["strong", "seed", "jitter", "folder", "val_folder", "file", "image 1", "file"]
    assert not (tmp_path / "out").exists()


def test_more_strong_images_than_there_are(source: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found 51 of 50 images; expected at most 50"):
        write_split_files(source, tmp_path / "out", replace(REQUEST, strong=51))


def test_a_folder_with_other_files_is_left_alone(source: Path, tmp_path: Path) -> None:
    write_split_files(source, tmp_path, REQUEST)
    write_split_files(source, tmp_path, replace(REQUEST, strong=0.5))  # an earlier split is replaced
    assert len(ids(tmp_path / "strong.json")) == 25
    (tmp_path / "mine.json").write_text("{}")
    with pytest.raises(
        DataError, match=r"found mine.json; expected a new folder, or one with only an earlier split"
    ):
        write_split_files(source, tmp_path, REQUEST)
    assert len(ids(tmp_path / "strong.json")) == 25


@pytest.mark.parametrize("name", ["nuclei", "facade"])
def test_real_data(name: str, shared_dir: Path, tmp_path: Path) -> None:
    folder = shared_dir / "data" / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    summary = write_split_files(folder / "val.json", tmp_path, replace(REQUEST, strong=0.05, clicks="random"))
    counts = summary["counts"]
    assert counts["clicks"] == counts["weak_objects"] > 3_000
    assert summary["classes_without_strong_image"] == summary["empty_masks"] == []
