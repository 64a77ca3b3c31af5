"""Commits of promotions hold all that says which points a model is of."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from flows.registry import git as registry_git


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture(autouse=True)
def _repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    git("config", "user.email", "a@b.c")
    git("config", "user.name", "A")
    for name in (
        "dvc.lock",
        "params.yaml",
        "registry/v1/entry.json",
        "arrivals/2026-11/a.json",
        "mine/other.txt",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("x")
    Path("mine/points").mkdir()
    Path("mine/points/a.json").write_text("x")


LINE = {"dvc.lock", "params.yaml", "registry/v1/entry.json"}


@pytest.mark.parametrize(
    ("kept_by", "points", "more"),
    [
        ("dvc", "mine/points", {"arrivals/2026-11/a.json", "mine/points.dvc", "mine/.gitignore"}),
        ("git", "mine/points", {"arrivals/2026-11/a.json", "mine/points/a.json", "mine/points/b.json"}),
        ("none", "mine/points", set()),
        ("none", "s3://bucket/points", set()),
        ("none", "/elsewhere/points", set()),
        ("none", "workspace/demo/points", set()),
    ],
)
def test_a_commit_holds_the_version_of_the_points(kept_by: str, points: str, more: set[str]) -> None:
    if kept_by == "dvc":
        Path("mine/points.dvc").write_text("outs:\n")
        Path("mine/.gitignore").write_text("/points\n")
    if kept_by == "git":
        git("add", "mine/points/a.json")
        Path("mine/points/b.json").write_text("x")
    Path("mine/other.txt").write_text("not of the line")
    said = registry_git.commit(Path.cwd(), "v1 is promoted", "v1", points, "decisions")
    assert said.startswith("committed ") and said.endswith(", tagged student@v0.0.1")
    assert set(git("ls-tree", "-r", "--name-only", "HEAD").splitlines()) == LINE | more
    assert registry_git.commit(Path.cwd(), "again", "v1", points, "decisions") == ""


@pytest.mark.parametrize("kept_by", ["git", "dvc", "nothing", "none"])
def test_a_commit_holds_the_decisions_of_reviewers(kept_by: str) -> None:
    more = set()
    if kept_by != "none":
        Path("review").mkdir()
        Path("review/anna.jsonl").write_text("x")
        more = {"review/anna.jsonl"}
    if kept_by == "git":
        git("add", "review/anna.jsonl")
        Path("review/bob.jsonl").write_text("x")
        more |= {"review/bob.jsonl"}
    if kept_by == "dvc":
        Path("review.dvc").write_text("outs:\n")
        Path(".gitignore").write_text("/review\n")
        more = {"review.dvc", ".gitignore"}
    registry_git.commit(Path.cwd(), "v1 is promoted", "v1", "mine/points", "review")
    assert set(git("ls-tree", "-r", "--name-only", "HEAD").splitlines()) == LINE | more
    assert registry_git.commit(Path.cwd(), "again", "v1", "mine/points", "review") == ""
