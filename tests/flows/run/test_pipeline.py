"""Flow and `dvc repro` are one: what either has done the other doesn't do again."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from flows.dvc.lock import read_manifest
from flows.dvc.repo import DvcRepo
from tests.flows.conftest import Toy

pytestmark = pytest.mark.usefixtures("prefect_server")

ALL = ["a", "b", "c", "report"]


def run(**arguments: Any) -> list[dict[str, Any]]:
    from flows.run.pipeline import annotation_to_model

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


def test_a_changed_param_runs_what_it_touches_and_back_runs_nothing(done: Toy) -> None:
    before = done.outputs()
    done.set(b=2)
    assert states(run()) == {"a": "Cached", "b": "Completed", "c": "Cached", "report": "Completed"}
    assert done.ran() == ["b", "report"]
    assert done.outputs() != before
    done.set(b=1)
    back = run()
    assert [(entry["name"], entry["message"]) for entry in back if entry["state"] != "Cached"] == [
        ("b", "restored from the cache"),
        ("report", "restored from the cache"),
    ]
    assert done.ran() == []
    assert done.outputs() == before
    assert states(run()) == dict.fromkeys(ALL, "Cached")


def test_what_the_flow_has_seen_dvc_restores(done: Toy) -> None:
    done.set(b=2)
    done.dvc("repro", "report")
    done.ran()
    done.set(b=1)
    done.dvc("repro", "report")
    assert states(run()) == dict.fromkeys(ALL, "Cached")
    assert done.ran() == []


def test_a_lost_workspace_comes_back_byte_for_byte(done: Toy) -> None:
    before = done.outputs()
    shutil.rmtree(done.path("ws"))
    assert states(run()) == dict.fromkeys(ALL, "Cached")
    assert done.outputs() == before
    shutil.rmtree(done.path("ws"))
    done.dvc("repro", "report")
    assert done.outputs() == before
    assert done.ran() == []


def test_an_edited_output_is_made_anew(done: Toy) -> None:
    before = done.outputs()
    done.path("ws/b").unlink()
    done.path("ws/b").write_text("scribbled over")
    assert states(run())["b"] == "Completed"
    assert done.outputs() == before


def test_a_forced_repro_behind_the_flows_back_is_noticed(done: Toy) -> None:
    done.path("hidden.txt").write_text("other")
    done.dvc("repro", "-f", "-s", "a")
    done.ran()
    after = run()
    assert states(after) == {"a": "Cached", "b": "Completed", "c": "Completed", "report": "Completed"}
    assert after[0]["outs"] == read_manifest(done.root, "a")["outs"]  # type: ignore[index]


def test_independent_stages_run_at_once(toy: Toy) -> None:
    toy.set(b="meet", c="meet")
    assert states(run()) == dict.fromkeys(ALL, "Completed")


def test_force_runs_a_stage_that_is_done(done: Toy) -> None:
    assert states(run(force=("b",))) == {"a": "Cached", "b": "Completed", "c": "Cached", "report": "Cached"}
    assert done.ran() == ["b"]


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


def test_keys_of_all_stages_that_are_done(done: Toy) -> None:
    repo = DvcRepo(done.root)
    assert repo.done_keys(ALL) == {name: repo.key(name) for name in ALL}
    done.set(b=2)
    assert repo.done_keys(ALL).keys() == {"a", "c", "report"}  # the report only until b has run
    done.path("in.txt").unlink()
    assert repo.done_keys(ALL).keys() == {"c", "report"}
