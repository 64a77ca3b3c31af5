"""Round trips through every format: what goes out comes back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from data.annotations.coco.file import read_coco, to_instances
from data.annotations.export import write_frames
from data.annotations.frames import FLAGS, Frame, Label, frames_of_file, frames_of_split, name_id
from data.annotations.read import read_annotations
from data.annotations.results import read_results
from data.annotations.scalabel.file import read_scalabel
from data.errors import DataError
from data.masks import rle as masks
from data.tables import Category, Split
from tests.data.scalabel_files import frames as scalabel_frames
from tests.data.scalabel_files import written

CLASSES = [Category(3, "nut"), Category(7, "Bölt"), Category(20, "a b")]
SETTINGS = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50
)


@st.composite
def data_sets(draw: st.DrawFn) -> list[Frame]:
    """Frames with masks that may overlap or be empty."""
    image_ids = sorted(draw(st.sets(st.integers(-5, 2**62), max_size=3)))
    next_id = 1
    frames = []
    for image_id in image_ids:
        height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
        labels = []
        for _ in range(draw(st.integers(0, 3))):
            bits = draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
            is_pseudo = draw(st.booleans())
            labels.append(
                Label(
                    label_id=next_id,
                    category_id=draw(st.sampled_from([3, 7, 20])),
                    counts=masks.encode(np.array(bits).reshape(height, width)),
                    flags=frozenset(draw(st.sets(st.sampled_from(FLAGS)))),
                    score=draw(st.floats(0, 1)) if is_pseudo else None,
                    point_id="ab12" if is_pseudo else None,
                )
            )
            next_id += draw(st.integers(1, 5))
        frames.append(Frame(image_id, f"dir/ä {image_id}.jpg", width, height, tuple(labels)))
    return frames


def bare(frames: list[Frame]) -> list[Frame]:
    """Without the boxes and areas that are the masks' anyway."""
    return [
        replace(f, labels=tuple(replace(label, area=None, bbox_xywh=None) for label in f.labels))
        for f in frames
    ]


@pytest.mark.parametrize("format", ["coco", "scalabel"])
@SETTINGS
@given(frames=data_sets())
def test_everything_comes_back_from_coco_and_scalabel(
    tmp_path: Path, format: str, frames: list[Frame]
) -> None:
    counts = write_frames(tmp_path, "out", format, frames, CLASSES)
    if not frames and format == "scalabel":
        return  # a file without frames is refused when it is read
    coco = read_annotations(tmp_path / "out.json", format)
    assert coco.categories == CLASSES
    assert bare(list(frames_of_file(coco))) == frames
    assert counts == {"images": len(frames), "labels": sum(len(frame.labels) for frame in frames)}


@SETTINGS
@given(frames=data_sets())
def test_results_come_back(tmp_path: Path, frames: list[Frame]) -> None:
    write_frames(tmp_path, "out", "coco-results", frames, CLASSES)
    sizes = {frame.image_id: (frame.height, frame.width) for frame in frames}
    rows = read_results(tmp_path / "out.json", sizes, {3, 7, 20})
    expected = [
        (frame.image_id, label.category_id, label.counts, 1.0 if label.score is None else label.score)
        for frame in frames
        for label in frame.labels
    ]
    assert [
        (row["image_id"], row["category_id"], row["segmentation"]["counts"], row["score"]) for row in rows
    ] == expected


@SETTINGS
@given(frames=data_sets())
def test_one_format_to_the_next_loses_nothing(tmp_path: Path, frames: list[Frame]) -> None:
    if not frames:
        return
    for n, format in enumerate(("scalabel", "coco", "scalabel")):
        given = frames if not n else frames_of_file(read_annotations(tmp_path / f"{n - 1}.json"))
        write_frames(tmp_path, str(n), format, given, CLASSES)
    assert (tmp_path / "0.json").read_bytes() == (tmp_path / "2.json").read_bytes()


def test_bitmasks_of_overlapping_masks_report_what_they_lost(tmp_path: Path) -> None:
    full = masks.encode(np.ones((4, 6), dtype=bool))
    labels = (Label(1, 3, full), Label(2, 7, full, frozenset({"ignored"})))
    counts = write_frames(tmp_path, "out", "bdd-bitmask", [Frame(1, "x.jpg", 6, 4, labels)], CLASSES)
    assert counts == {
        "images": 1, "labels": 1, "hidden_labels": [{"image": "x.jpg", "label": 1}], "covered_pixels": 24,
    }  # fmt: skip
    coco = read_annotations(tmp_path / "out")
    (frame,) = frames_of_file(coco)
    assert (frame.image_id, frame.file_name, coco.categories) == (name_id("x.jpg"), "x.jpg", CLASSES)
    assert [(label.category_id, label.counts, label.flags) for label in frame.labels] == [
        (7, full, {"ignored"})
    ]


def test_a_split_comes_back_with_its_own_areas_and_boxes(
    make_split: Callable[..., Split], tmp_path: Path
) -> None:
    split = make_split()
    write_frames(tmp_path, "out", "coco", frames_of_split(split), split.categories)
    coco = read_coco(tmp_path / "out.json")
    assert to_instances(coco).equals(split.instances)
    assert coco.categories == split.categories
    for name in ("scalabel", "bdd-bitmask"):
        write_frames(tmp_path, name, name, frames_of_split(split), split.categories)
    assert (
        to_instances(read_scalabel(tmp_path / "scalabel.json"))
        .select(["instance_id", "image_id", "category_id", "iscrowd", "rle_counts"])
        .equals(split.instances.select(["instance_id", "image_id", "category_id", "iscrowd", "rle_counts"]))
    )


def test_pycocotools_reads_what_we_write(tmp_path: Path) -> None:
    coco = read_scalabel(written(tmp_path / "in.json", scalabel_frames()))
    write_frames(tmp_path, "out", "coco", frames_of_file(coco), coco.categories)
    reference = COCO(str(tmp_path / "out.json"))
    assert [ann["iscrowd"] for ann in reference.anns.values()] == [0, 1, 1]
    for row in coco.annotations:
        mine = masks.decode(row["segmentation"]["counts"], 8, 9)
        assert np.array_equal(reference.annToMask(reference.anns[row["id"]]), mine)
    assert reference.anns[2]["attributes"] == {"crowd": True, "occluded": True}


def test_class_ids_that_scalabel_counts_itself_are_not_written(tmp_path: Path) -> None:
    frame = Frame(1, "x.jpg", 6, 4, ())
    write_frames(tmp_path, "a", "scalabel", [frame], [Category(1, "nut"), Category(2, "bolt")])
    config = json.loads((tmp_path / "a.json").read_text())["config"]
    assert config["categories"] == [{"name": "nut"}, {"name": "bolt"}]


def test_what_can_not_be_written_leaves_no_file(tmp_path: Path) -> None:
    frame = Frame(1, "x.jpg", 6, 4, ())
    with pytest.raises(DataError, match="a second frame"):
        write_frames(tmp_path, "a", "scalabel", [frame, replace(frame, image_id=2)], CLASSES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", [{"score": "high"}, {"score": float("nan")}, {"score": True}])
def test_a_score_that_is_no_number_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    rle = {"size": [1, 1], "counts": masks.encode(np.ones((1, 1), dtype=bool)).decode()}
    row = {"id": 1, "image_id": 1, "category_id": 3, "segmentation": rle} | change
    value = {
        "images": [{"id": 1, "file_name": "x.jpg", "width": 1, "height": 1}],
        "categories": [{"id": 3, "name": "nut"}],
        "annotations": [row],
    }
    with pytest.raises(DataError, match="annotation 1: found score"):
        list(frames_of_file(read_coco(written(tmp_path / "in.json", value))))


def test_real_files_go_through_all_formats(shared_dir: Path, tmp_path: Path) -> None:
    path = shared_dir / "fixtures/bdd100k/scalabel_seg_track_100_frames.json"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    rows = json.loads(path.read_text())[:10]
    config = {"imageSize": {"width": 1280, "height": 720}}
    coco = read_scalabel(written(tmp_path / "in.json", {"frames": rows, "config": config}))
    given = list(frames_of_file(coco))
    for format in ("coco", "scalabel"):
        write_frames(tmp_path, "out", format, given, coco.categories)
        assert bare(list(frames_of_file(read_annotations(tmp_path / "out.json")))) == bare(given)
    # BDD100K's own RLEs don't overlap (its tool drew them on one canvas), so that bitmasks hold them all.
    counts = write_frames(tmp_path, "bits", "bdd-bitmask", given, coco.categories)
    assert (counts["hidden_labels"], counts["covered_pixels"]) == ([], 0)
    again = list(frames_of_file(read_annotations(tmp_path / "bits")))
    assert [
        [(label.category_id, label.counts, label.flags) for label in frame.labels] for frame in again
    ] == [[(label.category_id, label.counts, label.flags) for label in frame.labels] for frame in given]
    shutil.rmtree(tmp_path / "bits")
