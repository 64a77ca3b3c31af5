"""The model that a new one is measured against: the promoted one when this round of training began.

registry/baseline.json is a stage's dependency, so that a promotion at a round's end makes nothing stale; the flow
moves it when the next round begins (docs/registry.md). The model's bytes lie in registry/VERSION/model, which Git
ignores and DVC keeps; the hash beside the version pins them.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from data.annotations.strict_json import ONCE, parse_json
from tasks.common import processes
from tasks.common.errors import TaskError

REGISTRY = "registry"
"""The folder beside the workspace."""
BASELINE = "baseline.json"
START = "start"
"""The folder with a file for each of `student.start`: a stage depends on the one that is chosen, and only that of
`promoted` is ever moved, together with the baseline."""
MODEL = "model"
VERSION = re.compile(r"v[1-9][0-9]{0,8}")

Version = Annotated[str, Field(pattern=rf"^{VERSION.pattern}$")]
ModelHash = Annotated[str, Field(pattern=r"^[0-9a-f]{32}\.dir$")]


class Record(BaseModel):
    """Base of all that the registry's files hold: no unknown keys, no change after reading."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Kind = TypeVar("Kind", bound=Record)


class Baseline(Record):
    """A version and its model's hash (see `folder_hash`); both null where nothing was promoted."""

    version: Version | None
    model: ModelHash | None = None

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.version is None) != (self.model is None):
            raise ValueError("version and model go together: give both, or null for both")
        return self


def registry_of(workspace: Path) -> Path:
    """The registry beside a workspace."""
    return workspace.parent / REGISTRY


def model_folder(registry: Path, version: str) -> Path:
    """Where a version's model lies when it is checked out."""
    return registry / version / MODEL


def read_baseline(registry: Path) -> Baseline:
    """registry/baseline.json.

    Raises:
        TaskError: it is missing, damaged or edited into something else.
    """
    path = registry / BASELINE
    if not path.is_file():
        raise TaskError(
            f"{path}: no such file; where nothing was promoted it holds "
            f'{{"version": null}}. Bring it back with `git checkout {path}`'
        )
    return read_record(path, Baseline)


def read_start(registry: Path) -> Baseline:
    """The model that a student with `start: promoted` begins with.

    Raises:
        TaskError: the file is missing or damaged.
    """
    path = registry / START / "promoted.json"
    if not path.is_file():
        raise TaskError(f"{path}: no such file; bring it back with `git checkout {path}`")
    return read_record(path, Baseline)


def read_record(path: Path, kind: type[Kind]) -> Kind:
    """One file of the registry.

    Raises:
        TaskError: not JSON, or not of this kind; all faults are listed.
    """
    try:
        content = path.read_bytes()
        value, doubled = parse_json(content)
        json.dumps(value, allow_nan=False)  # else a NaN passes where any JSON may stand, as in metrics
        if not doubled:
            return kind.model_validate_json(content)
        faults = "\n".join(f"  - {place}: found key {keys} twice, expected {ONCE}" for place, keys in doubled)
    except ValidationError as error:
        faults = "\n".join(f"  - {_place(one['loc'])}{one['msg']}" for one in error.errors())
    except OSError as error:
        faults = f"  - {error.strerror or error}"
    except ValueError as error:
        faults = f"  - {str(error)[:200]}"
    raise TaskError(
        f"{path}: damaged, or edited by hand:\n{faults}\nBring it back with `git checkout {path}`; without Git, mend "
        "what is said above"
    )


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location)) + ": " if location else ""


def folder_hash(folder: Path) -> str:
    """The hash that DVC has for a folder in dvc.lock and model.dvc: MD5 of the list of its files' MD5s.

    MD5 names content here, it guards nothing.

    Raises:
        TaskError: there is no such folder.
    """
    if not folder.is_dir():
        raise TaskError(f"{folder}: no such folder")
    rows = []
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                content = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            rows.append({"md5": content, "relpath": path.relative_to(folder).as_posix()})
    rows.sort(key=lambda row: row["relpath"])
    listed = json.dumps(rows, sort_keys=True)
    return hashlib.md5(listed.encode(), usedforsecurity=False).hexdigest() + ".dir"


def checked_model(registry: Path, version: str, model: str) -> Path:
    """The folder of a version's model, whose bytes are those of the hash.

    The flow sees to it that it is there. `dvc repro` in a fresh clone, or an experiment in a folder of its own, finds
    it in DVC's cache.

    Raises:
        TaskError: it isn't checked out, or was changed.
    """
    folder = model_folder(registry, version)
    file = f"{folder}.dvc"
    if not folder.is_dir():
        _check_out(Path(file))
    if not folder.is_dir():
        raise TaskError(
            f"{folder}: the model of {version} isn't here; bring it from DVC's cache or remote with `dvc pull {file}`"
        )
    found = folder_hash(folder)
    if found != model:
        raise TaskError(
            f"{folder}: found a model of hash {found}, expected {model}; remove the folder, and bring {version}'s own "
            "back with `points2model run`"
        )
    return folder


def _check_out(pointer: Path) -> None:
    """Brings what a .dvc file names from DVC's cache, if it is there; no network."""
    # Of several processes one would find another's half-done work.
    if pointer.is_file() and processes.count() == 1:
        command = [sys.executable, "-m", "dvc", "--wait-for-lock", "checkout", "--quiet", str(pointer)]
        subprocess.run(command, capture_output=True, check=False)
