from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.common.errors import TaskError
from tasks.common.stage_main import fingerprint, read_json, write_json, write_manifest
from tests.tasks.conftest import ROOT


def test_equal_content_is_equal_bytes(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": [1.5, None, "é"]})
    write_json(tmp_path / "b.json", {"a": [1.5, None, "é"], "b": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert read_json(tmp_path / "a.json", "step") == {"a": [1.5, None, "é"], "b": 1}


def test_what_is_no_number_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "no such file; it is made by `dvc repro ingest`"),
        ("{", "make it again with `dvc repro -f ingest`"),
    ],
)
def test_reading_what_is_not_there(tmp_path: Path, content: str | None, expected: str) -> None:
    if content is not None:
        (tmp_path / "a.json").write_text(content)
    with pytest.raises(TaskError, match=expected):
        read_json(tmp_path / "a.json", "ingest")


def test_manifest(tmp_path: Path) -> None:
    write_manifest(tmp_path, "ingest", {"images": 3}, seed=7)
    found = json.loads((tmp_path / "manifest.json").read_text())
    assert found == {"stage": "ingest", "format": 1, "counts": {"images": 3}, "seed": 7}


def test_fingerprint_changes_with_content_order_and_settings(tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    one.write_text("a")
    two.write_text("b")
    base = fingerprint("report", [one, two], {"lr": 1}, machine="m")
    others = {
        fingerprint("report", [two, one], {"lr": 1}, machine="m"),
        fingerprint("report", [one, two], {"lr": 2}, machine="m"),
        fingerprint("report", [one], {"lr": 1}, machine="m"),
        fingerprint("report", [one, two], {"lr": 1}, machine="n"),
        fingerprint("ingest", [one, two], {"lr": 1}, machine="m"),  # other source files
    }
    assert base not in others and len(others) == 5
    assert base == fingerprint("report", [one, two], {"lr": 1}, machine="m")
    two.write_text("c")
    assert base != fingerprint("report", [one, two], {"lr": 1}, machine="m")


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tasks.ingest", *arguments],
        cwd=folder, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_steps_command(tmp_path: Path, recipe: dict[str, Any]) -> None:
    """Help, a missing params file, bad data: an exit code and a message, never a traceback."""
    helped = call(tmp_path, "--help")
    assert helped.returncode == 0 and "Example: python -m tasks.ingest" in helped.stdout
    missing = call(tmp_path)
    assert missing.returncode == 1
    assert missing.stderr.startswith("ingest: params.yaml: no such file")
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(recipe))
    no_data = call(tmp_path, "--params", "other.yaml")
    assert no_data.returncode == 1
    assert no_data.stderr.count("found no such file") == 4
    assert "Traceback" not in missing.stderr + no_data.stderr
    assert not (tmp_path / "workspace" / "dataset").exists()


def test_times_stay_out_of_the_outputs(line: tuple[Path, Any]) -> None:
    folder, _ = line
    for manifest in (folder / "workspace").rglob("manifest.json"):
        assert not {"seconds", "started", "host"} & json.loads(manifest.read_text()).keys()
