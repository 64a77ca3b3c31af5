"""Checks of the backbones' weights: the files are there, or can be fetched. They are read when training starts."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from data.errors import Fault
from models.backbones.config import BackboneConfig
from models.backbones.registry import entry_of, is_timm
from models.config import RefineNetConfig, SOLOv2Config
from tasks.common.config import Params
from tasks.doctor.finding import Diagnosis

TOLERANCE = 0.5
"""Of a pixel value 0..255: a mean that is rounded is no fault."""


def check_weights(params: Params, root: Path, diagnosis: Diagnosis) -> None:
    """The backbones' weights are there, and those of timm get the pixels that they were trained with."""
    networks: dict[str, SOLOv2Config | RefineNetConfig] = {
        "model": params.detector(params.teacher),
        "refiner.net": params.refiner.net,
    }
    for section, network in networks.items():
        backbone, key = network.backbone, f"{section}.backbone"
        if is_timm(backbone.name) and not _check_timm(section, network, diagnosis):
            continue
        if backbone.weights is None:
            continue
        found = missing_weights(backbone, root)
        if found is None:
            continue
        text, expected, step, fatal = found
        fault = Fault("params.yaml", f"{key}.weights", text, expected, step)
        if fatal:
            diagnosis.error("weights", fault)
        else:
            diagnosis.warn("weights", fault)


def exists(path: Path) -> bool:
    """`exists`, and False if a folder above may not be searched, for which that raises."""
    try:
        return path.exists()
    except OSError:
        return False


Missing = tuple[str, str, str, bool]
"""What was found, what was expected, the next step, and whether a training fails without."""


def missing_weights(backbone: BackboneConfig, root: Path) -> Missing | None:
    """Of a backbone with `weights`; None if they are there."""
    entry = entry_of(backbone.name)
    if backbone.weights != entry.published:
        if exists(root / str(backbone.weights)):
            return _not_weights(root / str(backbone.weights))
        found, step = (
            f"no such file, {backbone.weights}",
            f"name a .pth or .safetensors file, {entry.published}, or null",
        )
        return found, "a file of weights", step, True
    if is_timm(backbone.name):
        return _not_in_hub_cache(backbone.name)
    if (package := entry.weights_package) is not None:
        if importlib.util.find_spec(package.module) is not None:
            return None
        found = f"imagenet for {backbone.name}, but package {package.module} isn't installed"
        return found, "the package, which holds the weights", package.install, True
    return _not_in_torchs_cache(backbone.name)


def _not_in_torchs_cache(name: str) -> Missing | None:
    # Not Path.home(), which raises where HOME isn't set and the user has no name.
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))  # noqa: PTH111
    hub = Path(os.environ.get("TORCH_HOME") or cache / "torch") / "hub" / "checkpoints"
    if any(hub.glob(f"{name}-*.pth")):
        return None
    found = f"imagenet for {name}, and no {name}-*.pth in {hub}"
    step = "nothing, where this machine may download it; else put torchvision's file there, or name it in weights"
    return found, "the file there, or a network to download it when training starts", step, False


def _not_in_hub_cache(name: str) -> Missing | None:
    from models.backbones.timm_network import cached_file, hub_file

    try:
        repository, file = hub_file(name)
    except FileNotFoundError as error:
        return str(error).partition(": ")[2], "weights in the hub", "name a file, or set weights: null", True
    if cached_file(repository, file) is not None:
        return None
    step = f"nothing, where this machine may download it; else name a file: `hf download {repository} {file}` gets it"
    found = f"pretrained, and no {file} of {repository} in the hub's cache"
    return found, "the file there, or a network to download it when training starts", step, False


def _check_timm(section: str, network: SOLOv2Config | RefineNetConfig, diagnosis: Diagnosis) -> bool:
    """Whether timm has the network; warns of other pixel statistics than its published weights'."""
    name = network.backbone.name
    if importlib.util.find_spec("timm") is None:
        step = "pip install 'points2model[timm]'"
        fault = Fault("params.yaml", f"{section}.backbone.name", name, "an installed timm", step)
        diagnosis.error("weights", fault)
        return False
    # With timm, and so torch, which takes seconds.
    from models.backbones.base import BackboneError
    from models.backbones.build import build_backbone
    from models.backbones.timm_network import pixel_statistics
    from models.weights import shapes_of

    try:
        shapes_of(lambda: build_backbone(network.backbone.model_copy(update={"weights": None})))
    except BackboneError as error:
        key, _, text = str(error).partition(": ")
        found, _, expected = text.removeprefix("found ").partition(", expected ")
        record = f"{section}.backbone.{key}"
        fault = Fault("params.yaml", record, found, expected or "a network that gives maps", "correct it")
        diagnosis.error("weights", fault)
        return False
    pixels = pixel_statistics(name) if network.backbone.weights is not None else None
    for key, value in zip(("pixel_mean", "pixel_std"), pixels or (), strict=False):
        own = [float(one) for one in getattr(network, key)]
        if any(abs(a - b) > TOLERANCE for a, b in zip(own, value, strict=True)):
            fault = Fault(
                "params.yaml", f"{section}.{key}", str(own), f"{value}, of these weights", "set it so"
            )
            diagnosis.warn("weights", fault)
    return True


def _not_weights(path: Path) -> Missing | None:
    """Checks only the first bytes of a file of weights; it is read when training starts."""
    found: str | None = None
    if not path.is_file():  # opening a pipe would block
        found = f"no file but a folder, pipe or device, {path}"
    else:
        try:
            with path.open("rb") as file:
                head, size = file.read(9), os.fstat(file.fileno()).st_size
            if path.suffix == ".safetensors":
                whole = len(head) == 9 and head[8:] == b"{" and 8 + int.from_bytes(head[:8], "little") <= size
            else:
                whole = head.startswith((b"PK\x03\x04", b"\x80"))  # torch's archive, and its older pickles
            if not whole:
                found = f"a file that holds no weights, {path}"
        except OSError as error:
            found = f"a file that can't be read ({error.strerror}), {path}"
    return (
        None
        if found is None
        else (found, "a .pth or .safetensors file", "name one of weights, imagenet, or null", True)
    )
