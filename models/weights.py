"""Reads weights from untrusted files without executing code, and checks whether the tensors are usable.

All weights are read here: checkpoints, published weights, initial backbones.
"""

import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

MAX_WEIGHTS = 2**30
"""Of a network, 4 GiB. With a ResNet-101 it has a sixteenth of that."""
COUNTER = "num_batches_tracked"
"""Suffix of batch norm's step counter, the only integer tensor of a network."""
VARIANCE = "running_var"
SHOWN = 20


AGAIN = "train again or copy the checkpoint again"


class CheckpointError(Exception):
    """A checkpoint that is missing, damaged, or of another format; the text names the file and the next step."""


class WeightsError(ValueError):
    """A file that can't be read as weights; the text names the file."""


def check_regular(path: Path) -> None:
    """Raises WeightsError for anything but a regular file (reading a pipe might never end), FileNotFoundError."""
    try:
        found = path.is_file()
        there = found or path.exists() or path.is_symlink()
    except OSError as error:
        raise WeightsError(f"{path}: not readable ({error.strerror})") from None
    if not there:
        raise FileNotFoundError(f"{path}: no such file")
    if not found:
        raise WeightsError(
            f"{path}: found no regular file, but a folder, a pipe, or a link that leads nowhere"
        )


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file by name, on the CPU; values aren't checked.

    Raises WeightsError when it is damaged, FileNotFoundError.
    """
    check_regular(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, RuntimeError, AttributeError, KeyError) as error:
        raise WeightsError(f"{path}: damaged ({error})") from None


def read_pickle(path: Path, safe_globals: Iterable[Any] = ()) -> Any:
    """The content of a .pth or .pt file, on the CPU; it may use `safe_globals`.

    Raises WeightsError when it is damaged or unpacks to more than its size, UnpicklingError when it could execute code,
    FileNotFoundError.
    """
    check_regular(path)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(entry.file_size for entry in archive.infolist())
            # torch doesn't compress.
            if unpacked > path.stat().st_size:
                raise WeightsError(
                    f"{path}: a file of {path.stat().st_size} bytes that would unpack to {unpacked}; fetch it again"
                )
        with torch.serialization.safe_globals(list(safe_globals)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (WeightsError, UnpicklingError):
        raise
    except Exception as error:  # a damaged pickle can raise anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise WeightsError(f"{path}: not readable as a file of weights ({reason})") from None


def shapes_of(build: Callable[[], nn.Module]) -> dict[str, torch.Size]:
    """The shapes of a network's tensors by name. Allocates nothing, since the network's size comes from a file.

    Raises WeightsError for more than `MAX_WEIGHTS`.
    """
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in build().state_dict().items()}
    total = sum(shape.numel() for shape in shapes.values())
    if total > MAX_WEIGHTS:
        raise WeightsError(f"a network of {total} weights; expected at most {MAX_WEIGHTS}")
    return shapes


def fault_of(name: str, tensor: Tensor) -> str | None:
    """Why a tensor of this name isn't usable, or None; the same check for all weights.

    Usable are floats of any size (converted to float32 later) that are finite in float32, variances of 0 or more, and
    integers for a step counter. Check shapes before.
    """
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        return "found a sparse, quantised or empty tensor, expected plain numbers"
    kind = str(tensor.dtype).removeprefix("torch.")
    if name.endswith(COUNTER):
        whole = not tensor.is_floating_point() and not tensor.is_complex() and tensor.dtype != torch.bool
        return None if whole else f"found numbers of type {kind}, expected int64"
    if not tensor.is_floating_point():
        return f"found numbers of type {kind}, expected float32"
    values = tensor.detach().float()
    # One pass without extra memory: if the sum is finite, all values are. The reverse needn't hold.
    if not values.sum().isfinite():
        wrong = ~values.isfinite()
        if wrong.any():
            return f"found {_first(tensor, wrong)}, expected finite numbers"
    if name.endswith(VARIANCE) and values.numel() and values.min() < 0:
        return f"found {_first(tensor, values < 0)}, expected variances of 0 or more"
    return None


def _first(tensor: Tensor, wrong: Tensor) -> str:
    at = [int(index) for index in wrong.nonzero()[0]]
    return f"{tensor[tuple(at)].item():g} at {at} ({int(wrong.sum())} of {wrong.numel()} values)"


def misfits(found: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> list[str]:
    """Faults of tensors as the weights of a network with `shapes`: names, shapes, and values by `fault_of`."""
    faults = [f"{key}: missing; expected {list(shapes[key])}" for key in sorted(shapes.keys() - found.keys())]
    faults += [f"{key}: not in this network" for key in sorted(found.keys() - shapes.keys())]
    for key in sorted(found.keys() & shapes.keys()):
        if found[key].shape != shapes[key]:
            faults.append(f"{key}: found shape {list(found[key].shape)}, expected {list(shapes[key])}")
        elif (fault := fault_of(key, found[key])) is not None:
            faults.append(f"{key}: {fault}")
    return faults


def listed(faults: list[str]) -> str:
    """The first `SHOWN`, one per line."""
    more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
    return "\n".join(f"  - {fault}" for fault in [*faults[:SHOWN], *more])


def check_outputs(outputs: Iterable[Tensor]) -> None:
    """Raises CheckpointError if a network's outputs aren't finite, which finite but too large weights cause.

    Such outputs pass no threshold, so they would look like an empty image.
    """
    held = [one for one in outputs if one.numel()]
    if not held or torch.stack([one.sum(dtype=torch.float32) for one in held]).isfinite().all():
        return
    if not all(one.isfinite().all() for one in held):
        raise CheckpointError(
            "the network's outputs for an image are NaN or infinite, though its weights aren't: they are larger than "
            f"any trained network's; {AGAIN}"
        )
