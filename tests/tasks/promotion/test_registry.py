"""The registry's files: versions, history, and files that were damaged or edited."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tasks.promotion.registry
from tasks.common.errors import TaskError
from tasks.promotion.baseline import Baseline, Trainings, checked_model, folder_hash, read_start
from tasks.promotion.registry import Code, Decision, Entry, Event, Registry
from tasks.reporting.promotion import decision
from tests.tasks.conftest import blank_registry
from tests.tasks.promotion.test_rule import change, comparison


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    blank_registry(tmp_path)
    return Registry(tmp_path / "registry")


def entry(version: str, decision: Decision = "promoted") -> Entry:
    return Entry(
        version=version, decision=decision, model=f"{int(version[1:]):032x}.dir",
        comparison=comparison("better", change(20.0, 21.0, 0.5)), metrics={"student": {"AP": 21.0}},
        data={"points": None}, params={"seed": 0}, code=Code(commit=None, dirty=None, sources="0"),
        who="ada", when="2026-11-21T20:00:00+00:00", reason="a test",
    )  # fmt: skip


def event(version: str) -> Event:
    return Event(version=version, action="promoted", who="ada", when="2026-11-21T20:00:00+00:00", reason="")


def test_a_fresh_registry(registry: Registry) -> None:
    assert registry.entries() == [] and registry.checked_out() == []
    assert registry.promoted().version is None and registry.former() is None
    assert registry.baseline() == Baseline(version=None)
    assert registry.next_version() == "v1"
    assert Registry(registry.root / "nowhere").entries() == []


def test_what_is_written_is_read(registry: Registry) -> None:
    for version in ("v1", "v2", "v10"):
        registry.write_entry(entry(version))
    registry.write_promotion(event("v10"))
    registry.write_baseline("v2")
    assert [one.version for one in registry.entries()] == ["v1", "v2", "v10"]
    assert registry.entry("v10") == entry("v10") == registry.entry_of(entry("v10").model)
    assert registry.entry_of("f" * 32 + ".dir") is None
    assert registry.next_version() == "v11"
    assert registry.baseline() == Baseline(version="v2", model=entry("v2").model)
    assert not list(registry.root.rglob("*.partial"))


def test_the_report_shows_a_decision_that_the_registry_has(registry: Registry) -> None:
    registry.write_entry(entry("v1"))
    registry.write_entry(entry("v2", "refused"))
    assert decision(registry.root, entry("v1").model) == "It was promoted as v1 on 2026-11-21."
    assert decision(registry.root, entry("v2").model) == "It was refused as v2 on 2026-11-21."
    assert "a run decides that after this report" in decision(registry.root, entry("v3").model)
    (registry.root / "v1/entry.json").write_text("{")
    assert "a run decides that after this report" in decision(registry.root, entry("v1").model)


def test_of_a_model_that_was_decided_on_twice_the_last_decision_counts(registry: Registry) -> None:
    """By number, not as text: v10 comes after v9."""
    model = entry("v7").model
    for version, kind in (("v9", "promoted"), ("v10", "refused"), ("v8", "promoted")):
        registry.write_entry(entry(version, kind).model_copy(update={"model": model}))  # type: ignore[arg-type]
    found = registry.entry_of(model)
    assert found is not None and (found.version, found.decision) == ("v10", "refused")


def test_a_baseline_that_is_half_moved_has_not_moved(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What students start from is written first: a kill in between leaves the old baseline, and the round begins
    again."""
    for version in ("v1", "v2"):
        registry.write_entry(entry(version))
    registry.write_baseline("v1")
    write = tasks.promotion.registry.write_json

    def full_at_baseline(path: Path, content: Any) -> None:
        if path.name == "baseline.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content)

    monkeypatch.setattr(tasks.promotion.registry, "write_json", full_at_baseline)
    with pytest.raises(OSError, match="No space"):
        registry.write_baseline("v2")
    assert registry.baseline().version == "v1"
    monkeypatch.undo()
    registry.write_baseline("v2")
    assert registry.baseline() == read_start(registry.root) == Baseline(version="v2", model=entry("v2").model)


def test_the_baseline_has_the_trainings_of_its_student_and_what_students_start_from_has_not(
    registry: Registry,
) -> None:
    """Stage compare depends on the first file, train_student on the second: no measurement trains a student again."""
    found = Trainings(seeds=[0, 1], AP=[20.5, 21.25], classes={3: [20.5, None]})
    registry.write_entry(
        entry("v1").model_copy(
            update={"comparison": entry("v1").comparison.model_copy(update={"trainings": found})}
        )
    )
    registry.write_entry(entry("v2"))
    registry.write_baseline("v1")
    assert registry.baseline() == Baseline(version="v1", model=entry("v1").model, trainings=found)
    for version, keys in (("v1", {"version", "model", "trainings"}), ("v2", {"version", "model"})):
        registry.write_baseline(version)
        assert json.loads((registry.root / "baseline.json").read_text()).keys() == keys
        assert json.loads((registry.root / "start/promoted.json").read_text()).keys() == {"version", "model"}
        assert (
            json.loads((registry.root / version / "entry.json").read_text())["comparison"].keys()
            >= {"trainings"}
        ) is (version == "v1")


def test_an_unknown_version_becomes_no_baseline(registry: Registry) -> None:
    registry.write_entry(entry("v1"))
    registry.write_baseline("v1")
    with pytest.raises(TaskError, match="there are: v1"):
        registry.write_baseline("v2")
    assert registry.baseline() == read_start(registry.root) == Baseline(version="v1", model=entry("v1").model)


def test_a_folder_without_an_entry_is_no_version(registry: Registry) -> None:
    registry.write_entry(entry("v1"))
    (registry.root / "v2" / "model").mkdir(parents=True)
    assert registry.next_version() == "v2"
    assert registry.checked_out() == ["v2"]


@given(st.lists(st.sampled_from(["promote", "back"]), max_size=12))
def test_rolling_back_goes_down_the_promotions_that_stand(steps: list[str]) -> None:
    """Against a plain stack."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        registry = Registry(Path(folder))
        stack: list[str] = []
        for step in steps:
            former = registry.former()
            assert former == (stack[-2] if len(stack) > 1 else None)
            if step == "promote":
                stack.append(registry.next_version())
                registry.write_entry(entry(stack[-1]))
                registry.write_promotion(event(stack[-1]))
            elif former is not None:
                stack.pop()
                registry.write_promotion(event(former))


def damaged(registry: Registry, name: str, text: str) -> None:
    registry.write_entry(entry("v1"))
    registry.write_entry(entry("v2"))
    registry.write_promotion(event("v1"))
    (registry.root / name).write_text(text)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("promoted.json", "{", "promoted.json: damaged, or edited by hand"),
        ("promoted.json", '{"version": "v1"}', "history: Field required"),
        ("promoted.json", '{"version": "v1", "history": []}', "history ends with None; edited by hand"),
        ("v1/entry.json", '{"version": "v1"}', "v1/entry.json: damaged"),
        ("v1/entry.json", "", "git checkout"),
    ],
)
def test_a_damaged_file_is_named(registry: Registry, name: str, text: str, said: str) -> None:
    damaged(registry, name, text)
    read = registry.promoted if name == "promoted.json" else registry.entries
    with pytest.raises(TaskError, match=said):
        read()


def test_all_damaged_entries_are_listed(registry: Registry) -> None:
    damaged(registry, "v1/entry.json", "{")
    (registry.root / "v2/entry.json").write_text("[]")
    with pytest.raises(TaskError, match=r"v1/entry.json(.|\n)*v2/entry.json"):
        registry.entries()


def test_promoted_versions_have_entries(registry: Registry) -> None:
    damaged(registry, "promoted.json", json.dumps({"version": "v7", "history": [event("v7").model_dump()]}))
    with pytest.raises(TaskError, match="names v7, whose"):
        registry.promoted()


def test_an_entry_in_anothers_folder_is_told(registry: Registry) -> None:
    damaged(registry, "v2/entry.json", entry("v1").model_dump_json())
    with pytest.raises(TaskError, match="found version v1, expected v2"):
        registry.entry("v2")
    with pytest.raises(TaskError, match="there are: v1, v2"):
        registry.entry("v3")


def test_the_hash_of_a_folder_is_dvcs(tmp_path: Path) -> None:
    from dvc.repo import Repo

    model = tmp_path / "model"
    for name in ("b.txt", "a/c.txt", "a.txt", "ä/ö.txt", "a-b/d.txt"):
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text(name)
    with Repo.init(str(tmp_path), no_scm=True) as repo:
        (stage,) = repo.add(str(model))
    assert folder_hash(model) == stage.outs[0].hash_info.value
    before = folder_hash(model)
    (model / "b.txt").unlink()
    (model / "b.txt").write_text("other")
    assert folder_hash(model) != before


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no such folder"):
        folder_hash(tmp_path / "model")
    with pytest.raises(TaskError, match=f"dvc pull {os.path.relpath(tmp_path)}|dvc pull"):
        checked_model(tmp_path, "v1", "0" * 32 + ".dir")
