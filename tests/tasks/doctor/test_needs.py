"""Estimates against what a machine says of itself, and against real files."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.tables import Split
from tasks.common.config import Params
from tasks.doctor.needs import disk_need, memory_free, memory_need, weights

MEMINFO = "MemTotal:  2000 kB\nMemFree: 100 kB\nMemAvailable:    1000 kB\n"


@pytest.mark.parametrize(
    ("meminfo", "limit", "used", "free"),
    [
        (MEMINFO, None, None, 1_024_000),
        (MEMINFO, "max", "5000", 1_024_000),
        (MEMINFO, "9000", "5000", 4000),
        (MEMINFO, "9000", "9500", 0),
        ("MemTotal: 2000 kB\n", "9000", "5000", None),
        (None, None, None, None),
    ],
)
def test_memory_of_a_machine_and_of_a_container(
    tmp_path: Path, meminfo: str | None, limit: str | None, used: str | None, free: int | None
) -> None:
    for name, text in (("meminfo", meminfo), ("memory.max", limit), ("memory.current", used)):
        if text is not None:
            (tmp_path / name).write_text(text)
    assert memory_free(tmp_path / "meminfo", tmp_path) == free


def test_the_line_s_own_files(line: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks weigh what their files do; the decoded images are counted pixel by pixel."""
    folder, params = line
    monkeypatch.chdir(folder)
    workspace = folder / "workspace"
    splits = {
        name: Split.open(workspace / "dataset" / name) for name in ("strong", "weak", "val", "kept_aside")
    }
    for count, name in zip(
        weights(params, len(splits["strong"].categories)), ("teacher", "refiner"), strict=True
    ):
        size = (workspace / name / "model.safetensors").stat().st_size
        assert 4 * count == pytest.approx(size, rel=0.2)
    assert memory_need(params, splits)[0] == 20 * 64 * 64 * 3
    need, text = disk_need(params, splits, 40)
    written = sum(
        path.stat().st_size
        for name in ("dataset", "teacher", "refiner", "pseudo")
        for path in (workspace / name).rglob("*")
    )
    assert need > 2 * written * 0.8
    assert "networks" in text
