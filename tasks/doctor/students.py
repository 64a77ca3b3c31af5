"""Checks of another network than SOLOv2 as the student: package, weights, settings, size of the input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data.errors import Fault
from models.hub import FolderError
from tasks.common.config import NetworkConfig, Params
from tasks.doctor.finding import Diagnosis

CHECK = "student"
KEY = "student.network"


def check_students(params: Params, root: Path, diagnosis: Diagnosis) -> None:
    """Faults are errors: the training would end at them. The weights aren't read, and nothing is downloaded."""
    network = params.student.network
    if network is None:
        return
    # With torch, which takes seconds.
    from models.queries.network import USE, build, check_keys, settings_of
    from models.weights import shapes_of
    from tasks.training.queries import side_fault

    key, of_config = f"{KEY}.weights", f"{KEY}.config"
    try:
        USE.check_installed()
        key = of_config
        check_keys(network.name, network.config)
        if network.weights is not None:
            key = f"{KEY}.weights"
        settings = _settings(network, root, diagnosis)
        if settings is None:
            return
        made = settings_of(network.name, settings, 1)
        shapes_of(lambda: build(network.name, settings, 1))
    except FolderError as error:
        diagnosis.error(CHECK, Fault("params.yaml", key, error.found, error.expected, error.step))
        return
    fault = side_fault(params, made.image_size if network.name == "eomt" else None)
    if fault is not None:
        found, expected, step = fault.removeprefix("found ").split("; ", 2)
        diagnosis.error(CHECK, Fault("params.yaml", KEY, found, expected.removeprefix("expected "), step))


def _settings(network: NetworkConfig, root: Path, diagnosis: Diagnosis) -> dict[str, Any] | None:
    """The settings of its config.json with those of params.yaml; None where they must be downloaded, which is noted."""
    from models.queries.network import USE
    from models.queries.pretrained import folder_settings

    if network.weights is None:
        return network.config
    folder = USE.find(network.weights, network.revision, root)
    if folder is not None:
        return {**folder_settings(network.name, folder), **network.config}
    USE.check_cached(network.weights, network.revision)
    found = f"no folder {network.weights}, and no hub model of that id in the cache"
    expected = "one of them, or a network to download it when train_student needs it"
    other = USE.on_another_machine(network.weights, network.revision)
    step = f"nothing, where this machine may download it; else {other}"
    diagnosis.warn(CHECK, Fault("params.yaml", f"{KEY}.weights", found, expected, step))
    return None
