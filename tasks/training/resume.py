"""The states from which an interrupted training is resumed.

A state is two files in runs/STAGE/resume/KEY: state_STEP.pt, and state_STEP.json with its hash, written after it. So
incomplete and damaged states are detected.
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
        folder: has a folder of states for each key; all are removed when a training ends.
        key: identifies all that the run depends on; only states of the same key are loaded.
        milestones: steps whose weights are saved in the same folder.
    """

    def __init__(self, name: str, folder: Path, key: str, keep: int, milestones: tuple[int, ...]) -> None:
        self.name, self.root, self.keep, self.milestones = name, folder, keep, milestones
        self.key, self.folder = key, folder / key

    def milestone(self, step: int) -> Path:
        """The file of the weights of `step`."""
        return self.folder / f"milestone_{step:07d}.safetensors"

    def save(self, step: int, state: State) -> None:
        """Saves a state; all processes call it, the first one writes.

        Raises:
            OSError: such as a full disk.
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
        """The step of the newest valid state of this job, and the state; (0, None) if there is none.

        All processes call it and load the same state from a folder that all share. Tensors are on the CPU: Adam's step
        counts must stay there, or reading them would wait for the GPU at each step.

        Raises:
            TaskError: its hash is right, but it isn't a state of a training.
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
            # Additional processes have no saved state. No result depends on it: all draws are seeded by step.
            if processes.index() < len(everywhere):
                set_random_states(everywhere[processes.index()])
        except Exception as error:  # not written by a training: its content may be anything
            raise TaskError(
                f"{self._path(step)}: no state of a training ({type(error).__name__}: {error}); remove {self.root}, "
                "then the training starts over"
            ) from None
        log.info("%s: resuming after step %d", self.name, step)
        return step, state

    def clear(self) -> None:
        """Removes all states and milestones, also those of other keys."""
        shutil.rmtree(self.root, ignore_errors=True)

    def _path(self, step: int) -> Path:
        return self.folder / f"state_{step:07d}.pt"

    def _steps(self) -> list[int]:
        """The steps of all states, the newest first."""
        names = (path.stem.removeprefix("state_") for path in self.folder.glob("state_*.json"))
        return sorted((int(name) for name in names if re.fullmatch(r"[0-9]{7,18}", name)), reverse=True)

    def _newest(self) -> int:
        """The step of the newest usable state; 0 if there is none. Removes unusable ones."""
        discard_partials(self.folder)
        others = sorted(
            (path for path in self.root.glob("*") if path != self.folder),
            key=lambda path: path.stat().st_mtime,
        )
        for path in others[:-1]:  # not the last one, so that a change of settings can be undone
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        if others and not self.folder.exists():
            log.warning(
                "%s: starts over: an interrupted run had other params, data, code, torch or hardware; its states "
                "stay in %s until this training ends", self.name, others[-1],
            )  # fmt: skip
        for step in self._steps():
            path = self._path(step)
            about = path.with_suffix(".json")
            try:
                record = json.loads(about.read_text(encoding="utf-8"))
                fault = None if _sha256(path) == record["sha256"] else "its content has changed"
            except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
                fault = f"{type(error).__name__}: {error}"
            lost = [at for at in self.milestones if at <= step and not self.milestone(at).exists()]
            if fault is None and lost:
                fault = f"{self.milestone(lost[0]).name} is missing"
            if fault is None:
                return step
            log.warning("%s: %s is unusable (%s); using the one before", self.name, path, fault)
            about.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        return 0


def random_states() -> State:
    """The states of all global random generators of this process, as types for `torch.load(weights_only=True)`."""
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
    """Restores what `random_states` returned."""
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(state["cuda"].cpu())
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), *rest))  # noqa: NPY002
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
