"""What a training step and pseudo-labelling spend a GPU's time on: the top kernels, and how long the GPU waits for the
host.

    python bench/gpu/kernels.py --device cuda             # half a minute
    python bench/gpu/kernels.py --device cpu --small      # shows that it runs
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.measure import machine, parser, show
from bench.prompting import DEFAULT, answers_for, build, padded, student_config
from bench.train_step import WAYS, Trainer, drawn, network
from data.masks.rle import encode_many
from models.inference.coarse_masks import rough_masks
from models.masks.resize import Sizes

TOP = 15


def measure(what: str, run: Callable[[], object], device: torch.device, times: int) -> list[dict[str, Any]]:
    """A row for all of it, and one for each of the kernels that take longest."""
    for _ in range(3):
        run()
    cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as found:
        begin = time.perf_counter()
        for _ in range(times):
            run()
        if cuda:
            torch.cuda.synchronize()
        wall = time.perf_counter() - begin
    spent = [
        (
            one.key,
            (one.self_device_time_total if cuda else one.self_cpu_time_total) / 1e3 / times,
            one.count // times,
        )
        for one in found.key_averages()
        if not cuda or str(one.device_type).endswith("CUDA")
    ]
    busy = sum(ms for _, ms, _ in spent)
    rows: list[dict[str, Any]] = [{"what": what, "kernel": "all", "ms": 1e3 * wall / times, "busy_ms": busy}]
    if cuda:
        rows[0]["percent_waiting"] = 100 * (1 - busy / (1e3 * wall / times))
        rows[0]["synchronisations"] = synchronisations(run)
    for name, ms, count in sorted(spent, key=lambda one: -one[1])[:TOP]:
        rows.append({"what": what, "kernel": name[:60], "ms": ms, "calls": count})
    return rows


def synchronisations(run: Callable[[], object]) -> int:
    """How often the host waits for the GPU, as torch's sync debug mode counts."""
    import warnings

    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(one.message) for one in caught)


def main() -> None:
    options = parser(__doc__, repeats=10)
    options.add_argument("--small", action="store_true", help="small images, and the demo's network")
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    args.recipe, args.batch, args.side = ("demo", 1, 96) if args.small else ("coco_5p", 16, 800)
    model, config, training = network(args, device)
    trainer = Trainer(model, config, training, WAYS["+ fused" if device.type == "cuda" else "ours"])
    batch = drawn(args.batch, args.side, 7, device, 0)
    rows = measure(
        "training step, R-50", lambda: trainer.step(batch), device, 1 if args.small else args.repeats
    )

    content = (96, 128) if args.small else (800, 1333)
    size = padded(content)
    detector = build(student_config(), 80, device)
    image = torch.randint(0, 255, (1, 3, *size), dtype=torch.uint8, device=device)
    said = answers_for(5 if args.small else 20, content, device)
    sizes = Sizes(size, content, content)

    def label() -> None:
        detector(image, [content])
        rough = rough_masks(said.outputs, 0, said.points_xy, said.labels, sizes, DEFAULT)
        encode_many(rough.masks, rough.boxes_xyxy)

    with torch.inference_mode():
        rows += measure("an image's masks, R-50", label, device, 1 if args.small else args.repeats)
    show("Profile", rows, machine(device), as_json=args.json)


if __name__ == "__main__":
    main()
