"""dvc.lock is read as DVC writes it, and only a valid one is used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import dump_yaml

from flows.dvc import lock
from flows.dvc.lock import TornError, read_lock, read_manifest
from flows.dvc.repo import PipelineError

VALUES = {
    "whole": [0, -7, 10**16], "real": [1e-4, 1e16, 0.5, 1.0, -2.5e-9, float("inf")], "none": None, "b": [True, False],
    "texts": ["on", "yes", "no", "1e-4", "010", "0x1f", "1:30", "2020-01-01", "=", "~", "", "true", "a: b", "é"],
}  # fmt: skip
START = "schema: '2.0'\nstages:\n  a:\n    cmd: x\n"
DEP = "    - path: d\n      md5: d41d8cd98f00b204e9800998ecf8427e\n"


def write(root: Path, text: str) -> None:
    (root / "dvc.lock").write_text(text)


def test_what_dvc_wrote_comes_back(tmp_path: Path) -> None:
    content: dict[str, Any] = {
        "schema": "2.0",
        "stages": {"a": {"cmd": "x", "params": {"params.yaml": {**VALUES, "again": VALUES["texts"]}}}},
    }
    dump_yaml(str(tmp_path / "dvc.lock"), content)
    assert "*id" in (tmp_path / "dvc.lock").read_text()
    assert read_lock(tmp_path) == content
    assert read_manifest(tmp_path, "a") == {
        "stage": "a", "cmd": "x", "deps": {}, "params": content["stages"]["a"]["params"], "outs": {},
    }  # fmt: skip
    assert read_manifest(tmp_path, "b") is None


def test_of_many_files(tmp_path: Path) -> None:
    write(tmp_path, START + "    deps:\n" + "".join(DEP.replace("d\n", f"d{n}\n", 1) for n in range(21_000)))
    manifest = read_manifest(tmp_path, "a")
    assert manifest is not None and len(manifest["deps"]) == 21_000


def test_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, START)
    os.utime(tmp_path / "dvc.lock", (1, 1))
    monkeypatch.setattr(
        lock, "parse_lock", lambda text, parse=lock.parse_lock: parsed.append(text) or parse(text)
    )  # type: ignore[func-returns-value]
    parsed: list[str] = []
    assert read_lock(tmp_path) == read_lock(tmp_path) != {}
    assert len(parsed) == 1
    write(tmp_path, START.replace("cmd: x", "cmd: y"))
    assert read_lock(tmp_path)["stages"]["a"]["cmd"] == "y"


@pytest.mark.parametrize(
    ("text", "found", "torn"),
    [
        (START + "  a:\n    cmd: y\n", "key 'a' found more than once", False),
        ("schema: '2.0'\nstages:\n- a\n", "not as DVC writes it", False),
        ("- a\n", "not as DVC writes it", False),
        (f"<<<<<<< HEAD\n{START}", "marks of a merge", False),
        (START + "    params: &p\n      x: {y: *p}\n", "an alias that contains itself", False),
        (START + "    params:\n      x:\n        a0: &a0 [1, 1]\n"
         + "".join(f"        a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)), "aliases", False),
        (START + "    params: {x: {y: " + "[" * 100_000 + "]" * 100_000 + "}}\n", "not YAML", True),
        (START + "    params: {x: {y: " + "9" * 5000 + "}}\n", "not usable as YAML", False),
        (START + "    params: {x: {y: !!python/object:os.system 1}}\n", "not usable as YAML", False),
        (START + "    deps:\n", "not as DVC writes it", True),
        (START[:-20] + "'", "not YAML", True),
        ("\ud800", "can't be read (not UTF-8", False),
    ],
    ids=["stage twice", "list of stages", "list", "merge", "endless alias", "laughs", "deep", "long number", "object",
         "torn between lines", "torn", "no text"],
)  # fmt: skip
def test_what_can_not_be_used(tmp_path: Path, text: str, found: str, torn: bool) -> None:
    (tmp_path / "dvc.lock").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(PipelineError) as error:
        read_manifest(tmp_path, "a")
    assert str(error.value).startswith("dvc.lock: ") and found in str(error.value)
    assert isinstance(error.value, TornError) == torn


def test_a_named_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "dvc.lock")
    with pytest.raises(PipelineError, match="not a regular file"):
        read_manifest(tmp_path, "a")
