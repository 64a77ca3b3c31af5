"""Training samples a second: masks decoded into the crop alone, against all of them decoded whole.

Both ways make the same samples, which is checked, from images that are read beforehand: a row is a data set with its
recipe's teacher settings. The two alternate sample by sample, so that a busy machine slows both alike; milliseconds
are medians.

    python bench/dataloader.py --data ../shared/data           # nuclei and facade, a minute
    python bench/dataloader.py --data DIR --sets nuclei --samples 50 --json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.coco_split import split_of_coco
from bench.plain_samples import plain_sample
from data.samples.dataset import InstanceDataset, Sample
from data.samples.transforms import AugmentConfig
from tasks.tools.recipes import load_recipe

RECIPES = Path(__file__).resolve().parents[1] / "recipes"


def same(a: Sample, b: Sample) -> bool:
    return all(
        torch.equal(value, b[name]) if isinstance(value, torch.Tensor) else value == b[name]  # type: ignore[literal-required]
        for name, value in a.items()
    )


def timed(make: Callable[[], Sample]) -> tuple[float, Sample]:
    begin = time.perf_counter()
    sample = make()
    return (time.perf_counter() - begin) * 1e3, sample


def measure(name: str, folder: Path, out: Path, samples: int) -> dict[str, Any]:
    """Milliseconds a sample of `samples` draws over the data set's training images."""
    params = load_recipe(RECIPES / f"{name}.yaml")
    split = split_of_coco(folder / "train.json", folder / "images", out / name)
    dataset = InstanceDataset(
        split,
        short_side=params.input.short_side,
        max_side=params.input.max_side,
        enlarge=params.input.enlarge,
        augment=AugmentConfig(**params.teacher.augment.model_dump()),
        cache_images=True,
    )
    assert dataset._cache is not None
    plain, ours, objects, held = [], [], [], []
    for n in range(samples):
        index = n * len(dataset) // samples
        dataset[index]  # reads the image
        key = (index, n)
        before, expected = timed(lambda key=key: plain_sample(dataset, key, dataset._cache[key[0]]))  # type: ignore[misc]
        after, found = timed(lambda key=key: dataset[key])  # type: ignore[misc]
        if not same(found, expected):
            raise SystemExit(f"{name}: sample {key} differs")
        plain.append(before)
        ours.append(after)
        objects.append(split.instances_of(index).num_rows)
        held.append(len(found["masks"]))
    return {
        "data": name,
        "samples": samples,
        "objects": statistics.mean(objects),
        "in_crop": statistics.mean(held),
        "plain_ms": statistics.median(plain),
        "ours_ms": statistics.median(ours),
        "ratio": statistics.median(plain) / statistics.median(ours),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of NAME/train.json and NAME/images")
    parser.add_argument("--sets", nargs="+", default=["nuclei", "facade"], help="names with a recipe")
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as out:
        rows = [measure(name, args.data / name, Path(out), args.samples) for name in args.sets]
    if args.json:
        print(json.dumps(rows))
        return
    table = Table("data", "objects an image", "in the crop", "all decoded, ms", "ours, ms", "ratio")
    for row in rows:
        numbers = (row[key] for key in ("objects", "in_crop", "plain_ms", "ours_ms", "ratio"))
        table.add_row(row["data"], *(f"{number:.1f}" for number in numbers))
    Console().print(table)


if __name__ == "__main__":
    main()
