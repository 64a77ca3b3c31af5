"""The whole image with points: network, one mask per point, masks at the image's size, RLE; against the network alone.

R-50, 80 classes, 800x1333. The network has random weights, which is fine for its time; what it says is replaced by
what a trained one would (bench/answers.py), since masks of random weights are noise. The rows are the network, our
parts by the default rule, all of them also by the paper's rule, the whole image in one go, and the plain loop of
bench/plain_prompting.py, which gives the paper's masks: in how many pixels of all masks ours differ is told. `ratio` is
to the network alone. Work is that of torch's operations; encoding is NumPy's.

    python bench/prompting.py                                    # CPU, some minutes
    python bench/prompting.py --points 50 --original 480 640 --json
    python bench/prompting.py --device cuda --repeats 20
"""

from __future__ import annotations

import argparse
import copy
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.answers import Answers, answer, scatter
from bench.measure import Peak, Run, Work, facts_of, in_turns, machine, parser, peak_of, show, work_of
from bench.perfect import teacher_config
from bench.plain_prompting import prompt_plainly
from data.masks.rle import decode, encode_many
from models.config import PromptConfig, SOLOv2Config
from models.inference.click_masks import prompt_points
from models.inference.coarse_masks import rough_masks
from models.masks.resize import Sizes
from models.solov2.network import RawOutputs, SOLOv2

CLASSES = 80
SIDES = {50: (16.0, 300.0), 500: (10.0, 80.0)}
"""Sides of objects, in pixels of the input, by their number; between these by the nearest."""
PAPER = PromptConfig.paper(0.5)
DEFAULT = PromptConfig(
    mask_threshold=0.5, kernel="blend", neighbourhood=1, class_power=0.5, click_power=1.0, small_area=64.0,
    faint=0.1, exclusive="same_class", mirror="none",
)  # fmt: skip


def student_config() -> SOLOv2Config:
    """R-50 with the paper's grids and ranges of a student."""
    return teacher_config(4, 256).model_copy(
        update={
            "grids": (40, 36, 24, 16, 12),
            "ranges": ((1, 96), (48, 192), (96, 384), (192, 768), (384, 2048)),
        }
    )


def build(config: SOLOv2Config, classes: int, device: torch.device) -> SOLOv2:
    torch.manual_seed(0)
    return SOLOv2(config, classes).eval().requires_grad_(False).to(device)


def move(outputs: RawOutputs, device: torch.device) -> RawOutputs:
    return RawOutputs(
        [logits.to(device) for logits in outputs.category_logits],
        [kernels.to(device) for kernels in outputs.kernels],
        outputs.mask_features.to(device),
        outputs.strides,
    )


def padded(content: tuple[int, int]) -> tuple[int, int]:
    height, width = (-(-side // 32) * 32 for side in content)
    return height, width


def answers_for(count: int, content: tuple[int, int], device: torch.device) -> Answers:
    """The objects' sides are those at 800 pixels, smaller on a smaller input."""
    low, high = SIDES[min(SIDES, key=lambda known: abs(known - count))]
    scale = min(1.0, content[0] / 800)
    objects = scatter(
        count, (low * scale, high * scale), content, CLASSES, torch.Generator().manual_seed(count)
    )
    made = answer(objects, padded(content), student_config(), CLASSES, seed=1)
    return Answers(move(made.outputs, device), made.points_xy.to(device), made.labels.to(device))


def network_work(model: SOLOv2, size: tuple[int, int]) -> Work:
    """Of a forward pass for a padded input of a size, without computing it."""
    model = copy.deepcopy(model).to("meta")
    image = torch.zeros(1, 3, *size, dtype=torch.uint8, device="meta")
    return work_of(lambda: model(image, [size]))


def measure(
    network: Run,
    work: Work,
    said: Answers,
    sizes: Sizes,
    device: torch.device,
    repeats: int,
    peak: Peak,
) -> list[dict[str, Any]]:
    """Rows of one number of points."""
    (_, _), (ch, cw), (height, width) = sizes
    points, labels = said.points_xy, said.labels
    original_xy = points * points.new_tensor([width / cw, height / ch])

    def codes(config: PromptConfig) -> list[bytes]:
        rough = rough_masks(said.outputs, 0, original_xy, labels, sizes, config)
        return encode_many(rough.masks, rough.boxes_xyxy)

    def whole() -> list[bytes]:
        network()
        return codes(DEFAULT)

    rough = rough_masks(said.outputs, 0, original_xy, labels, sizes, DEFAULT)
    parts: dict[str, Run] = {
        "prompts": lambda: prompt_points(said.outputs, 0, points, labels, sizes.input, DEFAULT),
        "prompts, masks, owners": lambda: rough_masks(said.outputs, 0, original_xy, labels, sizes, DEFAULT),
        "RLE": lambda: encode_many(rough.masks, rough.boxes_xyxy),
        "all but the network": lambda: codes(DEFAULT),
        "so, the paper's rule": lambda: codes(PAPER),
    }
    times = in_turns({"network": network, **parts, "whole": whole}, device, repeats)
    found: list[list[bytes]] = []

    def plainly(some: slice = slice(None)) -> None:
        found.append(prompt_plainly(said.outputs, points[some], labels[some], sizes, 0.5))

    times |= in_turns({"plain loop": plainly}, device, max(1, repeats // 3), warm_up=0)
    counted = {name: work_of(run) for name, run in parts.items() if name != "RLE"}
    # Every point is the same work.
    counted["plain loop"] = work_of(lambda: plainly(slice(1))).times(len(points))
    counted["network"] = work
    times["plain, whole"] = times["network"] + times["plain loop"]
    counted["whole"] = work.plus(counted["all but the network"])
    counted["plain, whole"] = work.plus(counted["plain loop"])
    rows = []
    for name, spent in times.items():
        facts = facts_of(spent, counted.get(name), peak)
        row: dict[str, Any] = {"points": len(labels), "what": name, **facts}
        rows.append({**row, "ratio": spent / times["network"]})
    rows[-1]["pixels_apart"] = pixels_apart(codes(PAPER), found[0], (height, width))
    return rows


def pixels_apart(ours: list[bytes], plain: list[bytes], size: tuple[int, int]) -> int:
    """Pixels that differ between two lists of masks."""
    pairs = zip(ours, plain, strict=True)
    return sum(int((decode(a, *size) ^ decode(b, *size)).sum()) for a, b in pairs if a != b)


def main() -> None:
    arguments = options().parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    model = build(student_config(), CLASSES, device)
    content = tuple(arguments.input)
    sizes = Sizes(padded(content), content, tuple(arguments.original or content))
    image = torch.randint(0, 255, (1, 3, *sizes.input), dtype=torch.uint8, device=device)
    peak, work = peak_of(device), network_work(model, sizes.input)
    rows = []
    with torch.inference_mode():
        for count in arguments.points:
            said = answers_for(count, content, device)
            rows += measure(
                lambda: model(image, [content]), work, said, sizes, device, arguments.repeats, peak
            )
    shown, original = ("x".join(map(str, size)) for size in (content, sizes.original))
    title = f"Points to masks, R-50, {CLASSES} classes, {shown}, masks of {original}"
    show(title, rows, machine(device, peak), as_json=arguments.json)


def options() -> argparse.ArgumentParser:
    made = parser(__doc__, repeats=3)
    made.add_argument("--points", type=int, nargs="+", default=[50, 500])
    made.add_argument(
        "--input", type=int, nargs=2, default=[800, 1333], help="height and width that the network sees"
    )
    made.add_argument("--original", type=int, nargs=2, help="the image's height and width, where they differ")
    return made


if __name__ == "__main__":
    main()
