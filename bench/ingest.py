"""Ingest at COCO's size: seconds and memory to read annotations, to open them, to look one up, and of loader workers.

The file is drawn from a seed (bench/coco_scale.py). Each row is a process of its own: `pycocotools.coco.COCO(file)`,
and ours: read, check, draw the masks, write the tables. Images are not looked at. Seconds of CPU are what to compare by
on a busy machine. Workers make training samples of blank images, at random, epoch after epoch; their memory is what is
no file's, beyond a worker that has imported the same and holds no data.

    python bench/ingest.py                                          # 118,000 images, 860,000 annotations: some minutes
    python bench/ingest.py --images 2000 --annotations 15000 --samples 500 --workers 2 --json
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.coco_scale import ANNOTATIONS, IMAGES, write_coco_scale
from bench.coco_split import split_of_coco
from data.samples.dataset import InstanceDataset
from data.samples.transforms import AugmentConfig
from data.tables import Split

AUGMENT = AugmentConfig(
    flip=0.5, vertical_flip=0.0, rotate90=0.0, scale_min=0.8, scale_max=1.0, crop=True, crop_side=256, brightness=0.0,
    contrast=0.0, saturation=0.0, hue=0.0, grayscale=0.0, blur=0.0, blur_sigma=0.0, erase=0.0, erase_side=0.0,
    invert=0.0, tint=0.0,
)  # fmt: skip


def load_with_pycocotools(path: Path, _: Path) -> int:
    from pycocotools.coco import COCO

    return len(COCO(str(path)).anns)


def load_with_ours(path: Path, out: Path) -> int:
    return int(split_of_coco(path, path.parent, out).instances.num_rows)


def _in_process(work: Callable[[Path, Path], int], path: Path, out: Path, answer: Any) -> None:
    begin, cpu = time.perf_counter(), time.process_time()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows = work(path, out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer.put(
        {
            "rows": rows,
            "seconds": time.perf_counter() - begin,
            "cpu_seconds": time.process_time() - cpu,
            "peak_mb": peak / 1024,
            "beyond_imports_mb": (peak - before) / 1024,
        }
    )


def in_process(work: Callable[[Path, Path], int], path: Path, out: Path) -> dict[str, Any]:
    """Time and peak memory of a piece of work in a fresh process, its imports left out of the time."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=_in_process, args=(work, path, out, answer))
    process.start()
    found: dict[str, Any] = answer.get()
    process.join()
    return found


def access(root: Path, looks: int) -> dict[str, float]:
    """Seconds to open a split; microseconds to get an image's record and its instances, columns read, at random."""
    begin = time.perf_counter()
    split = Split.open(root)
    opened = time.perf_counter() - begin
    lookup = []
    for i in np.random.default_rng(0).integers(len(split), size=looks).tolist():
        begin = time.perf_counter()
        split.image(i)
        instances = split.instances_of(i)
        instances["category_id"].to_numpy(), instances["rle_counts"].to_pylist()
        lookup.append((time.perf_counter() - begin) * 1e6)
    return {
        "open_seconds": opened,
        "access_us": statistics.median(lookup),
        "access_us_99": float(np.percentile(lookup, 99)),
    }


def own_memory() -> float:
    """MB of this process that are no file's: mapped tables and libraries lie in the page cache, once for all."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) / 1024


class Nothing(Dataset[tuple[int, float]]):
    """A worker's memory without any data."""

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, float]:
        return multiprocessing.current_process()._identity[0], own_memory()


class BlankImages(InstanceDataset):
    """Training samples without the images' files; of a sample only who made it and that process's memory is told."""

    def _image(self, index: int, split: Split, i: int) -> np.ndarray:
        row = split.image(i)
        return np.zeros((row["height"], row["width"], 3), np.uint8)

    def __getitem__(self, key: int | tuple[int, int]) -> Any:
        super().__getitem__(key)
        return multiprocessing.current_process()._identity[0], own_memory()


def epoch(dataset: Dataset[Any], workers: int, samples: int, seed: int) -> dict[int, float]:
    """The last told memory of each worker after `samples` random samples."""
    length = len(dataset) if isinstance(dataset, InstanceDataset) else samples
    order = np.random.default_rng(seed).integers(length, size=samples)
    keys = [
        [(int(at), n) for n, at in enumerate(part)] for part in np.array_split(order, max(1, samples // 50))
    ]
    loader = DataLoader(
        dataset,
        batch_sampler=keys,
        collate_fn=list,
        num_workers=workers,
        multiprocessing_context="forkserver",
    )
    return dict(sorted(pair for batch in loader for pair in batch[-1:]))


def worker_memory(root: Path, workers: int, samples: int, epochs: int) -> dict[str, Any]:
    bare = epoch(Nothing(), workers, 50 * workers, 0)
    dataset = BlankImages(
        Split.open(root), short_side=480, max_side=800, enlarge=False, augment=AUGMENT, cache_images=False
    )
    base = statistics.median(bare.values())
    rows = [epoch(dataset, workers, samples * (n + 1), n) for n in range(epochs)]
    return {
        "workers": workers,
        "bare_worker_mb": base,
        "samples": [samples * (n + 1) for n in range(epochs)],
        "beyond_mb": [max(row.values()) - base for row in rows],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--annotations", type=int, default=ANNOTATIONS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep the generated file here, and use one that is here")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument(
        "--samples", type=int, default=IMAGES // 2, help="of the first epoch; twice that of the next"
    )
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or Path(scratch)
        path = folder / f"coco-{args.images}-{args.annotations}-{args.seed}.json"
        if not path.is_file():
            write_coco_scale(path, images=args.images, annotations=args.annotations, seed=args.seed)
        out = Path(scratch) / "split"
        result: dict[str, Any] = {"file_mb": path.stat().st_size / 1e6}
        result["ours"] = in_process(load_with_ours, path, out)
        result["pycocotools"] = in_process(load_with_pycocotools, path, out)
        result |= access(out, 5000)
        result |= worker_memory(out, args.workers, args.samples, 2)
    if args.json:
        print(json.dumps(result))
        return
    table = Table("", "seconds", "of CPU", "peak, MB", "beyond imports, MB")
    names = ("seconds", "cpu_seconds", "peak_mb", "beyond_imports_mb")
    for name in ("pycocotools", "ours"):
        table.add_row(name, *(f"{result[name][key]:.1f}" for key in names))
    pairs = [(result["ours"][key], result["pycocotools"][key]) for key in names]
    table.add_row("ratio", *(f"{ours / theirs:.2f}" if theirs else "-" for ours, theirs in pairs))
    console = Console()
    console.print(table)
    console.print(
        f"open: {result['open_seconds'] * 1e3:.0f} ms; an image's instances: {result['access_us']:.0f} us"
    )
    grown = ", ".join(
        f"{mb:.0f} MB after {n}" for mb, n in zip(result["beyond_mb"], result["samples"], strict=True)
    )
    console.print(
        f"{result['workers']} workers of {result['bare_worker_mb']:.0f} MB without data; the largest has {grown} more"
    )


if __name__ == "__main__":
    main()
