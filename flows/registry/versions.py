"""Models of the registry: their bytes are in DVC's cache and remotes, named by registry/VERSION/model.dvc.

Only the promoted one and the baseline are checked out; `dvc push` sends all, and `dvc gc -w` keeps all.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection
from pathlib import Path

from data.storage import atomic_dir, discard_partials
from flows.dvc.environment import environment
from flows.dvc.remote_config import default_remote
from flows.processes.children import stream
from tasks.common.errors import TaskError
from tasks.promotion.baseline import MODEL, REGISTRY, folder_hash, model_folder, restoring
from tasks.promotion.registry import Entry, Registry


def store(root: Path, version: str, source: Path, model: str) -> None:
    """Copies a model into the registry and adds it to DVC; repeated after a kill, it completes what is missing.

    Args:
        root: the project's folder.
        version: its version.
        source: the model's folder.
        model: its hash.

    Raises:
        TaskError: DVC fails, or `source` changed meanwhile.
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
    _add(root, version)


def _add(root: Path, version: str) -> None:
    """Adds the model in the registry to DVC."""
    from flows.dvc.damage import check_before_add

    check_before_add(root, model_folder(root / REGISTRY, version))
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "add", _relative(version)]
    lines: list[str] = []
    code = stream(command, cwd=root, env=environment(root), on_line=lines.append)
    if code != 0:
        output = "\n".join(f"  {line}" for line in lines[-8:] if line.strip())
        raise TaskError(f"adding {version} to DVC failed: `dvc add {_relative(version)}` printed\n{output}")


def fetch(root: Path, version: str, model: str) -> Path:
    """The folder of a version's model; if it isn't checked out, from DVC's cache or remote.

    Its bytes are hashed: a damaged object is removed from the cache, a damaged folder from the registry.

    Raises:
        TaskError: neither has it undamaged.
    """
    folder = model_folder(root / REGISTRY, version)
    if folder.is_dir() and folder_hash(folder) == model:
        return folder
    pointer = f"{_relative(version)}.dvc"
    if not (root / pointer).is_file():
        raise TaskError(
            f"{pointer}: no such file, so DVC doesn't have the model of {version}; {restoring(pointer)}"
        )
    from dvc.exceptions import CheckoutError

    from flows.dvc.damage import check_pointer, set_aside
    from flows.dvc.remote_errors import explain
    from flows.dvc.repo import DvcRepo

    tried: list[str] = []
    if folder.exists() or folder.is_symlink():  # DVC may believe it whole
        moved = set_aside(root, folder, f"{version}-{model}")
        tried.append(f"{_relative(version)} was another one; {moved}")
    repo, remote = DvcRepo(root).dvc, default_remote(root)
    places = {"DVC's cache": repo.checkout}
    if remote is not None:
        places[f"remote {remote.name} ({remote.url})"] = repo.pull
    for place, bring in places.items():
        tried += map(str, check_pointer(root, pointer))
        fault = f"another model than that of hash {model}, by {pointer}"
        try:
            bring(targets=[str(root / pointer)], force=True)
        except CheckoutError:
            fault = "not all of it is there"
        except Exception as error:  # of a server's client
            fault = explain(error)
        if folder.is_dir() and folder_hash(folder) == model:
            return folder
        if folder.exists():
            shutil.rmtree(folder)
        for one in check_pointer(root, pointer):
            fault = f"a damaged object: {one.fault}, expected hash {one.hash}; delete it there"
        tried.append(f"{place}: {fault}")
    tried += ["no default remote is set (`points2model remote URL`)"] * (remote is None)
    listed = "\n".join(f"  {line}" for line in tried)
    raise TaskError(
        f"{folder.relative_to(root)}: the model of {version} (hash {model}) can't be had whole:\n{listed}\nName a "
        f"remote that has it (`dvc remote list`), or push it from where it was trained (`dvc push {pointer}`)"
    )


def keep_only(root: Path, versions: Collection[str | None]) -> list[str]:
    """Removes the models of all other versions from the working tree, where DVC's cache has them. Returns which."""
    registry = Registry(root / REGISTRY)
    others = [version for version in registry.checked_out() if version not in versions]
    removed = []
    for version in others:
        pointer = f"{_relative(version)}.dvc"
        if (root / pointer).is_file() and _is_safe(root, pointer, registry.entry(version)):
            shutil.rmtree(model_folder(root / REGISTRY, version))
            removed.append(version)
    return removed


def _is_safe(root: Path, pointer: str, entry: Entry) -> bool:
    """Whether DVC's cache has the model, byte for byte; damaged objects are replaced from the registry's folder."""
    from flows.dvc.damage import check_pointer
    from flows.dvc.repo import DvcRepo

    if (
        check_pointer(root, pointer)
        and folder_hash(model_folder(root / REGISTRY, entry.version)) == entry.model
    ):
        _add(root, entry.version)
    # By DVC itself, whatever the link type or cache folder: an unchanged output that the cache has too.
    return DvcRepo(root).is_cached(pointer)


def _relative(version: str) -> str:
    return f"{REGISTRY}/{version}/{MODEL}"
