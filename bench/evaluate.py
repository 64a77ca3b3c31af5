"""COCO's evaluation of masks on a set of COCO val's size: seconds and memory of each way, and whether they agree.

The set is drawn from a seed: 5,000 images of 640 x 480, 80 classes, 7 objects an image and 20 detections, some of them
good. Each way is a process of its own that reads truth and predictions from the tables, as the stage does: pycocotools
with the whole set at once (the plain one), pycocotools part by part as the stage has it, faster-coco-eval. Seconds of
CPU are what to compare by on a busy machine.

    python bench/evaluate.py
    python bench/evaluate.py --images 500 --detections 100 --json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.ingest import in_process
from data.masks import rle as masks
from data.masks.polygons import from_polygons
from data.tables import IMAGES, INSTANCES, PREDICTIONS, Category, Split, write_parquet, write_split
from tasks.common.config import EvaluateConfig
from tasks.inference.predict import Predictions
from tasks.inference.predict_files import as_results
from tasks.scoring.coco_eval import MaskScores, evaluate_masks
from tasks.scoring.predictions import score, true_masks
from tasks.tools.recipes import load_recipe

HEIGHT, WIDTH = 480, 640
CLASSES = 80
OBJECTS = 7
PART_IMAGES = 512
ROOT = Path(__file__).resolve().parents[1]


def outline(centre_xy: np.ndarray, sides: np.ndarray) -> bytes:
    """RLE of an ellipse, as a polygon of 24 vertices."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    x = np.clip(centre_xy[0] + sides[0] / 2 * np.cos(angles), 0, WIDTH)
    y = np.clip(centre_xy[1] + sides[1] / 2 * np.sin(angles), 0, HEIGHT)
    return from_polygons([np.stack([x, y], 1).ravel().tolist()], HEIGHT, WIDTH)


def draw(folder: Path, images: int, detections: int, seed: int) -> None:
    """Writes the split `folder`/val and its predictions `folder`/parts."""
    rng = np.random.default_rng(seed)
    rows = [
        dict.fromkeys(IMAGES.names)
        | {"image_id": n + 1, "file_name": f"{n}.jpg", "uri": f"{n}.jpg", "width": WIDTH, "height": HEIGHT}
        | {"status": "ok", "split": "val", "label": "mask"}
        for n in range(images)
    ]
    objects: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for image_id in range(1, images + 1):
        count = int(rng.poisson(OBJECTS))
        centres = rng.uniform((20, 20), (WIDTH - 20, HEIGHT - 20), (count, 2))
        sides = np.exp(rng.uniform(np.log(8), np.log(300), (count, 2)))
        classes = rng.integers(1, CLASSES + 1, count)
        for centre, side, label in zip(centres, sides, classes, strict=True):
            rle = outline(centre, side)
            objects.append(
                {
                    "instance_id": len(objects) + 1, "image_id": image_id, "category_id": int(label),
                    "bbox_xywh": masks.bbox_xywh(rle, HEIGHT, WIDTH), "area": masks.area(rle, HEIGHT, WIDTH),
                    "iscrowd": bool(rng.random() < 0.01), "rle_counts": rle, "source": "annotator", "score": None,
                }
            )  # fmt: skip
        for n in rng.integers(max(count, 1), size=detections).tolist():
            near = count > 0 and rng.random() < 0.6
            centre = centres[n] + rng.normal(0, 0.08, 2) * sides[n] if near else rng.uniform(20, 400, 2)
            side = sides[n] * np.exp(rng.normal(0, 0.15, 2)) if near else rng.uniform(8, 200, 2)
            rle = outline(centre, side)
            label = classes[n] if near and rng.random() < 0.8 else rng.integers(1, CLASSES + 1)
            found.append(
                {
                    "image_id": image_id, "category_id": int(label), "height": HEIGHT, "width": WIDTH,
                    "score": round(float(rng.beta(3, 2) if near else rng.beta(1, 4)), 6), "rle_counts": rle,
                    "bbox_xywh": masks.bbox_xywh(rle, HEIGHT, WIDTH), "area": masks.area(rle, HEIGHT, WIDTH),
                }
            )  # fmt: skip
    categories = [Category(n, f"class {n}") for n in range(1, CLASSES + 1)]
    tables = (pa.Table.from_pylist(rows, IMAGES), pa.Table.from_pylist(objects, INSTANCES))
    write_split(folder / "val", *tables, categories, "images")
    (folder / "parts").mkdir()
    predictions = Predictions.plan(folder / "parts", Split.open(folder / "val"), PART_IMAGES)
    for n, part in enumerate(predictions.rows):
        mine = found[part[0] * detections : (part[-1] + 1) * detections]
        write_parquet(pa.Table.from_pylist(mine, PREDICTIONS), predictions.path(n))


def opened(folder: Path) -> tuple[Split, Predictions, EvaluateConfig]:
    val = Split.open(folder / "val")
    config = load_recipe(ROOT / "recipes" / "coco_5p.yaml").evaluate
    return val, Predictions.plan(folder / "parts", val, PART_IMAGES), config


def tell(scores: MaskScores | None, out: Path) -> int:
    assert scores is not None
    out.write_text(json.dumps([scores.summary, [row.AP for row in scores.per_class]]))
    return len(scores.per_class)


def whole(folder: Path, out: Path) -> int:
    val, predictions, config = opened(folder)
    results = [row for n in range(len(predictions.rows)) for row in as_results(predictions.table(n))]
    limits = {"max_detections": config.max_detections, "size_bounds": config.size_bounds}
    return tell(evaluate_masks(true_masks(val), results, **limits), out)  # type: ignore[arg-type]


def in_parts(folder: Path, out: Path) -> int:
    return tell(score(*_switched(opened(folder), "pycocotools")), out)


def faster(folder: Path, out: Path) -> int:
    return tell(score(*_switched(opened(folder), "faster_coco_eval")), out)


def _switched(
    given: tuple[Split, Predictions, EvaluateConfig], evaluator: str
) -> tuple[Predictions, Split, EvaluateConfig]:
    val, predictions, config = given
    return predictions, val, config.model_copy(update={"evaluator": evaluator})


WAYS = {
    "pycocotools, the whole set": whole,
    f"pycocotools, parts of {PART_IMAGES} images": in_parts,
    "faster-coco-eval": faster,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=20, help="an image")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        draw(folder, args.images, args.detections, args.seed)
        rows = {name: in_process(way, folder, folder / f"{way.__name__}.json") for name, way in WAYS.items()}
        said = [json.loads((folder / f"{way.__name__}.json").read_text()) for way in WAYS.values()]
    plain = next(iter(rows.values()))
    for row, told in zip(rows.values(), said, strict=True):
        row |= {
            "ratio": row["cpu_seconds"] / plain["cpu_seconds"],
            "AP": told[0]["AP"],
            "same": told == said[0],
        }
    if args.json:
        print(json.dumps({"images": args.images, "detections": args.detections, "ways": rows}))
        return
    table = Table("", "seconds of CPU", "ratio", "peak beyond imports, MB", "AP", "figures")
    for name, row in rows.items():
        table.add_row(
            name, f"{row['cpu_seconds']:.1f}", f"{row['ratio']:.2f}", f"{row['beyond_imports_mb']:.0f}",
            f"{row['AP']}", "the same" if row["same"] else "others",
        )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main()
