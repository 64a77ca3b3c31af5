"""`points2model models`, `promote`, `rollback`, and what stands for a model that isn't named."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from flows.processes import run_lock
from flows.registry.current import promoted_predictions, standing
from tasks.common.errors import TaskError
from tasks.promotion.registry import Event, Registry
from tests.tasks.conftest import blank_registry
from tests.tasks.promotion.test_registry import entry, event
from tests.tasks.promotion.test_rule import change, comparison


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """An empty one, in the current folder."""
    monkeypatch.chdir(tmp_path)
    blank_registry(tmp_path)
    return Registry(tmp_path / "registry")


def call(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    return result.exit_code, " ".join(result.output.split())


@pytest.mark.parametrize("command", ["models", "promote", "rollback"])
def test_help(command: str) -> None:
    code, said = call(command, "--help")
    assert code == 0 and f"Example: points2model {command}" in said
    assert ("--wait" in said) == (command != "models")  # as the message about another run advises


@pytest.mark.usefixtures("registry")
def test_nothing_yet() -> None:
    assert call("models") == (0, "no models yet: `points2model run` promotes the first one that it trains")
    code, said = call("models", "--json")
    assert code == 0
    assert json.loads(said) == {"promoted": None, "baseline": None, "models": [], "history": []}


def test_a_table_of_the_models(registry: Registry) -> None:
    registry.write_entry(entry("v1"))
    registry.write_entry(entry("v2", "refused"))
    registry.write_entry(entry("v3"))
    registry.write_promotion(event("v1"))
    registry.write_promotion(
        Event(version="v3", action="forced", who="b", when="2026-11-21", reason="[b]odd")
    )
    code, said = call("models")
    assert code == 0
    for part in (
        "v3 *",
        "21.0",
        "+1.00",
        "better: refused",
        "better: promoted by force",
        "2026-11-21 20:00",
    ):
        assert part in said
    assert "v1 *" not in said and "v2 is refused: So." in said
    found = json.loads(call("models", "--json")[1])
    assert [row["forced"] for row in found["models"]] == [False, False, True]
    assert found["promoted"] == "v3" and found["models"][1]["against"] == "v1"


def test_the_table_at_80_columns_cuts_nothing(registry: Registry) -> None:
    reason = "30 new points in 1 file, 1 file rejected, 1 with nothing new"
    for version, who in (("v1", "ada"), ("v2", "Ada Lovelace-Featheringstonehaugh <a@b.c>")):
        registry.write_entry(entry(version).model_copy(update={"who": who, "reason": reason}))
    registry.write_promotion(event("v2"))
    output = CliRunner().invoke(app, ["models"], env={"COLUMNS": "80"}).output
    assert max(map(len, output.splitlines())) <= 80 and "…" not in output
    rows = [re.sub(" +", " ", line).strip() for line in output.splitlines() if re.match(r" *v\d", line)]
    assert rows[:3] == [
        "v1 21.0 v1 +1.00 better: promoted 2026-11-21 20:00",
        "v2 * 21.0 v1 +1.00 better: promoted 2026-11-21 20:00",
        f"v1 {reason} (ada)",
    ]
    assert f"v2 {reason} (Ada Lovelace-Featheringstonehaugh)" in " ".join(output.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["promote", "--force"], "found no --reason; expected why the comparison doesn't count"),
        (["promote", "--force", "--reason", " "], 'such as: points2model promote --force --reason "val'),
        (["promote"], "params.yaml: no such file"),
        (["rollback"], "no version to go back to: nothing is promoted"),
        (["rollback", "--to", "v3"], "no such version; there are: none"),
        (
            ["predict", "a.png", "--out", "found"],
            "nothing is promoted here, expected a model to use by default",
        ),
        (["predict", "a.png", "--out", "found", "--model", "v9"], "no such version; there are: none"),
        (
            ["predict", "a.png", "--out", "found", "--model", "nowhere"],
            "no such version or folder of a model",
        ),
        (["export", "--what", "predictions", "--format", "coco", "--out", "o"], "nothing is promoted here"),
        (["export", "--format", "coco", "--opset", "18", "--out", "o"], "--raw and --opset go with --onnx"),
        (["use", "demo", "--show"], "neither params.yaml nor dvc.yaml here"),
        (
            ["doctor", "--quick"],
            "no such file; expected a whole params file. Next: cd to the project's folder, or make one with",
        ),
        (["run"], "no dvc.yaml here; cd to the project's folder, or make one with `points2model init`"),
    ],
)
@pytest.mark.usefixtures("registry")
def test_what_can_not_be_done_is_told(arguments: list[str], said: str) -> None:
    code, output = call(*arguments)
    assert code == 1 and said in output


def test_a_damaged_registry_is_told(registry: Registry) -> None:
    (registry.root / "promoted.json").write_text("{")
    for command in (["models"], ["rollback"], ["predict", "a.png", "--out", "found"]):
        code, said = call(*command)
        assert code == 1 and "promoted.json: damaged, or edited by hand" in said


def test_not_while_a_run_is_under_way(registry: Registry) -> None:
    """Within one process the lock may be held anew, so another one holds it."""
    import subprocess
    import sys

    script = (
        "import sys, time; from pathlib import Path; from flows.processes.run_lock import held\n"
        "with held(Path.cwd(), 'training', wait=False, say=print): print('held', flush=True); time.sleep(60)"
    )
    root = Path(__file__).resolve().parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=registry.root.parent, stdout=subprocess.PIPE, text=True,
        env={"PYTHONPATH": str(root)},
    ) as holder:  # fmt: skip
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        code, said = call("rollback")
        holder.kill()
    assert run_lock.PATH.name == "run.lock"
    assert code == 1 and "another run is under way" in said and "training" in said


def student(verdict: str, version: str | None, model: str) -> None:
    """The present student's comparison."""
    found = comparison(verdict, change(20.0, 10.0, 0.5), version).model_dump(mode="json") | {"model": model}
    path = Path("workspace/comparison/comparison.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))


def test_where_the_student_stands(registry: Registry) -> None:
    assert standing(Path.cwd()) == "promotion: the student wasn't compared"
    student("first", None, entry("v1").model)
    assert "not decided; nothing is promoted. This student is the first model" in standing(Path.cwd())
    registry.write_entry(entry("v1"))
    registry.write_promotion(event("v1"))
    assert "this student is v1, which is promoted" in standing(Path.cwd())
    student("worse", "v1", entry("v2").model)
    registry.write_entry(entry("v2", "refused"))
    assert "this student, v2, is refused; v1 is promoted. It is worse than tolerated" in standing(Path.cwd())
    registry.write_entry(entry("v3"))
    registry.write_promotion(event("v3"))
    student("first", None, entry("v1").model)
    assert standing(Path.cwd()) == "promotion: this student is v1, which was promoted before; v3 is now"


def test_whose_predictions_are_the_promoted_models(registry: Registry) -> None:
    for version in ("v1", "v2"):
        registry.write_entry(entry(version))
    registry.write_promotion(event("v1"))
    workspace = Path.cwd() / "workspace"
    student("first", None, entry("v1").model)
    assert promoted_predictions(workspace)[0] == "student"
    student("worse", "v1", entry("v2").model)
    assert promoted_predictions(workspace)[0] == "baseline"
    registry.write_promotion(event("v2"))
    student("worse", "v1", entry("v9").model)
    with pytest.raises(TaskError, match="v2 is neither the current student nor what it was compared with"):
        promoted_predictions(workspace)
