"""Converts published weights: SOLOv2 and MaskRefineNet of the reference, backbones of MSRA.

No code in the file is executed: torch's weights-only reader reads `.pth` and `.pt`, and an unpickler that only builds
NumPy arrays reads `.pkl`. Name and shape of every tensor are checked before anything is written.
"""

from __future__ import annotations

import logging
import pickle  # only for the name of its error
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import ValidationError
from safetensors.torch import save
from torch import Tensor

from data.annotations.categories import load_categories, numbered
from data.images.content import sha256
from data.storage import atomic_write
from data.tables import Category
from models.backbones.build import build_backbone
from models.backbones.config import BackboneConfig
from models.checkpoint import FORMAT, save_checkpoint
from models.reference.pickled_arrays import NUMBERS, UnsafePickleError, load_arrays
from models.reference.published import (
    FROZEN,
    MSRA_UNUSED,
    PublishedError,
    msra_names,
    refinenet_names,
    renamed,
    solov2_names,
)
from models.reference.published_config import (
    CAFFE_MEAN,
    CAFFE_STD,
    REFINER_ENLARGE,
    REFINER_SPARE_CHANNELS,
    SETTINGS,
    Kind,
    ReferenceSettings,
    kind_of,
    refinenet_config,
    resnet_of,
    solov2_config,
)
from models.refiner.network import MaskRefineNet
from models.solov2.network import SOLOv2
from models.weights import CheckpointError, WeightsError, check_regular, listed, read_pickle, shapes_of
from tasks.common.config import InputConfig
from tasks.common.errors import TaskError
from tasks.common.stage_main import write_json
from tasks.labelling.gate import unmeasured, write_gate
from tasks.tools.reference_config import read_reference_config

log = logging.getLogger(__name__)

WRAPPERS = ("model", "model_state", "state_dict", "blobs")
"""Keys under which files keep their tensors: of detectron2, of MaskRefineNet, of others, of Caffe2."""
CONFIG_FILE = "config.yaml"


class Imported(NamedTuple):
    """The result of an import."""

    kind: Kind
    path: Path
    """the checkpoint folder, or the backbone's file"""
    text: str
    """a line that describes it"""


def import_checkpoint(
    file: Path, out: Path, *, categories: str | None, settings: str | None, config: Path | None
) -> Imported:
    """Reads `file`, detects its kind, and writes it into the folder `out`.

    Args:
        file: .pth, .pt or .pkl.
        out: gets the checkpoint of a SOLOv2 or MaskRefineNet; of a backbone NAME_msra.safetensors, and NAME_msra.json
            with the `model` keys that it must be used with.
        categories: `coco`, `bdd100k` or a JSON file; None numbers the classes.
        settings: of a SOLOv2: `student` or `teacher`, for its grids and ranges, which aren't in the tensors.
        config: of a SOLOv2: config.yaml of the reference; it takes precedence over `settings`. If both are None, a
            config.yaml next to `file` is read; without one, the settings are the student's.

    Raises:
        TaskError: the file can't be read, is of no known kind, or its tensors, classes or configuration don't fit; all
            faults are listed.
    """
    try:
        found, facts = _read(file)
        kind = kind_of(found, str(file))
        if kind == "solov2":
            return _import_solov2(file, out, found, facts, categories, _settings(file, settings, config))
        for option, value in (("--settings", settings), ("--config", config)):
            if value is not None:
                raise TaskError(f"{file}: found a {kind}, to which {option} doesn't apply; leave it out")
        if kind == "refinenet":
            return _import_refinenet(file, out, found, facts, categories)
        if categories is not None:
            raise TaskError(f"{file}: found a backbone, which has no classes; leave --categories out")
        return _import_backbone(file, out, found)
    except (PublishedError, UnsafePickleError) as error:
        raise TaskError(str(error)) from None
    except ValidationError as error:
        sizes = [f"{'.'.join(map(str, one['loc']))}: found {one['input']!r:.100}" for one in error.errors()]
        raise TaskError(
            f"{file}: the tensors, or the configuration given with them, have impossible sizes:\n{listed(sizes)}"
        ) from None
    except (WeightsError, CheckpointError) as error:
        raise TaskError(f"{file}: {error}" if str(file) not in str(error) else str(error)) from None


def _import_solov2(
    file: Path,
    out: Path,
    found: Mapping[str, Tensor],
    facts: dict[str, Any],
    categories: str | None,
    settings: ReferenceSettings,
) -> Imported:
    config, classes = solov2_config(found, settings)
    shapes = shapes_of(lambda: SOLOv2(config, classes))
    names = solov2_names(config.backbone.name, config.head_convs)
    what = f"SOLOv2 with {config.backbone.name}, {classes} classes"
    state = renamed(found, names, shapes, str(file), what)
    meta = {
        "format": FORMAT,
        "kind": "solov2",
        "config": config.model_dump(mode="json"),
        "categories": _categories(file, categories, classes),
        "input": InputConfig(
            short_side=settings.short_side, max_side=settings.max_side, enlarge=True, tile=None
        ).model_dump(mode="json"),
        "inference": settings.inference.model_dump(mode="json"),
        "imported": _origin(file, facts) | {"settings": settings.name, "nms": settings.nms},
    }
    save_checkpoint(out, state, meta)
    grids = "/".join(map(str, settings.grids))
    return Imported("solov2", out, f"{what}, settings {settings.name} (grids {grids})")


def _import_refinenet(
    file: Path, out: Path, found: Mapping[str, Tensor], facts: dict[str, Any], categories: str | None
) -> Imported:
    config, classes = refinenet_config(found)
    shapes = shapes_of(lambda: MaskRefineNet(config))
    what = f"MaskRefineNet with {config.backbone.name}, {classes} classes"
    state = renamed(found, refinenet_names(len(config.aspp_rates)), shapes, str(file), what)
    meta = {
        "format": FORMAT,
        "kind": "refinenet",
        "config": config.model_dump(mode="json"),
        "categories": _categories(file, categories, classes),
        "imported": _origin(file, facts) | {"spare_heatmap_channels": REFINER_SPARE_CHANNELS},
    }
    save_checkpoint(out, state, meta)
    # Without held-out images its gain can't be measured: it's used on every mask, once, as in the reference.
    step = int(facts.get("last_itr", 0))
    write_gate(out, unmeasured(step, enlarge=REFINER_ENLARGE, rounds=1))
    return Imported("refinenet", out, what)


def _import_backbone(file: Path, out: Path, found: dict[str, Tensor]) -> Imported:
    name = resnet_of(found)
    config = BackboneConfig(
        name=name,
        width=1.0,
        norm="frozen_bn",
        norm_groups=32,
        frozen_stages=2,
        stride_in_1x1=True,
        weights=None,
    )
    shapes = shapes_of(lambda: build_backbone(config))
    names = msra_names(name, found)
    statistics = {key: ours for key, ours in names.items() if ours.endswith(FROZEN[2:])}
    if not statistics.keys() & found.keys():
        # In older files scale and offset include the statistics; like detectron2, set them to 0 and 1.
        for key, ours in statistics.items():
            found[key] = (torch.zeros if ours.endswith("mean") else torch.ones)(shapes[ours])
    state = renamed(found, names, shapes, str(file), f"an MSRA {name}")
    path = out / f"{name}_msra.safetensors"
    model = {
        "backbone": {**config.model_dump(mode="json"), "weights": str(path)},
        "pixel_mean": list(CAFFE_MEAN),
        "pixel_std": list(CAFFE_STD),
        "bgr": True,
    }
    with atomic_write(path) as partial:
        partial.write_bytes(save({key: value.contiguous() for key, value in state.items()}))
    write_json(path.with_suffix(".json"), {"model": model, "imported": _origin(file, {})})
    return Imported("backbone", path, f"MSRA {name}: frozen_bn, stride_in_1x1 true, bgr true")


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors by their published names, and the plain numbers of the file."""
    content = _load(file)
    inside = [key for key in WRAPPERS if isinstance(content.get(key), dict)]
    if len(inside) > 1:
        raise PublishedError(f"{file}: found tensors at {', '.join(inside)}; expected one of them")
    inner = content[inside[0]] if inside else content
    numbers = {} if inner is content else {k: v for k, v in content.items() if isinstance(v, int | float)}
    facts = {str(key): float(value) for key, value in numbers.items() if abs(value) <= sys.float_info.max}
    found: dict[str, Tensor] = {}
    faults = []
    for key, value in inner.items():
        if not isinstance(key, str):
            faults.append(f"a name of type {type(key).__name__}, expected a text")
        elif MSRA_UNUSED.fullmatch(key):
            continue
        elif isinstance(value, Tensor):
            found[key] = value
        elif isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
            # The file's byte order may differ from this machine's.
            found[key] = torch.from_numpy(value.astype(value.dtype.newbyteorder("=")))
        else:
            faults.append(f"{key}: a {type(value).__name__}, expected a tensor")
    if faults:
        raise PublishedError(
            f"{file}: {len(faults)} entries that aren't tensors:\n{listed(faults)}\nDownload the file again"
        )
    if found and all(key.startswith("module.") for key in found):  # saved by a parallel wrapper
        found = {key.removeprefix("module."): value for key, value in found.items()}
    return found, facts


def _load(file: Path) -> dict[Any, Any]:
    try:
        if file.suffix == ".pkl":
            check_regular(file)
            return load_arrays(file)
        content = read_pickle(file, NUMBERS)  # in files of MaskRefineNet the best AP is a NumPy number
    except FileNotFoundError:
        raise TaskError(f"{file}: no such file") from None
    except OSError as error:
        raise TaskError(f"{file}: not readable ({error})") from None
    except pickle.UnpicklingError as error:
        reason = next(
            (line for line in str(error).splitlines() if "GLOBAL" in line or "Unsupported" in line), ""
        )
        raise TaskError(
            f"{file}: holds more than tensors, or is damaged ({reason or 'no weights-only file'}); it wasn't read, "
            "since other contents could run code"
        ) from None
    if not isinstance(content, dict):
        raise TaskError(f"{file}: found a {type(content).__name__}, expected a dict of tensors")
    return content


def _settings(file: Path, name: str | None, config: Path | None) -> ReferenceSettings:
    if name is not None and name not in SETTINGS:
        raise TaskError(f"--settings: found {name!r}, expected {' or '.join(SETTINGS)}")
    base = SETTINGS[name or "student"]
    own = file.parent / CONFIG_FILE
    if config is None and name is None and own.is_file():
        log.info("import-checkpoint: reading %s", own)
        config = own
    return base if config is None else read_reference_config(config, base)


def _categories(file: Path, source: str | None, count: int) -> list[dict[str, Any]]:
    classes: list[Category] = numbered(count) if source is None else load_categories(source)
    if len(classes) != count:
        raise TaskError(
            f"{file}: found weights of {count} classes, but {len(classes)} in --categories {source}; "
            "give the list that the network was trained with"
        )
    return [{"id": one.id, "name": one.name} for one in classes]


def _origin(file: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """The origin of the weights, without paths or times: the same file gives the same bytes."""
    return {"file": file.name, "sha256": sha256(file), **({"said": facts} if facts else {})}
