"""Checks of the set-up, which take milliseconds: params, paths, weights, device, DVC, git, other runs."""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.errors import Fault
from data.storage import is_s3
from tasks.common import launcher, project_files
from tasks.common.config import Params, ParamsError, checked_notify, load_params
from tasks.common.errors import NO_PROJECT, TaskError
from tasks.doctor.finding import Diagnosis
from tasks.doctor.proposers import check_proposers
from tasks.doctor.registry import check_registry
from tasks.doctor.starts import check_starts
from tasks.doctor.students import check_students
from tasks.doctor.trackers import check_trackers
from tasks.doctor.weights import check_weights, exists
from tasks.reporting.graph import stage_reads

LEAST_FILES = 256
LEAST_TEMPORARY = 2**28
"""Free bytes for temporary files: a server's database, a package's cache."""


def check_params(path: Path, diagnosis: Diagnosis) -> Params | None:
    """The params; None where params.yaml has faults, each of which is an error."""
    if not path.exists():
        diagnosis.error("params", Fault(str(path), "file", "no such file", "a whole params file", NO_PROJECT))
        return None
    try:
        return load_params(path)
    except ParamsError as error:
        step = f"correct it in {path}"
        step += (
            "; `points2model plan` adds keys that a new version has"
            if (path.parent / "recipes" / "plan.yaml").is_file()
            else "; recipes/ holds complete examples"
        )
        diagnosis.error("params", [Fault(str(path), *fault, step) for fault in error.faults])
    except TaskError as error:
        step = "cd to the project's folder, or copy a file of recipes/"
        found = str(error).removeprefix(f"{path}: ")
        diagnosis.error("params", Fault(str(path), "file", found, "a whole params file", step))
    return None


def check_setup(params: Params, root: Path, workspace: Path, diagnosis: Diagnosis) -> None:
    """All checks that don't read data; paths are relative to `root`, the project's folder."""
    _paths(params, root, diagnosis)
    check_weights(params, root, diagnosis)
    check_starts(params, root, diagnosis)
    check_proposers(params, root, diagnosis)
    check_students(params, root, diagnosis)
    _device(params, diagnosis)
    _launcher(params, root, diagnosis)
    _ray(params, diagnosis)
    check_trackers(params, diagnosis)
    _project(root, diagnosis)
    check_registry(root, diagnosis)
    _folders(root, workspace, diagnosis)
    _other_runs(root, diagnosis)
    _environment(diagnosis)


def is_made(name: str) -> bool:
    """Whether a path is in the workspace: a stage makes it, or DVC restores it."""
    return name.startswith("workspace/")


def awaits_points(params: Params, root: Path) -> bool:
    """Whether there are no point files yet but an inbox: the first run takes the first files in."""
    here = root / params.points.files
    empty = not here.exists() or (here.is_dir() and not any(here.iterdir()))
    return params.operate.inbox.source is not None and not is_s3(params.points.files) and empty


def _paths(params: Params, root: Path, diagnosis: Diagnosis) -> None:
    named = {
        "ingest.images": params.ingest.images,
        "ingest.annotations": params.ingest.annotations,
        "points.files": params.points.files,
        "review.decisions": params.review.decisions,
    }
    if awaits_points(params, root):
        del named["points.files"]
    for key, name in named.items():
        if not is_made(name) and not is_s3(name) and not exists(root / name):
            found = f"no such file or folder, {name}"
            step = f"correct {key}, or put the data there"
            diagnosis.error("paths", Fault("params.yaml", key, found, "a file or folder there", step))
    folder = root / params.ingest.annotations
    if not exists(folder / ".") or is_made(params.ingest.annotations):
        return
    reads = [(root / one).resolve() for one in stage_reads(root, params.model_dump(mode="json"), "ingest")]
    for split in ("strong", "val", "weak", "kept_aside"):
        for name in params.ingest.files(split):
            if exists(folder / name):
                path = (folder / name).resolve()
                if reads and not any(path.is_relative_to(one) for one in reads):
                    step = f"add {path} to its deps, or a change of the file isn't noticed"
                    expected = f"ingest.{split} among them"
                    fault = Fault("dvc.yaml", "stage ingest", f"deps without {path}", expected, step)
                    diagnosis.error("paths", fault)
                continue
            there = ", ".join(_names(folder)) or "nothing that can be listed"
            found = f"no such file, {folder / name}; the folder holds {there}"
            step = f"correct ingest.{split}" + (", or set it to null" if split[0] in "wk" else "")
            diagnosis.error("paths", Fault("params.yaml", f"ingest.{split}", found, "a file there", step))


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())[:10]
    except OSError:
        return []


def _device(params: Params, diagnosis: Diagnosis) -> None:
    name = params.runtime.device
    if name in ("auto", "cpu"):
        return
    from tasks.common.device import resolve_device  # torch takes seconds

    try:
        resolve_device(name)
    except TaskError as error:
        found = str(error).removeprefix("runtime.device: ").partition("; use")[0]
        step = "set runtime.device to auto, cpu, or a device that torch sees"
        diagnosis.error(
            "device", Fault("params.yaml", "runtime.device", found, "a device of this machine", step)
        )


def _ray(params: Params, diagnosis: Diagnosis) -> None:
    if params.runtime.ray is not None and importlib.util.find_spec("ray") is None:
        step = "run `pip install 'points2model[ray]'`, or set it to null"
        found = f"{params.runtime.ray}, but Ray isn't installed"
        diagnosis.error("ray", [Fault("params.yaml", "runtime.ray", found, "the package ray", step)])


def _launcher(params: Params, root: Path, diagnosis: Diagnosis) -> None:
    if params.runtime.launcher is None:
        return
    step = "set it, install it, or correct runtime.launcher; null starts the processes on this machine"
    faults = launcher.faults(params.runtime.launcher, root)
    diagnosis.error("launcher", [Fault("params.yaml", *fault, step) for fault in faults])


def _project(root: Path, diagnosis: Diagnosis) -> None:
    diagnosis.error("dvc", project_files.faults(root))
    if not (root / "dvc.yaml").is_file():
        step = "cd to the project's folder, or `git checkout dvc.yaml`"
        diagnosis.error("dvc", Fault(str(root), "dvc.yaml", "no such file", "the pipeline's file", step))
    if not (root / ".dvc" / "config").is_file():
        step = "run `dvc init` (with --no-scm outside a git repository)"
        diagnosis.error("dvc", Fault(str(root), ".dvc", "no DVC repository", "a DVC repository", step))
    if (root / ".git").exists() and not _ignored(root, "workspace/any"):
        step = "add a line /workspace/ to .gitignore"
        found = "a folder that git would commit"
        diagnosis.warn("git", Fault(str(root / ".gitignore"), "workspace", found, "an ignored one", step))


def _ignored(root: Path, path: str) -> bool:
    """Whether git ignores the path; also True without git."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "check-ignore", "-q", path], check=False, capture_output=True
        )
    except OSError:
        return True
    return done.returncode != 1


def _folders(root: Path, workspace: Path, diagnosis: Diagnosis) -> None:
    cache = project_files.cache_folder(root)
    for folder, key in ((root / workspace, "workspace"), (root, "project"), (cache, "DVC's cache")):
        if folder.is_symlink() and not exists(folder):
            step = "remove the link, or make the folder that it points to"
            fault = Fault(str(folder), key, "a broken link", "a folder to write in", step)
            diagnosis.error("writable", fault)
            continue
        there = next(path for path in (folder, *folder.absolute().parents) if exists(path))
        try:
            with tempfile.TemporaryFile(dir=there):
                pass
        except OSError as error:
            found = f"not writable ({error.strerror})"
            step = f"make {there} writable for this user, or free space on its disk"
            diagnosis.error("writable", Fault(str(folder), key, found, "a folder to write in", step))
    try:
        temporary = tempfile.gettempdir()
    except OSError:
        step = "free space, or set TMPDIR to a folder that can be written"
        fault = Fault("TMPDIR", "folder", "none that can be written", "a folder for temporary files", step)
        diagnosis.error("temporary", fault)
        return
    named = os.environ.get("TMPDIR")
    if named and os.path.realpath(named) != os.path.realpath(temporary):
        found, step = f"no folder that can be written: {temporary} is used", "make it, or unset TMPDIR"
        diagnosis.warn("temporary", Fault(named, "TMPDIR", found, "a folder for temporary files", step))
    free = shutil.disk_usage(temporary).free
    if free < LEAST_TEMPORARY:
        found = f"{free / 2**20:,.0f} MiB free"
        step = "free some, or set TMPDIR to a folder on another disk"
        diagnosis.warn("temporary", Fault(temporary, "TMPDIR", found, f"{LEAST_TEMPORARY >> 20} MiB", step))


def _other_runs(root: Path, diagnosis: Diagnosis) -> None:
    """Processes that hold DVC's locks on files of the pipeline. Stale locks are left to DVC."""
    path = root / ".dvc" / "tmp" / "rwlock"
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return
    holders: dict[int, tuple[str, list[str]]] = {}
    for info, file in _holders(held):
        if info["pid"] != os.getpid() and _alive(info["pid"]):
            holders.setdefault(info["pid"], (info["cmd"], []))[1].append(file)
    for pid, (command, files) in sorted(holders.items()):
        found = f"process {pid} ({command}) that uses {', '.join(sorted(set(files))[:5])}"
        step = "wait for it: a run of the same stages waits too"
        diagnosis.warn("locked", Fault(str(path), "lock", found, "no other run", step), examples=[str(pid)])


def _holders(held: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """(process, file) of each write lock; read locks don't block a run."""
    write = held.get("write") if isinstance(held, dict) else None
    for file, info in write.items() if isinstance(write, dict) else ():
        if isinstance(info, dict) and isinstance(info.get("pid"), int):
            yield {"pid": info["pid"], "cmd": str(info.get("cmd", ""))}, str(file)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # another user's
    return True


def _environment(diagnosis: Diagnosis) -> None:
    """Environment variables and limits. Values aren't repeated in messages: one may be a secret."""
    mask = os.umask(0)
    os.umask(mask)
    if mask & 0o700:
        found = f"{mask:04o}: this user can't read or write the files that it makes"
        diagnosis.error(
            "umask", Fault("environment", "umask", found, "0022, 0027 or 0077", "run `umask 022` first")
        )
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if 0 <= files < LEAST_FILES:
        found = f"{files} files may be open at once"
        step = f"run `ulimit -n {LEAST_FILES}` first, or more with many runtime.workers"
        diagnosis.warn("open_files", Fault("environment", "ulimit -n", found, f"{LEAST_FILES} or more", step))
    if address := os.environ.get("POINTS2MODEL_NOTIFY"):
        try:
            checked_notify(address)
        except ValueError as error:
            step = "correct it, or unset it: no notice is sent there"
            diagnosis.warn("notify", Fault("environment", "POINTS2MODEL_NOTIFY", *_split(error), step))


def _split(error: ValueError) -> tuple[str, str]:
    """`found X; expected Y` in two."""
    found, _, expected = str(error).removeprefix("found ").partition("; expected ")
    return found, expected
