"""The pipeline by DVC."""

from __future__ import annotations

import shutil

import pytest

from flows.dvc.lock import read_manifest
from flows.dvc.repo import DvcRepo, PipelineError, StageNode, direct_upstream
from tests.flows.conftest import Toy


def test_graph_lists_ancestors_in_order(toy: Toy) -> None:
    nodes = DvcRepo(toy.root).graph("report")
    assert list(nodes) == ["a", "b", "c", "report"]
    assert [node.upstream for node in nodes.values()] == [(), ("a",), ("a",), ("b", "c")]
    assert [node.gpu for node in nodes.values()] == [False, True, False, False]
    assert nodes["a"].desc == "The first"
    assert list(DvcRepo(toy.root).graph("b")) == ["a", "b"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text, "no stage 'end'; the stages are a, b, c, report, stranger"),
        (lambda text: text.replace("cmd: python step.py a", "cmdd: x"), "dvc.yaml"),
        (
            lambda text: text.replace("deps: [step.py, in.txt]", "deps: [step.py, ws/report]"),
            "both a dependency and an output",
        ),
        (lambda text: text.replace("[ws/c]", "[ws/b]"), "ws/b"),
        (lambda text: text.replace("in.txt", "'${nowhere.file}'"), "nowhere"),
    ],
    ids=["unknown stage", "misspelt key", "cycle", "two stages write one output", "unknown param"],
)
def test_graph_faults(toy: Toy, edit: object, message: str) -> None:
    path = toy.path("dvc.yaml")
    path.write_text(edit(path.read_text()))  # type: ignore[operator]
    with pytest.raises(PipelineError, match=message):
        DvcRepo(toy.root).graph("end")


def test_names_of_stages_where_dvc_cant_read_the_pipeline(toy: Toy) -> None:
    """The doctor asks for them, whatever it found before."""
    path = toy.path("dvc.yaml")
    path.write_text(path.read_text().replace("cmd: python step.py a", "cmdd: x"))
    with pytest.raises(PipelineError, match=r"dvc\.yaml"):
        DvcRepo(toy.root).stages()


def test_no_pipeline_here(toy: Toy) -> None:
    toy.path("dvc.yaml").unlink()
    with pytest.raises(PipelineError, match="no such file"):
        DvcRepo(toy.root)


def test_no_dvc_repository(toy: Toy) -> None:
    shutil.rmtree(toy.path(".dvc"))
    with pytest.raises(PipelineError, match="dvc init"):
        DvcRepo(toy.root)


@pytest.mark.parametrize(
    ("change", "changes"),
    [
        (lambda toy: toy.set(a=2), True),
        (lambda toy: toy.set(b=2), False),
        (lambda toy: toy.path("in.txt").write_text("new\n"), True),
        (lambda toy: toy.path("in.txt").touch(), False),
        (lambda toy: toy.path("step.py").write_text("pass\n"), True),
        (lambda toy: toy.path("hidden.txt").write_text("x"), False),
        (
            lambda toy: toy.path("dvc.yaml").write_text(
                toy.path("dvc.yaml").read_text().replace("step.py a\n", "step.py a --fast\n")
            ),
            True,
        ),
    ],
    ids=["own param", "other's param", "input", "input touched", "code", "undeclared file", "command"],
)
def test_key_is_of_content(toy: Toy, change: object, changes: bool) -> None:
    repo = DvcRepo(toy.root)
    before = repo.key("a")
    change(toy)  # type: ignore[operator]
    assert (repo.key("a") != before) == changes


def test_done_and_undone(toy: Toy) -> None:
    repo = DvcRepo(toy.root)
    assert not repo.is_done("a")
    assert read_manifest(toy.root, "a") is None
    toy.dvc("repro", "a")
    assert repo.is_done("a")
    manifest = read_manifest(toy.root, "a")
    assert manifest is not None
    assert manifest["params"] == {"params.yaml": {"a": 1}}
    assert set(manifest["deps"]) == {"in.txt", "step.py"}
    assert set(manifest["outs"]) == {"ws/a"}

    made = toy.path("ws/a").read_bytes()
    toy.path("ws/a").unlink()
    assert not repo.is_done("a")
    assert repo.restore_missing(["a", "b"]) == ["ws/a"]
    assert repo.is_done("a")
    assert toy.path("ws/a").read_bytes() == made
    assert repo.restore_missing(["a", "b"]) == []

    shutil.rmtree(toy.path("ws"))
    shutil.rmtree(toy.path(".dvc/cache"))
    assert repo.restore_missing(["a"]) == []  # gone for good: the stage will run
    assert not repo.is_done("a")


def test_a_frozen_stage_needs_no_dependency(toy: Toy) -> None:
    """As with data in a bucket that can't be reached: the hashes of dvc.lock count."""
    toy.dvc("repro", "a")
    key = DvcRepo(toy.root).key("a")
    path = toy.path("dvc.yaml")
    path.write_text(
        path.read_text().replace("    desc: The first\n", "    desc: The first\n    frozen: true\n")
    )
    toy.path("in.txt").unlink()
    frozen = DvcRepo(toy.root)
    assert key is not None and frozen.key("a") == key
    assert frozen.is_done("a")


@pytest.mark.parametrize(
    ("graph", "direct"),
    [
        ({"a": ""}, {"a": ""}),
        ({"a": "", "b": "a", "c": "ab"}, {"a": "", "b": "a", "c": "b"}),
        ({"a": "", "b": "a", "c": "a", "d": "bc"}, {"a": "", "b": "a", "c": "a", "d": "bc"}),
        ({"a": "", "b": "a", "c": "b", "d": "abc"}, {"a": "", "b": "a", "c": "b", "d": "c"}),
        ({"a": "", "b": "", "c": "a", "d": "bca"}, {"a": "", "b": "", "c": "a", "d": "bc"}),
    ],
)
def test_edges_that_follow_from_others_are_not_drawn(graph: dict[str, str], direct: dict[str, str]) -> None:
    nodes = {name: StageNode(name, tuple(above), "", False) for name, above in graph.items()}
    assert {name: "".join(direct_upstream(nodes, node)) for name, node in nodes.items()} == direct
