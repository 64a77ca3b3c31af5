from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.annotations.coco.file import to_instances
from data.annotations.frames import FLAGS, ImageFolder, name_id
from data.annotations.scalabel.file import read_scalabel
from data.errors import DataError
from data.masks import rle as masks
from data.tables import Category
from tests.data.fuzzing import any_json, few_times, ten_thousand_times
from tests.data.scalabel_files import HEIGHT, HOLE, RLE, SIZE, SQUARE, WIDTH, frames, label, poly, written


def read(where: Path, value: Any, **options: Any) -> Any:
    return read_scalabel(written(where / "labels.json", value), **options)


def mask_of(row: dict[str, Any]) -> np.ndarray:
    return masks.decode(row["segmentation"]["counts"], HEIGHT, WIDTH)


def test_frames_are_read_with_everything_on_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        coco = read(tmp_path, frames())
    assert [c.name for c in coco.categories][:3] == [
        "pedestrian",
        "rider",
        "car",
    ]  # BDD100K's, without config
    assert {row["file_name"]: row["id"] for row in coco.images} == {
        name: name_id(name) for name in ("a.jpg", "b.jpg")
    }
    assert {row["image_id"] for row in coco.annotations} == {name_id("b.jpg")}
    car, person, trailer = coco.annotations
    assert [row["id"] for row in coco.annotations] == [1, 2, 3]
    assert [row["category_id"] for row in coco.annotations] == [3, 1, 4]
    assert [row["iscrowd"] for row in coco.annotations] == [0, 1, 1]
    assert mask_of(car).sum() == 16 + 9
    assert np.array_equal(mask_of(person), HOLE)
    assert {flag for flag in FLAGS if person["attributes"][flag]} == {"crowd", "occluded"}
    # A box is a region to ignore, the pixels of x1..x2 and y1..y2, both within.
    assert {flag for flag in FLAGS if trailer["attributes"][flag]} == {"ignored"}
    assert np.argwhere(mask_of(trailer)).min(axis=0).tolist() == [1, 2]
    assert mask_of(trailer).sum() == 9
    assert "1 labels have a box but no mask" in caplog.text
    table = to_instances(coco)
    assert table["iscrowd"].to_pylist() == [False, True, True]


def test_a_file_with_config_has_its_own_classes_and_size(tmp_path: Path) -> None:
    things = {"name": "thing", "subcategories": [{"name": "nut"}, {"name": "bolt"}]}
    config = {"imageSize": SIZE, "categories": [things, "dust"]}
    given = {"frames": [{"name": "a.jpg", "labels": [label(category="bolt")]}], "config": config}
    coco = read(tmp_path, given)
    assert coco.categories == [Category(1, "nut"), Category(2, "bolt"), Category(3, "dust")]
    assert coco.annotations[0]["category_id"] == 2
    assert (coco.images[0]["height"], coco.images[0]["width"]) == (HEIGHT, WIDTH)


def test_the_size_is_the_frames_else_the_configs_else_the_masks_else_the_files(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8))
    images = ImageFolder(tmp_path)

    def size(value: Any) -> tuple[int, int]:
        (row,) = read(tmp_path, value, images=images).images
        return row["height"], row["width"]

    frame = {"name": "a.png", "labels": []}
    assert size([frame]) == (HEIGHT, WIDTH)
    config = {"imageSize": {"width": 30, "height": 20}}
    assert size({"frames": [frame], "config": config}) == (20, 30)
    assert size({"frames": [frame | {"size": {"width": 3, "height": 2}}], "config": config}) == (2, 3)
    rle = {"counts": masks.encode(np.ones((5, 4), dtype=bool)).decode(), "size": [5, 4]}
    assert size([frame | {"labels": [label(poly2d=None, rle=rle)]}]) == (5, 4)
    for options in ({}, {"images": images}):
        with pytest.raises(DataError, match="no size, and") as caught:
            read(tmp_path, [frame | {"name": "absent.png"}], **options)
        assert "frame.size, config.imageSize, or the image file" in str(caught.value)
    (weak,) = read(tmp_path, [frame | {"name": "absent.png"}], need_masks=False).images
    assert "width" not in weak


def test_names_lie_below_a_folder_and_videos_in_folders_of_their_own(tmp_path: Path) -> None:
    for name in ("10k/train/plain.png", "10k/train/film/still.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / name), np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8))
    given = [
        {"name": "plain.png", "videoName": "plain", "labels": []},
        {"name": "still.png", "videoName": "film", "labels": []},
    ]
    coco = read(tmp_path, given, images=ImageFolder(tmp_path), folder="10k/train")
    assert sorted(row["file_name"] for row in coco.images) == [
        "10k/train/film/still.png",
        "10k/train/plain.png",
    ]


def test_a_folder_of_files_is_one_data_set(tmp_path: Path) -> None:
    written(tmp_path / "set/1.json", [frames()[0]])
    written(tmp_path / "set/2.json", {"frames": [frames()[1]], "config": None})
    assert len(read_scalabel(tmp_path / "set").images) == 2
    written(tmp_path / "set/3.json", {"frames": [], "config": {"categories": ["nut"]}})
    written(tmp_path / "set/4.json", {"frames": [], "config": {"categories": ["bolt"]}})
    with pytest.raises(DataError, match="another one than in earlier files"):
        read_scalabel(tmp_path / "set")


def test_files_of_weak_images_need_no_labels(tmp_path: Path) -> None:
    strange = [{"name": "a.jpg", "labels": [{"category": "lane", "poly2d": 3}]}]
    coco = read(tmp_path, strange, need_masks=False, folder="100k/train")
    assert [row["file_name"] for row in coco.images] == ["100k/train/a.jpg"]
    assert coco.annotations == []


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "not readable as JSON"),
        ("[" * 100_000, "not readable as JSON"),
        ("[]", "no frames"),
        ("3", "no list of frames in int"),
        ("{}", "no list of frames in dict"),
        ('{"frames": {}}', "no list of frames"),
        ('[{"image_id": 3, "score": 0.5}]', "a list of COCO results"),
        ('{"frames": [], "config": {"imageSize": 3}}', "no frames"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str, found: str) -> None:
    with pytest.raises(DataError, match=found):
        read(tmp_path, content)
    with pytest.raises(DataError, match="no such file"):
        read_scalabel(tmp_path / "absent.json")


HUGE = {"width": 10**9, "height": 10**9}


@pytest.mark.parametrize(
    ("frame", "record", "found"),
    [
        (3, "frame #2", "int"),
        ({"labels": []}, "frame #2", "name None"),
        ({"name": "../c.jpg"}, "frame #2 '../c.jpg'", "name '../c.jpg'"),
        ({"name": "/etc/passwd"}, "frame #2 '/etc/passwd'", "name"),
        ({"name": "c.jpg", "videoName": "../.."}, "frame #2 'c.jpg'", "videoName '../..'"),
        ({"name": "c.jpg", "labels": {}}, "frame #2 'c.jpg'", "labels of type dict"),
        ({"name": "c.jpg", "size": HUGE}, "frame #2 'c.jpg'", "size {'width': 1000000000"),
        ({"name": "c.jpg", "size": {"width": 9}}, "frame #2 'c.jpg'", "size {'width': 9}"),
        ({"name": "c.jpg", "size": {"width": 9.0, "height": 8}}, "frame #2 'c.jpg'", "size"),
        ({"name": "a.jpg", "size": SIZE}, "frame #2 'a.jpg'", "the name of frame #1 'a.jpg'"),
    ],
)
def test_each_bad_frame_is_named(tmp_path: Path, frame: Any, record: str, found: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, [*frames(), frame])
    (fault,) = caught.value.faults
    assert (fault.file, fault.record) == (str(tmp_path / "labels.json"), record)
    assert found in fault.found
    assert fault.expected and fault.next_step


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"category": None}, "category None"),
        ({"category": ["car"]}, "category ['car']"),
        ({"category": "lane"}, "category 'lane'"),
        ({"score": "high"}, "score 'high'"),
        ({"score": float("nan")}, "score nan"),
        ({"attributes": [1]}, "attributes of type list"),
        ({"attributes": {"crowd": "yes"}}, "crowd 'yes'"),
        ({"poly2d": None}, "neither rle nor poly2d nor box2d"),
        ({"poly2d": poly(SQUARE[:2])}, "2 vertices"),
        ({"poly2d": poly([[1e9, 1e9], *SQUARE])}, "far outside"),
        ({"poly2d": [{"vertices": SQUARE, "types": "LLLL", "closed": False}]}, "closed False"),
        ({"rle": 7}, "rle of type int"),
        ({"rle": RLE | {"size": [WIDTH, HEIGHT]}}, "of size [9, 8]"),
        ({"rle": RLE | {"size": [10**9, 10**9]}}, "of size [1000000000"),
        ({"rle": RLE | {"counts": "0"}}, "runs of 0 pixels"),
        ({"rle": RLE | {"counts": [10**12, 5]}}, "pixels"),
        ({"rle": {}}, "neither polygons nor an RLE"),
        ({"poly2d": None, "box2d": {"x1": 1, "y1": 1, "x2": 0, "y2": 2}}, "not numbers with x1 <= x2"),
        ({"poly2d": None, "box2d": {"x1": 1, "y1": 1, "x2": None, "y2": 2}}, "not numbers with x1 <= x2"),
        ({"poly2d": None, "box2d": [1, 2, 3, 4]}, "not numbers with x1 <= x2"),
        ({"poly2d": None, "box2d": {"x1": 1, "y1": 1, "x2": 1e300, "y2": 2}}, "far outside"),
    ],
)
def test_each_bad_label_is_named(tmp_path: Path, change: Any, found: str) -> None:
    given = frames()
    given[1]["labels"] = [label(), label(id="x") | change]
    with pytest.raises(DataError) as caught:
        read(tmp_path, given)
    (fault,) = caught.value.faults
    assert fault.record.startswith("frame #1 'a.jpg', label 'x'")
    assert found in fault.found
    assert fault.expected and fault.next_step


def test_all_faults_are_listed_and_those_of_one_class_once(tmp_path: Path) -> None:
    labels = [label(category="cars") for _ in range(60)] + [label(score="x") for _ in range(60)]
    with pytest.raises(DataError) as caught:
        read(tmp_path, [{"name": "a.jpg", "size": SIZE, "labels": labels}, 3])
    assert len(caught.value.faults) == 62
    (unknown,) = [fault for fault in caught.value.faults if "'cars'" in fault.found]
    assert "and 59 more labels" in unknown.record
    assert "'car', the nearest" in unknown.expected


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"categories": [3]}, "found 3"),
        ({"categories": [{"name": ""}]}, "found {'name': ''}"),
        ({"categories": ["car", "car"]}, "class 'car' twice"),
        ({"categories": [{"name": "x", "subcategories": 3}]}, "'subcategories': 3"),
        ({"categories": 7}, "found 7"),
        ({"imageSize": HUGE}, "found {'width': 1000000000"),
        ({"image_size": [720, 1280]}, "found [720, 1280]"),
        (7, "found 7"),
    ],
)
def test_a_bad_config_is_named(tmp_path: Path, config: Any, found: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, {"frames": [{"name": "a.jpg", "size": SIZE, "labels": []}], "config": config})
    assert found in str(caught.value)


def test_classes_nested_without_end_are_no_trouble(tmp_path: Path) -> None:
    config = '{"categories":[' + '{"name":"x","subcategories":[' * 400 + '"nut"' + "]}" * 400 + "]}"
    frame = '{"name":"a.jpg","size":{"width":9,"height":8},"labels":[]}'
    coco = read(tmp_path, f'{{"frames":[{frame}],"config":{config}}}')
    assert coco.categories == [Category(1, "nut")]


@pytest.mark.parametrize(
    ("name", "images", "labels", "ignored"),
    [
        ("example_annotation.json", 1, 4, 0),
        ("example_ignore_annotation.json", 2, 2, 2),
        ("scalabel_ins_seg_rle_sample.json", 1, 8, 0),
        ("scalabel_seg_track_100_frames.json", 100, 1768, 17),
    ],
)
def test_real_files_are_read(shared_dir: Path, name: str, images: int, labels: int, ignored: int) -> None:
    path = shared_dir / "fixtures/bdd100k" / name
    if not path.is_file():
        pytest.skip(f"{path} is absent")

    class Images:
        def names(self) -> frozenset[str]:
            return frozenset()

        def prepare(self, names: Collection[str]) -> None:
            self.prepared = set(names)

        def size(self, file_name: str) -> tuple[int, int]:
            assert file_name in self.prepared
            return 1280, 720

    table = to_instances(coco := read_scalabel(path, images=Images()))
    assert (len(coco.images), len(coco.annotations), sum(table["iscrowd"].to_pylist())) == (
        images,
        labels,
        ignored,
    )
    assert min(table["area"].to_pylist()) > 0


value = any_json(st.integers() | st.floats())


def or_any(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly what belongs there, sometimes anything."""
    return st.one_of(strategy, strategy, strategy, value)


def record(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({}, optional=fields)


size = st.sampled_from([SIZE, SIZE, HUGE, {"width": 0, "height": 3}])
points = st.lists(st.lists(st.floats(-40, 40), min_size=2, max_size=2), max_size=6)
outline = record(
    vertices=or_any(points),
    types=or_any(st.text("LC", max_size=6)),
    closed=or_any(st.sampled_from([True, True, False])),
)
number = or_any(st.floats(-3, 12))
rle = record(
    counts=or_any(st.text("".join(map(chr, range(48, 112))), max_size=10) | st.just(RLE["counts"])),
    size=or_any(st.sampled_from([[HEIGHT, WIDTH], [10**9, 10**9]])),
)
any_label = record(
    id=or_any(st.text(max_size=4)),
    category=or_any(st.sampled_from(["car", "person", "trailer", "lane"])),
    attributes=or_any(st.dictionaries(st.sampled_from([*FLAGS, "Crowd"]), or_any(st.booleans()), max_size=3)),
    score=number,
    poly2d=or_any(st.lists(outline, max_size=2)),
    rle=or_any(rle),
    box2d=or_any(record(x1=number, y1=number, x2=number, y2=number)),
)
any_frame = record(
    name=or_any(st.sampled_from(["a.jpg", "b.jpg", "../c.jpg"])),
    videoName=or_any(st.just("film")),
    size=or_any(size),
    attributes=or_any(record(image_id=or_any(st.sampled_from(["1", "2", "01"])))),
    labels=or_any(st.lists(any_label, max_size=3)),
)
config = record(
    imageSize=or_any(size), categories=or_any(st.lists(or_any(st.sampled_from(["car", "nut"])), max_size=3))
)
documents = or_any(
    st.lists(any_frame, max_size=3)
    | record(frames=or_any(st.lists(any_frame, max_size=3)), config=or_any(config))
)


def read_or_refuse(folder: Path, document: Any) -> None:
    """Any JSON gives masks of their image's size, or a DataError whose faults have a place and a reason."""
    path = written(folder / "labels.json", document)
    for need_masks in (True, False):
        try:
            coco = read_scalabel(path, need_masks=need_masks, images=ImageFolder(folder))
        except DataError:
            continue
        if need_masks:
            sizes = {row["id"]: (row["height"], row["width"]) for row in coco.images}
            assert to_instances(coco).num_rows == len(coco.annotations)
            for row in coco.annotations:
                counts = row["segmentation"]["counts"]
                assert masks.decode(counts, *sizes[row["image_id"]]).shape == sizes[row["image_id"]]


@few_times
@given(documents)
def test_any_json_is_read_or_refused(tmp_path: Path, document: Any) -> None:
    read_or_refuse(tmp_path, document)


@ten_thousand_times
@given(documents)
def test_any_json_is_read_or_refused_ten_thousand_times(tmp_path: Path, document: Any) -> None:
    read_or_refuse(tmp_path, document)
