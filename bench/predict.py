"""Detections without points, end to end: network, candidates, matrix NMS, masks at the image's size, rows with RLE.

Two kinds of image: `coco`, 100 detections of 80 classes on 480x640 shown at 800x1066, and `nuclei`, 375 of one class on
520x696, with R-50. The network has random weights, which is fine for its time; what it says is replaced by what a
trained one would (bench/answers.py), since masks of random weights are noise. `ratio` is to the network alone; the
plain loop is that of bench/plain_prompting.py; how far scores are apart, and how many masks' codes differ, is told.
Work is that of torch's operations; encoding is NumPy's.

    python bench/predict.py                            # CPU, some minutes
    python bench/predict.py --scenes nuclei --json
    python bench/predict.py --device cuda --repeats 20
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.answers import answer, scatter
from bench.measure import Peak, Run, facts_of, in_turns, machine, parser, peak_of, show, work_of
from bench.plain_prompting import detect_plainly
from bench.prompting import build, move, network_work, student_config
from data.masks.rle import encode_many
from models.config import InferenceConfig
from models.inference.detect import candidates, predict, suppress
from models.masks.resize import Sizes
from models.solov2.network import RawOutputs


class Kind(NamedTuple):
    """A kind of image."""

    objects: int
    sides: tuple[float, float]
    """of the objects, in pixels of the input"""
    classes: int
    sizes: Sizes
    max_detections: int


KINDS = {
    "coco": Kind(100, (20.0, 400.0), 80, Sizes((800, 1088), (800, 1066), (480, 640)), 100),
    "tiny": Kind(10, (10.0, 40.0), 3, Sizes((96, 128), (90, 120), (90, 120)), 20),
    "nuclei": Kind(375, (14.0, 40.0), 1, Sizes((544, 704), (520, 696), (520, 696)), 500),
}


def inference(kind: Kind) -> InferenceConfig:
    return InferenceConfig(
        score_threshold=0.1, min_area=0.0, nms_pre=500, nms_kernel="gaussian", nms_sigma=2.0, nms_threshold=0.05,
        max_detections=kind.max_detections, mask_threshold=0.5,
    )  # fmt: skip


def measure(name: str, kind: Kind, device: torch.device, repeats: int, peak: Peak) -> list[dict[str, Any]]:
    """Rows of one kind of image."""
    config, rules, sizes = student_config(), inference(kind), kind.sizes
    model = build(config, kind.classes, device)
    image = torch.randint(0, 255, (1, 3, *sizes.input), dtype=torch.uint8, device=device)
    rng = torch.Generator().manual_seed(0)
    objects = scatter(kind.objects, kind.sides, sizes.content, kind.classes, rng)
    outputs: RawOutputs = move(answer(objects, sizes.input, config, kind.classes, seed=1).outputs, device)

    def detect() -> tuple[list[bytes], torch.Tensor]:
        found = predict(outputs, 0, rules, sizes)
        return encode_many(found.masks, found.boxes_xyxy), found.scores

    def network() -> RawOutputs:
        said: RawOutputs = model(image, [sizes.content])
        return said

    def whole() -> object:
        return network(), detect()

    drawn = candidates(outputs, 0, rules, sizes.input)
    found = predict(outputs, 0, rules, sizes)
    parts: dict[str, Run] = {
        "candidates": lambda: candidates(outputs, 0, rules, sizes.input),
        "matrix NMS": lambda: suppress(drawn, rules),
        "candidates, NMS, masks": lambda: predict(outputs, 0, rules, sizes),
        "RLE": lambda: encode_many(found.masks, found.boxes_xyxy),
        "all but the network": detect,
    }
    times = in_turns({"network": network, **parts, "whole": whole}, device, repeats)
    plain: list[tuple[list[bytes], torch.Tensor]] = []

    def plainly() -> None:
        plain.append(detect_plainly(outputs, sizes, rules))

    times |= in_turns({"plain loop": plainly}, device, max(1, repeats // 3), warm_up=0)
    times["plain, whole"] = times["network"] + times["plain loop"]
    counted = {what: work_of(run) for what, run in {**parts, "plain loop": plainly}.items() if what != "RLE"}
    counted["network"] = work = network_work(model, sizes.input)
    counted["whole"] = work.plus(counted["all but the network"])
    counted["plain, whole"] = work.plus(counted["plain loop"])
    rows = []
    for what, spent in times.items():
        row: dict[str, Any] = {"image": name, "what": what, **facts_of(spent, counted.get(what), peak)}
        rows.append({**row, "ratio": spent / times["network"]})
    ours, theirs = detect(), plain[0]
    same = len(ours[0]) == len(theirs[0])
    rows[-1] |= {
        "candidates": len(drawn.scores),
        "detections": len(ours[0]),
        "codes_apart": sum(a != b for a, b in zip(ours[0], theirs[0], strict=True)) if same else None,
        "scores_apart": float((ours[1].cpu() - theirs[1]).abs().max()) if same else None,
    }
    return rows


def main() -> None:
    arguments = options().parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    peak = peak_of(device)
    with torch.inference_mode():
        rows = [
            row
            for name in arguments.scenes
            for row in measure(name, KINDS[name], device, arguments.repeats, peak)
        ]
    show("Detections, R-50", rows, machine(device, peak), as_json=arguments.json)


def options() -> argparse.ArgumentParser:
    made = parser(__doc__, repeats=3)
    made.add_argument("--scenes", nargs="+", choices=KINDS, default=["coco", "nuclei"])
    return made


if __name__ == "__main__":
    main()
