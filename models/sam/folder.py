"""Where the weights of a Segment Anything model are: a local folder, or a model of the Hugging Face hub.

Only JSON and safetensors files are read, so no file can execute code. Nothing here imports torch or transformers.
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

PACKAGES = ("transformers", "timm")
"""Of the extra `sam`; timm has EdgeTAM's backbone."""
CONFIG, WEIGHTS = "config.json", "model*.safetensors"
FILES = (CONFIG, WEIGHTS, "model.safetensors.index.json", "preprocessor_config.json")
"""What is read of a folder; the first two must be there."""
EITHER = "a folder, or the id of a hub model: OWNER/NAME"


class SamError(ValueError):
    """Weights that are missing, damaged or of another model."""

    def __init__(self, found: str, expected: str, step: str) -> None:
        super().__init__(f"found {found}; expected {expected}; {step}")
        self.found, self.expected, self.step = found, expected, step


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


def check_installed() -> None:
    """Raises SamError where a package of the extra is missing."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise SamError(
            f"no package {' and '.join(missing)}", "the extra `sam`", "run `pip install 'points2model[sam]'`"
        )


def find_folder(weights: str, revision: str | None, root: Path = Path()) -> Path | None:
    """The folder `weights`, relative to `root`, or the cached copy of that hub model; None if there is neither.

    Raises:
        SamError: `weights` is neither a folder nor the id of a hub model, or a folder has a revision.
    """
    folder = root / weights
    if folder.is_dir():
        if revision is not None:
            raise SamError(
                f"revision {revision} with a folder, {weights}", "null", "a folder is read as it is"
            )
        return folder
    check_installed()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    owner, _, name = weights.partition("/")
    if folder.exists() or not owner.strip(".") or not name or "/" in name:
        raise SamError(f"no folder {weights}", EITHER, "correct the path")
    try:
        found = Path(
            snapshot_download(weights, revision=revision, allow_patterns=list(FILES), local_files_only=True)
        )
    except HFValidationError:
        raise SamError(f"no folder {weights}", EITHER, "correct the path") from None
    except LocalEntryNotFoundError:
        return None
    return found if (found / CONFIG).is_file() and any(found.glob(WEIGHTS)) else None


def fetch_folder(weights: str, revision: str | None) -> Path:
    """As `find_folder`; a hub model that isn't in the cache is downloaded to it.

    Raises:
        SamError: also where it can't be downloaded; the text says how to get a folder on another machine.
    """
    found = find_folder(weights, revision)
    if found is not None:
        return found
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(weights, revision=revision, allow_patterns=list(FILES)))
    except Exception as error:  # of the network, of the hub, of the disk
        reason = (str(error).splitlines() or [type(error).__name__])[0].removeprefix("Got: ")
        raise _not_here(weights, revision, f", and it can't be downloaded ({reason})") from None


def check_cached(weights: str, revision: str | None) -> None:
    """Raises SamError for a hub model that isn't in the cache, where the environment forbids to download it."""
    if any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in OFFLINE):
        raise _not_here(weights, revision, f", and {OFFLINE[0]} is set")


OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def _not_here(weights: str, revision: str | None, why: str) -> SamError:
    return SamError(
        f"no folder {weights}, and no hub model of that id in the cache{why}", "one of them",
        f"{on_another_machine(weights, revision)}",
    )  # fmt: skip


def on_another_machine(weights: str, revision: str | None) -> str:
    """The step that makes a folder of a hub model."""
    of = f" --revision {revision}" if revision is not None else ""
    included = " ".join(f"--include '{pattern}'" for pattern in FILES)
    command = f"hf download {weights}{of} {included} --local-dir {weights.rpartition('/')[2]}"
    return f"run `{command}` on a machine with a network, copy the folder here, and set proposers.sam.weights to it"


def read_family(folder: Path) -> Family:
    """Which model's weights a folder has, by its config.json.

    Raises:
        SamError: the file is missing or damaged, the model isn't one of `FAMILIES`, or there are no weights.
    """
    path = folder / CONFIG
    known = f"a model of one of the types {', '.join(FAMILIES)}"
    try:
        config: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SamError(f"no file {path}", known, "name a folder as transformers saves it") from None
    except (OSError, ValueError, RecursionError) as error:
        raise SamError(f"{path} that isn't JSON ({error})", known, "fetch the folder again") from None
    kind = config.get("model_type") if isinstance(config, dict) else None
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise SamError(f"model_type {kind!r:.100} in {path}", known, "name the folder of such a model")
    if not any(folder.glob(WEIGHTS)):
        step = "fetch the folder again, or convert it with save_pretrained of transformers"
        raise SamError(f"no {WEIGHTS} in {folder}", "safetensors: pickles (.bin, .pt) aren't read", step)
    return FAMILIES[kind]


def files_of(folder: Path) -> list[Path]:
    """The files on which a model's masks depend, in a fixed order."""
    return sorted({path for pattern in FILES for path in folder.glob(pattern)})
