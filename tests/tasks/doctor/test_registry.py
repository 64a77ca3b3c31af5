"""What the doctor finds in the registry's files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.doctor.finding import Diagnosis
from tasks.doctor.registry import check_registry
from tasks.promotion.registry import Registry
from tests.tasks.conftest import blank_registry
from tests.tasks.promotion.test_registry import entry, event

FIRST, SECOND = (entry(version).model for version in ("v1", "v2"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project whose registry has v1 and v2, both once promoted, and v3, which was refused."""
    blank_registry(tmp_path)
    registry = Registry(tmp_path / "registry")
    for version in ("v1", "v2"):
        registry.write_entry(entry(version))
        registry.write_promotion(event(version))
        pointer = registry.root / version / "model.dvc"
        pointer.write_text(f"outs:\n- md5: {entry(version).model}\n  path: model\n")
    registry.write_entry(entry("v3", "refused"))
    registry.write_baseline("v2")
    return tmp_path


def found(root: Path) -> list[str]:
    diagnosis = Diagnosis()
    check_registry(root, diagnosis)
    assert {one.check for one in diagnosis.errors} <= {"registry"}
    return [str(one.fault).removeprefix(f"{root}/registry/") for one in diagnosis.errors]


def test_a_whole_registry_has_no_faults(root: Path) -> None:
    assert found(root) == []


def test_a_project_without_one_has_no_faults(tmp_path: Path) -> None:
    assert found(tmp_path) == []


def test_a_promotion_killed_half_way_has_no_faults(root: Path) -> None:
    """Its event and its model's .dvc file come after its entry; the next run finishes it."""
    Registry(root / "registry").write_entry(entry("v4"))
    assert found(root) == []


def cut(path: Path) -> None:
    path.write_text(path.read_text()[:30])


def other_model(path: Path) -> None:
    path.write_text(path.read_text().replace(SECOND, FIRST))


def unknown_version(path: Path) -> None:
    path.write_text(path.read_text().replace('"v2"', '"v7"'))


@pytest.mark.parametrize(
    ("name", "damage", "start"),
    [
        ("v1/entry.json", cut, "v1/entry.json: file: found damaged, or edited by hand: "),
        ("promoted.json", cut, "promoted.json: file: found damaged, or edited by hand: "),
        ("promoted.json", Path.unlink, None),
        ("baseline.json", cut, "baseline.json: file: found damaged, or edited by hand: "),
        ("baseline.json", Path.unlink, "baseline.json: file: found no such file"),
        (
            "baseline.json",
            other_model,
            f"baseline.json: model: found model {FIRST} of v2; expected {SECOND}, as",
        ),
        (
            "baseline.json",
            unknown_version,
            f"baseline.json: model: found model {SECOND} of v7; expected a version with",
        ),
        ("start/promoted.json", cut, "start/promoted.json: file: found damaged, or edited by hand: "),
        (
            "start/promoted.json",
            other_model,
            f"start/promoted.json: model: found model {FIRST} of v2; expected {SECOND}",
        ),
        (
            "v2/model.dvc",
            other_model,
            f"v2/model.dvc: md5: found {FIRST}; expected {SECOND}, as entry.json has",
        ),
        ("v1/model.dvc", Path.unlink, f"v1/model.dvc: md5: found no such file; expected {FIRST}"),
        ("v1/model.dvc", cut, "v1/model.dvc: md5: found "),
    ],
)
def test_damage(root: Path, name: str, damage: Callable[[Path], None], start: str | None) -> None:
    path = root / "registry" / name
    damage(path)
    faults = found(root)
    if start is None:  # nothing was ever promoted, as far as the files say
        assert faults == []
        return
    assert any(fault.startswith(start) for fault in faults), faults
    assert all(fault.count("restore it from a backup, or with `git checkout ") == 1 for fault in faults), (
        faults
    )
    assert all("Next: restore it from a backup, or with `git checkout " in fault for fault in faults)


def test_every_damaged_file_is_an_error_of_its_own(root: Path) -> None:
    for version in ("v1", "v2"):
        cut(root / "registry" / version / "entry.json")
    faults = found(root)
    assert [fault.partition(":")[0] for fault in faults] == ["v1/entry.json", "v2/entry.json"]
