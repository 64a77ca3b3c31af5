"""Checkpoints: a folder of model.safetensors and model.json. Reading one never executes code.

model.json: {"format": 1, "kind": ..., "config": {...}, "categories": [{"id", "name"}, ...]} and further keys; kinds are
solov2, refinenet, mask2former, eomt. Contiguous class i is categories[i]; the table is sorted by id.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from functools import partial
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors.torch import save
from torch import Tensor

from models.config import InferenceConfig, RefineNetConfig, SOLOv2Config
from models.hub import FolderError
from models.queries.config import QueryConfig
from models.refiner.network import MaskRefineNet
from models.solov2.network import SOLOv2
from models.weights import (
    AGAIN,
    CheckpointError,
    WeightsError,
    check_regular,
    fault_of,
    listed,
    misfits,
    read_safetensors,
    shapes_of,
)

if TYPE_CHECKING:
    from models.inference.detector import Detector
    from models.queries.network import QueryNetwork

FORMAT = 1
WEIGHTS, META = "model.safetensors", "model.json"
MAX_BYTES = 2**24
"""Of model.json; with 80 classes it has 8 KB."""
MAX_CLASSES = 2**16


class _Category(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    id: Annotated[int, Field(ge=-(2**63), lt=2**63)]
    name: Annotated[str, Field(min_length=1)]


class _Imported(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    nms: Literal["matrix", "mask"] | None = None


class _Meta(BaseModel):
    """The keys of model.json that readers use, except `input`, which is the resizing steps'."""

    model_config = ConfigDict(extra="allow", strict=True)

    format: Literal[1]
    kind: Literal["solov2", "refinenet", "mask2former", "eomt"]
    config: dict[str, Any]
    categories: Annotated[list[_Category], Field(min_length=1, max_length=MAX_CLASSES)]
    inference: InferenceConfig | None = None
    imported: _Imported | None = None

    @model_validator(mode="after")
    def _one_row_a_class(self) -> Self:
        """Class i is row i, so ids must ascend."""
        for one, other in pairwise(row.id for row in self.categories):
            if one >= other:
                raise ValueError(f"categories: found id {other} after {one}, expected ids that rise")
        name, count = Counter(row.name for row in self.categories).most_common(1)[0]
        if count > 1:
            raise ValueError(f"categories: found the name {name!r} {count} times, expected names that differ")
        return self


def save_checkpoint(directory: str | Path, state_dict: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Writes a checkpoint folder, all or nothing; the same weights and meta give the same bytes.

    Replaces an older checkpoint in `directory`; other files in it stay. Raises CheckpointError for what
    `load_checkpoint` would refuse.
    """
    faults = _faults(meta) + [
        f"{key}: {fault}"
        for key, tensor in sorted(state_dict.items())
        if (fault := fault_of(key, tensor)) is not None
    ]
    if faults:
        raise CheckpointError(f"{directory}: not written, it would be of no use:\n{listed(faults)}")
    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    tensors = {key: state_dict[key].detach().cpu().contiguous() for key in sorted(state_dict)}
    text = json.dumps(meta, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    # In the same file system, since a rename across file systems isn't atomic.
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        (scratch / WEIGHTS).write_bytes(save(tensors))
        (scratch / META).write_text(text, encoding="utf-8")
        # model.json is removed first and written last: without it there is no checkpoint.
        (target / META).unlink(missing_ok=True)
        (scratch / WEIGHTS).replace(target / WEIGHTS)
        (scratch / META).replace(target / META)
    finally:
        shutil.rmtree(scratch)


def load_meta(directory: str | Path) -> dict[str, Any]:
    """The checked model.json of a checkpoint folder.

    Raises CheckpointError, which lists every fault by its key.
    """
    path = Path(directory) / META
    try:
        meta = _read_json(path)
        if not isinstance(meta, dict) or meta.get("format") != FORMAT:
            found = meta.get("format") if isinstance(meta, dict) else type(meta).__name__
            raise CheckpointError(
                f"{path}: found format {found!r:.100}, expected {FORMAT}; use the version that wrote it"
            )
        faults = _faults(meta)
    except RecursionError:
        raise CheckpointError(f"{path}: lists or objects nested too deeply; {AGAIN}") from None
    if faults:
        raise CheckpointError(
            f"{path}: its config is incomplete, edited, or of another version:\n{listed(faults)}\n"
            f"{AGAIN[0].upper()}{AGAIN[1:]}, or use the version that wrote it"
        )
    return meta


def _read_json(path: Path) -> Any:
    try:
        check_regular(path)
        if path.stat().st_size > MAX_BYTES:
            raise CheckpointError(f"{path}: found {path.stat().st_size} bytes, expected at most {MAX_BYTES}")
        return json.loads(
            path.read_text(encoding="utf-8"), object_pairs_hook=_without_doubles, parse_constant=_no_number
        )
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: not found; expected a checkpoint folder with {META} and {WEIGHTS}"
        ) from None
    except WeightsError as error:
        raise CheckpointError(str(error)) from None
    except OSError as error:
        raise CheckpointError(f"{path}: not readable ({error.strerror})") from None
    except ValueError as error:  # JSON's and UTF-8's, and a number of too many digits
        raise CheckpointError(f"{path}: not JSON ({error}); {AGAIN}") from None


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        key, count = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"key {key!r} {count} times in an object")
    return made


def _no_number(name: str) -> None:
    raise ValueError(f"{name} isn't a number of JSON")


def _faults(meta: dict[str, Any]) -> list[str]:
    """The faults of a model.json of this format, each with its key."""
    faults = []
    try:
        _Meta.model_validate(meta)
    except ValidationError as error:
        faults += _keyed(error, ())
    if isinstance(meta.get("config"), dict):
        try:
            _config(meta)
        except ValidationError as error:
            faults += _keyed(error, ("config",))
    return faults


def _keyed(error: ValidationError, inside: tuple[str, ...]) -> list[str]:
    faults = []
    for one in error.errors():
        place = ".".join(map(str, (*inside, *one["loc"])))
        if one["type"] == "missing":
            faults.append(f"{place}: missing")
        elif one["type"] == "value_error":  # its text has the found value
            faults.append(": ".join(filter(None, (place, one["msg"].removeprefix("Value error, ")))))
        else:
            faults.append(f"{place}: found {_short(one['input'])}; {one['msg'][0].lower()}{one['msg'][1:]}")
    return faults


def _short(value: Any) -> str:
    try:
        return f"{value!r:.100}"
    except ValueError:  # a number of too many digits
        return "a number without end"


_QUERIES = ("mask2former", "eomt")


def _config(meta: dict[str, Any]) -> SOLOv2Config | RefineNetConfig | QueryConfig:
    config = dict(meta["config"])
    if meta.get("kind") in _QUERIES:
        return QueryConfig.model_validate(config)
    if isinstance(config.get("backbone"), dict):
        # The initial weights of the training aren't needed, and may not exist any more.
        config["backbone"] = {**config["backbone"], "weights": None}
    kind = RefineNetConfig if meta.get("kind") == "refinenet" else SOLOv2Config
    return kind.model_validate(config)


def kind_of(config: SOLOv2Config | RefineNetConfig | QueryConfig) -> str:
    """The `kind` of a checkpoint with this config."""
    if isinstance(config, QueryConfig):
        return config.name
    return "solov2" if isinstance(config, SOLOv2Config) else "refinenet"


def _network(meta: dict[str, Any]) -> Detector | MaskRefineNet:
    config = _config(meta)
    if isinstance(config, QueryConfig):
        # By name: its code isn't part of stages that read SOLOv2s alone (tasks/common/code_identity.py).
        queries: QueryNetwork = import_module("models.queries.network").QueryNetwork(
            config, len(meta["categories"])
        )
        return queries
    if isinstance(config, SOLOv2Config):
        return SOLOv2(config, len(meta["categories"]))
    return MaskRefineNet(config)


def load_checkpoint(directory: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights (on the CPU, floats as float32) and meta of a checkpoint folder.

    Raises CheckpointError, which lists every fault: weights must have the names, shapes and types of the config's
    network and be finite.
    """
    meta = load_meta(directory)
    path = Path(directory) / WEIGHTS
    try:
        shapes = shapes_of(partial(_network, meta))
    except FolderError as error:  # of transformers
        raise CheckpointError(f"{Path(directory) / META}: {error}") from None
    except (ValueError, RuntimeError, OverflowError) as error:
        raise CheckpointError(f"{Path(directory) / META}: its config gives no network: {error}") from None
    try:
        state = read_safetensors(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: not found next to {META}; copy the whole folder") from None
    except WeightsError as error:
        raise CheckpointError(f"{error}; {AGAIN}") from None
    faults = misfits(state, shapes)
    if faults:
        raise CheckpointError(
            f"{path}: weights do not fit the config next to them, or are unusable "
            f"({len(faults)} fault{'s' * (len(faults) > 1)}):\n{listed(faults)}\n{AGAIN[0].upper()}{AGAIN[1:]}"
        )
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}, meta


def build_model(directory: str | Path) -> Detector | MaskRefineNet:
    """The network of a checkpoint folder on the CPU, in eval mode, with `.categories` [{"id", "name"}, ...].

    Raises CheckpointError; see `load_checkpoint`.
    """
    state, meta = load_checkpoint(directory)
    model = _network(meta)
    model.load_state_dict(state)
    model.categories = meta["categories"]
    return model.eval().requires_grad_(False)


def load_detector(folder: str | Path, device: torch.device) -> Detector:
    """The checkpoint of a network that finds instances, in eval mode on the device.

    Raises:
        CheckpointError: see `load_checkpoint`; or it is a refiner's.
    """
    model = build_model(folder)
    if isinstance(model, MaskRefineNet):
        raise CheckpointError(
            f"{folder}: found a {type(model).__name__}, expected a SOLOv2 checkpoint, or that of another student"
        )
    return model.to(device)


def load_teacher(folder: str | Path, device: torch.device) -> SOLOv2:
    """A SOLOv2 checkpoint in eval mode on the device.

    Raises:
        CheckpointError: see `load_checkpoint`; or it is another network's.
    """
    model = build_model(folder)
    if not isinstance(model, SOLOv2):
        kind = type(model).__name__ if isinstance(model, MaskRefineNet) else model.config.name
        raise CheckpointError(f"{folder}: found a {kind}, expected a SOLOv2 checkpoint")
    return model.to(device)
