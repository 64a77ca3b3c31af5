"""Reads params.yaml and checks it: every fault is listed, each with its key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from data import strict_yaml
from data.messages import plain
from models.config import SOLOv2Config
from tasks.common.config.faults import ParamFault, distinct, explain
from tasks.common.config.inputs import InputConfig
from tasks.common.config.params import Params, as_json
from tasks.common.errors import NO_PROJECT, TaskError

Kind = TypeVar("Kind", bound=BaseModel)


class ParamsError(TaskError):
    """All faults of a params file."""

    def __init__(self, path: Path, faults: list[ParamFault]) -> None:
        self.faults = faults
        count = f"{len(faults)} fault" + ("s" if len(faults) != 1 else "")
        lines = "\n".join(f"  - {plain(str(fault))}" for fault in faults)
        super().__init__(
            f"{path}: {count}\n{lines}\nCorrect them and run again; recipes/ holds complete examples."
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
        raise TaskError(f"{path}: no such file; {NO_PROJECT}") from None
    except OSError as error:
        raise TaskError(
            f"{path}: can't be read: {error.strerror or error}; make it readable, or name another file"
        ) from None
    except strict_yaml.YamlError as error:
        raise _not_yaml(path, error) from None
    return parse_params(text, path)


def parse_params(text: str, path: Path) -> Params:
    """Checks the text of a params file; `path` is its name in errors.

    Raises:
        ParamsError: keys are missing, unknown or out of range; all are listed.
        TaskError: it isn't YAML.
    """
    doubled: list[str] = []
    try:
        raw = strict_yaml.parse(text, duplicates=doubled)
    except strict_yaml.YamlError as error:
        raise _not_yaml(path, error) from None
    if not isinstance(raw, dict):
        raise TaskError(f"{path}: expected sections (seed, ingest, teacher, ...), found {type(raw).__name__}")
    if "extends" in raw:
        step = f"write the whole file with `points2model use {path} --all`"
        raise TaskError(f"{path}: extends: found outside of a recipe, but DVC must see every value; {step}")
    faults = [
        ParamFault(key, found, "each key once")
        for key, _, found in (text.partition(": found ") for text in doubled)
    ]
    params = None
    try:
        params = Params.model_validate_json(as_json(raw))
    except ValidationError as error:
        faults += [explain(detail, Params) for detail in error.errors()]
    faults += _detector_faults(raw)
    if params is not None:
        faults += [*_crop_faults(params), *_network_faults(params)]
    if faults or params is None:
        raise ParamsError(path, distinct(faults))
    return params


def _not_yaml(path: Path, error: Exception) -> TaskError:
    return TaskError(
        f"{path}: not valid YAML: {error}; correct it there, or start from a recipe: `points2model use`"
    )


def _detector_faults(raw: dict[str, Any]) -> list[ParamFault]:
    """Faults of the networks that section `model` makes with the grids and ranges of teacher and student."""
    faults: list[ParamFault] = []
    for name in ("teacher", "student"):
        model, training = raw.get("model"), raw.get(name)
        if not isinstance(model, dict) or not isinstance(training, dict):
            continue
        faults += [
            ParamFault(f"model.{key}", "here", "in teacher and student")
            for key in ("grids", "ranges")
            if key in model
        ]
        own = {key: training[key] for key in ("grids", "ranges") if key in training}
        try:
            SOLOv2Config.model_validate_json(as_json({**model, **own}))
        except ValidationError as error:
            for detail in error.errors():
                # A fault of the whole model has no location; its text begins with the key.
                key = str(detail["loc"][0]) if detail["loc"] else str(detail["ctx"]["error"]).split(":")[0]
                if detail["type"] != "missing" or key not in (
                    "grids",
                    "ranges",
                ):  # else a fault of `training`
                    faults.append(explain(detail, SOLOv2Config, name if key in own else "model"))
    return faults


def _crop_faults(params: Params) -> list[ParamFault]:
    """Faults of crops and tiles: a network's cells must be of one size in crops, tiles and whole images."""
    sections = (("teacher", params.teacher), ("refiner", params.refiner), ("student", params.student))
    tile = params.input.tile
    if params.model.get("grid_reference") is not None:
        if tile is None:
            return []
        expected = (
            f"input.tile.side, {tile.side}: a network predicts on pieces of the size that it is trained on"
        )
        return [
            ParamFault(f"{name}.augment.crop_side", str(section.augment.crop_side or "null"), expected)
            for name, section in sections
            if section.augment.crop_side != tile.side
        ]
    step = "set model.grid_reference to the side (in pixels) for which the grids hold"
    faults = [
        ParamFault(
            f"{name}.augment.crop_side",
            f"{section.augment.crop_side} with model.grid_reference null",
            f"null; or {step}, so that cells of crops and of whole images are alike",
        )
        for name, section in sections
        if section.augment.crop_side is not None
    ]
    if tile is not None:
        found = f"side {tile.side} with model.grid_reference null"
        faults.append(ParamFault("input.tile", found, f"null; or {step}"))
    return faults


def _network_faults(params: Params) -> list[ParamFault]:
    """Faults of another network than SOLOv2 together with other sections."""
    network = params.student.network
    if network is None or params.rounds == 1:
        return []
    found = f"{params.rounds} with student.network {network.name}"
    return [ParamFault("rounds", found, "1: a student that draws masks at clicks is a SOLOv2")]


def model_input(folder: Path, meta: Mapping[str, Any]) -> InputConfig:
    """The input size of a model, from the content of its model.json.

    Raises:
        TaskError: it has no `input`, or one with faults.
    """
    step = "Train or import it again, or use the version that wrote it"
    if "input" not in meta:
        raise TaskError(
            f"{folder}/model.json: found no `input`; expected a SOLOv2 of this project, or an imported one. {step}"
        )
    return checked_section(meta["input"], InputConfig, "input", folder / "model.json", step)


def checked_section(found: Any, kind: type[Kind], name: str, path: Path, step: str) -> Kind:
    """A section of a file that another version may have written.

    Args:
        found: its content.
        name: of the section, in errors.
        step: what to do about faults, a sentence.

    Raises:
        TaskError: it has faults; all are listed.
    """
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        faults = distinct(explain(detail, kind, name) for detail in error.errors())
        lines = "".join(f"  - {fault}\n" for fault in faults)
        raise TaskError(
            f"{path}: `{name}` was edited, or written by another version:\n{lines}{step}"
        ) from None
