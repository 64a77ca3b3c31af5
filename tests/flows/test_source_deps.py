"""The import closure, and dvc.yaml rewritten with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.source_deps import closure, faults, rewrite

BASE = {
    "tasks/__init__.py": "",
    "data/__init__.py": "",
    "data/a.py": "",
    "data/b.py": "",
    "tasks/page.html": "<p>",
}
PACKAGES = ["data/__init__.py", "tasks/__init__.py"]


def lay(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


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


DVC_YAML = """\
# a comment
stages:
  step:
    desc: has one too many and one too few
    cmd: python -m tasks.step
    deps:
      - workspace/in  # kept
      - data/gone.py
      - ${ingest.images}
    outs:
      - workspace/out
  other:
    cmd: ./run.sh
    deps:
      - data/a.py
    outs:
      - workspace/other
"""


def test_rewrite_mends_what_faults_finds(tmp_path: Path) -> None:
    lay(tmp_path, {**BASE, "tasks/step.py": "from data import a", "dvc.yaml": DVC_YAML})
    source = ["data/__init__.py", "data/a.py", "tasks/__init__.py", "tasks/step.py"]
    assert faults(tmp_path) == {"step": (source, ["data/gone.py"])}
    mended = rewrite(DVC_YAML, tmp_path)
    (tmp_path / "dvc.yaml").write_text(mended)
    assert faults(tmp_path) == {}
    assert rewrite(mended, tmp_path) == mended
    listed = "".join(f"      - {file}\n" for file in source)
    assert mended == DVC_YAML.replace("      - data/gone.py\n", "").replace(
        "    deps:\n", "    deps:\n" + listed, 1
    )
