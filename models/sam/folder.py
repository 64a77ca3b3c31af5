"""Where the weights of a Segment Anything model are, and of which model they are."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from models.hub import CONFIG, Use, check_safetensors, read_config
from models.hub import FolderError as SamError

__all__ = ["SamError"]

USE = Use(("transformers", "timm"), "sam", "proposers.sam.weights")
"""timm has EdgeTAM's backbone."""


class Family(NamedTuple):
    """Names of classes of transformers."""

    model: str
    processor: str
    """of images"""
    keeps_ratio: bool
    """An image is resized so that its long side is the input's, and padded; else both axes are stretched to it."""


_SAM2, _EDGETAM, _SAM3 = (
    Family(f"{name}Model", f"{processor}ImageProcessor", False)
    for name, processor in (("Sam2", "Sam2"), ("EdgeTam", "Sam2"), ("Sam3Tracker", "Sam3"))
)
FAMILIES = {
    "sam": Family("SamModel", "SamImageProcessor", True),
    "sam2": _SAM2,
    "sam2_video": _SAM2,
    "edgetam": _EDGETAM,
    "edgetam_video": _EDGETAM,
    "sam3_tracker": _SAM3,
    "sam3_video": _SAM3,
}
"""By `model_type` of config.json. Some published models are for videos too: their part for images is loaded."""


def read_family(folder: Path) -> Family:
    """Which model's weights a folder has, by its config.json.

    Raises:
        SamError: the file is missing or damaged, the model isn't one of `FAMILIES`, or there are no weights.
    """
    known = f"a model of one of the types {', '.join(FAMILIES)}"
    kind, _ = read_config(folder, known)
    if not isinstance(kind, str) or kind not in FAMILIES:
        step = "name the folder of such a model"
        raise SamError(f"model_type {kind!r:.100} in {folder / CONFIG}", known, step)
    check_safetensors(folder)
    return FAMILIES[kind]
