"""Which new files can be taken in, found by importing them as `import_points` does; writes nothing."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data import storage
from data.errors import DataError, Fault
from data.points.classes import load_classes
from data.tables import Split
from tasks.common.config import PointsConfig
from tasks.import_points import Imported, import_files, read_files

SHOWN_FAULTS = 3
"""Of a rejected file; `points2model import-points FILE` lists all."""


@dataclass(frozen=True)
class CheckResult:
    """The result of an import of new files together with those in `points.files`.

    Attributes:
        good: files to take in -> usable points of each, imported alone.
        same: files without anything new -> the file with the same content.
        rejected: files that can't be used -> the reason.
        points: points that are new or moved (or removed, if those are more) once the good files are in the folder.
        left_out: reason -> records of the good files that can't be used.
    """

    good: dict[str, int] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    points: int = 0
    left_out: dict[str, int] = field(default_factory=dict)


def check_files(
    config: PointsConfig, new: Mapping[str, Path], folder: Path | None, weak: Split | None
) -> CheckResult:
    """Imports new files for a test.

    A file is rejected if it can't be read. With `points.on_reject: stop` it is also rejected if the import would stop
    because of it, so that the other files can be imported.

    Args:
        config: of the import; `config.files` is the folder of the file of `points.classes`.
        new: name that a file would have in the folder -> the file; it replaces a file of that name.
        folder: `points.files`; None if there are no point files yet.
        weak: the split with the images of the points; None before the first ingest: then files are only read.

    Raises:
        DataError: the file of `points.classes` has faults.
    """
    with tempfile.TemporaryDirectory(prefix="points2model-arrivals-") as place:
        try:
            return _Check(config, new, folder, weak, Path(place)).run()
        except DataError as error:
            raise DataError([_at_home(fault, Path(place)) for fault in error.faults]) from None


class _Check:
    """One test. In `place` it makes folders of links, in place of `points.files` with other content."""

    def __init__(
        self,
        config: PointsConfig,
        new: Mapping[str, Path],
        folder: Path | None,
        weak: Split | None,
        place: Path,
    ) -> None:
        self.config, self.new, self.weak, self.place = config, dict(new), weak, place
        there = storage.list_files(folder) if folder is not None and folder.is_dir() else []
        self.there = {name: Path(folder or "") / name for name in there}
        # YOLO's labels are read with their data.yaml, which may be there before or arrive with them.
        self.setups = {
            name: path
            for name, path in {**self.there, **self.new}.items()
            if name.lower().endswith((".yaml", ".yml")) and name != config.classes
        }
        self.folders = 0

    def run(self) -> CheckResult:
        rejected: dict[str, str] = {}
        records: dict[str, int] = {}
        for name, path in self.new.items():
            found, _ = read_files(self.config, str(self._links({**self.setups, name: path})), self.weak)
            faults = [fault for fault in found.faults if _at_home(fault, self.place).file == name]
            if name == self.config.classes:
                rejected[name] = "it has the name of points.classes; give it another name"
            elif faults:
                rejected[name] = self._listed(name, faults)
            else:
                records[name] = sum(record.problem is None for record in found.records)
        same = self._same([name for name in self.new if name not in rejected])
        names = [name for name in self.new if name not in rejected and name not in same]
        if self.weak is None:
            return CheckResult(
                {name: records[name] for name in names}, same, rejected, sum(records[n] for n in names)
            )
        if self.config.classes is not None:
            load_classes(storage.join(self.config.files, self.config.classes), self.weak.categories)
        before, faults = self._import({})
        if self.config.on_reject == "stop":
            names = self._passing(names, Counter(map(str, faults)), rejected)
        after, _ = self._import({name: self.new[name] for name in names})
        alone = {name: self._import({name: self.new[name]}, alone=True)[0] for name in names}
        left_out: Counter[str] = Counter()
        for one in alone.values():
            for lost in [] if one is None else one.lost:
                left_out[lost.reason] += lost.records
        return CheckResult(
            {name: 0 if one is None else len(one.points) for name, one in alone.items()},
            same,
            rejected,
            _changes(before, after),
            dict(sorted(left_out.items())),
        )

    def _same(self, names: Iterable[str]) -> dict[str, str]:
        """New files with the content of another file -> that file; a replaced file doesn't count."""
        names = list(names)
        others = {name: path for name, path in self.there.items() if name not in names}
        found, _ = read_files(
            self.config, str(self._links({**others, **{name: self.new[name] for name in names}})), self.weak
        )
        same: dict[str, str] = {}
        for file in found.files:
            if file.same_as is None:
                continue
            # Of equal files the one with the shortest name counts, which may be the new one.
            for copy, first in ((file.name, file.same_as), (file.same_as, file.name)):
                if copy in names and copy not in self.there and copy not in same and first not in same:
                    same[copy] = first
                    break
        return same

    def _passing(self, names: list[str], known: Counter[str], rejected: dict[str, str]) -> list[str]:
        """The files that add no fault to an import; the others go to `rejected`."""
        if not self._new_faults(names, known):
            return names
        passed: list[str] = []
        for name in names:  # one by one: the fault may name another file, which was there before
            if faults := self._new_faults([*passed, name], known):
                rejected[name] = self._listed(name, faults)
            else:
                passed.append(name)
        return passed

    def _new_faults(self, names: list[str], known: Counter[str]) -> list[Fault]:
        _, faults = self._import({name: self.new[name] for name in names})
        left = Counter(known)
        new = []
        for fault in faults:
            left[str(fault)] -= 1
            if left[str(fault)] < 0:
                new.append(fault)
        return new

    def _import(self, new: Mapping[str, Path], alone: bool = False) -> tuple[Imported | None, list[Fault]]:
        """The import of the folder with these files (or of them `alone`), None if no file can be read; its faults."""
        assert self.weak is not None
        files = {**(self.setups if alone else self.there), **new}
        if not files:
            return None, []
        try:
            imported = import_files(self.config, str(self._links(files)), self.weak)
        except DataError as error:
            return None, [_at_home(fault, self.place) for fault in error.faults]
        return imported, [_at_home(one.fault, self.place) for one in imported.lost]

    def _links(self, files: Mapping[str, Path]) -> Path:
        self.folders += 1
        folder = self.place / str(self.folders)
        folder.mkdir()
        for name, path in files.items():
            link = folder / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())
        return folder

    def _listed(self, name: str, faults: list[Fault]) -> str:
        """The first faults of a file, without its name."""
        some = [str(_at_home(fault, self.place)).removeprefix(f"{name}: ") for fault in faults[:SHOWN_FAULTS]]
        more = len(faults) - len(some)
        return " ".join(some) + (f" And {more} more." if more else "")


def _at_home(fault: Fault, place: Path) -> Fault:
    """The fault with the file's name in its folder instead of that of a temporary link."""
    file = Path(fault.file)
    if not file.is_relative_to(place):
        return fault
    name = Path(*file.relative_to(place).parts[1:]).as_posix()
    return Fault(name, fault.record, fault.found, fault.expected, fault.next_step)


def _changes(before: Imported | None, after: Imported | None) -> int:
    """Number of new points or, if those are more, of removed ones; a moved point counts once."""
    old, new = _places(before), _places(after)
    return max((new - old).total(), (old - new).total())


def _places(imported: Imported | None) -> Counter[tuple[Any, ...]]:
    if imported is None:
        return Counter()
    columns = (imported.points[name].to_pylist() for name in ("image_id", "category_id", "x", "y"))
    return Counter(zip(*columns, strict=True))
