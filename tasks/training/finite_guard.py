"""Checks losses and gradients for NaN and infinity without waiting for a GPU."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tasks.common import processes


class FiniteGuard:
    """Checks the losses of one step at a time, over all processes.

    The values are copied to the host during the backward pass, so reading them before the optimiser's step doesn't
    wait.
    """

    def __init__(self, device: torch.device) -> None:
        self._event = torch.cuda.Event() if device.type == "cuda" else None
        self._here = self._anywhere = torch.zeros(0)
        self._names: list[str] = []
        self._lost = torch.zeros((), dtype=torch.bool, device=device)

    def watch(self, losses: Sequence[Mapping[str, Tensor]]) -> None:
        """Copies the parts of the loss of each of this process's pieces; call it before the last backward pass."""
        self._names = list(losses[0])
        here = torch.stack([torch.stack([part.detach().float() for part in one.values()]) for one in losses])
        # Any value that isn't finite makes the sum over all processes NaN or infinite.
        anywhere = processes.add(here[:, self._names.index("loss")].sum())
        self._here = here.to("cpu", non_blocking=True)
        self._anywhere = anywhere.to("cpu", non_blocking=True)
        if self._event is not None:
            self._event.record()

    def fault(self) -> list[str | None] | None:
        """None if all losses of all processes are finite; else for each piece of this one its values, None if finite.

        Call it before the optimiser's step.
        """
        if self._event is not None:
            self._event.synchronize()
        if math.isfinite(float(self._anywhere)):
            return None
        return [
            ", ".join(f"{name} {value:g}" for name, value in zip(self._names, row, strict=True))
            if not all(map(math.isfinite, row)) else None
            for row in self._here.tolist()
        ]  # fmt: skip

    def watch_gradients(self, norm: Tensor) -> None:
        """Checks the norm of all gradients of a step, the same in all processes."""
        self._lost |= ~torch.isfinite(norm)

    def gradient_is_lost(self, now: bool) -> bool:
        """Whether a gradient of any step so far wasn't finite. On a GPU it is read only with `now`, which waits for it;
        needed before anything is saved.
        """
        return (now or self._event is None) and bool(self._lost)
