"""Checks of the checkpoints that teacher and student start from: the files are there, of the network in params.yaml."""

from __future__ import annotations

from pathlib import Path

from data.errors import Fault
from tasks.common.config import Params
from tasks.doctor.finding import Diagnosis
from tasks.promotion.checkpoint_start import CHECKPOINT

CHECK = "weights"


def check_starts(params: Params, root: Path, diagnosis: Diagnosis) -> None:
    """Faults are errors: the training would end at them. The weights aren't read."""
    for name, section in (("teacher", params.teacher), ("student", params.student)):
        if section.checkpoint is None:
            continue
        folder, record = root / section.checkpoint, f"{name}.checkpoint"
        if missing := [file for file in CHECKPOINT if not (folder / file).is_file()]:
            found = f"no {' and no '.join(missing)} in {folder}"
            step = "correct the folder, or make a checkpoint with `points2model import-checkpoint`"
            diagnosis.error(CHECK, Fault("params.yaml", record, found, "a checkpoint's folder", step))
            continue
        # With torch, which takes seconds.
        from models.checkpoint import load_meta
        from models.weights import CheckpointError
        from tasks.training.start import network_faults

        try:
            faults = network_faults(load_meta(folder), params.detector(section))
        except CheckpointError as error:
            step = "name another checkpoint"
            found = " ".join(str(error).split())
            diagnosis.error(CHECK, Fault("params.yaml", record, found, "a checkpoint", step))
            continue
        for key, theirs, ours in faults:
            step = f"set it so, or name another {record}"
            expected = f"{theirs}, as in {section.checkpoint}"
            if key == "kind":
                fault = Fault("params.yaml", record, f"a {theirs}, {folder}", "a SOLOv2", "name another one")
            else:
                fault = Fault("params.yaml", key, ours, expected, step)
            diagnosis.error(CHECK, fault)
