"""The AP of a SOLOv2 and of a Mask2Former after equal CPU minutes of training, both from random weights, on the same
strong and pseudo labels.

Needs the folder of a line that was run up to its pseudo labels, with params.yaml; writes nothing there. A killed run
goes on where it was.

    python bench/students.py /work/line --out /tmp/students --minutes 8
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import time
from pathlib import Path
from typing import Any

import yaml

SWIN = {
    "model_type": "swin", "embed_dim": 32, "depths": [2, 2, 2, 2], "num_heads": [2, 2, 4, 8], "window_size": 8,
    "drop_path_rate": 0.0, "out_features": ["stage1", "stage2", "stage3", "stage4"],
}  # fmt: skip
MASK2FORMER = {
    "backbone_config": SWIN, "feature_size": 64, "mask_feature_size": 64, "hidden_dim": 64,
    "encoder_feedforward_dim": 256, "dim_feedforward": 256, "encoder_layers": 2, "decoder_layers": 4,
    "num_attention_heads": 4, "num_queries": 64, "train_num_points": 512,
}  # fmt: skip
RESNET = {"name": "resnet18", "width": 0.5, "norm": "group_norm", "frozen_stages": 0, "weights": None}
NETWORKS: dict[str, Any] = {
    "solov2": None,
    "mask2former": {"name": "mask2former", "weights": None, "revision": None, "config": MASK2FORMER},
}
TIMED = 6
"""Steps that are timed, of which the first two don't count."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("line", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--lr", type=float, help="of the Mask2Former; that of params.yaml without")
    arguments = parser.parse_args()
    for name, network in NETWORKS.items():
        folder = arguments.out / name
        if not (folder / "ap.json").is_file():
            found = _measure(arguments.line.resolve(), folder, network, arguments.minutes, arguments.lr)
            (folder / "ap.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(name, (folder / "ap.json").read_text(encoding="utf-8"), flush=True)


def _measure(line: Path, folder: Path, network: Any, minutes: float, lr: float | None) -> dict[str, Any]:
    """The AP of a student of so many CPU minutes."""
    from bench.quality_measure import ap
    from tasks.common.config import load_params
    from tasks.train_student import train

    workspace = folder / "workspace"
    workspace.mkdir(parents=True, exist_ok=True)
    for name in ("dataset", "points", "pseudo", "teacher"):
        if not (workspace / name).exists():
            (workspace / name).symlink_to(line / "workspace" / name)
    recipe = yaml.safe_load((line / "params.yaml").read_text(encoding="utf-8"))
    recipe["model"]["backbone"] |= RESNET
    recipe["student"] |= {"start": "scratch", "checkpoint": None, "network": network, "strong_end": 0}
    recipe["student"]["classes_from"] = "mask"  # of both: a network with queries has no cell of a click
    recipe["student"] |= {"lr": lr} if lr is not None and network is not None else {}
    path = folder / "params.yaml"
    if not path.is_file():
        seconds = _seconds_of_a_step(copy.deepcopy(recipe), folder)
        recipe["student"] |= {"steps": max(20, round(60 * minutes / seconds)), "warmup_steps": 0.07}
        path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    params = load_params(path)
    begin = time.process_time()
    runs = workspace / "runs"
    runs.mkdir(exist_ok=True)
    train(params, workspace, workspace / "student", runs, once=True)
    spent = time.process_time() - begin
    os.chdir(folder)
    scores = ap("student", params)
    return {"steps": params.student.steps, "cpu_minutes": round(spent / 60, 2), **scores}


def _seconds_of_a_step(recipe: dict[str, Any], folder: Path) -> float:
    """CPU seconds: the mean of some, of a training that is thrown away."""
    from tasks.common.config import load_params
    from tasks.train_student import train

    seconds = []
    for steps in (2, 2, TIMED):  # the first one imports and warms up
        recipe["student"] |= {"steps": steps, "warmup_steps": 0, "log_every": 1, "checkpoint_every": 100}
        path = folder / "timed.yaml"
        path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
        runs = folder / "timed"
        runs.mkdir(exist_ok=True)
        begin = time.process_time()
        train(load_params(path), folder / "workspace", folder / "timed-student", runs)
        seconds.append(time.process_time() - begin)
    return max(0.01, (seconds[2] - seconds[1]) / (TIMED - 2))


if __name__ == "__main__":
    main()
