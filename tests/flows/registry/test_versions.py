from __future__ import annotations

from pathlib import Path

import pytest

from flows.registry import versions
from tasks.common.errors import TaskError
from tasks.promotion.baseline import REGISTRY, folder_hash, model_folder


def test_a_model_that_changes_while_it_is_copied_leaves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "workspace/student"
    source.mkdir(parents=True)
    (source / "model.json").write_text("{}")
    before = folder_hash(source)
    (source / "model.json").write_text("{ }")
    with pytest.raises(TaskError, match=f"{folder_hash(source)}, expected {before}"):
        versions.store(tmp_path, "v1", source, before)
    assert not model_folder(tmp_path / REGISTRY, "v1").exists()
