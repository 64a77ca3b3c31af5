from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.quality import Line, changed, phases, price
from bench.quality_table import gap_closed, print_tables
from tasks.common.config import Params
from tasks.common.progress import format_seconds
from tasks.planning import probe
from tests.tasks.conftest import tiny_recipe


def cell(folder: Path, start: str) -> dict[str, Line]:
    recipe: dict[str, Any] = {"seed": 0, "student": {"start": start, "lr": 0.1}}
    steps = ("train_student",)
    ours = Line(folder / "student", recipe, steps)
    names = ("control", "rough", "full", "rounds", "again", "sam")
    return {"student": ours} | {name: Line(folder / name, recipe, steps, ours.folder) for name in names}


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("scratch", [["student"], ["student", "full", "control"], ["rounds", "rough"], ["again"]]),
        ("teacher", [["student"], ["student", "full"], ["rounds", "rough", "control"], ["again"]]),
    ],
)
def test_a_line_runs_after_what_it_starts_from(tmp_path: Path, start: str, expected: list[list[str]]) -> None:
    found = phases([cell(tmp_path, start)], ["student", "control", "rough", "full", "rounds", "again"])
    assert [[line.folder.name for line in phase] for phase in found] == expected


def test_the_price_has_each_training_and_each_ap_once(
    line: tuple[Path, Params],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also those of `full`, whose images aren't read yet."""
    monkeypatch.chdir(line[0])
    monkeypatch.setattr(probe, "forecast", lambda *_: probe.Forecast(1000.0, 2000.0, 300.0, 4000.0, 500.0))
    folder, recipe = tmp_path / "demo" / "0.1-0" / "student", tiny_recipe()
    (folder / "workspace").mkdir(parents=True)
    (folder / "workspace" / "dataset").symlink_to(line[0] / "workspace" / "dataset")
    ours = Line(folder, recipe, ("ingest", "train_teacher", "train_student", "ap_student", "ap_teacher"))
    full = Line(tmp_path / "demo" / "full-0" / "full", recipe, ("ingest", "train_student", "ap_student"))
    rounds = Line(folder.parent / "rounds", recipe, ("train_rounds", "train_student"), folder)
    price([[ours], [ours, full], [rounds]], jobs=2)
    total = (1000 + 4000 + 2 * 250) + (4000 + 250) + (300 + 2 * 4000)
    text = capsys.readouterr().out
    assert text == f"about {format_seconds(total)} of one core each, {format_seconds(total / 2)} by 2 jobs\n"


@pytest.mark.parametrize(
    ("control", "student", "full", "closed"),
    [(31.0, 35.2, 38.6, 55.3), (10.5, 10.8, 11.6, 27.3), (36.0, 35.0, 38.0, -50.0), (12.0, 13.0, 12.0, None),
     (None, 1.0, 2.0, None), (1.0, 2.0, None, None)],
)  # fmt: skip
def test_share_of_the_gap_closed(
    control: float | None, student: float | None, full: float | None, closed: float | None
) -> None:
    assert gap_closed(control, student, full) == (None if closed is None else pytest.approx(closed, abs=0.05))


def test_tables_show_each_variant_and_the_mean_over_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, ap in ((0, 30.0), (1, 32.0)):
        for name, more in (("control", 0.0), ("student", 2.0), ("rounds", 3.0), ("again", 2.5)):
            folder = tmp_path / "nuclei" / f"0.1-{seed}" / name
            folder.mkdir(parents=True)
            (folder / "ap_student.json").write_text(json.dumps({"AP": ap + more}))
        folder = tmp_path / "nuclei" / f"full-{seed}" / "full"
        folder.mkdir(parents=True)
        (folder / "ap_student.json").write_text(json.dumps({"AP": ap + 4}))
    print_tables(tmp_path, as_json=False)
    text = capsys.readouterr().out
    assert "50%" in text  # of the gap
    assert "33.0 ± 1.4" in text and "34.0 ± 1.4" in text and "33.5 ± 1.4" in text


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
