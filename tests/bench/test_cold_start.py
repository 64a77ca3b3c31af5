from __future__ import annotations

from pathlib import Path

from bench.cold_start import TORCH, demo_student, run_once


def test_a_cold_start_takes_seconds(tmp_path: Path) -> None:
    """CPU seconds, as the clock depends on what else runs (bench/RESULTS.md)."""
    parts = run_once(demo_student(tmp_path / "student"))
    assert parts["cold start"]["cpu"] < 8
    assert parts["load"]["cpu"] < 2
    whole = sum(parts[name]["cpu"] for name in ("python", "imports", "load", "first"))
    assert abs(whole - parts["cold start"]["cpu"]) < 1e-6
    # Little more than its libraries.
    assert parts["cold start"]["cpu"] < 1.5 * parts[TORCH]["cpu"]
