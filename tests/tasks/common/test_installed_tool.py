from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.common import installed_tool
from tasks.common.errors import TaskError


def test_a_clone_has_no_file_and_no_check(tmp_path: Path) -> None:
    installed_tool.check(tmp_path)
    assert installed_tool.change(tmp_path) is None


@pytest.mark.parametrize("text", ['{"version": "0.0.1", "code": "0123"}', "[]", "{", ""])
def test_another_version_ends_a_stage_until_it_is_recorded(tmp_path: Path, text: str) -> None:
    (tmp_path / installed_tool.FILE).write_text(text)
    with pytest.raises(TaskError, match="points2model run") as error:
        installed_tool.check(tmp_path)
    assert installed_tool.installed()["code"] in str(error.value)
    installed_tool.write(tmp_path)
    installed_tool.check(tmp_path)
    assert json.loads((tmp_path / installed_tool.FILE).read_text()) == installed_tool.installed()


def test_a_changed_source_file_is_another_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in installed_tool.PACKAGES:
        (tmp_path / package).mkdir()
    (tmp_path / "tasks/report.py").write_text("a = 1\n")
    monkeypatch.setattr(installed_tool, "ROOT", tmp_path)
    before = installed_tool.installed()
    (tmp_path / "tasks/notes.txt").write_text("no code")
    assert installed_tool.installed() == before
    (tmp_path / "tasks/report.py").write_text("a = 2\n")
    assert installed_tool.installed() != before
