"""The import closure."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.source_files import closure
from tests.source_tree import BASE, lay

PACKAGES = ["data/__init__.py", "tasks/__init__.py"]


@pytest.mark.parametrize(
    ("step", "more", "expected"),
    [
        ("", {}, ["tasks/__init__.py"]),
        ("import os, json.decoder, numpy as np", {}, ["tasks/__init__.py"]),
        ("from data.a import thing", {}, [*PACKAGES, "data/a.py"]),
        ("from data import a, b", {}, [*PACKAGES, "data/a.py", "data/b.py"]),
        ("import data.a as it", {}, [*PACKAGES, "data/a.py"]),
        ("def f():\n    from data import a", {}, [*PACKAGES, "data/a.py"]),
        ("from data import a", {"data/a.py": "from . import b"}, [*PACKAGES, "data/a.py", "data/b.py"]),
        ("from data import a", {"data/a.py": "from .b import x"}, [*PACKAGES, "data/a.py", "data/b.py"]),
        ("from data import a", {"data/a.py": "import data.b", "data/b.py": "import data.a"},
         [*PACKAGES, "data/a.py", "data/b.py"]),
        ("import data.sub",
         {"data/sub/__init__.py": "from .. import a\nfrom .c import y", "data/sub/c.py": ""},
         [*PACKAGES, "data/sub/__init__.py", "data/sub/c.py", "data/a.py"]),
        ("import typing\nif typing.TYPE_CHECKING:\n    import data.a\nelse:\n    import data.b", {},
         [*PACKAGES, "data/b.py"]),
        ("page = 'page.html'\nother = 'gone.html'", {}, ["tasks/__init__.py", "tasks/page.html"]),
    ],
)  # fmt: skip
def test_closure(tmp_path: Path, step: str, more: dict[str, str], expected: list[str]) -> None:
    lay(tmp_path, {**BASE, **more, "tasks/step.py": step})
    assert closure("tasks.step", tmp_path) == sorted([*expected, "tasks/step.py"])
