"""A student by torch, ONNX Runtime and OpenVINO on the same images of a split and the same CPU threads, in turns.

For each runtime: CPU seconds an image beside torch's in the same turn (least, median and greatest ratio), how its
instances differ from torch's, COCO mask AP by the project's evaluation; the same for four images at once, for images
of another size, and an image without objects.

    python bench/runtimes.py workspace/student workspace/dataset/val --images 50 --json
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openvino
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.measure import machine, parser, show
from data.images.read import read_ingested
from data.masks.rle import encode_many
from data.tables import Split
from models.checkpoint import load_teacher
from models.inference.tiles import Outputs, Tiled, forward_tiled
from models.solov2.network import SOLOv2
from tasks.inference.batches import ImageBatch, prepare, stack
from tasks.scoring.coco_eval import evaluate_masks
from tasks.scoring.predictions import true_masks
from tasks.tools.export_onnx import OnnxRequest, export_onnx
from tasks.tools.model_source import Source, find_model
from tasks.tools.recipes import values_of, whole
from tasks.tools.verify_network import Arrays, chosen_rows, raw_input
from tasks.tools.verify_onnx import instances_by_torch, open_session

TOGETHER = 4
Run = Callable[[np.ndarray], Arrays]


class Alike(NamedTuple):
    """How another runtime's instances of an image differ from torch's."""

    ious: list[float]
    """of each of torch's masks with its like"""
    pixels: list[int]
    """that differ"""
    scores: list[float]
    unlike: int
    """instances of either without one of the same class and a mask of IoU above 0.5"""


def compare(expected: Arrays, found: Arrays) -> Alike:
    """Of one image each; see `instances_by_torch`."""
    own, other = (
        {name: one[name][0][one["valid"][0]] for name in one if name != "left_out"}
        for one in (expected, found)
    )
    free = np.ones(len(other["scores"]), bool)
    ious, pixels, scores = [], [], []
    for mask, score, label in zip(own["masks"], own["scores"], own["labels"], strict=True):
        near = np.flatnonzero(free & (other["labels"] == label) & (abs(other["scores"] - score) < 0.01))
        both = np.array([np.count_nonzero(mask & other["masks"][k]) for k in near])
        either = np.array([np.count_nonzero(mask | other["masks"][k]) for k in near])
        shares = both / np.maximum(either, 1)
        if not len(near) or shares.max() <= 0.5:
            continue
        best = int(shares.argmax())
        free[near[best]] = False
        ious.append(float(shares[best]))
        pixels.append(int(either[best] - both[best]))
        scores.append(float(abs(other["scores"][near[best]] - score)))
    return Alike(ious, pixels, scores, len(own["scores"]) - len(ious) + int(free.sum()))


def figures(alike: Sequence[Alike]) -> dict[str, Any]:
    """Over images."""
    ious, pixels, scores = (
        np.array([value for one in alike for value in getattr(one, name)])
        for name in ("ious", "pixels", "scores")
    )
    below = ious <= 0.999
    return {
        "instances": len(ious),
        "unlike": sum(one.unlike for one in alike),
        "least_iou": round(float(ious.min(initial=1.0)), 5),
        "above_0.999": round(100 * float(1 - below.mean()), 3) if len(ious) else None,
        "pixels": int(pixels.max(initial=0)),
        "masks_with_pixels": int((pixels > 0).sum()),
        "score": float(f"{scores.max(initial=0.0):.2g}"),
    }


def results_of(found: Arrays, image_id: int, categories: Sequence[int]) -> list[dict[str, Any]]:
    """COCO results of the first image."""
    valid = found["valid"][0]
    masks = torch.from_numpy(np.ascontiguousarray(found["masks"][0][valid]))
    boxes = torch.from_numpy(found["boxes_xyxy"][0][valid])
    height, width = masks.shape[1:]
    return [
        {
            "image_id": image_id,
            "category_id": categories[label],
            "segmentation": {"size": [height, width], "counts": counts},
            "score": float(score),
        }
        for counts, label, score in zip(
            encode_many(masks, boxes), found["labels"][0][valid], found["scores"][0][valid], strict=True
        )
    ]


def in_turns(
    runs: dict[str, Run], given: np.ndarray, turn: int, seconds: dict[str, list[float]]
) -> dict[str, Arrays]:
    """What each returns; adds the CPU seconds an image of this process. Another one comes first in each turn."""
    found, names = {}, list(runs)
    for name in names[turn % len(names) :] + names[: turn % len(names)]:
        begin = time.process_time()
        found[name] = runs[name](given)
        seconds[name].append((time.process_time() - begin) / len(given))
    return found


def row_of(name: str, what: str, seconds: dict[str, list[float]], alike: Sequence[Alike]) -> dict[str, Any]:
    ratios = [other / own for own, other in zip(seconds["torch"], seconds[name], strict=True)]
    return {
        "images": what,
        "runtime": name,
        "seconds": round(statistics.median(seconds[name]), 4),
        "ratio_least": round(min(ratios), 3),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_greatest": round(max(ratios), 3),
        **figures(alike),
    }


def compiled_openvino(file: Path, threads: int) -> openvino.CompiledModel:
    """The file, read by OpenVINO, in float32 on so many threads."""
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
    }
    return openvino.Core().compile_model(openvino.convert_model(str(file)), "CPU", settings)


def openvino_run(file: Path, threads: int) -> Run:
    """Instances by OpenVINO."""
    compiled = compiled_openvino(file, threads)
    names = [one.get_any_name() for one in compiled.outputs]

    def run(images: np.ndarray) -> Arrays:
        found = compiled({"images": images})
        arrays = {name: found[name] for name in names}
        return arrays | {name: arrays[name].astype(bool) for name in ("masks", "valid")}

    return run


def _arguments() -> argparse.Namespace:
    made = parser(__doc__, 1)
    made.add_argument("model", type=Path)
    made.add_argument("split", type=Path, help="the folder of a split, such as workspace/dataset/val")
    made.add_argument("--images", type=int, default=50)
    made.add_argument("--min-score", type=float, help="built into the file, and torch's rules")
    return made.parse_args()


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    source = find_model(arguments.model, ".")
    inference = source.inference(None)
    if arguments.min_score is not None:
        inference = inference.model_copy(
            update={"nms_threshold": max(arguments.min_score, inference.nms_threshold)}
        )
    network = load_teacher(source.folder, torch.device("cpu"))
    split = Split.open(arguments.split)
    rows = chosen_rows(split, arguments.images)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        export_onnx(OnnxRequest(source, raw=False, opset=18, min_score=arguments.min_score, val=None), file)
        session, names = open_session(file, arguments.threads)
        runs: dict[str, Run] = {
            "torch": lambda images: instances_by_torch(network, images, source.size, inference),
            "onnxruntime": lambda images: dict(
                zip(names, session.run(None, {"images": images}), strict=True)
            ),
            "openvino": openvino_run(file, arguments.threads),
        }
        alone = _network_alone(source, network, split, rows[:10], Path(folder), arguments.threads)
    others = [name for name in runs if name != "torch"]
    categories = [category["id"] for category in network.categories]
    table: list[dict[str, Any]] = [row_of(name, "10, the network alone", alone, []) for name in runs]

    seconds: dict[str, list[float]] = {name: [] for name in runs}
    alike: dict[str, list[Alike]] = {name: [] for name in others}
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in runs}
    shapes: dict[tuple[int, ...], list[np.ndarray]] = {}
    for turn, row in enumerate(rows):
        image, pixels = split.image(row), read_ingested(split, row)
        if pixels.shape not in shapes:
            in_turns(
                runs, pixels[None], 0, {name: [] for name in runs}
            )  # memory of a new size is planned once
        shapes.setdefault(pixels.shape, []).append(pixels)
        found = in_turns(runs, pixels[None], turn, seconds)
        for name in runs:
            results[name] += results_of(found[name], image["image_id"], categories)
        for name in others:
            alike[name].append(compare(found["torch"], found[name]))
        print(f"{turn + 1} of {len(rows)}", file=sys.stderr, flush=True)
    scores = _scores(arguments.model, split, rows, results)
    what = f"{len(rows)} one by one, {len(shapes)} sizes"
    table += [row_of(name, what, seconds, alike.get(name, [])) | {"AP": scores[name]} for name in runs]

    largest = max(shapes.values(), key=len)
    batches = [
        np.stack(largest[at : at + TOGETHER]) for at in range(0, min(len(largest), 5 * TOGETHER), TOGETHER)
    ]
    batches = [batch for batch in batches if len(batch) == TOGETHER]
    cut = [pixels[: 2 * pixels.shape[0] // 3, : 4 * pixels.shape[1] // 5][None] for pixels in largest[:5]]
    grey = [np.full_like(largest[0], 128)[None]] * 3
    for what, given in (
        (f"{len(batches)} x {TOGETHER} at once", batches),
        (f"{len(cut)} cropped to {cut[0].shape[1]} x {cut[0].shape[2]}", cut),
        ("a grey one", grey),
    ):
        seconds = {name: [] for name in runs}
        alike = {name: [] for name in others}
        if given:
            in_turns(runs, given[0], 0, {name: [] for name in runs})
        for turn, images in enumerate(given):
            found = in_turns(runs, images, turn, seconds)
            for name in others:
                alike[name] += [
                    compare(_of(found["torch"], n), _of(found[name], n)) for n in range(len(images))
                ]
        table += [row_of(name, what, seconds, alike.get(name, [])) for name in runs if given]
    show(
        f"{arguments.model}: CPU seconds an image, ratios to torch",
        table,
        machine(torch.device("cpu")),
        as_json=arguments.json,
    )


def _scores(
    model: Path, split: Split, rows: Sequence[int], results: dict[str, list[dict[str, Any]]]
) -> dict[str, float | None]:
    """COCO mask AP of each runtime by the rules of the model's project."""
    params = model / "../../params.yaml"
    settings = values_of(whole(params), params)["evaluate"]
    truth = true_masks(split, rows)
    rules: dict[str, Any] = {
        "max_detections": settings["max_detections"],
        "size_bounds": tuple(settings["size_bounds"]),
    }
    return {name: evaluate_masks(truth, found, **rules).summary["AP"] for name, found in results.items()}


def _network_alone(
    source: Source, network: SOLOv2, split: Split, rows: Sequence[int], folder: Path, threads: int
) -> dict[str, list[float]]:
    """CPU seconds an image of the file without what is before and after the network."""
    file = folder / "raw.onnx"
    export_onnx(OnnxRequest(source, raw=True, opset=18, min_score=None, val=None), file)
    session, _ = open_session(file, threads)
    compiled = compiled_openvino(file, threads)
    seconds: dict[str, list[float]] = {name: [] for name in ("torch", "onnxruntime", "openvino")}
    for row in rows:
        batch = stack([row], [prepare(read_ingested(split, row), source.size)])

        def by_torch(batch: ImageBatch = batch) -> Outputs:
            with torch.inference_mode():
                return forward_tiled(network, batch.images, batch.content_sizes, source.size.tile)

        outputs = by_torch()
        given = raw_input(network, batch, outputs if isinstance(outputs, Tiled) else None)
        given = {one.name: given[one.name] for one in session.get_inputs()}
        for _ in range(2):  # the first is of a new size, perhaps
            for name, run in (
                ("torch", by_torch),
                ("onnxruntime", partial(session.run, None, given)),
                ("openvino", partial(compiled, given)),
            ):
                begin = time.process_time()
                run()
                seconds[name].append(time.process_time() - begin)
    return {name: values[1::2] for name, values in seconds.items()}


def _of(found: Arrays, n: int) -> Arrays:
    return {name: values[n : n + 1] for name, values in found.items()}


if __name__ == "__main__":
    main()
