"""Rounds, promotions and roll-backs on a pipeline that costs nothing: real DVC, Git and Prefect, and our comparison.

The rules of decisions by themselves: test_promotion_rules.py.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from flows.registry import decide
from tasks.common.config import load_params
from tasks.common.errors import TaskError
from tasks.common.tracking.journal import Runs
from tasks.promotion.baseline import folder_hash
from tests.flows.rounds import STAGES, Rounds, start_project
from tests.tasks.conftest import ROOT

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Path:
    """A project whose first student, of AP 20, was promoted; to be copied."""
    root = tmp_path_factory.mktemp("rounds") / "first"
    rounds = start_project(root, ap=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("PYTHONPATH", str(ROOT))
        assert rounds.run("the first") == dict.fromkeys(STAGES, "Completed")
    rounds.ran()
    return root


@pytest.fixture
def rounds(first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rounds:
    """A copy of that project, the current folder."""
    shutil.copytree(first, tmp_path / "project", symlinks=True)
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of the stages
    return Rounds(tmp_path / "project")


def test_the_first_model_is_promoted_and_nothing_is_stale_after_it(rounds: Rounds) -> None:
    assert rounds.promoted == "v1"
    entry = rounds.registry.entry("v1")
    lock = yaml.safe_load((rounds.root / "dvc.lock").read_text())["stages"]
    pointer = yaml.safe_load((rounds.root / "registry/v1/model.dvc").read_text())
    assert entry.model == lock["train_student"]["outs"][0]["md5"] == pointer["outs"][0]["md5"]
    assert entry.model == folder_hash(rounds.root / "registry/v1/model")
    assert (entry.decision, entry.reason, entry.who) == ("promoted", "the first", "Ada <ada@example.org>")
    assert entry.metrics == {"student": {"AP": 20.0}}
    assert entry.data["points.csv"] == lock["train_student"]["deps"][0]["md5"]
    assert set(entry.params) == {"seed", "student", "promotion"}
    assert entry.code.commit == rounds.git("rev-parse", "HEAD").strip() and entry.code.dirty is False
    assert entry.comparison.verdict == "first"
    before = rounds.files()
    assert rounds.run() == dict.fromkeys(STAGES, "Cached")
    assert "up to date" in rounds.dvc("repro", "report") and "up to date" in rounds.dvc("status")
    assert rounds.files() == before
    assert rounds.ran() == []


def test_trackers_are_sent_promotions(rounds: Rounds) -> None:
    """Into the journal of the run that made the student; there is no server to send it to."""
    place = {"name": "mlflow", "to": "http://127.0.0.1:9", "registered_model": "fruit"}
    recipe = yaml.safe_load((rounds.root / "params.yaml").read_text())
    recipe["runtime"]["trackers"] = [place]
    (rounds.root / "params.yaml").write_text(yaml.safe_dump(recipe))
    params, entry = load_params(rounds.root / "params.yaml"), rounds.registry.entry("v1")
    runs = Runs(rounds.root / "workspace/runs/tracking")
    made = runs.begin("report", params)
    made.add("tags", {"dvc.student": entry.model})
    runs.end(made, "report", "finished")
    runs.end(runs.begin("report", params), "report", "finished")  # a later run, of another student
    outcome = decide._promote(rounds.root, params, entry, "promoted", "again")
    assert outcome.decision == "promoted"
    (event,) = [one for one in made.events() if one.kind == "model"]
    assert (event.name, event.values) == ("v1", {"path": "registry/v1/model", "hash": entry.model})


@pytest.mark.slow
def test_a_better_student_takes_its_place_and_the_baseline_moves_when_the_next_round_begins(
    rounds: Rounds,
) -> None:
    for version, ap in (("v2", 21), ("v3", 22)):
        rounds.set(ap)
        assert rounds.run() == dict.fromkeys(STAGES, "Completed")
        assert rounds.promoted == version
        assert rounds.registry.entry(version).comparison.verdict == "better"
    assert rounds.registry.baseline().version == "v2"  # as it was when the last round began
    assert rounds.registry.checked_out() == ["v2", "v3"]
    assert (rounds.root / "registry/v1/model.dvc").is_file()
    rounds.ran()
    assert rounds.run() == dict.fromkeys(STAGES, "Cached")
    assert "up to date" in rounds.dvc("repro", "report")
    assert rounds.ran() == []
    # What isn't checked out is sent all the same, and kept.
    store = rounds.root.parent / "store"
    rounds.dvc("remote", "add", "-d", "store", str(store))
    rounds.dvc("gc", "-w", "-f")
    rounds.dvc("push")
    shutil.rmtree(rounds.root / ".dvc/cache")
    outcome = decide.roll_back(rounds.root, "v1", "from the remote")
    assert (
        outcome.decision == "rolled back" and (rounds.root / "registry/v1/model/ap.txt").read_text() == "20.0"
    )


@pytest.mark.slow
def test_a_worse_student_is_refused_once(rounds: Rounds) -> None:
    rounds.set(10)
    rounds.run("new points")
    assert rounds.promoted == "v1"
    entry = rounds.registry.entry("v2")
    assert (entry.decision, entry.comparison.verdict, entry.reason) == ("refused", "worse", "new points")
    assert "AP falls from 20.00 to 10.00 (−10.00): more than the 0.5" in entry.comparison.reasons[0]
    assert not (rounds.root / "registry/v2/model.dvc").exists()
    before = rounds.files()
    assert rounds.run() == dict.fromkeys(STAGES, "Cached")
    assert rounds.files() == before
    with pytest.raises(TaskError, match=r"refused, the student is worse(.|\n)*AP falls(.|\n)*--force"):
        decide.promote(rounds.root, force=False, reason="")
    assert rounds.files() == before
    # By force, which the record says; then back again.
    outcome = decide.promote(rounds.root, force=True, reason="the val images are wrong")
    assert "v2 is promoted by force" in outcome.text
    last = rounds.registry.promoted().history[-1]
    assert (last.version, last.action, last.reason) == ("v2", "forced", "the val images are wrong")
    assert rounds.decisions() == {"v1": "promoted", "v2": "promoted"}
    assert decide.promote(rounds.root, force=True, reason="").decision == "none"
    assert rounds.run() == dict.fromkeys(STAGES, "Cached")


@pytest.mark.slow
def test_a_relaxed_tolerance_promotes_what_was_refused(rounds: Rounds) -> None:
    rounds.set(19)
    rounds.run()
    assert rounds.decisions()["v2"] == "refused"
    rounds.set(19, promotion={"ap_tolerance": 2.0})
    assert rounds.run()["train_student"] == "Cached"
    assert rounds.promoted == "v2" and rounds.decisions() == {"v1": "promoted", "v2": "promoted"}
    assert rounds.registry.entry("v2").comparison.verdict == "within_tolerance"


@pytest.mark.slow
def test_a_rollback_brings_the_former_back_byte_for_byte_and_it_stays(rounds: Rounds) -> None:
    before = folder_hash(rounds.root / "registry/v1/model")
    for ap in (21, 22):
        rounds.set(ap)
        rounds.run()
    assert decide.roll_back(rounds.root, None, "v3 is odd").version == "v2"
    assert decide.roll_back(rounds.root, None, "so is v2").version == "v1"
    assert folder_hash(rounds.root / "registry/v1/model") == before
    assert rounds.registry.checked_out() == ["v1", "v2"]  # v2 is the baseline
    with pytest.raises(TaskError, match="v1 is promoted, and none before it"):
        decide.roll_back(rounds.root, None, "")
    files = rounds.files()
    assert rounds.run() == dict.fromkeys(STAGES, "Cached")  # the student is v3, and isn't promoted again
    assert rounds.files() == files
    rounds.set(23)
    rounds.run()
    assert rounds.registry.baseline().version == "v1" and rounds.promoted == "v4"
    assert rounds.registry.former() == "v1"
    assert [(e.version, e.action) for e in rounds.registry.promoted().history[-3:]] == [
        ("v2", "rolled back"), ("v1", "rolled back"), ("v4", "promoted"),
    ]  # fmt: skip


@pytest.mark.parametrize(("to", "said"), [("v7", "there are: v1, v2"), ("v2", "never promoted")])
@pytest.mark.slow
def test_there_is_no_way_back_to_what_was_not_promoted(rounds: Rounds, to: str, said: str) -> None:
    rounds.set(10)
    rounds.run()
    with pytest.raises(TaskError, match=said):
        decide.roll_back(rounds.root, to, "")
    assert rounds.promoted == "v1"


@pytest.mark.slow
def test_after_dvc_repro_the_flow_compares_with_what_is_promoted_now(rounds: Rounds) -> None:
    """By itself `dvc repro` leaves the baseline alone: else a worse student would be a first one."""
    rounds.set(10)
    rounds.dvc("repro", "report")
    assert rounds.ran() == STAGES
    with pytest.raises(TaskError, match="compared with nothing, but v1 is promoted now"):
        decide.promote(rounds.root, force=False, reason="")
    states = rounds.run()
    assert states == dict.fromkeys(STAGES[:2], "Cached") | dict.fromkeys(STAGES[2:], "Completed")
    assert rounds.decisions() == {"v1": "promoted", "v2": "refused"}


@pytest.mark.slow
def test_a_student_may_start_from_the_promoted_one(rounds: Rounds) -> None:
    rounds.set(21, student={"start": "promoted"})
    rounds.run()
    assert (rounds.root / "workspace/student/from.txt").read_text() == "v1"
    assert rounds.promoted == "v2"
    assert rounds.run() == dict.fromkeys(STAGES, "Cached")  # the promotion made nothing stale
    (rounds.root / "points.csv").write_text("x,y\n1,2\n")
    rounds.run()
    assert (rounds.root / "workspace/student/from.txt").read_text() == "v2"


@pytest.mark.slow
def test_a_moved_baseline_trains_no_student_that_starts_from_scratch(rounds: Rounds) -> None:
    rounds.set(21)
    rounds.run()
    rounds.ran()
    rounds.registry.write_baseline("v2")
    rounds.run()
    assert rounds.ran() == ["compare", "report"]


@pytest.mark.slow
def test_by_hand_alone_where_params_say_so(rounds: Rounds) -> None:
    rounds.set(21, operate={"promote": "manual"})
    rounds.run()
    assert rounds.promoted == "v1" and rounds.decisions() == {"v1": "promoted"}
    assert "v2 is promoted: better" in decide.promote(rounds.root, force=False, reason="looks good").text
    assert rounds.registry.entry("v2").reason == "looks good"


@pytest.mark.slow
def test_only_the_report_decides(rounds: Rounds) -> None:
    rounds.set(21)
    rounds.run(target="compare")
    assert rounds.promoted == "v1" and rounds.registry.baseline().version == "v1"
    rounds.run()
    assert rounds.promoted == "v2"


@pytest.mark.parametrize("left", ["bytes alone", "bytes and entry"])
@pytest.mark.slow
def test_a_promotion_killed_half_way_is_completed(rounds: Rounds, left: str) -> None:
    done = rounds.files()
    (rounds.root / "registry/promoted.json").unlink()
    if left == "bytes alone":
        (rounds.root / "registry/v1/entry.json").unlink()
    assert rounds.run() == dict.fromkeys(STAGES, "Cached")
    assert rounds.promoted == "v1"
    assert rounds.files().keys() == done.keys()


@pytest.mark.slow
def test_a_baseline_whose_bytes_are_lost_is_told_before_anything_runs(rounds: Rounds) -> None:
    shutil.rmtree(rounds.root / "registry/v1/model")
    shutil.rmtree(rounds.root / ".dvc/cache")
    rounds.set(21)
    from flows.run.pipeline import annotation_to_model

    state = annotation_to_model(return_state=True)
    assert state.is_failed()
    assert "the model of v1" in state.message and '{"version": null}' in state.message
    assert "dvc push registry/v1/model.dvc" in state.message
    assert rounds.ran() == []


@pytest.mark.slow
def test_dvc_alone_finds_the_baseline_in_its_cache(rounds: Rounds) -> None:
    """As in an experiment, which runs in a folder of its own, and promotes nothing."""
    rounds.registry.write_baseline("v1")
    rounds.git("add", "-A")
    rounds.git("commit", "-qm", "v1")
    rounds.dvc("exp", "run", "--temp", "-q", "-n", "other", "-S", "student.lr=0.03")
    rounds.dvc("exp", "apply", "other")
    found = json.loads((rounds.root / "workspace/comparison/comparison.json").read_text())
    assert (found["verdict"], found["overall"]["baseline"], found["overall"]["candidate"]) == (
        "better",
        20.0,
        30.0,
    )
    assert rounds.promoted == "v1"
    shutil.rmtree(rounds.root / "registry/v1/model")
    rounds.set(10)
    rounds.dvc("repro", "report")
    assert (
        json.loads((rounds.root / "workspace/comparison/comparison.json").read_text())["verdict"] == "worse"
    )


@pytest.mark.slow
def test_git_gets_a_commit_of_the_registry_alone_and_a_tag_that_dvc_knows(rounds: Rounds) -> None:
    rounds.dvc("remote", "add", "-d", "store", str(rounds.root.parent / "store"))
    rounds.git("commit", "-qam", "a remote, which is that of the tagged commits too")
    (rounds.root / "notes.txt").write_text("mine")
    rounds.git("add", "notes.txt")
    rounds.set(21, operate={"git": True})
    rounds.run()
    rounds.set(10, operate={"git": True})
    rounds.run()
    subjects = rounds.git("log", "--format=%s").splitlines()
    assert subjects[0].startswith("Refuse v3: worse") and subjects[1].startswith("Promote v2: better")
    assert rounds.git("status", "--porcelain").split() == ["A", "notes.txt"]
    assert rounds.git("tag").split() == ["student@v0.0.2"]
    committed = rounds.git("ls-files", "registry").split()
    assert "registry/v2/model.dvc" in committed and not any("/model/" in name for name in committed)
    clone = rounds.root.parent / "clone"
    rounds.git("clone", "-q", ".", str(clone))
    rounds.dvc("push", "-q")
    rounds.dvc("artifacts", "get", str(clone), "student", "--rev", "v0.0.2", "-o", "got")
    assert (rounds.root / "got/ap.txt").read_text() == "21.0"


@pytest.mark.slow
def test_without_git_it_works_the_same(rounds: Rounds) -> None:
    shutil.rmtree(rounds.root / ".git")
    (rounds.root / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    rounds.set(21, operate={"git": True})
    rounds.run()
    assert rounds.promoted == "v2"
    assert rounds.registry.entry("v2").code.commit is None


def test_a_student_is_trained_again_when_its_checkpoint_changes(rounds: Rounds) -> None:
    """DVC sees the content of the folder that params.yaml names, and of no other one."""
    for name in ("coco", "spare"):
        (rounds.root / name).mkdir()
        for file in ("model.json", "model.safetensors"):
            (rounds.root / name / file).write_text(f"{name} {file}")
    rounds.set(20, student={"start": "checkpoint", "checkpoint": "coco"})
    rounds.run()
    assert rounds.ran()[0] == "train_student"
    (rounds.root / "spare/model.json").write_text("other")
    (rounds.root / "coco/log.jsonl").write_text("other")  # not of the checkpoint
    assert rounds.run()["train_student"] == "Cached"
    (rounds.root / "coco/model.safetensors").write_text("other")
    rounds.run()
    assert rounds.ran()[0] == "train_student"
    rounds.set(20)
    rounds.run()
    assert rounds.ran() == []  # as it was trained at first
