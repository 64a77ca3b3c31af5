"""bench/runtimes.py: the same instances by torch, ONNX Runtime and OpenVINO, and how differences are counted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tasks.common.config import Params
from tests.tasks.conftest import ROOT

pytest.importorskip("openvino")


def arrays(masks: list[np.ndarray], scores: list[float], labels: list[int]) -> dict[str, np.ndarray]:
    return {
        "masks": np.stack(masks)[None], "scores": np.array([scores], np.float32), "labels": np.array([labels]),
        "valid": np.ones((1, len(masks)), bool),
    }  # fmt: skip


def test_differences_are_counted() -> None:
    from bench.runtimes import compare, figures

    one, other = np.zeros((2, 20, 60), bool)
    one[:, :50], other[:10, :10] = True, True
    less = one.copy()
    less[0, :2] = False
    alike = compare(arrays([one, other], [0.9, 0.5], [0, 1]), arrays([other, less], [0.5, 0.9005], [1, 0]))
    assert alike.ious == [1000 / 1000 - 2 / 1000, 1.0] and alike.pixels == [2, 0] and alike.unlike == 0
    found = figures([alike])
    assert (found["least_iou"], found["above_0.999"], found["pixels"], found["score"]) == (
        0.998,
        50.0,
        2,
        5e-4,
    )
    other_class = compare(arrays([one], [0.9], [0]), arrays([one], [0.9], [1]))
    assert other_class.ious == [] and other_class.unlike == 2


def test_all_runtimes_find_the_same(line: tuple[Path, Params], tmp_path: Path) -> None:
    """The tiny line's teacher: images one by one, four at once, of another size, and one without objects."""
    for name in ("dataset", "teacher", "demo", "data"):
        if (line[0] / "workspace" / name).exists():
            shutil.copytree(line[0] / "workspace" / name, tmp_path / "workspace" / name)
    shutil.copy(line[0] / "params.yaml", tmp_path)
    script = [
        sys.executable,
        str(ROOT / "bench/runtimes.py"),
        "workspace/teacher",
        "workspace/dataset/val",
        "--json",
    ]
    done = subprocess.run(
        script, cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    measured = [row for row in rows if "alone" not in row["images"]]
    assert {row["runtime"] for row in measured} == {"torch", "onnxruntime", "openvino"}
    assert len(measured) == 12  # three runtimes; one by one, at once, cropped, grey
    assert len({row["AP"] for row in measured if "AP" in row}) == 1
    for row in measured:
        if row["runtime"] != "torch":
            assert row["unlike"] == 0 and row["pixels"] <= 2 and row["score"] < 1e-3
    assert sum(row["instances"] for row in measured) > 20
