"""A small tree of source files, for the tests that read imports."""

from __future__ import annotations

from pathlib import Path

BASE = {
    "tasks/__init__.py": "",
    "data/__init__.py": "",
    "data/a.py": "",
    "data/b.py": "",
    "tasks/page.html": "<p>",
}


def lay(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
