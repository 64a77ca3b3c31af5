"""Pseudo-labelling at scale: memory and time by the number of images, and what some new points cost afterwards.

Small drawn images, as many points on each as on a crowded one, untrained networks as narrow as they may be: what is
measured is all that lies around the networks. Each row is `python -m tasks.pseudo_label` in a process of its own. After
the last number of images, some images get new points, and the step runs once more.

    python bench/pseudo_scale.py                                # 1,000 and 10,000 images of 100 points
    python bench/pseudo_scale.py --images 50 100 --points 20 --json
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import torch
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.measure import machine, show
from data.schemas import CLICKS
from data.tables import IMAGES, INSTANCES, POINTS, Category, read_parquet, write_parquet, write_split
from models.checkpoint import save_checkpoint
from models.refiner.network import MaskRefineNet
from models.solov2.network import SOLOv2
from tasks.common.config import load_params
from tasks.labelling.gate import unmeasured, write_gate

ROOT = Path(__file__).resolve().parents[1]
SIDE = 64
CLASSES = [Category(k + 1, f"class {k + 1}") for k in range(4)]
STRUCTURE = 8  # pixels of an image before it is enlarged
THRESHOLD = 0.54  # untrained networks say a half everywhere; a sixth of the points have masks above this
ORDER = [("image_id", "ascending"), ("point_id", "ascending")]


def write_params(folder: Path, part_images: int, processes: int) -> None:
    recipe: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    recipe["input"] = {"short_side": SIDE, "max_side": SIDE, "enlarge": True, "tile": None}
    model, net = recipe["model"], recipe["refiner"]["net"]
    for backbone in (model["backbone"], net["backbone"]):
        backbone |= {"name": "resnet18", "width": 0.125, "weights": None, "norm_groups": 4}
    model |= {
        "fpn_channels": 8,
        "head_channels": 8,
        "head_convs": 1,
        "kernel_channels": 8,
        "mask_channels": 8,
    }
    model |= {"norm_groups": 4, "mask_stride": 4, "level_sources": [[3, 3]]}
    for name in ("teacher", "student"):
        recipe[name] |= {"grids": [8], "ranges": [[1, 100]]}
    net |= {"crop_size": 32, "aspp_channels": 8, "aspp_rates": [1], "decoder_channels": [8, 8, 8, 8]}
    recipe["prompt"] |= {"mask_threshold": THRESHOLD, "small_area": 0.0}
    recipe["pseudo"] |= {"batch_size": 16, "crop_batch_size": 64, "part_images": part_images}
    recipe["runtime"] |= {"device": "cpu", "workers": 0, "processes": processes}
    (folder / "params.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")


def write_networks(folder: Path) -> None:
    params = load_params(folder / "params.yaml")
    torch.manual_seed(0)
    teacher = params.detector(params.teacher)
    categories = [category._asdict() for category in CLASSES]
    for name, kind, config, network in (
        ("teacher", "solov2", teacher, SOLOv2(teacher, len(CLASSES))),
        ("refiner", "refinenet", params.refiner.net, MaskRefineNet(params.refiner.net)),
    ):
        meta = {"format": 1, "kind": kind, "config": config.model_dump(mode="json"), "categories": categories}
        save_checkpoint(folder / "workspace" / name, network.state_dict(), meta)
    write_gate(folder / "workspace" / "refiner", unmeasured(1, enlarge=1.5, rounds=1))


def write_images(folder: Path, images: int) -> None:
    rng = np.random.default_rng(0)
    root = folder / "images"
    root.mkdir()
    rows = []
    for n in range(images):
        small = rng.integers(0, 256, (STRUCTURE, STRUCTURE, 3), dtype=np.uint8)
        code = cv2.imencode(".png", cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST))[
            1
        ].tobytes()
        (root / f"{n:06d}.png").write_bytes(code)
        name = f"{n:06d}.png"
        rows.append((n, name, name, SIDE, SIDE, hashlib.sha256(code).hexdigest(), "weak", "point", "ok"))
    columns = dict(zip(IMAGES.names, map(list, zip(*rows, strict=True)), strict=True))
    table = pa.table(columns, schema=IMAGES)
    write_split(folder / "workspace" / "dataset" / "weak", table, INSTANCES.empty_table(), CLASSES, str(root))


def points_on(image_ids: np.ndarray, first: int, seed: int) -> pa.Table:
    """A POINTS row for each image id, at random; ids count from `first`."""
    rng = np.random.default_rng(seed)
    count = len(image_ids)
    ids = [hashlib.sha256(str(n).encode()).hexdigest()[:16] for n in range(first, first + count)]
    columns = {
        "point_id": ids,
        "image_id": image_ids,
        "category_id": rng.integers(1, len(CLASSES) + 1, count),
        "x": (rng.random(count) * SIDE).astype(np.float32),
        "y": (rng.random(count) * SIDE).astype(np.float32),
        "annotator": pa.nulls(count, pa.string()),
        "labelled_at": pa.nulls(count, pa.string()),
        "source_file": ["points.csv"] * count,
        "source_record": [str(n) for n in range(first, first + count)],
        "further": pa.nulls(count, CLICKS),
    }
    return pa.table(columns, schema=POINTS).sort_by(ORDER)


def label(folder: Path, what: str, images: int, points: int) -> dict[str, Any]:
    """Runs the step; its time and the greatest peak memory of its processes."""
    shutil.rmtree(folder / "workspace" / "pseudo", ignore_errors=True)  # as DVC does
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "tasks.pseudo_label"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stderr=(folder / "log").open("w"),
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise RuntimeError((folder / "log").read_text())
    told = json.loads((folder / "workspace/runs/pseudo_label/images.json").read_text(encoding="utf-8"))
    return {
        "run": what, "images": images, "points": points, "computed": told["computed"], "carried": told["carried"],
        "peak_mb": usage.ru_maxrss / 1024, "seconds": time.perf_counter() - begin,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--points", type=int, default=100, help="on each image")
    parser.add_argument("--part-images", type=int, default=200)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--changed", type=int, default=10, help="images that get as many new points each")
    parser.add_argument("--json", action="store_true", help="print JSON on stdout beside the table on stderr")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for images in args.images:
            folder = Path(scratch) / str(images)
            folder.mkdir()
            write_params(folder, args.part_images, args.processes)
            write_networks(folder)
            write_images(folder, images)
            count = images * args.points
            path = folder / "workspace" / "points" / "points.parquet"
            write_parquet(points_on(np.repeat(np.arange(images), args.points), 0, 0), path)
            rows.append(label(folder, "all", images, count))
            print(rows[-1], file=sys.stderr)
        chosen = np.linspace(0, images - 1, args.changed).astype(np.int64)
        more = points_on(np.repeat(chosen, args.changed), count, 1)
        write_parquet(pa.concat_tables([read_parquet(path, POINTS), more]).sort_by(ORDER), path)
        rows.append(label(folder, "new points", images, count + len(more)))
    for row in rows:
        row["peak_ratio"] = row["peak_mb"] / rows[0]["peak_mb"]
    show("Pseudo-labelling", rows, machine(torch.device("cpu")), as_json=args.json)


if __name__ == "__main__":
    main()
