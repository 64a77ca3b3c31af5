from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.masks import rle
from tasks.common.errors import TaskError
from tasks.reporting.gallery import instance_colour
from tasks.tools.pictures import (
    LIST,
    LONGEST_SIDES,
    SHEET_COLUMNS,
    SHEET_TILES,
    TILE,
    Pictures,
    draw,
    remove,
)


def row(mask: np.ndarray, score: float = 0.9, category_id: int = 1, **more: Any) -> dict[str, Any]:
    y, x = np.nonzero(mask)
    box = [int(x.min()), int(y.min()), int(np.ptp(x)) + 1, int(np.ptp(y)) + 1]
    code = {"size": list(mask.shape), "counts": rle.encode(mask).decode()}
    return {"category_id": category_id, "score": score, "bbox": box, "segmentation": code, **more}


def square(size: tuple[int, int], x: int, y: int, side: int) -> np.ndarray:
    mask = np.zeros(size, np.bool_)
    mask[y : y + side, x : x + side] = True
    return mask


def test_instances_are_coloured_where_their_masks_are_and_nowhere_else() -> None:
    image = np.full((480, 640, 3), 100, np.uint8)
    large, small = square(image.shape[:2], 40, 40, 320), square(image.shape[:2], 120, 200, 80)
    found = np.asarray(draw(image, [row(small), row(large)], {}))
    outside = ~(large | small)
    outside[38:362, 38:362] = False  # the outline's width
    assert (found[outside] == 100).all()
    inside = found[320, 320].astype(int)
    assert np.abs(inside - (100 * 0.55 + np.array(instance_colour(1)) * 0.45)).max() <= 2
    # The small one is on top of the large one, though its row comes first.
    assert (
        np.abs(found[240, 160].astype(int) - (inside * 0.55 + np.array(instance_colour(0)) * 0.45)).max() <= 2
    )
    assert (image == 100).all()


def test_neighbours_in_number_differ_in_colour() -> None:
    colours = np.array([instance_colour(n) for n in range(12)])
    assert np.abs(np.diff(colours, axis=0)).sum(1).min() > 150
    assert len(set(map(tuple, colours.tolist()))) == 12


@pytest.mark.parametrize(("side", "written"), [(90, True), (5, False)])
@pytest.mark.parametrize("names", [{1: "ring"}, {1: "ring", 2: "bär"}])
def test_labels_are_written_where_they_fit(side: int, written: bool, names: dict[int, str]) -> None:
    image = np.zeros((120, 160, 3), np.uint8)
    found = np.asarray(draw(image, [row(square((120, 160), 20, 20, side))], names))
    assert bool((found > 170).all(2).any()) == written


def test_a_click_is_drawn() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    mask = square((100, 100), 10, 10, 5)
    plain, clicked = (
        np.asarray(draw(image, [row(mask, **more)], {})) for more in ({}, {"point": [70.5, 60.5]})
    )
    assert (plain != clicked).any(2)[350:420, 420:480].any()
    assert not (plain != clicked).any(2)[:320].any()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((40, 3200), (20, 1600)), ((3200, 40), (1600, 20)), ((1600, 900), (1600, 900)), ((640, 2), (640, 2)),
        ((64, 128), (320, 640)), ((1, 1), (640, 640)), ((1, 5000), (1, 1600)),
    ],
)  # fmt: skip
def test_sizes_of_pictures(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    mask = np.zeros(shape, np.bool_)
    mask[: shape[0] // 2 + 1, : shape[1] // 2 + 1] = True
    found = np.asarray(draw(np.zeros((*shape, 3), np.uint8), [row(mask, point=[0.5, 0.5])], {}))
    assert found.shape == (*expected, 3)
    assert LONGEST_SIDES == (640, 1600)
    assert found[expected[0] // 4, expected[1] // 4].any()


def drawn_in(out: Path) -> set[str]:
    return {path.name for path in (out / "pictures").iterdir() if path.name != LIST}


@pytest.mark.parametrize(
    ("images", "files"),
    [
        (["p/a.jpg", "q/a.jpg", "a-1.jpg"], ["a-1.jpg", "a-2.jpg", "a-1-3.jpg"]),
        (["a-2.jpg", "a.jpg", "b/a.png"], ["a-2.jpg", "a-2-2.jpg", "a-3.jpg"]),
        (["a.jpg", "A.png", "b.png"], ["a-1.jpg", "A-2.jpg", "b.jpg"]),
        (["a\nb.jpg", "é" * 150 + ".png"], ["a\nb.jpg", "é" * 100 + ".jpg"]),
    ],
)
def test_each_image_has_a_picture_of_its_own(tmp_path: Path, images: list[str], files: list[str]) -> None:
    pictures = Pictures(tmp_path, list(map(Path, images)), {})
    for n in range(1, len(images) + 1):
        pictures.add(n, np.zeros((8, 8, 3), np.uint8), [])
    pictures.finish()
    assert list(pictures.files.values()) == files
    assert drawn_in(tmp_path) == set(files)


@pytest.mark.parametrize(("folder", "name"), [("pictures", "a.jpg"), (".", "contact-sheet.jpg")])
def test_an_image_to_predict_on_is_not_replaced(tmp_path: Path, folder: str, name: str) -> None:
    image = tmp_path / folder / name
    image.parent.mkdir(exist_ok=True)
    image.write_bytes(b"mine")
    with pytest.raises(
        TaskError, match="an image to predict on, which a picture of the same name would replace"
    ):
        Pictures(tmp_path, [Path("other.png"), tmp_path / "x" / ".." / folder / name], {})
    assert image.read_bytes() == b"mine" and {path.name for path in image.parent.iterdir()} == {name}


@pytest.mark.parametrize("killed", [False, True])
def test_another_run_replaces_what_the_last_one_drew_and_nothing_else(tmp_path: Path, killed: bool) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "mine.jpg").write_bytes(b"mine")
    first = Pictures(tmp_path, [Path("a.png"), Path("b.png")], {})
    first.add(1, np.zeros((8, 8, 3), np.uint8), [])
    if not killed:
        first.add(2, np.zeros((8, 8, 3), np.uint8), [])
        first.finish()
    second = Pictures(tmp_path, [Path("b.png")], {})
    second.add(1, np.zeros((8, 8, 3), np.uint8), [])
    second.finish()
    assert drawn_in(tmp_path) == {"b.jpg", "mine.jpg"}
    remove(tmp_path)
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"mine.jpg"}
    assert not (tmp_path / "contact-sheet.jpg").exists()


def test_small_masks_of_a_large_image_are_fast(tmp_path: Path) -> None:
    """Only their boxes are decoded and drawn: whole images would take seconds."""
    size = (3000, 4000)
    rows = [row(square(size, 30 * n, 20 * n, 20)) for n in range(100)]
    image = np.zeros((*size, 3), np.uint8)
    started = time.process_time()
    found = np.asarray(draw(image, rows, {}))
    assert time.process_time() - started < 2
    assert all(found[round((20 * n + 10) * 0.4), round((30 * n + 10) * 0.4)].any() for n in range(100))


@pytest.mark.parametrize(("count", "size"), [(1, (1, 1)), (7, (6, 2)), (SHEET_TILES + 3, (SHEET_COLUMNS, 8))])
def test_pictures_and_their_sheet(tmp_path: Path, count: int, size: tuple[int, int]) -> None:
    """Two images have one name, in different folders."""
    paths = [Path(f"a/{n}.png") for n in range(count - 1)] + [Path("b/0.jpg")]
    pictures = Pictures(tmp_path, paths, {1: "ring"})
    for n in range(count, 0, -1):
        pictures.add(
            n, np.full((30, 40 + n, 3), 200, np.uint8), [row(square((30, 40 + n), 5, 5, 9))] * (n % 3)
        )
    pictures.finish()
    same = {"0.jpg"} if count == 1 else {"0-1.jpg", f"0-{count}.jpg"}
    assert drawn_in(tmp_path) == same | {f"{n}.jpg" for n in range(1, count - 1)}
    with Image.open(tmp_path / "contact-sheet.jpg") as found:
        columns, rows = size
        assert found.width // TILE == columns and found.height // (TILE + 20) == rows
    with Image.open(tmp_path / "pictures" / (f"0-{count}.jpg" if count > 1 else "0.jpg")) as last:
        assert last.size == (640, round(30 * 640 / (40 + count)))
