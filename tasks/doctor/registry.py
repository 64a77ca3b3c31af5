"""Checks of the registry's small files: each one parses, and their hashes agree. No model is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from data import strict_yaml
from data.errors import Fault
from tasks.budget.record import read_budget
from tasks.common.errors import TaskError
from tasks.doctor.finding import Diagnosis
from tasks.promotion.baseline import BASELINE, REGISTRY, START, Baseline, model_folder, read_start, restoring
from tasks.promotion.registry import Entry, Registry

CHECK = "registry"
Read = TypeVar("Read")


def check_registry(root: Path, diagnosis: Diagnosis) -> None:
    """Damaged files are errors: a run would end at them, after hours of training."""
    folder = root / REGISTRY
    if not folder.is_dir():
        return
    registry = Registry(folder)
    entries = _read(registry.entries, folder, diagnosis)
    promoted = _read(registry.promoted, folder, diagnosis)
    baselines = {
        BASELINE: _read(registry.baseline, folder, diagnosis),
        f"{START}/promoted.json": _read(lambda: read_start(folder), folder, diagnosis),
    }
    _read(lambda: read_budget(folder), folder, diagnosis)
    if entries is None:
        return
    models = {entry.version: entry.model for entry in entries}
    for name, baseline in baselines.items():
        if baseline is not None and baseline.version is not None:
            _check_baseline(folder / name, baseline, models, diagnosis)
    ever = {event.version for event in promoted.history} if promoted is not None else set()
    for entry in entries:
        if entry.version in ever:
            _check_pointer(folder, entry, diagnosis)


def _read(read: Callable[[], Read], folder: Path, diagnosis: Diagnosis) -> Read | None:
    try:
        return read()
    except TaskError as error:
        for text in str(error).split(f"\n{folder}/"):  # of several files, each begins with its path
            file, _, found = text.removeprefix(f"{folder}/").partition(": ")
            path = folder / file
            found, _, _ = found.partition(restoring(path))  # the next step, which the fault has too
            found = " ".join(found.split()).removesuffix("Fix these faults, or").rstrip(" ;")
            diagnosis.error(CHECK, _fault(path, "file", found, "a file as `points2model` writes it"))
        return None


def _check_baseline(path: Path, baseline: Baseline, models: dict[str, str], diagnosis: Diagnosis) -> None:
    model = models.get(str(baseline.version))
    if model != baseline.model:
        expected = f"{model}, as its entry.json has it" if model else "a version with an entry.json"
        found = f"model {baseline.model} of {baseline.version}"
        diagnosis.error(CHECK, _fault(path, "model", found, expected))


def _check_pointer(folder: Path, entry: Entry, diagnosis: Diagnosis) -> None:
    """The .dvc file of a promoted model, by which DVC finds its bytes."""
    path = Path(f"{model_folder(folder, entry.version)}.dvc")
    try:
        model = strict_yaml.read(path)["outs"][0]["md5"]
    except FileNotFoundError:
        model = "no such file"
    except (OSError, strict_yaml.YamlError, LookupError, TypeError) as error:
        model = f"no hash of a model ({error})"
    if model != entry.model:
        diagnosis.error(CHECK, _fault(path, "md5", str(model), f"{entry.model}, as entry.json has it"))


def _fault(path: Path, record: str, found: str, expected: str) -> Fault:
    return Fault(str(path), record, found, expected, restoring(path))
