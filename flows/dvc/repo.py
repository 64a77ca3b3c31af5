"""The pipeline by DVC: its stages, their dependencies, and which of them are up to date.

Only flows/dvc uses DVC's Python internals, and tests/flows/dvc tests this use: DVC keeps only its command line stable.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc.dependency import ParamsDependency
from dvc.exceptions import DvcException
from dvc.repo import Repo, lock_repo
from dvc.stage import PipelineStage, Stage

from flows.dvc.environment import config
from tasks.common.errors import TaskError
from tasks.common.project_files import faults


class PipelineError(TaskError):
    """dvc.yaml can't be used; the text gives the fault and the next step."""


@dataclass(frozen=True)
class StageNode:
    """One stage of dvc.yaml: name, upstream stages, description, and whether it uses a GPU (`meta: gpu`)."""

    name: str
    upstream: tuple[str, ...]
    desc: str
    gpu: bool


def direct_upstream(nodes: dict[str, StageNode], node: StageNode) -> tuple[str, ...]:
    """The upstream stages that aren't upstream of another one: their edges imply all others in a drawing."""
    further: set[str] = set()

    def visit(name: str) -> None:
        for above in nodes[name].upstream:
            if above not in further:
                further.add(above)
                visit(above)

    for above in node.upstream:
        visit(above)
    return tuple(above for above in node.upstream if above not in further)


class DvcRepo:
    """The DVC repository at `root`; not safe for several threads at once."""

    def __init__(self, root: Path) -> None:
        """
        Raises:
            PipelineError: there is no dvc.yaml or no DVC repository, or DVC can't read its files.
        """
        self.root = root
        if not (root / "dvc.yaml").is_file():
            raise PipelineError(
                f"{root}/dvc.yaml: no such file; run in the project's folder (cd to it first)"
            )
        if found := faults(root):
            raise PipelineError("\n".join(map(str, found)))
        try:
            # Waits while another process holds DVC's lock during a long `add` or `checkout`.
            self._repo = Repo(str(root), config=config(root), _wait_for_lock=True)
        except DvcException as error:
            step = "correct .dvc/config" if (root / ".dvc" / "config").is_file() else "run `dvc init`"
            raise PipelineError(f"{root}: no DVC repository that can be used ({error}); {step}") from None

    def graph(self, target: str) -> dict[str, StageNode]:
        """`target` and its ancestors, each after its upstream stages.

        Raises:
            PipelineError: dvc.yaml or params.yaml has a fault, or has no stage `target`.
        """
        graph = self._graph()
        stages = {stage.name: stage for stage in graph if isinstance(stage, PipelineStage)}
        if target not in stages:
            raise PipelineError(f"dvc.yaml: no stage {target!r}; the stages are {', '.join(sorted(stages))}")
        nodes: dict[str, StageNode] = {}

        def visit(stage: PipelineStage) -> None:
            if stage.name in nodes:
                return
            upstream = sorted(
                (above for above in graph.successors(stage) if isinstance(above, PipelineStage)),
                key=lambda s: s.name,
            )
            for above in upstream:
                visit(above)
            nodes[stage.name] = StageNode(
                stage.name,
                tuple(above.name for above in upstream),
                stage.short_description() or "",
                bool((stage.meta or {}).get("gpu", False)),
            )

        visit(stages[target])
        return nodes

    def stages(self) -> list[str]:
        """The names of all stages of dvc.yaml.

        Raises:
            PipelineError: dvc.yaml or params.yaml has a fault.
        """
        return sorted(
            stage.name for stage in self._graph() if isinstance(stage, PipelineStage) and stage.name
        )

    def _graph(self) -> Any:
        """DVC's graph of stages.

        Raises:
            PipelineError: dvc.yaml or params.yaml has a fault.
        """
        try:
            return self._repo.index.graph
        except DvcException as error:
            raise PipelineError(_explain(error)) from None

    def restore_missing(self, names: list[str]) -> list[str]:
        """Restores outputs of these stages, and data under DVC that they read, if they are in the cache only.

        Changes nothing that is in the workspace. Returns the restored paths.
        """
        with lock_repo(self._repo):
            missing = [
                out.fs_path
                for stage in self.with_data(names)
                for out in stage.outs
                if out.hash_info and not out.exists and not out.changed_cache()
            ]
        if missing:
            self._repo.checkout(targets=missing, force=False)
        return [Path(path).relative_to(self.root.resolve()).as_posix() for path in missing]

    def with_data(self, names: list[str]) -> list[Stage]:
        """These stages, after the .dvc files of data that they read. The caller holds the lock of the repository.

        Raises:
            PipelineError: an output has no valid hash, or is outside of the project.
        """
        graph = self._repo.index.graph
        # From the graph: collecting a stage by its name reads all of dvc.yaml again.
        stages = {stage.name: stage for stage in graph if isinstance(stage, PipelineStage)}
        data = {
            above.addressing: above
            for name in names
            for above in graph.successors(stages[name])
            if not isinstance(above, PipelineStage)
        }
        found: list[Stage] = [*data.values(), *(stages[name] for name in names)]
        for stage in found:
            check_recorded(stage)
        return found

    def outs(self, names: list[str]) -> dict[str, dict[str, str | None]]:
        """The hash of each output in dvc.lock, by stage."""
        with lock_repo(self._repo):
            return {
                stage.name: {
                    out.def_path: out.hash_info.value if out.hash_info else None for out in stage.outs
                }
                for stage in self._repo.index.graph
                if isinstance(stage, PipelineStage) and stage.name in names
            }

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds DVC's lock. Meanwhile DVC reads its files once, not anew for each method of this class."""
        with lock_repo(self._repo):
            yield

    @property
    def dvc(self) -> Repo:
        """DVC's own object, for the other modules of flows/dvc."""
        return self._repo

    def is_done(self, name: str) -> bool:
        """Whether the stage is up to date: command, dependencies, params and outputs are those of dvc.lock.

        Compares the files as they are now, so its upstream stages should be up to date.
        """
        try:
            return not self._repo.status(targets=[name])
        except Exception:  # a missing dependency, a bucket that can't be reached: `dvc repro` reports it
            return False

    def makes_the_same(self, names: list[str]) -> bool:
        """Whether these stages would compute what dvc.lock has: they are unchanged, though outputs may be absent.

        False if the status of one can't be determined.
        """
        try:
            found = self._repo.status()
        except Exception:  # as in `is_done`
            return False
        changes = [change for name in names for change in found.get(name, [])]
        absent = ("deleted", "not in cache")
        return all(
            isinstance(change, dict)
            and all(state in absent for part in change.values() for state in part.values())
            for change in changes
        )

    def all_done(self, names: list[str]) -> bool:
        """Whether all of these stages are up to date; False if the status of one can't be determined."""
        try:
            # Of all stages: with targets, DVC reads its files again for each of them.
            return self._repo.status().keys().isdisjoint(names)
        except Exception:  # as in `is_done`
            return False

    def done_keys(self, names: list[str]) -> dict[str, str]:
        """`key` of those of these stages that are up to date. DVC reads its files once, not for each stage."""
        with lock_repo(self._repo):
            try:
                stale = self._repo.status().keys()
            except Exception:  # as in `is_done`
                return {}
            stages = (stage for stage in self._repo.index.graph if isinstance(stage, PipelineStage))
            keys = {
                stage.name: _key(stage) for stage in stages if stage.name in names and stage.name not in stale
            }
        return {name: key for name, key in keys.items() if key is not None}

    def is_cached(self, pointer: str) -> bool:
        """Whether the outputs of a .dvc file are in the working tree, unchanged, and in the cache."""
        with lock_repo(self._repo):
            outs = [out for stage in self.pointed(pointer) for out in stage.outs]
            return all(not out.status() and not out.changed_cache() for out in outs)

    def pointed(self, pointer: str) -> list[Stage]:
        """The content of a .dvc file, by its path in the project, in any current folder."""
        return list(self._repo.stage.collect(str(Path(self._repo.root_dir, pointer))))

    def key(self, name: str) -> str | None:
        """A hash of what determines the stage's result: its command, the content of its dependencies, its params.

        None if a dependency is missing.
        """
        with lock_repo(self._repo):  # reads dvc.yaml, params.yaml and dvc.lock again
            (stage,) = self._repo.stage.collect(name)
            assert isinstance(stage, PipelineStage)
            return _key(stage)

    def cache_file(self, md5: str) -> Path:
        """The path of the file with this hash in DVC's cache on this machine; the file may be absent."""
        return Path(self._repo.cache.local.oid_to_path(md5))


def _key(stage: PipelineStage) -> str | None:
    """See `DvcRepo.key`."""
    content: dict[str, Any] = {"stage": stage.name, "cmd": stage.cmd, "deps": {}, "params": {}}
    try:
        for dep in stage.deps:
            if isinstance(dep, ParamsDependency):
                content["params"][dep.def_path] = dep.read_params()
            else:
                # A frozen stage keeps the hashes of dvc.lock: its dependencies may be out of reach.
                known = dep.hash_info if stage.frozen else dep.get_hash()
                content["deps"][dep.def_path] = known.value
    except Exception:  # a missing dependency, or what a server's client raises: `dvc repro` reports it
        return None
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def is_hash(value: str) -> bool:
    """Whether it is an MD5 in DVC's form: the path of another text in the cache may lead out of the cache."""
    return re.fullmatch(r"[0-9a-f]{32}(\.dir)?", value) is not None


def check_recorded(stage: Stage) -> None:
    """Checks that the outputs of a stage or .dvc file have valid hashes and are inside the project.

    Raises:
        PipelineError: else DVC would read and delete files anywhere.
    """
    source = "dvc.lock" if isinstance(stage, PipelineStage) else stage.relpath
    for out in stage.outs:
        if out.protocol == "local" and not out.is_in_repo:
            raise PipelineError(
                f"{stage.relpath}: output {out.def_path}: found a path outside of the project"
            )
        value = out.hash_info.value if out.hash_info else None
        if value is not None and not is_hash(str(value)):
            raise PipelineError(
                f"{source}: output {out.def_path}: found hash {str(value)[:100]!r}, expected 32 hex digits; restore "
                f"the file with `git checkout {source}`"
            )


def _explain(error: BaseException) -> str:
    """The messages of an exception and its causes: DVC names the faulty line only in a cause."""
    causes: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        if str(cause) and str(cause) not in causes:
            causes.append(str(cause))
        cause = cause.__cause__
    return ": ".join(causes)
