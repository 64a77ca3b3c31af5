from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.quality import Line, changed, phases


def cell(folder: Path, start: str) -> dict[str, Line]:
    recipe: dict[str, Any] = {"seed": 0, "student": {"start": start, "lr": 0.1}}
    steps = ("train_student",)
    ours = Line(folder / "student", recipe, steps)
    names = ("control", "rough", "full")
    return {"student": ours} | {name: Line(folder / name, recipe, steps, ours.folder) for name in names}


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("scratch", [["student"], ["student", "full", "control"], ["rough"]]),
        ("teacher", [["student"], ["student", "full"], ["rough", "control"]]),
    ],
)
def test_a_line_runs_after_what_it_starts_from(tmp_path: Path, start: str, expected: list[list[str]]) -> None:
    found = phases([cell(tmp_path, start)], ["student", "control", "rough", "full"])
    assert [[line.folder.name for line in phase] for phase in found] == expected


def test_a_folder_of_other_params_is_refused(tmp_path: Path) -> None:
    """Else its results would be taken for those of the new ones."""
    line = Line(tmp_path / "line", {"seed": 0, "student": {"lr": 0.1, "steps": 5}}, ("train_student",))
    line.folder.mkdir()
    (line.folder / "seconds.json").write_text(json.dumps({"train_student": 1.0}))
    line.run()
    line.run()
    other = Line(line.folder, changed(line.recipe, {"student.lr": 0.2, "seed": 1}), line.steps)
    with pytest.raises(RuntimeError, match=r"other seed, student\.lr; name another folder"):
        other.run()
    assert "lr: 0.1" in (line.folder / "params.yaml").read_text()
