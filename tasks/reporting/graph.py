"""The pipeline's graph as dvc.yaml has it, laid out in columns and rows."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from data import strict_yaml

log = logging.getLogger(__name__)

FILE = "dvc.yaml"
ROOT = Path(__file__).resolve().parents[2]
NOT_DRAWN = ("code",)
"""It hashes source files, and every stage depends on it."""
_TEMPLATE = re.compile(r"\$\{([\w.]+)\}")


class Stage(NamedTuple):
    """A stage of dvc.yaml and its place in the picture."""

    name: str
    description: str
    after: tuple[str, ...]
    """the stages whose results it reads, but not those that another one of these comes after"""
    column: int
    row: int


class _Files(NamedTuple):
    """What a stage reads and writes."""

    description: str
    reads: list[PurePosixPath]
    writes: list[PurePosixPath]


def pipeline_graph(
    project: Path, params: Mapping[str, Any], target: str, idle: Collection[str] = ()
) -> list[Stage]:
    """The stages that `target` depends on, in the order of dvc.yaml; none, with a warning, if it can't be used.

    Args:
        project: the folder of dvc.yaml; without one the stages are those of this code's own dvc.yaml.
        params: params.yaml as nested dicts, for the `${...}` in dvc.yaml.
        target: the stage at the end, which is left out.
        idle: stages that had nothing to do, which are left out too.
    """
    path = project / FILE if (project / FILE).is_file() else ROOT / FILE
    try:
        stages = {
            name: _files(stage, params)
            for name, stage in strict_yaml.read(path)["stages"].items()
            if name not in idle
        }
        return _laid_out(stages, target)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        # DVC may accept a file that our stricter reader refuses. The report is worth having without the picture.
        log.warning("report: %s: can't be drawn (%s: %s)", path, type(error).__name__, error)
        return []


def stage_reads(project: Path, params: Mapping[str, Any], stage: str) -> list[PurePosixPath]:
    """What a stage of dvc.yaml depends on, as written there; nothing if the file can't be used."""
    try:
        return _files(strict_yaml.read(project / FILE)["stages"][stage], params).reads
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []  # DVC's message is better


def _files(stage: Mapping[str, Any], params: Mapping[str, Any]) -> _Files:
    def paths(key: str) -> Iterator[PurePosixPath]:
        for entry in stage.get(key, ()):
            text = next(iter(entry)) if isinstance(entry, dict) else entry  # `path: {cache: false}`
            yield PurePosixPath(_TEMPLATE.sub(lambda match: str(_value(params, match)), text))

    return _Files(stage.get("desc", ""), list(paths("deps")), list(paths("outs")))


def _value(params: Mapping[str, Any], template: re.Match[str]) -> Any:
    value: Any = params
    for key in template[1].split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return template[0] if value is None else value


def _laid_out(stages: Mapping[str, _Files], target: str) -> list[Stage]:
    reads = {
        name: {
            other for other in stages
            if other not in (name, *NOT_DRAWN) and _meet(stages[name].reads, stages[other].writes)
        }
        for name in stages
    }  # fmt: skip
    above: dict[str, set[str]] = {}
    columns: dict[str, int] = {}
    for name in TopologicalSorter(reads).static_order():
        above[name] = reads[name].union(*(above[other] for other in reads[name]))
        columns[name] = max((columns[other] + 1 for other in reads[name]), default=0)
    drawn = [name for name in stages if name in above[target]]
    after = {
        name: tuple(
            other for other in drawn
            if other in reads[name] and not any(other in above[nearer] for nearer in reads[name])
        )
        for name in drawn
    }  # fmt: skip
    rows = _rows(drawn, after, columns)
    return [Stage(name, stages[name].description, after[name], columns[name], rows[name]) for name in drawn]


def _rows(
    drawn: list[str], after: Mapping[str, tuple[str, ...]], columns: Mapping[str, int]
) -> dict[str, int]:
    """The longest chain is the first row; the others of a column are below it."""
    rows: dict[str, int] = {}
    chain = max(drawn, key=lambda name: columns[name], default=None)
    while chain is not None:
        rows[chain] = 0
        chain = max(after[chain], key=lambda name: columns[name], default=None)
    for name in drawn:
        taken = {rows[other] for other in rows if columns[other] == columns[name]}
        rows.setdefault(name, min(set(range(1, len(drawn) + 1)) - taken))
    return rows


def _meet(reads: list[PurePosixPath], writes: list[PurePosixPath]) -> bool:
    """Whether a path of one list is a path of the other, or in one."""
    return any(a.is_relative_to(b) or b.is_relative_to(a) for a in reads for b in writes)
