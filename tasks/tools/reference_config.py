"""The settings in a `config.yaml` of the reference, which a checkpoint doesn't hold.

A training of the reference writes `config.yaml` next to its checkpoints; only the keys below are used.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data import strict_yaml
from models.reference.published_config import ReferenceSettings
from tasks.common.errors import TaskError


def _triple(value: Any) -> tuple[float, float, float]:
    blue, green, red = map(float, value)
    return blue, green, red


def _choice(*words: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in words:
            raise ValueError(f"expected one of {', '.join(words)}")
        return str(value)

    return read


KEYS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "MODEL.SOLOV2.NUM_GRIDS": ("grids", lambda value: tuple(map(int, value))),
    "MODEL.SOLOV2.FPN_SCALE_RANGES": (
        "ranges", lambda value: tuple((float(low), float(high)) for low, high in value),
    ),
    "MODEL.SOLOV2.NMS_TYPE": ("nms", _choice("matrix", "mask")),
    "MODEL.SOLOV2.SIGMA": ("centre_shrink", float),
    "MODEL.SOLOV2.PRIOR_PROB": ("prior_prob", float),
    "MODEL.SOLOV2.LOSS.DICE_WEIGHT": ("dice_weight", float),
    "MODEL.SOLOV2.LOSS.FOCAL_WEIGHT": ("focal_weight", float),
    "MODEL.SOLOV2.LOSS.FOCAL_ALPHA": ("focal_alpha", float),
    "MODEL.SOLOV2.LOSS.FOCAL_GAMMA": ("focal_gamma", float),
    "MODEL.SOLOV2.SCORE_THR": ("score_threshold", float),
    "MODEL.SOLOV2.NMS_PRE": ("nms_pre", int),
    "MODEL.SOLOV2.NMS_KERNEL": ("nms_kernel", _choice("gaussian", "linear")),
    "MODEL.SOLOV2.NMS_SIGMA": ("nms_sigma", float),
    "MODEL.SOLOV2.UPDATE_THR": ("nms_threshold", float),
    "MODEL.SOLOV2.MAX_PER_IMG": ("max_detections", int),
    "MODEL.SOLOV2.MASK_THR": ("mask_threshold", float),
    "MODEL.PIXEL_MEAN": ("pixel_mean", _triple),
    "MODEL.PIXEL_STD": ("pixel_std", _triple),
    "MODEL.RESNETS.STRIDE_IN_1X1": ("stride_in_1x1", bool),
    "INPUT.FORMAT": ("bgr", lambda value: _choice("BGR", "RGB")(value) == "BGR"),
    "INPUT.MIN_SIZE_TEST": ("short_side", int),
    "INPUT.MAX_SIZE_TEST": ("max_side", int),
}  # fmt: skip
"""{key of the file: (field of ReferenceSettings, reader of its value)}"""


def read_reference_config(path: Path, base: ReferenceSettings) -> ReferenceSettings:
    """The settings of a config.yaml; keys that it doesn't have are as in `base`.

    Raises:
        TaskError: the file is missing, isn't a config.yaml of the reference, or has impossible values; all are listed.
    """
    try:
        content = strict_yaml.read(path)
    except FileNotFoundError:
        raise TaskError(f"{path}: no such file; correct --config") from None
    except (OSError, strict_yaml.YamlError) as error:
        raise TaskError(f"{path}: not readable as YAML ({error}); correct --config") from None
    if not isinstance(content, dict) or not isinstance(content.get("MODEL"), dict):
        raise TaskError(
            f"{path}: found no section MODEL, expected the config.yaml of a training of the reference"
        )
    if "_BASE_" in content:
        raise TaskError(
            f"{path}: found _BASE_ {content['_BASE_']!r}, expected a whole configuration; "
            "give the config.yaml that the training wrote into its output folder"
        )
    fields: dict[str, Any] = {"name": path.name}
    faults = []
    for key, (field, read) in KEYS.items():
        value: Any = content
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is None:
            continue
        try:
            # Hand-written files may have lists as text: "80,64,32,24,12".
            is_text = isinstance(value, str) and value[:1] in "([0123456789"
            fields[field] = read(ast.literal_eval(value) if is_text else value)
        except (ValueError, TypeError, SyntaxError, ArithmeticError, RecursionError, MemoryError) as error:
            faults.append(f"{key}: found {value!r:.100} ({error})")
    if faults:
        listed = "\n".join(f"  - {fault}" for fault in faults)
        raise TaskError(
            f"{path}: {len(faults)} impossible values:\n{listed}\nCorrect them, or leave --config out"
        )
    return dataclasses.replace(base, **fields)
