from __future__ import annotations

from pathlib import Path

import pytest

from data.errors import DataError
from data.points.classes import load_classes
from data.tables import Category

CATEGORIES = [Category(5, "bolt"), Category(9, "washer")]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("c.yaml", "Screw: bolt\n3: washer\n'': bolt\ndirt:\n",
         {"Screw": "bolt", "3": "washer", "": "bolt", "dirt": None}),
        ("c.csv", 'from,to\nScrew,bolt\n"a, b",washer\n,bolt\ndirt,\n',
         {"Screw": "bolt", "a, b": "washer", "": "bolt", "dirt": None}),
    ],
)  # fmt: skip
def test_yaml_and_csv(tmp_path: Path, name: str, content: str, expected: dict[str, str | None]) -> None:
    (tmp_path / name).write_text(content)
    assert load_classes(tmp_path / name, CATEGORIES) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.yaml", "Screw: bold\nNut: x\n", r"2 faults.*'bold'.*bolt.*'x'"),
        ("c.yaml", "- a\n- b\n", "expected YAML"),
        ("c.yaml", "a: [", "invalid YAML"),
        ("c.yaml", "a: !!python/object/apply:os.system [ls]\n", "invalid YAML"),
        ("c.yaml", "a: {b: c}\n", "or nothing to leave the class out"),
        ("c.yaml", "", "expected YAML"),
        ("c.csv", "from,to\na,bolt,x\n", "two cells"),
        ("c.csv", "from,to\na,bolt\na,washer\n", "'a' twice"),
        ("c.csv", "", "no row"),
        ("c.csv", 'from,to\n"a', "invalid CSV"),
        ("c.yaml", "a: \xff", "UTF-8"),
    ],
)
def test_faults(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=f"(?s){message}"):
        load_classes(tmp_path / name, CATEGORIES)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        load_classes(tmp_path / "c.yaml", CATEGORIES)
