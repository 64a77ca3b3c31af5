"""A network with the weights of a folder as transformers saves it, and a class layer for our classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.hub import FolderError, check_safetensors, quiet, read_config
from models.queries.config import FAMILIES, QueryConfig
from models.queries.network import QueryNetwork, plain_settings, settings_of
from models.weights import fault_of, listed

PREPROCESSOR = "preprocessor_config.json"
CLASS_LAYER = "network.class_predictor."


def folder_settings(name: str, folder: Path) -> dict[str, Any]:
    """The content of config.json.

    Raises:
        FolderError: it is missing or damaged, of another network than `name`, or there are no weights beside it.
    """
    known = f"the folder of a {name} ({FAMILIES[name].network} of transformers)"
    kind, config = read_config(folder, known)
    if kind != name:
        step = "name another folder"
        if kind in FAMILIES:
            step = f"set student.network.name to {kind}, or {step}"
        raise FolderError(f"model_type {kind!r:.100} in {folder / 'config.json'}", known, step)
    check_safetensors(folder)
    return config


def read_pixels(folder: Path) -> tuple[list[float], list[float]] | None:
    """Mean and deviation of RGB in 0..255 that the weights were trained with; None where the folder has none.

    Raises:
        FolderError: the file is damaged.
    """
    path = folder / PREPROCESSOR
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        mean, std = ([255 * float(one) for one in found[key]] for key in ("image_mean", "image_std"))
        if len(mean) != 3 or len(std) != 3:
            raise ValueError(f"{len(mean)} means, {len(std)} deviations")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        found = f"{path} without image_mean and image_std ({type(error).__name__}: {error})"
        raise FolderError(found, "three numbers each", "fetch the folder again") from None
    return mean, std


def load_pretrained(
    name: str, folder: Path, settings: dict[str, Any], pixels: tuple[Sequence[float], Sequence[float]],
    names: Sequence[str],
) -> tuple[QueryNetwork, list[str]]:  # fmt: skip
    """The network of a folder with a class layer of names[i] for class i, and the names whose rows were copied.

    The rows of classes with exactly the same names and of `no object` are copied; the others are random.

    Args:
        settings: keys of config.json with other values than there.
        pixels: mean and deviation, in place of the folder's if it has none.

    Raises:
        FolderError: the weights are missing, damaged, or of another network.
    """
    whole = {**folder_settings(name, folder), **settings}
    made = settings_of(name, whole, None)
    mean, std = map(list, read_pixels(folder) or pixels)
    config = QueryConfig.model_validate(
        {"name": name, "network": plain_settings(made), "pixel_mean": mean, "pixel_std": std}
    )
    model = QueryNetwork(config, len(names))
    theirs = _read(name, folder, made)
    state = {f"network.{key}": value for key, value in theirs.state_dict().items() if "criterion." not in key}
    rows = {label: int(number) for number, label in (made.id2label or {}).items()}
    common = [(i, rows[label]) for i, label in enumerate(names) if label in rows]
    own = model.state_dict()
    for key in [key for key in own if key.startswith(CLASS_LAYER)]:
        merged = own[key].clone()
        merged[-1] = state[key][-1]  # no object
        if common:
            ours, of = zip(*common, strict=True)
            merged[list(ours)] = state[key][list(of)].to(merged)
        state[key] = merged
    model.load_state_dict(state)
    return model, [names[i] for i, _ in common]


def _read(name: str, folder: Path, made: Any) -> nn.Module:
    """The network as it is in the folder.

    Raises:
        FolderError: its weights are unusable.
    """
    import transformers

    kind = f"the weights of a {name} with the settings of config.json and student.network.config"
    step = "fetch the folder again, or correct student.network"
    try:
        with quiet():
            network, loaded = getattr(transformers, FAMILIES[name].network).from_pretrained(
                folder, config=made, dtype=torch.float32, use_safetensors=True, output_loading_info=True,
                ignore_mismatched_sizes=True, local_files_only=True, trust_remote_code=False,
            )  # fmt: skip
    except Exception as error:  # a damaged folder can raise anything
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = (lines or [type(error).__name__])[0]
        raise FolderError(f"{folder}, not readable ({reason})", kind, step) from None
    faults = [f"{key}: missing" for key in sorted(loaded["missing_keys"]) if "criterion." not in key]
    for key, theirs, ours in sorted(loaded["mismatched_keys"]):
        if "criterion." not in key:
            faults.append(f"{key}: found shape {list(theirs)}, expected {list(ours)}")
    faults += [
        f"{key}: {fault}"
        for key, tensor in network.state_dict().items()
        if (fault := fault_of(key, tensor)) is not None
    ]
    if faults:
        raise FolderError(f"{folder} with unusable weights:\n{listed(faults)}\n", kind, step)
    made_network: nn.Module = network
    return made_network
