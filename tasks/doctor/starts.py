"""Checks of the checkpoints that teacher and student start from: the files are there, of the network in params.yaml."""

from __future__ import annotations

import json
from pathlib import Path

from data.errors import Fault
from tasks.common.config import Params
from tasks.common.errors import TaskError
from tasks.doctor.finding import Diagnosis
from tasks.promotion.baseline import REGISTRY, model_folder
from tasks.promotion.checkpoint_start import CHECKPOINT
from tasks.promotion.registry import Registry

CHECK = "weights"


def check_starts(params: Params, root: Path, diagnosis: Diagnosis) -> None:
    """Faults are errors: the training would end at them. The weights aren't read."""
    _promoted(params, root, diagnosis)
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
            meta = load_meta(folder)
            network = params.student.network if name == "student" else None
            if network is None:
                faults = network_faults(meta, params.detector(section))
            else:
                of_another = meta["kind"] != network.name
                faults = [("kind", meta["kind"], network.name)] if of_another else []
        except CheckpointError as error:
            step = "name another checkpoint"
            found = " ".join(str(error).split())
            diagnosis.error(CHECK, Fault("params.yaml", record, found, "a checkpoint", step))
            continue
        for key, theirs, ours in faults:
            step = f"set it so, or name another {record}"
            expected = f"{theirs}, as in {section.checkpoint}"
            if key == "kind":
                kind = "SOLOv2" if ours == "solov2" else ours
                fault = Fault("params.yaml", record, f"a {theirs}, {folder}", f"a {kind}", "name another one")
            else:
                fault = Fault("params.yaml", key, ours, expected, step)
            diagnosis.error(CHECK, fault)


def _promoted(params: Params, root: Path, diagnosis: Diagnosis) -> None:
    """A promoted model of another kind than the student's network can't be started from."""
    if params.student.start != "promoted":
        return
    try:
        registry = Registry(root / REGISTRY)
        version = registry.promoted().version
        folder = None if version is None else model_folder(registry.root, version)
        if folder is None or not (folder / CHECKPOINT[0]).is_file():
            return  # the check of the registry reports what is missing
        found = json.loads((folder / "model.json").read_text(encoding="utf-8"))["kind"]
    except (TaskError, OSError, ValueError, KeyError, TypeError):
        return
    network = params.student.network
    kind = "solov2" if network is None else network.name
    if found != kind:
        step = "set student.start to scratch until a student of this network is promoted"
        fault = Fault(
            "params.yaml", "student.start", f"promoted, and {version} is a {found}", f"a {kind}", step
        )
        diagnosis.error(CHECK, fault)
