"""bench/suggest.py: what an arm's training gets, and the table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.suggest import moved, split


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Twelve images with a square on each, in train and val."""
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("train", "val"):
        images = [{"id": n, "file_name": f"{n}.png", "width": 20, "height": 20} for n in range(1, 13)]
        rows = [
            {
                "id": n, "image_id": n, "category_id": 1, "bbox": [2, 2, 6, 6], "area": 36, "iscrowd": 0,
                "segmentation": [[2, 2, 8, 2, 8, 8, 2, 8]],
            }
            for n in range(1, 13)
        ]  # fmt: skip
        content = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "square"}]}
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def ids(path: Path) -> tuple[set[int], set[int]]:
    content = json.loads(path.read_text())
    return {row["id"] for row in content["images"]}, {row["image_id"] for row in content["annotations"]}


def test_chosen_images_move_over_with_their_masks(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "cell" / "split"
    split(dataset, out, 0.25, seed=0, every=5)
    assert ids(out / "val.json") == ({1, 6, 11}, {1, 6, 11})
    strong, weak = ids(out / "strong.json")[0], ids(out / "weak.json")[0]
    assert len(strong) == 3 and not strong & weak
    chosen = set(sorted(weak)[:2])
    moved(out, tmp_path / "arm", chosen)
    assert ids(tmp_path / "arm/strong.json") == (strong | chosen, strong | chosen)
    assert ids(tmp_path / "arm/weak.json") == (weak - chosen, set())
    assert ids(tmp_path / "arm/kept_aside.json") == (weak - chosen, weak - chosen)
    assert ids(tmp_path / "arm/val.json") == ids(out / "val.json")
