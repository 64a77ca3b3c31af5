"""Checks of section `proposers`: what a stage would find missing after the teacher is trained."""

from __future__ import annotations

from pathlib import Path

from data.errors import Fault
from models.sam.folder import USE, SamError, read_family
from tasks.common.config import Params, SamConfig
from tasks.doctor.finding import Diagnosis


def check_proposers(params: Params, root: Path, diagnosis: Diagnosis) -> None:
    """The packages and the weights of each proposer in use; weights aren't read, and nothing is downloaded."""
    if params.proposers.used_sam is not None:
        _sam(params.proposers.used_sam, root, diagnosis)
    several = len(params.proposers.use) > 1 or params.rounds > 1
    if several and params.teacher.holdout == 0:
        expected = "held-out images, on which the judge learns whose masks are better"
        step = "set it to 0.1 or more if there are images enough; else one proposer draws all masks"
        fault = Fault("params.yaml", "teacher.holdout", "0 with several proposers", expected, step)
        diagnosis.warn("proposers", fault)
    if params.rounds > 1 and params.student.masks == "none":
        expected = "1, since a student that isn't trained on clicks draws no better masks than the teacher"
        fault = Fault(
            "params.yaml", "rounds", f"{params.rounds} with student.masks: none", expected, "set it to 1"
        )
        diagnosis.warn("proposers", fault)


def _sam(sam: SamConfig, root: Path, diagnosis: Diagnosis) -> None:
    try:
        USE.check_installed()
        folder = USE.find(sam.weights, sam.revision, root)
        if folder is not None:
            read_family(folder)
            return
        USE.check_cached(sam.weights, sam.revision)
    except SamError as error:
        fault = Fault("params.yaml", USE.setting, error.found, error.expected, error.step)
        diagnosis.error("proposers", fault)
        return
    found = f"no folder {sam.weights}, and no hub model of that id in the cache"
    expected = "one of them, or a network to download it when pseudo_label needs it"
    step = f"nothing, where this machine may download it; else {USE.on_another_machine(sam.weights, sam.revision)}"
    diagnosis.warn("proposers", Fault("params.yaml", USE.setting, found, expected, step))
