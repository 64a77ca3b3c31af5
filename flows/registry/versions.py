"""Models in and out of the registry: their bytes lie in DVC's cache and remotes, registry/VERSION/model.dvc names them.

Only those that are needed are checked out (the promoted one, and the baseline); `dvc push` sends all, and `dvc gc -w`
keeps all. DVC's command line does the work.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from data.storage import atomic_dir, discard_partials
from flows.dvc.environment import environment
from flows.dvc.remote_config import RemoteError, default_remote
from flows.processes.children import stream
from tasks.common.errors import TaskError
from tasks.promotion.baseline import MODEL, REGISTRY, folder_hash, model_folder
from tasks.promotion.registry import Entry, Registry


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
    _give(root, version)


def _give(root: Path, version: str) -> None:
    """Gives DVC the model that lies in the registry."""
    from flows.dvc.damage import check_before_add

    with _as_task_error():
        check_before_add(root, model_folder(root / REGISTRY, version))
    _must(root, "add", _relative(version), doing=f"giving the model of {version} to DVC")


def fetch(root: Path, version: str, model: str) -> Path:
    """The folder of a version's model, brought from DVC's cache, else from its remote, unless it lies there.

    Whatever it comes from, its bytes are hashed: a damaged object is taken out of the cache, a damaged folder out of
    the registry.

    Raises:
        TaskError: nobody has it whole.
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
    # dvc takes a second to import
    from dvc.exceptions import CheckoutError

    from flows.dvc.damage import check_pointer, set_aside
    from flows.dvc.remote_errors import explain
    from flows.dvc.repo import DvcRepo

    said: list[str] = []
    with _as_task_error():
        if folder.exists() or folder.is_symlink():  # DVC may take what lies there for whole
            said.append(
                f"{_relative(version)} was another one; {set_aside(root, folder, f'{version}-{model}')}"
            )
        repo, remote = DvcRepo(root).dvc, default_remote(root)
        places = {"DVC's cache": repo.checkout}
        if remote is not None:
            places[f"remote {remote.name} ({remote.url})"] = repo.pull
        for place, bring in places.items():
            said += map(str, check_pointer(root, pointer))
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
            said.append(f"{place}: {fault}")
        said += ["no default remote is set (`points2model remote URL`)"] * (remote is None)
    told = "\n".join(f"  {line}" for line in said)
    raise TaskError(
        f"{folder.relative_to(root)}: the model of {version} (hash {model}) can't be had whole:\n{told}\nName a remote "
        f"that has it (`dvc remote list`), or push it from where it was trained (`dvc push {pointer}`)"
    )


@contextlib.contextmanager
def _as_task_error() -> Iterator[None]:
    from flows.dvc.repo import PipelineError

    try:
        yield
    except (PipelineError, RemoteError) as error:
        raise TaskError(str(error)) from None


def keep_only(root: Path, versions: Collection[str | None]) -> list[str]:
    """Takes the models of all other versions out of the working tree, where DVC's cache has them. Returns which."""
    registry = Registry(root / REGISTRY)
    others = [version for version in registry.checked_out() if version not in versions]
    gone = []
    for version in others:
        pointer = f"{_relative(version)}.dvc"
        if (root / pointer).is_file() and _is_safe(root, pointer, registry.entry(version)):
            shutil.rmtree(model_folder(root / REGISTRY, version))
            gone.append(version)
    return gone


def _is_safe(root: Path, pointer: str, entry: Entry) -> bool:
    """Whether DVC's cache has the model, byte for byte; what is damaged there is mended from the registry's folder."""
    from flows.dvc.damage import check_pointer  # dvc takes a second to import
    from flows.dvc.repo import DvcRepo

    with _as_task_error():
        if (
            check_pointer(root, pointer)
            and folder_hash(model_folder(root / REGISTRY, entry.version)) == entry.model
        ):
            _give(root, entry.version)
        # Its own answer, whatever link type or cache folder: an unchanged output that the cache has too.
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
