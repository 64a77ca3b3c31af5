"""Which edits make which stages stale."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tasks.code import stages
from tasks.common.code_identity import ROOT, Sources, identities

LABELLING = {"pseudo_label"}
PARAMS = """\
class Params:
    one: One
    two: int
    three: One
    four: int
    def two(self): self.four
class One: size = 1
"""
PARAMS_PARTS = ["One", "Params.four", "Params.one", "Params.two"]
TRAINING = {"train_teacher", "train_refiner", "train_student", "train_repeats"}
DETECTORS = TRAINING - {"train_refiner"}


def reached(root: Path, files: dict[str, str]) -> dict[str, str]:
    for name, text in {"tasks/__init__.py": "", "data/__init__.py": "", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return identities(["step"], Sources(root))["step"]


@pytest.mark.parametrize(
    ("step", "more", "expected"),
    [
        ("def run(): f()\ndef f(): pass\ndef g(): pass", {}, ["f", "run"]),
        ("def run(): return A\nA = B = f()\ndef f(): return 1", {}, ["A", "B", "f", "run"]),
        ("import os, numpy as np\ndef run(): os.sep; np.e", {}, ["run"]),
        ("from data.a import thing\ndef run(): thing()", {"data/a.py": "def thing(): other()\ndef other(): x = 1"},
         ["data.a:other", "data.a:thing", "run"]),
        ("from data import a\ndef run(): a.thing()", {"data/a.py": "def thing(): return 1\ndef other(): return 2"},
         ["data.a:thing", "run"]),
        ("import data.a\ndef run(): data.a.thing()", {"data/a.py": "thing = 1\nother = 2"}, ["data.a:thing", "run"]),
        ("import data.a as it\ndef run(): use(it)\nuse = print", {"data/a.py": "thing = 1\nother = 2"},
         ["data.a:other", "data.a:thing", "run", "use"]),
        ("def run():\n    from data.a import thing\n    thing()", {"data/a.py": "thing = 1"}, ["data.a:thing", "run"]),
        ("from data.a import thing\ndef run(): thing()",
         {"data/a.py": "from .b import thing", "data/b.py": "thing = 1"}, ["data.b:thing", "run"]),
        ("from data import thing\ndef run(): thing()", {"data/__init__.py": "from data.b import thing",
         "data/b.py": "thing = 1"}, ["data.b:thing", "run"]),
        ("import data.b\ndef run(): return 1", {"data/b.py": "import sys\nsys.x = 1\ny = 2"}, ["data.b:", "run"]),
        ("from data.b import R\ndef run(): return R", {
            "data/b.py": "R = {}\ndef add(f): R[f.__name__] = f\n@add\ndef one(): return 1\ndef two(): return 2"},
         ["data.b:", "data.b:R", "data.b:add", "run"]),
        ("if __name__ == '__main__':\n    print(run())\ndef run(): return 1", {}, ["run"]),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import data.b\ndef run(): return data",
         {"data/b.py": "x.y = 1"}, ["run"]),
        ("class A(B):\n    x: C\n    def f(self, d: D): pass\nclass B: y = 1\nclass C: y = 1\nclass D: y = 1\n"
         "def run(): A()", {}, ["A", "B", "C", "run"]),
        ("def run(params): params.one.size; params.two; x.three",
         {"tasks/common/config/params.py": PARAMS},
         [f"tasks.common.config.params:{name}" for name in PARAMS_PARTS] + ["run"]),
    ],
)  # fmt: skip
def test_what_is_reached(tmp_path: Path, step: str, more: dict[str, str], expected: list[str]) -> None:
    found = reached(tmp_path, {**more, "tasks/step.py": step})
    assert sorted(place.removeprefix("tasks.step:") for place in found) == sorted(expected)


BEFORE = '''
import logging
log = logging.getLogger(__name__)
def run(values):
    """Sums them."""
    total = 0.0
    for value in values:
        if value < 0:
            found = f"{value} is below 0"
            raise ValueError(f"found {found}; expected none", "do this")
        total += value * 2
    log.info("%d values", len(values))
    assert total >= 0, "a sum"
    return total
'''


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("Sums them.", "Adds them up.", True),
        ('    """Sums them."""\n', "", True),
        ("total = 0.0", "total = 0.0  # a start", True),
        ("total += value * 2", "total += (\n            value\n            * 2\n        )", True),
        ("is below 0", "is negative", True),
        ("expected none", "expected 0 or more", True),
        ('log.info("%d values", len(values))', 'log.warning("there are %d", len(values))', True),
        ('    log.info("%d values", len(values))\n', "", True),
        ('"a sum"', '"no sum"', True),
        ("def run", "def another(): return 3\ndef run", True),
        ("value * 2", "value * 3", False),
        ("value < 0", "value <= 0", False),
        ("ValueError", "TypeError", False),
        ("0.0", "0", False),
        ("total >= 0", "total > 0", False),
        ("return total", "return values", False),
    ],
)
def test_wording_is_no_code(tmp_path: Path, old: str, new: str, same: bool) -> None:
    assert old in BEFORE
    before = reached(tmp_path, {"tasks/step.py": BEFORE})
    after = reached(tmp_path, {"tasks/step.py": BEFORE.replace(old, new)})
    assert (before == after) is same


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("T = 0\ndef run():\n    global T\n    T = 'a b'", "T = 0\ndef run():\n    global T\n    T = 'a c'"),
        ("def run():\n    t = 0\n    def f():\n        nonlocal t\n        t = 'a b'\n    f()\n    return t",
         "def run():\n    t = 0\n    def f():\n        nonlocal t\n        t = 'a c'\n    f()\n    return t"),
        ("def run(): raise OSError('it moved', 'changed')", "def run(): raise OSError('it moved', 'gone')"),
        ("def run(x): raise OSError(x + 1)", "def run(x): raise OSError(x + 2)"),
        ("def run():\n    log = []\n    log.append(1)\n    return log",
         "def run():\n    log = []\n    log.append(2)\n    return log"),
        ("def run():\n    log.info('a', (y := 1))\n    return y",
         "def run():\n    log.info('a', (y := 2))\n    return y"),
        ("import warnings\ndef run(): warnings.simplefilter('error')",
         "import warnings\ndef run(): warnings.simplefilter('ignore')"),
        ("def run(f): print('a b', file=f)", "def run(f): print('a c', file=f)"),
        ("if __name__ != 'tasks.x':\n    X = 1\ndef run(): return X",
         "if __name__ != 'tasks.x':\n    X = 2\ndef run(): return X"),
        ("def run():\n    found = 'a b'\n    raise KeyError(found) if f(found) else 1",
         "def run():\n    found = 'a c'\n    raise KeyError(found) if f(found) else 1"),
    ],
)  # fmt: skip
def test_what_only_looks_like_wording(tmp_path: Path, before: str, after: str) -> None:
    assert reached(tmp_path, {"tasks/step.py": before}) != reached(tmp_path, {"tasks/step.py": after})


def test_star_imports_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SyntaxError, match="import \\*"):
        reached(tmp_path, {"tasks/step.py": "from data.a import *\ndef run(): f()", "data/a.py": ""})


@pytest.mark.parametrize("name", ["page.html", "pages/page.html"])
def test_a_template_counts(tmp_path: Path, name: str) -> None:
    step = {"tasks/step.py": f"def run(): return open('{name}')"}
    assert reached(tmp_path, {**step, f"tasks/{name}": "a"}) != reached(
        tmp_path, {**step, f"tasks/{name}": "b"}
    )


class Edited(Sources):
    """The real sources, with one file's text changed."""

    def __init__(self, real: Sources, file: str, old: str, new: str) -> None:
        super().__init__(real.root)
        name = file.removesuffix(".py").replace("/", ".")
        self._modules = {key: value for key, value in real._modules.items() if key != name}
        self.path, self.old, self.new = real.root / file, old, new

    def text(self, path: Path) -> str:
        text = super().text(path)
        if path == self.path:
            assert self.old in text, f"{path}: the test's text is gone"
            text = text.replace(self.old, self.new, 1)
        return text


@pytest.fixture(scope="module")
def real() -> tuple[Sources, dict[str, dict[str, str]]]:
    sources = Sources(ROOT)
    return sources, identities(stages(), sources)


@pytest.mark.parametrize(
    ("file", "old", "new", "stale"),
    [
        ("tasks/training/loop.py", "parts = _backward(", "# a comment\n            parts = _backward(", set()),
        ("tasks/common/disk.py", "free some there", "make room there", set()),
        ("models/solov2/losses.py", "V-Net (Milletari", "V-Net of 2016 (Milletari", set()),
        ("tasks/common/config/operation.py", "    git: bool\n", "    git: bool\n    review: bool\n", set()),
        ("data/points/__init__.py", "def importer_for", "def another() -> int:\n    return 1\n\ndef importer_for",
         set()),
        ("data/points/formats/labelme.py", "IMPORTER = ", "NEW = 1\nIMPORTER = ", set()),
        ("models/solov2/losses.py", "1 - 2 * overlap", "1 - 3 * overlap", DETECTORS),
        ("models/solov2/losses.py", "DICE_EPSILON = 0.001", "DICE_EPSILON = 0.002", DETECTORS),
        ("data/samples/placement.py", '"nearest-exact"', '"nearest"', TRAINING),
        ("data/images/resize.py", "BILINEAR", "BICUBIC", TRAINING | LABELLING | {"evaluate", "compare"}),
        ("models/inference/detect.py", "torch.exp(-sigma", "torch.exp(-2 * sigma", {"evaluate", "compare"}),
        ("tasks/common/config/training.py", "    milestones: Steps\n\n    @model_validator",
         "    milestones: Steps\n    rounds: PositiveInt\n\n    @model_validator",
         {"train_teacher"}),
    ],
)  # fmt: skip
def test_edits_of_the_real_code(
    real: tuple[Sources, dict[str, dict[str, str]]], file: str, old: str, new: str, stale: set[str]
) -> None:
    sources, before = real
    after = identities(before, Edited(sources, file, old, new))
    changed = {stage for stage in before if before[stage] != after[stage]}
    assert changed & (TRAINING | LABELLING | {"evaluate", "compare"}) >= stale
    assert changed & (TRAINING | LABELLING) == stale & (TRAINING | LABELLING)


def test_labelling_doesnt_reach_the_training_engine(real: tuple[Sources, dict[str, dict[str, str]]]) -> None:
    assert not [
        place
        for place in real[1]["pseudo_label"]
        if place.startswith(("tasks.training.loop:", "tasks.training.setup:"))
    ]


def test_other_students_are_no_code_of_teachers(real: tuple[Sources, dict[str, dict[str, str]]]) -> None:
    theirs = (
        "models.queries.network:",
        "models.queries.loss:",
        "models.inference.queries:",
        "tasks.training.queries:",
    )
    of = {stage: [place for place in real[1][stage] if place.startswith(theirs)] for stage in real[1]}
    assert not of["train_teacher"] and not of["train_refiner"] and not of["pseudo_label"]
    assert of["train_student"] and of["evaluate"] and of["compare"]


def test_another_layout_is_no_code(tmp_path: Path) -> None:
    """`ruff format` with lines of 60."""
    for package in ("data", "models", "tasks"):
        subprocess.run(["cp", "-r", str(ROOT / package), str(tmp_path)], check=True)
    command = [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", "60", "-q", "."]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert (tmp_path / "tasks/training/loop.py").read_text() != (ROOT / "tasks/training/loop.py").read_text()
    some = ["train_teacher", "pseudo_label"]
    assert identities(some, Sources(tmp_path)) == identities(some, Sources(ROOT))
