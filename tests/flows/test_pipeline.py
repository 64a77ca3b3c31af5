"""Flow and `dvc repro` are one: what either has done the other doesn't do again."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from flows.dvc_repo import DvcRepo, read_manifest
from tests.flows.conftest import Toy

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.timeout(240)]

ALL = ["a", "b", "c", "report"]


def run(**arguments: Any) -> list[dict[str, Any]]:
    from flows.pipeline import annotation_to_model

    return annotation_to_model(**arguments)


def states(runs: list[dict[str, Any]]) -> dict[str, str]:
    return {run["name"]: run["state"] for run in runs}


def test_flow_then_flow_then_dvc(toy: Toy) -> None:
    first = run()
    assert states(first) == dict.fromkeys(ALL, "Completed")
    assert sorted(toy.ran()) == ALL  # the stranger is no ancestor of the report
    assert states(run()) == dict.fromkeys(ALL, "Cached")
    assert "Data and pipelines are up to date" in toy.dvc("repro", "report")
    assert toy.dvc("status", "report").strip() == "Data and pipelines are up to date."
    assert toy.ran() == []


def test_dvc_then_flow(toy: Toy) -> None:
    toy.dvc("repro", "report")
    toy.ran()
    assert states(run()) == dict.fromkeys(ALL, "Cached")
    assert toy.ran() == []


def test_a_changed_param_runs_what_it_touches_and_back_runs_nothing(toy: Toy) -> None:
    run()
    before = toy.outputs()
    toy.ran()
    toy.set(b=2)
    assert states(run()) == {"a": "Cached", "b": "Completed", "c": "Cached", "report": "Completed"}
    assert toy.ran() == ["b", "report"]
    assert toy.outputs() != before
    toy.set(b=1)
    back = run()
    assert [(entry["name"], entry["message"]) for entry in back if entry["state"] != "Cached"] == [
        ("b", "restored from the cache"),
        ("report", "restored from the cache"),
    ]
    assert toy.ran() == []
    assert toy.outputs() == before
    assert states(run()) == dict.fromkeys(ALL, "Cached")


def test_what_the_flow_has_seen_dvc_restores(toy: Toy) -> None:
    run()
    toy.set(b=2)
    toy.dvc("repro", "report")
    toy.ran()
    toy.set(b=1)
    toy.dvc("repro", "report")
    assert states(run()) == dict.fromkeys(ALL, "Cached")
    assert toy.ran() == []


def test_a_lost_workspace_comes_back_byte_for_byte(toy: Toy) -> None:
    run()
    before = toy.outputs()
    toy.ran()
    shutil.rmtree(toy.path("ws"))
    assert states(run()) == dict.fromkeys(ALL, "Cached")
    assert toy.outputs() == before
    shutil.rmtree(toy.path("ws"))
    toy.dvc("repro", "report")
    assert toy.outputs() == before
    assert toy.ran() == []


def test_an_edited_output_is_made_anew(toy: Toy) -> None:
    run()
    before = toy.outputs()
    toy.path("ws/b").unlink()
    toy.path("ws/b").write_text("scribbled over")
    assert states(run())["b"] == "Completed"
    assert toy.outputs() == before


def test_a_forced_repro_behind_the_flows_back_is_noticed(toy: Toy) -> None:
    run()
    toy.path("hidden.txt").write_text("other")
    toy.dvc("repro", "-f", "-s", "a")
    toy.ran()
    after = run()
    assert states(after) == {"a": "Cached", "b": "Completed", "c": "Completed", "report": "Completed"}
    assert after[0]["outs"] == read_manifest(toy.root, "a")["outs"]  # type: ignore[index]


def test_independent_stages_run_at_once(toy: Toy) -> None:
    toy.set(b="meet", c="meet")
    assert states(run()) == dict.fromkeys(ALL, "Completed")


def test_force_runs_a_stage_that_is_done(toy: Toy) -> None:
    run()
    toy.ran()
    assert states(run(force=("b",))) == {"a": "Cached", "b": "Completed", "c": "Cached", "report": "Cached"}
    assert toy.ran() == ["b"]


def test_target_runs_its_ancestors_alone(toy: Toy) -> None:
    assert states(run(target="c")) == {"a": "Completed", "c": "Completed"}


def test_a_failing_stage_says_why_and_its_siblings_end(toy: Toy) -> None:
    toy.set(b="fail")
    state = run(return_state=True)
    assert state.is_failed()
    assert state.message == "b: b: 2 faults\n  - one\n  - two\n(its whole output: .prefect/logs/b.log)"
    shown = states(state.result(raise_on_failure=False).runs)
    assert shown == {"a": "Completed", "b": "Failed", "c": "Completed", "report": "Not run"}
    assert read_manifest(toy.root, "b") is None
    toy.set()
    assert states(run()) == {"a": "Cached", "b": "Completed", "c": "Cached", "report": "Completed"}


def test_a_missing_input_is_told_in_dvcs_words(toy: Toy) -> None:
    toy.path("in.txt").unlink()
    state = run(return_state=True)
    assert "in.txt" in state.message
    assert DvcRepo(toy.root).key("a") is None
