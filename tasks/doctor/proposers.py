"""Checks of section `proposers`: what a stage would find missing after the teacher is trained."""

from __future__ import annotations

from pathlib import Path

from data.errors import Fault
from models.sam.folder import (
    SamError,
    check_cached,
    check_installed,
    find_folder,
    on_another_machine,
    read_family,
)
from tasks.common.config import Params, SamConfig
from tasks.doctor.finding import Diagnosis


def check_proposers(params: Params, root: Path, diagnosis: Diagnosis) -> None:
    """The packages and the weights of each proposer in use; weights aren't read, and nothing is downloaded."""
    use, sam = params.proposers.use, params.proposers.used_sam
    if len(use) > 1:
        expected, step = "one: choosing among several needs the judge, which isn't there yet", "name one"
        diagnosis.error("proposers", Fault("params.yaml", "proposers.use", ", ".join(use), expected, step))
    if sam is not None:
        _sam(sam, root, diagnosis)


def _sam(sam: SamConfig, root: Path, diagnosis: Diagnosis) -> None:
    key = "proposers.sam.weights"
    try:
        check_installed()
        folder = find_folder(sam.weights, sam.revision, root)
        if folder is not None:
            read_family(folder)
            return
        check_cached(sam.weights, sam.revision)
    except SamError as error:
        fault = Fault("params.yaml", key, error.found, error.expected, error.step)
        diagnosis.error("proposers", fault)
        return
    found = f"no folder {sam.weights}, and no hub model of that id in the cache"
    expected = "one of them, or a network to download it when train_refiner needs it"
    step = (
        f"nothing, where this machine may download it; else {on_another_machine(sam.weights, sam.revision)}"
    )
    diagnosis.warn("proposers", Fault("params.yaml", key, found, expected, step))
