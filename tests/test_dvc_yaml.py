"""dvc.yaml tells the truth: each stage lists what decides its result, no less and no more."""

from __future__ import annotations

import ast
import functools
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks import code
from tasks.common.code_identity import IGNORED_SECTIONS, PACKAGES
from tasks.common.config import Params

ROOT = Path(__file__).resolve().parents[1]
STAGES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]

# What a method of Params reads, beside the section that it is given.
METHODS = {"detector": "model"}
# Where files are fetched from, each known by its hash: no result depends on it.
WITHOUT_EFFECT = {("tasks.inference.split_parts", "source_of")}


@pytest.mark.parametrize("stage", sorted(set(STAGES) - {"code"}))
def test_stage_depends_on_its_code(stage: str) -> None:
    deps = STAGES[stage]["deps"]
    assert f"workspace/code/{stage}.json" in deps
    assert not [dep for dep in deps if dep.split("/")[0] in PACKAGES]


def test_every_stage_has_its_code_noted() -> None:
    assert {*code.stages(), "code"} == set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_stage_is_one_module(stage: str) -> None:
    assert STAGES[stage]["cmd"] == f"python -m tasks.{stage}"
    assert (ROOT / "tasks" / f"{stage}.py").is_file()
    assert STAGES[stage]["desc"]


@pytest.mark.parametrize("stage", STAGES)
def test_params_are_the_sections_that_the_step_reads(stage: str) -> None:
    """`params.teacher.steps` in the step, or in a function of ours that it uses, needs section `teacher`."""
    declared, read = (
        {name.partition(".")[0] for name in STAGES[stage].get("params", ())},
        sections_read(f"tasks.{stage}") - set(IGNORED_SECTIONS),
    )
    assert declared == read, (
        f"in dvc.yaml, params of {stage}: add {read - declared}, take out {declared - read}"
    )


def sections_read(module: str) -> set[str]:
    """Sections of params.yaml that the module's definitions read, and those of ours that they use elsewhere."""
    read: set[str] = set()
    seen = set(WITHOUT_EFFECT)
    waiting = [(module, name) for name in _definitions(module)]
    while waiting:
        place = waiting.pop()
        node = _definitions(place[0]).get(place[1])
        if place in seen or node is None:
            continue
        seen.add(place)
        imported = _imported(place[0])
        for part in ast.walk(node):
            if isinstance(part, ast.Name):
                waiting.append(imported.get(part.id, (place[0], part.id)))
            elif isinstance(part, ast.Attribute) and _is_params(part.value):
                read.add(METHODS.get(part.attr, part.attr))
    return read & set(Params.model_fields)


@functools.cache
def _tree(module: str) -> ast.Module:
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8") if path.is_file() else "")


def _definitions(module: str) -> dict[str, ast.AST]:
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {node.name: node for node in _tree(module).body if isinstance(node, kinds)}


def _imported(module: str) -> dict[str, tuple[str, str]]:
    return {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.walk(_tree(module))
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("tasks.")
        and node.module != "tasks.common.config"
        for alias in node.names
        if node.module
    }


def _is_params(node: ast.expr) -> bool:
    return (isinstance(node, ast.Name) and node.id == "params") or (
        isinstance(node, ast.Attribute) and node.attr == "params"
    )


def test_every_section_is_some_stages() -> None:
    used = {name.partition(".")[0] for stage in STAGES.values() for name in stage.get("params", ())}
    assert used | set(IGNORED_SECTIONS) == set(Params.model_fields)


def test_the_demo_is_no_ancestor_with_ones_own_data(tmp_path: Path) -> None:
    """With paths of one's own in params.yaml the graph has no make_demo."""
    from dvc.repo import Repo

    from flows.dvc.repo import DvcRepo

    Repo.init(str(tmp_path), no_scm=True).close()
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    (tmp_path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    assert "make_demo" in DvcRepo(tmp_path).graph("report")
    params["ingest"] |= {"images": "photos", "annotations": "labels"}
    params["points"]["files"] = "clicks"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    assert set(DvcRepo(tmp_path).graph("report")) == set(STAGES) - {"make_demo"}
