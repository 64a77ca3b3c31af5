"""Models in and out of the registry: their bytes lie in DVC's cache and remotes, registry/VERSION/model.dvc names them.

Only those that are needed are checked out (the promoted one, and the baseline); `dvc push` sends all, and `dvc gc -w`
keeps all. DVC's command line does the work.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection
from pathlib import Path

from data.storage import atomic_dir, discard_partials
from flows.dvc_environment import environment
from flows.process import stream
from tasks.baseline import MODEL, REGISTRY, folder_hash, model_folder
from tasks.errors import TaskError
from tasks.registry import Registry


def store(root: Path, version: str, source: Path, model: str) -> None:
    """Lays a model into the registry and gives its bytes to DVC; again after a kill it goes on.

    Args:
        root: the project's folder.
        version: under which.
        source: the model's folder.
        model: its hash.

    Raises:
        TaskError: DVC can't, or `source` changed meanwhile.
    """
    folder = model_folder(root / REGISTRY, version)
    if not (folder.is_dir() and folder_hash(folder) == model):
        discard_partials(folder.parent, MODEL)
        with atomic_dir(folder) as partial:
            for path in sorted(source.rglob("*")):
                if path.is_file():
                    target = partial / path.relative_to(source)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, target)  # not its mode: DVC's links are read-only
        found = folder_hash(folder)
        if found != model:
            shutil.rmtree(folder)
            raise TaskError(
                f"{source}: found a model of hash {found}, expected {model}; it changed meanwhile, run again"
            )
    _must(root, "add", _relative(version), doing=f"giving the model of {version} to DVC")


def fetch(root: Path, version: str, model: str) -> Path:
    """The folder of a version's model, brought from DVC's cache, else from its remote, unless it lies there.

    Raises:
        TaskError: neither has it.
    """
    folder = model_folder(root / REGISTRY, version)
    if folder.is_dir() and folder_hash(folder) == model:
        return folder
    pointer = f"{_relative(version)}.dvc"
    if not (root / pointer).is_file():
        raise TaskError(
            f"{pointer}: no such file, so DVC doesn't know the model of {version}; bring it back with "
            f"`git checkout {pointer}`"
        )
    said: list[str] = []
    for command in (("checkout", "--force", pointer), ("pull", "--force", pointer)):
        code, lines = _dvc(root, *command)
        said += lines
        if code == 0 and folder.is_dir() and folder_hash(folder) == model:
            return folder
    told = "\n".join(f"  {line}" for line in said[-8:])
    raise TaskError(
        f"{folder.relative_to(root)}: the model of {version} (hash {model}) is neither in DVC's cache nor to be had "
        f"from a remote:\n{told}\nName a remote that has it (`dvc remote list`), or push it from where it was trained "
        f"(`dvc push {pointer}`)"
    )


def keep_only(root: Path, versions: Collection[str | None]) -> list[str]:
    """Takes the models of all other versions out of the working tree, where DVC's cache has them. Returns which."""
    registry = Registry(root / REGISTRY)
    others = [version for version in registry.checked_out() if version not in versions]
    gone = []
    for version in others:
        pointer = f"{_relative(version)}.dvc"
        # Its own answer, whatever link type or cache folder: an unchanged output that the cache has too.
        if (root / pointer).is_file() and _is_safe(root, pointer):
            shutil.rmtree(model_folder(root / REGISTRY, version))
            gone.append(version)
    return gone


def _is_safe(root: Path, pointer: str) -> bool:
    from flows.dvc_repo import DvcRepo  # dvc takes a second to import

    return DvcRepo(root).is_cached(pointer)


def _relative(version: str) -> str:
    return f"{REGISTRY}/{version}/{MODEL}"


def _must(root: Path, *arguments: str, doing: str) -> None:
    code, lines = _dvc(root, *arguments)
    if code != 0:
        told = "\n".join(f"  {line}" for line in lines[-8:])
        raise TaskError(f"{doing} failed: `dvc {' '.join(arguments)}` said\n{told}")


def _dvc(root: Path, *arguments: str) -> tuple[int, list[str]]:
    lines: list[str] = []

    def on_line(line: str) -> None:
        if line.strip():
            lines.append(line)

    command = [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments]
    return stream(command, cwd=root, env=environment(root), on_line=on_line), lines
