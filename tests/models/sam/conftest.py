"""Each tiny model is made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.models.sam.tiny import saved


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a model by its name; not to be changed."""
    root = tmp_path_factory.mktemp("sam")

    def folder(name: str) -> Path:
        return root / name if (root / name).is_dir() else saved(name, root / name)

    return folder
