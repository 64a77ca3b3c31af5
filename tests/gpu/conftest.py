"""Tests of the code that runs on CUDA; `pytest -m gpu`. With POINTS2MODEL_GPU_TESTS=cpu they are rehearsed on a CPU,
where they show that they run, not that CUDA gives the same."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

REHEARSAL = os.environ.get("POINTS2MODEL_GPU_TESTS") == "cpu"


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The device that is compared with the CPU."""
    if REHEARSAL:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device("cuda")


@pytest.fixture
def exact_float32() -> Iterator[None]:
    """Products and convolutions in float32 rather than TF32, whose bounds would hide mistakes."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    yield
    matmul.allow_tf32, cudnn.allow_tf32 = before
