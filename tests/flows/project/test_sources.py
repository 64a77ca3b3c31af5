"""Sections `ingest` and `points` from the paths that a person names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data.errors import DataError
from flows.project.sources import check_paths, ingest_values, mask_files, points_values


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images, labels and an empty project."""
    for folder in ("photos", "labels/extra", "masks", "clicks", "project/own", "yolo/images/train", "yolo/labels/train",
                   "yolo/images/val", "yolo/labels/val"):  # fmt: skip
        (tmp_path / folder).mkdir(parents=True)
    for name in ("labels/train.json", "labels/val.json", "labels/extra/more.json", "june.json", "july.csv",
                 "clicks/june.json", "project/own/train.json"):  # fmt: skip
        (tmp_path / name).write_text("{}")
    (tmp_path / "photos/a.JPG").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("masks", "val", "base", "strong", "measured"),
    [
        (["labels/train.json"], 0.3, "labels", "train.json", 0.3),
        (["labels/train.json"], None, "labels", "train.json", 0.2),
        (["labels/train.json"], "labels/val.json", "labels", "train.json", "val.json"),
        (
            ["labels/train.json", "labels/extra/more.json"],
            0.2,
            "labels",
            ["train.json", "extra/more.json"],
            0.2,
        ),
        (["masks"], 0.2, "masks", ".", 0.2),
        (["masks/"], "labels/val.json", "", "masks", "labels/val.json"),
    ],
)
def test_masks(here: Path, masks: list[str], val: Any, base: str, strong: Any, measured: Any) -> None:
    found = {one.key: one.value for one in ingest_values(here / "project", "photos", masks, val, None)}
    assert found["ingest.kept_aside"] is None
    assert found["ingest.images"] == str(here / "photos")
    assert Path(found["ingest.annotations"]) == here / base
    assert (found["ingest.strong"], found["ingest.val"]) == (strong, measured)


@pytest.mark.parametrize(
    ("masks", "val", "files"),
    [
        (["masks"], None, None),  # the folder itself, so that new files in it are noticed
        (["masks"], 0.3, None),
        (["s3://lab/labels/train.json"], "s3://lab/labels/val.json", None),
        (["june.json"], 0.2, ["{here}/june.json"]),
        (["masks/"], "labels/val.json", ["{here}/labels/val.json", "{here}/masks"]),
        (["project/own/train.json", "june.json"], None, ["own/train.json", "{here}/june.json"]),
    ],
)
def test_what_ingest_depends_on(here: Path, masks: list[str], val: Any, files: list[str] | None) -> None:
    expected = None if files is None else sorted(name.format(here=here) for name in files)
    files_with_masks = [*masks, *([val] if isinstance(val, str) else [])]
    assert mask_files(here / "project", files_with_masks) == expected


def test_masks_kept_aside_are_below_the_common_folder(here: Path) -> None:
    found = {
        one.key: one.value
        for one in ingest_values(
            here / "project", "photos", ["labels/train.json"], 0.2, None, "labels/extra/more.json"
        )
    }
    assert Path(found["ingest.annotations"]) == here / "labels"
    assert (found["ingest.strong"], found["ingest.kept_aside"]) == ("train.json", "extra/more.json")


def test_parts_of_an_export_are_train_and_val(here: Path) -> None:
    (here / "yolo/data.yaml").write_text("train: images/train\nval: images/val\nnames: [a]\n")
    found = {one.key: one.value for one in ingest_values(here / "project", "yolo", ["yolo"], None, None)}
    assert "train" in found["ingest.strong"] and "val" in found["ingest.val"]


def test_data_inside_the_project_have_relative_paths(here: Path) -> None:
    found = {
        one.key: one.value
        for one in ingest_values(here / "project", "photos", ["project/own/train.json"], 0.2, None)
    }
    assert found["ingest.annotations"] == "own"


def test_s3() -> None:
    values = ingest_values(
        Path("project"), "s3://lab/photos", ["s3://lab/labels/train.json"], "s3://lab/labels/val.json", "cell"
    )
    found = {one.key: one.value for one in values}
    assert found["ingest.annotations"] == "s3://lab/labels"
    assert (found["ingest.strong"], found["ingest.val"], found["ingest.mask_class"]) == (
        "train.json",
        "val.json",
        "cell",
    )


@pytest.mark.parametrize(
    ("masks", "kept_aside", "base", "strong", "aside"),
    [
        ("s3://lab/x/train.json", "s3://lab/x/k.json", "s3://lab/x", "train.json", "k.json"),
        ("s3://lab/x", "s3://lab/x/k.json", "s3://lab/x", ".", "k.json"),
        ("s3://lab/x/", "s3://lab/x/y/k.json", "s3://lab/x", ".", "y/k.json"),
        ("s3://lab/x/train.json", "s3://lab/x/y/k.json", "s3://lab/x", "train.json", "y/k.json"),
    ],
)
def test_places_below_one_prefix(masks: str, kept_aside: str, base: str, strong: str, aside: str) -> None:
    values = ingest_values(Path("project"), "s3://lab/photos", [masks], 0.2, None, kept_aside)
    found = {one.key: one.value for one in values}
    keys = ("ingest.annotations", "ingest.strong", "ingest.kept_aside")
    assert tuple(found[key] for key in keys) == (base, strong, aside)


@pytest.mark.parametrize(
    ("masks", "val", "found"),
    [
        ("s3://lab/x/train.json", "s3://lab/xy/val.json", "several places"),
        ("labels/train.json", "s3://lab/val.json", "some in S3, some on this machine"),
    ],
)
def test_places_that_have_nothing_in_common(here: Path, masks: str, val: str, found: str) -> None:
    with pytest.raises(DataError, match=f"{masks}, {val}: found {found}; expected one place"):
        ingest_values(here / "project", "photos", [masks], val, None)


def test_files_of_points_are_linked_into_the_projects_folder(here: Path) -> None:
    found = {one.key: one.value for one in points_values(here / "project", ["june.json", "july.csv"])}
    assert found["points.files"] == "points"
    links = sorted((here / "project/points").iterdir())
    assert [(one.name, one.resolve()) for one in links] == [
        ("july.csv", here / "july.csv"),
        ("june.json", here / "june.json"),
    ]


def test_a_folder_of_points_is_used_where_it_is(here: Path) -> None:
    found = {one.key: one.value for one in points_values(here / "project", ["clicks"])}
    assert found["points.files"] == str(here / "clicks")
    assert not (here / "project/points").exists()


@pytest.mark.parametrize(
    ("points", "fault"),
    [(["clicks", "june.json"], "a folder among several"),
     (["june.json", "clicks/june.json"], "two files of this name")],
)  # fmt: skip
def test_points_that_cannot_be_used(here: Path, points: list[str], fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        points_values(here / "project", points)


def test_all_missing_paths_are_in_one_error(here: Path) -> None:
    with pytest.raises(DataError) as error:
        check_paths(
            here / "project",
            "fotos",
            ["labels/trian.json"],
            ["clicks", "no.json"],
            {"--val": "labels/vla.json", "--kept-aside": "aside.json"},
        )
    for name in ("fotos", "trian.json", "--val: labels/vla.json", "no.json", "--kept-aside: aside.json"):
        assert name in str(error.value)


@pytest.mark.parametrize(
    ("images", "masks", "flag"), [(".", "masks", "--images"), ("photos", "project", "--masks")]
)
def test_the_project_is_outside_of_the_data(here: Path, images: str, masks: str, flag: str) -> None:
    with pytest.raises(DataError, match=f"{flag}: .*a folder that the project would be in") as error:
        check_paths(here / "project", images, [masks], ["clicks"], {})
    assert len(error.value.faults) == 1
    check_paths(here / "project", "photos", ["masks"], ["clicks"], {"--val": "labels/val.json"})


@pytest.mark.parametrize(
    ("images", "masks", "step"),
    [
        ("labels", "photos", "swap --images and --masks"),
        ("labels", "june.json", "name the folder of the images"),
        ("empty", "masks", "name the folder of the images"),
    ],
)
def test_a_folder_without_images(here: Path, images: str, masks: str, step: str) -> None:
    (here / "masks/a.png").write_text("")
    (here / "empty").mkdir()
    with pytest.raises(DataError, match=f"--images: {images}: found a folder without images.*{step}"):
        check_paths(here / "project", images, [masks], [], {})


@pytest.mark.parametrize(
    ("masks", "points", "fault"),
    [
        (
            ["photographs"],
            [],
            "--masks: photographs: found a folder of photographs alone.*swap --images and --masks",
        ),
        (["photos"], [], "--masks: photos: found the folder of --images, with images alone"),
        (["masks"], ["photos"], "--points: photos: found a folder of images alone"),
        (["masks"], ["masks"], "--points: masks: found a folder of images alone"),
    ],
)
def test_folders_of_pictures(here: Path, masks: list[str], points: list[str], fault: str) -> None:
    (here / "masks/a.png").write_text("")
    (here / "photographs").mkdir()
    (here / "photographs/b.jpg").write_text("")
    with pytest.raises(DataError, match=fault) as error:
        check_paths(here / "project", "photos", masks, points, {})
    assert len(error.value.faults) == 1
    check_paths(here / "project", "photos", ["masks"], ["clicks"], {})
