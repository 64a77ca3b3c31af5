"""What is decided on a student, in which order it is written, and what is left when the second step fails.

Real Git and DVC, no flow: see test_promotion.py for rounds of it.
"""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml

from flows.dvc.repo import DvcRepo, PipelineError
from flows.registry import decide as promotion
from flows.registry import versions
from tasks.common.config import load_params
from tasks.common.errors import TaskError
from tasks.promotion.baseline import folder_hash
from tasks.promotion.registry import Event, Registry
from tests.flows.rounds import STAGES, Rounds, start_project

V1, V2 = 3.0, 4.014
"""APs of the models. As floats, 4.014 and 3.514 differ by a little more than 0.5."""


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose second student is promoted and is the baseline; the first one's bytes lie in DVC's cache alone.
    To be copied."""
    root = tmp_path_factory.mktemp("rules") / "second"
    rounds = start_project(root, ap=V1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for ap in (V1, V2):
            rounds.train(ap)
            assert promotion.decide(root, f"a student of {ap}").decision == "promoted"
            rounds.registry.write_baseline(rounds.promoted or "")
        versions.keep_only(root, {"v2"})
    assert (rounds.promoted, rounds.registry.checked_out()) == ("v2", ["v2"])
    rounds.dvc("commit", "--force", "--quiet", *STAGES)
    return root


@pytest.fixture
def rounds(second: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rounds:
    """A copy of that project, the current folder."""
    shutil.copytree(second, tmp_path / "project", symlinks=True)
    monkeypatch.chdir(tmp_path / "project")
    return Rounds(tmp_path / "project")


def records(rounds: Rounds) -> dict[str, bytes]:
    """The registry without the models' bytes."""
    return {name: content for name, content in rounds.files().items() if "/model/" not in name}


def lose_bytes(rounds: Rounds) -> None:
    """Models that aren't checked out are nowhere any more."""
    shutil.rmtree(rounds.root / ".dvc/cache")


@pytest.mark.parametrize(
    ("ap", "sections", "decision", "verdict"),
    [
        (V2 - 0.5, {}, "promoted", "within_tolerance"),
        (V2 - 0.501, {}, "refused", "worse"),
        (V2 + 0.001, {"promotion": {"ap_tolerance": 0}}, "promoted", "better"),
        (V2 - 0.001, {"promotion": {"ap_tolerance": 0}}, "refused", "worse"),
        (V2 - 3.123, {"promotion": {"ap_tolerance": 3.123}}, "promoted", "within_tolerance"),
    ],
)
def test_a_student_is_promoted_down_to_the_tolerance_and_no_further(
    rounds: Rounds, ap: float, sections: dict[str, Any], decision: str, verdict: str
) -> None:
    rounds.train(ap, **sections)
    outcome = promotion.decide(rounds.root, "new points")
    entry = rounds.registry.entry("v3")
    assert (outcome.decision, outcome.version) == (decision, "v3")
    assert (entry.decision, entry.comparison.verdict, entry.reason) == (decision, verdict, "new points")
    assert rounds.promoted == ("v3" if decision == "promoted" else "v2")
    assert (rounds.root / "registry/v3/model.dvc").exists() == (decision == "promoted")
    assert rounds.registry.checked_out() == (["v2", "v3"] if decision == "promoted" else ["v2"])
    before = records(rounds)
    assert promotion.decide(rounds.root, "once more").decision == "none"
    assert records(rounds) == before


def test_a_student_that_was_compared_with_another_model_is_not_decided_on(rounds: Rounds) -> None:
    rounds.registry.write_baseline("v1")
    rounds.dvc("checkout", "--force", "--quiet", "registry/v1/model.dvc")
    rounds.train(3.5)  # better than v1, worse than v2
    before = records(rounds)
    outcome = promotion.decide(rounds.root, "")
    assert outcome.decision == "none"
    assert "compared with v1, and v2 is promoted now" in outcome.text
    with pytest.raises(TaskError, match="compared with v1, but v2 is promoted now"):
        promotion.promote(rounds.root, force=False, reason="")
    assert records(rounds) == before
    assert promotion.promote(rounds.root, force=True, reason="I know").decision == "promoted"
    assert rounds.registry.promoted().history[-1].action == "forced"


def test_the_student_must_be_the_one_that_was_compared(rounds: Rounds) -> None:
    rounds.train(V2 + 1)
    (rounds.root / "workspace/student/ap.txt").write_text("99")
    before = records(rounds)
    for decide in (
        lambda: promotion.decide(rounds.root, ""),
        lambda: promotion.promote(rounds.root, force=True, reason="I insist"),
    ):
        with pytest.raises(TaskError, match="the student isn't the one that was compared"):
            decide()
    assert records(rounds) == before


def test_by_hand_a_worse_student_needs_force_and_a_good_one_none(rounds: Rounds) -> None:
    rounds.train(V2 - 3.25, operate={"promote": "manual"})
    before = records(rounds)
    with pytest.raises(TaskError, match=r"refused, the student is worse(.|\n)*falls(.|\n)*--force"):
        promotion.promote(rounds.root, force=False, reason="")
    assert records(rounds) == before
    rounds.train(V2 + 0.75, operate={"promote": "manual"})
    assert "waits for `points2model promote`" in promotion.decide(rounds.root, "").text
    assert records(rounds) == before
    assert promotion.promote(rounds.root, force=True, reason="to be sure").text.startswith("v3 is promoted:")
    last = rounds.registry.promoted().history[-1]
    assert (last.version, last.action, last.reason) == ("v3", "promoted", "to be sure")  # force wasn't needed
    assert promotion.promote(rounds.root, force=True, reason="").decision == "none"


def test_a_refused_student_that_is_promoted_by_force_keeps_its_number(rounds: Rounds) -> None:
    rounds.train(V2 - 2.5)
    assert promotion.decide(rounds.root, "").decision == "refused"
    outcome = promotion.promote(rounds.root, force=True, reason="the val images are wrong")
    assert outcome.text.startswith("v3 is promoted by force: worse than tolerated.")
    assert rounds.decisions() == {"v1": "promoted", "v2": "promoted", "v3": "promoted"}
    assert rounds.registry.promoted().history[-1].action == "forced"
    assert rounds.registry.entry("v3").reason == "the val images are wrong"


def test_a_rollback_brings_the_bytes_and_records_itself(rounds: Rounds) -> None:
    outcome = promotion.roll_back(rounds.root, None, "v2 is odd")
    assert (outcome.decision, outcome.version) == ("rolled back", "v1")
    assert "v1 is promoted again, instead of v2" in outcome.text
    assert (rounds.root / "registry/v1/model/ap.txt").read_text() == str(V1)
    assert folder_hash(rounds.root / "registry/v1/model") == rounds.registry.entry("v1").model
    last = rounds.registry.promoted().history[-1]
    assert (last.version, last.action, last.reason) == ("v1", "rolled back", "v2 is odd")
    assert rounds.registry.checked_out() == ["v1", "v2"]  # v2 stays the baseline
    before = records(rounds)
    assert promotion.roll_back(rounds.root, "v1", "again").decision == "none"
    with pytest.raises(TaskError, match="v1 is promoted, and none before it"):
        promotion.roll_back(rounds.root, None, "further")
    assert records(rounds) == before


@pytest.mark.parametrize("to", [None, "v1"])
def test_a_rollback_to_bytes_that_are_nowhere_changes_nothing(rounds: Rounds, to: str | None) -> None:
    lose_bytes(rounds)
    before = records(rounds)
    with pytest.raises(TaskError, match="the model of v1"):
        promotion.roll_back(rounds.root, to, "v2 is odd")
    assert records(rounds) == before
    assert rounds.promoted == "v2"
    assert (rounds.root / "registry/v2/model/ap.txt").read_text() == str(V2)


@pytest.mark.parametrize(
    ("to", "said"), [("v7", "there are: v1, v2, v3"), ("v3", r"never promoted \(refused: worse")]
)
def test_there_is_no_way_back_to_what_was_not_promoted(rounds: Rounds, to: str, said: str) -> None:
    rounds.train(V2 - 1)
    promotion.decide(rounds.root, "")
    before = records(rounds)
    with pytest.raises(TaskError, match=said):
        promotion.roll_back(rounds.root, to, "")
    assert records(rounds) == before


def test_no_entry_is_without_its_bytes(rounds: Rounds) -> None:
    """DVC fails first, then the disk: what is written stays usable, and the next decision completes it."""
    rounds.train(V2 + 1.5)
    before = records(rounds)
    config = rounds.root / ".dvc/config"
    content = config.read_text()
    config.write_text("[core\n")
    with pytest.raises((TaskError, PipelineError)):
        promotion.decide(rounds.root, "")
    assert records(rounds) == before, "an entry whose model DVC doesn't have"
    config.write_text(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Registry, "write_promotion", full_disk)
        with pytest.raises(OSError, match="No space"):
            promotion.decide(rounds.root, "")
    assert rounds.promoted == "v2"
    assert {"v3/entry.json", "v3/model.dvc"} <= records(rounds).keys()
    assert rounds.registry.checked_out() == ["v2", "v3"], (
        "the promoted model's bytes went before its successor's turn"
    )
    outcome = promotion.decide(rounds.root, "another run")
    assert (outcome.decision, outcome.version, rounds.promoted) == ("promoted", "v3", "v3")
    assert rounds.registry.next_version() == "v4"


def full_disk(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_commit_that_git_refuses_undoes_no_promotion(rounds: Rounds) -> None:
    hook = rounds.root / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'not on a Saturday' >&2\nexit 1\n")
    hook.chmod(0o755)
    rounds.train(V2 + 1, operate={"git": True})
    outcome = promotion.decide(rounds.root, "")
    assert (outcome.decision, rounds.promoted) == ("promoted", "v3")
    assert (
        "not committed: `git commit`: not on a Saturday; commit registry, dvc.lock, params.yaml"
        in outcome.text
    )


@pytest.mark.parametrize(
    ("state", "decided"),
    [
        ("promoted", True),
        ("new", False),
        ("new and worse", False),
        ("refused", True),
        ("refused, and good enough since", False),
        ("waits for a person", True),
        ("half promoted", False),
        ("compared with another model", True),
    ],
)
def test_a_run_has_nothing_to_decide_where_deciding_does_nothing(
    rounds: Rounds, state: str, decided: bool
) -> None:
    sections = {"operate": {"promote": "manual"}} if state == "waits for a person" else {}
    if state.startswith(("new", "refused", "waits", "half")):
        rounds.train(1 if "worse" in state or state.startswith("refused") else V2 + 1, **sections)
    if state.startswith("refused"):
        assert promotion.decide(rounds.root, "").decision == "refused"
    if state == "refused, and good enough since":
        rounds.train(1, promotion={"ap_tolerance": 5, "class_tolerance": 5})
    elif state == "half promoted":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Registry, "write_promotion", Mock(side_effect=OSError("killed")))
            with pytest.raises(OSError, match="killed"):
                promotion.decide(rounds.root, "")
    elif state == "compared with another model":
        rounds.train(V2 + 1)
        rounds.registry.write_promotion(event("v1"))
    params = load_params(rounds.root / "params.yaml")
    assert promotion.is_decided(DvcRepo(rounds.root), STAGES, params) is decided
    assert (promotion.decide(rounds.root, "").decision == "none") is decided


def stale(rounds: Rounds, what: str) -> None:
    """Makes a stage of the finished project stale, or leaves an undecided student there."""
    if what == "points":
        (rounds.root / "points.csv").write_text("x,y\n1,2\n")
    elif what == "promotion":
        rounds.set(V2, promotion={"ap_tolerance": 1.5})
    elif what == "lost":  # with its bytes in the cache
        out = yaml.safe_load((rounds.root / "dvc.lock").read_text())["stages"]["train_student"]["outs"][0][
            "md5"
        ]
        shutil.rmtree(rounds.root / "workspace/student")
        (rounds.root / f".dvc/cache/files/md5/{out[:2]}/{out[2:]}").unlink()
    elif what.startswith("undecided"):
        start = "promoted" if what.endswith("promoted") else "scratch"
        rounds.train(V2 + 1, student={"start": start})
        rounds.dvc("commit", "--force", "--quiet", *STAGES)


@pytest.mark.parametrize(
    ("what", "force", "moves"),
    [
        ("nothing", [], False),
        ("promotion", [], False),  # the student stays: it is compared with the same model again
        ("nothing", ["train_student"], True),
        ("nothing", ["report"], False),
        ("points", [], True),
        ("lost", [], False),  # made again from what it was made from, it is the same one
        ("undecided", [], True),
        ("undecided from the promoted", [], False),  # that would train it anew
    ],
)
def test_the_baseline_moves_when_a_new_round_begins(
    rounds: Rounds, what: str, force: list[str], moves: bool
) -> None:
    stale(rounds, what)
    rounds.registry.write_promotion(event("v1"))  # v2, the baseline, isn't promoted any more
    rounds.dvc("checkout", "--force", "--quiet", "registry/v1/model.dvc")
    said = promotion.begin_round(DvcRepo(rounds.root), STAGES, force)
    if moves:
        assert said == "a new round begins: the student will be compared with v1"
    else:
        assert said is None
    start = json.loads((rounds.root / "registry/start/promoted.json").read_text())
    moved = rounds.registry.baseline()
    assert moved.version == start["version"] == ("v1" if moves else "v2")
    assert moved.model == start["model"] == rounds.registry.entry(moved.version).model


def test_runs_that_train_nothing_begin_no_round(rounds: Rounds) -> None:
    stale(rounds, "points")
    rounds.registry.write_promotion(event("v1"))
    assert promotion.begin_round(DvcRepo(rounds.root), ["ingest", "report"], []) is None
    assert rounds.registry.baseline().version == "v2"


def test_a_round_whose_baseline_is_nowhere_does_not_begin(rounds: Rounds) -> None:
    stale(rounds, "points")
    lose_bytes(rounds)
    shutil.rmtree(rounds.root / "registry/v2/model")
    with pytest.raises(
        TaskError, match=r"the model of v2(.|\n)*write \{\"version\": null\} into .*baseline\.json"
    ):
        promotion.begin_round(DvcRepo(rounds.root), STAGES, [])


def event(version: str) -> Event:
    return Event(
        version=version, action="rolled back", who="ada", when="2026-11-21T20:00:00+00:00", reason=""
    )
