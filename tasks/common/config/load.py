"""Reads params.yaml and checks it: every fault is listed, each with its key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from data import strict_yaml
from data.messages import plain
from models.config import SOLOv2Config
from tasks.common.config.faults import explain
from tasks.common.config.inputs import InputConfig
from tasks.common.config.params import Params, as_json
from tasks.common.errors import TaskError


class ParamsError(TaskError):
    """What is wrong with a params file: `faults`, each beginning with its key."""

    def __init__(self, path: Path, faults: list[str]) -> None:
        self.faults = faults
        count = f"{len(faults)} fault" + ("s" if len(faults) != 1 else "")
        lines = "\n".join(f"  - {fault}" for fault in map(plain, faults))
        super().__init__(
            f"{path}: {count}\n{lines}\nMend them and run again; recipes/ holds complete examples."
        )


def load_params(path: str | Path = "params.yaml") -> Params:
    """Reads and checks a params file.

    Raises:
        ParamsError: keys are missing, unknown or out of range; all are listed.
        TaskError: the file is missing or isn't YAML.
    """
    path = Path(path)
    try:
        text = strict_yaml.read_text(path)
    except FileNotFoundError:
        raise TaskError(
            f"{path}: no such file. Run in the project's folder (cd to it first); `points2model use demo` writes one."
        ) from None
    except OSError as error:
        raise TaskError(
            f"{path}: can't be read: {error.strerror or error}; give yourself the right to, or name a file"
        ) from None
    except strict_yaml.YamlError as error:
        raise _not_yaml(path, error) from None
    return parse_params(text, path)


def parse_params(text: str, path: Path) -> Params:
    """Reads and checks the text of a params file; `path` names it in errors.

    Raises:
        ParamsError: keys are missing, unknown or out of range; all are listed.
        TaskError: it isn't YAML.
    """
    faults: list[str] = []
    try:
        raw = strict_yaml.parse(text, duplicates=faults)
    except strict_yaml.YamlError as error:
        raise _not_yaml(path, error) from None
    if not isinstance(raw, dict):
        raise TaskError(f"{path}: expected sections (seed, ingest, teacher, ...), found {type(raw).__name__}")
    if "extends" in raw:
        step = f"write the whole file with `points2model use {path} --all`"
        raise TaskError(f"{path}: extends: stands in recipes alone, since DVC must see every value; {step}")
    params = None
    try:
        params = Params.model_validate_json(as_json(raw))
    except ValidationError as error:
        faults += [explain(detail, Params, "") for detail in error.errors()]
    faults += _detector_faults(raw)
    if params is not None:
        faults += _crop_faults(params)
    if faults or params is None:
        raise ParamsError(path, faults)
    return params


def _not_yaml(path: Path, error: Exception) -> TaskError:
    return TaskError(
        f"{path}: not valid YAML: {error}; correct it there, or start from a recipe: `points2model use`"
    )


def _detector_faults(raw: dict[str, Any]) -> list[str]:
    """What is wrong with the networks that section `model` and a training's grids and ranges make together."""
    faults: list[str] = []
    for name in ("teacher", "student"):
        model, training = raw.get("model"), raw.get(name)
        if not isinstance(model, dict) or not isinstance(training, dict):
            continue
        faults += [
            f"model.{key}: stands in teacher and student" for key in ("grids", "ranges") if key in model
        ]
        own = {key: training[key] for key in ("grids", "ranges") if key in training}
        try:
            SOLOv2Config.model_validate_json(as_json({**model, **own}))
        except ValidationError as error:
            for detail in error.errors():
                if detail["type"] == "missing" and detail["loc"][0] in ("grids", "ranges"):
                    continue  # said by the training's own section
                # What was found to disagree by the whole model has no place; its text begins with the key.
                key = str(detail["loc"][0]) if detail["loc"] else str(detail["ctx"]["error"]).split(":")[0]
                section = name if key in own else "model"
                faults.append(explain(detail, SOLOv2Config, section))
    return list(dict.fromkeys(faults))


def _crop_faults(params: Params) -> list[str]:
    """Crops to learn from, of networks whose cells would be smaller in a crop than in a whole image; tiles of another
    size than the crops that a network learns from."""
    sections = (("teacher", params.teacher), ("refiner", params.refiner), ("student", params.student))
    tile = params.input.tile
    if params.model.get("grid_reference") is not None:
        return [
            f"{name}.augment.crop_side: found {section.augment.crop_side} with input.tile.side {tile.side}; make them "
            "equal: a network answers for pieces of the size that it learnt from"
            for name, section in sections
            if tile is not None and section.augment.crop_side != tile.side
        ]
    faults = [
        f"{name}.augment.crop_side: found {section.augment.crop_side} with model.grid_reference null; set the latter "
        "to the side (in pixels) for which the grids hold, so that cells of crops and of whole images are alike"
        for name, section in sections
        if section.augment.crop_side is not None
    ]
    if tile is not None:
        faults.append(
            f"input.tile: found side {tile.side} with model.grid_reference null; set the latter to the side (in "
            "pixels) for which the grids hold, or input.tile to null"
        )
    return faults


def model_input(folder: Path, meta: Mapping[str, Any]) -> InputConfig:
    """How large the images of a model come in, by its model.json.

    Raises:
        TaskError: it doesn't say, or nothing that can be.
    """
    step = "Train or import it again, or use the version that wrote it"
    if "input" not in meta:
        raise TaskError(
            f"{folder}/model.json: found no `input`; expected a SOLOv2 of this project, or an imported one. {step}"
        )
    try:
        return InputConfig.model_validate(meta["input"])
    except ValidationError as error:
        listed = "\n".join(
            f"  - {'.'.join(('input', *map(str, one['loc'])))}: {one['msg']}, found {one['input']!r:.100}"
            for one in error.errors()
        )
        raise TaskError(
            f"{folder}/model.json: `input` is edited, or of another version:\n{listed}\n{step}"
        ) from None
