"""The states from which a training that was interrupted goes on.

A state is two files in runs/STAGE/resume/KEY: state_STEP.pt, and state_STEP.json with its hash, written after it. So a
state that is half written, or damaged, isn't taken for one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.storage import atomic_write, discard_partials
from models.weights import fault_of, read_pickle
from tasks.common import processes
from tasks.common.errors import TaskError

log = logging.getLogger(__name__)

State = dict[str, Any]


class States:
    """The states of one training in a folder, the last `keep` of them.

    Args:
        name: of the training, for messages.
        folder: has a folder of states by key; those of other keys are kept until a training ends here.
        key: what the run depends on; a state left by a run with another key is of no use.
        milestones: steps whose weights the training leaves in the same folder.
    """

    def __init__(self, name: str, folder: Path, key: str, keep: int, milestones: tuple[int, ...]) -> None:
        self.name, self.root, self.keep, self.milestones = name, folder, keep, milestones
        self.key, self.folder = key, folder / key

    def milestone(self, step: int) -> Path:
        """Where the weights of `step` lie while the training runs."""
        return self.folder / f"milestone_{step:07d}.safetensors"

    def save(self, step: int, state: State) -> None:
        """Keeps a state; all processes call it, the first one writes.

        Raises:
            OSError: the disk is full, for one.
        """
        everywhere = processes.gather(random_states())
        if not processes.is_first():
            return
        path = self._path(step)
        with atomic_write(path) as temporary:
            torch.save({**state, "random": everywhere}, temporary)
            digest = _sha256(temporary)
        with atomic_write(path.with_suffix(".json")) as temporary:
            temporary.write_text(
                json.dumps({"step": step, "key": self.key, "sha256": digest}), encoding="utf-8"
            )
        for old in self._steps()[self.keep :]:
            self._path(old).with_suffix(".json").unlink()
            self._path(old).unlink(missing_ok=True)

    def load(self) -> tuple[int, State | None]:
        """The newest whole state of this very job, on the CPU, and its step; (0, None) where there is none.

        All processes call it, and read the same one: the folder is one that all see. On the CPU, since whoever loads it
        knows what belongs on a device: Adam's counts of steps don't, reading them there would stop each step.

        Raises:
            TaskError: its hash is right, but it is no state that a training can go on from.
        """
        step = processes.gather(self._newest() if processes.is_first() else 0)[0]
        if not step:
            return 0, None
        try:
            state = read_pickle(self._path(step))
            weights = state.get("model", {})
            faults = [
                f"{key}: {fault}" for key in weights if (fault := fault_of(key, weights[key])) is not None
            ]
            if faults:
                raise ValueError(faults[0])
            everywhere = state.pop("random")
            # Of processes that weren't there before, nobody knows a state. No result depends on it: all draws are
            # seeded by step.
            if processes.index() < len(everywhere):
                set_random_states(everywhere[processes.index()])
        except Exception as error:  # its hash is right, yet no training wrote it: it may hold anything
            raise TaskError(
                f"{self._path(step)}: no state of a training ({type(error).__name__}: {error}); remove {self.root}, "
                "then the training begins anew"
            ) from None
        log.info("%s: going on after step %d", self.name, step)
        return step, state

    def clear(self) -> None:
        """Removes all states and milestones, those of other keys too."""
        shutil.rmtree(self.root, ignore_errors=True)

    def _path(self, step: int) -> Path:
        return self.folder / f"state_{step:07d}.pt"

    def _steps(self) -> list[int]:
        """Of the states that are there, the newest first."""
        names = (path.stem.removeprefix("state_") for path in self.folder.glob("state_*.json"))
        return sorted((int(name) for name in names if re.fullmatch(r"[0-9]{7,18}", name)), reverse=True)

    def _newest(self) -> int:
        """The step of the newest usable state; 0 where there is none. What is of no use is removed."""
        discard_partials(self.folder)
        others = sorted(
            (path for path in self.root.glob("*") if path != self.folder),
            key=lambda path: path.stat().st_mtime,
        )
        for path in others[:-1]:  # the last one's, so that one change too many can be taken back
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        if others and not self.folder.exists():
            log.warning(
                "%s: begins anew: an interrupted run had other params, data, code, torch or hardware; its states "
                "stay in %s until this training ends", self.name, others[-1],
            )  # fmt: skip
        for step in self._steps():
            path = self._path(step)
            about = path.with_suffix(".json")
            try:
                said = json.loads(about.read_text(encoding="utf-8"))
                fault = None if _sha256(path) == said["sha256"] else "its content isn't what was written"
            except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
                fault = f"{type(error).__name__}: {error}"
            lost = [at for at in self.milestones if at <= step and not self.milestone(at).exists()]
            if fault is None and lost:
                fault = f"{self.milestone(lost[0]).name} is gone"
            if fault is None:
                return step
            log.warning("%s: %s can't be used (%s); going back to the one before", self.name, path, fault)
            about.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        return 0


def random_states() -> State:
    """The state of every global random generator of this process, as `torch.load(weights_only=True)` can read it."""
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002 (the global one)
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
        "numpy": [
            str(kind),
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "python": [version, list(internal), gauss],
    }


def set_random_states(state: State) -> None:
    """Puts back what `random_states` gave."""
    torch.set_rng_state(_on_cpu(state["torch"]))
    if state["cuda"] is not None and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(_on_cpu(state["cuda"]))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, _on_cpu(keys).numpy().astype(np.uint32), *rest))  # noqa: NPY002
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


def _on_cpu(state: Tensor) -> Tensor:
    return state.cpu()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
