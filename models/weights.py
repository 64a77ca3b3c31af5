"""Weights in files that aren't trusted: read without executing code, and the rule for which tensors can be used.

Every file of weights comes through here: checkpoints, published weights, backbones to start from.
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
"""Of a network: 4 GiB. The largest here, with a ResNet-101, has a sixteenth of that."""
COUNTER = "num_batches_tracked"
"""Ends the name of batch norm's counter of steps, the only whole number in a network."""
VARIANCE = "running_var"
SHOWN = 20


AGAIN = "train again or copy the checkpoint anew"


class CheckpointError(Exception):
    """A checkpoint that is missing, damaged, or of another format; says which file and what to do."""


class WeightsError(ValueError):
    """A file that can't be read as weights; its text names the file."""


def check_regular(path: Path) -> None:
    """Raises WeightsError where there is no file that can be read whole: a pipe would make us wait for ever."""
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
    """The tensors of a .safetensors file by name, on the CPU, their values not looked at.

    Raises WeightsError when it is damaged, FileNotFoundError when it isn't there.
    """
    check_regular(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, RuntimeError, AttributeError, KeyError) as error:
        raise WeightsError(f"{path}: damaged ({error})") from None


def read_pickle(path: Path, safe_globals: Iterable[Any] = ()) -> Any:
    """What torch saved in a .pth or .pt file, on the CPU; `safe_globals` may be named in it beside tensors.

    Raises WeightsError when it is damaged or unpacks to more than it is, UnpicklingError when it holds what could run
    code, FileNotFoundError when it isn't there.
    """
    check_regular(path)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(entry.file_size for entry in archive.infolist())
            # torch stores, it never packs.
            if unpacked > path.stat().st_size:
                raise WeightsError(
                    f"{path}: a file of {path.stat().st_size} bytes that says it holds {unpacked}; fetch it anew"
                )
        with torch.serialization.safe_globals(list(safe_globals)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (WeightsError, UnpicklingError):
        raise
    except Exception as error:  # a damaged pickle can raise anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise WeightsError(f"{path}: not readable as a file of weights ({reason})") from None


def shapes_of(build: Callable[[], nn.Module]) -> dict[str, torch.Size]:
    """The shapes of a network's tensors by name. It takes no memory: a file says how large the network is.

    Raises WeightsError for more than `MAX_WEIGHTS`.
    """
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in build().state_dict().items()}
    total = sum(shape.numel() for shape in shapes.values())
    if total > MAX_WEIGHTS:
        raise WeightsError(f"a network of {total} weights; expected at most {MAX_WEIGHTS}")
    return shapes


def fault_of(name: str, tensor: Tensor) -> str | None:
    """Why a network can't work with a tensor of this name of ours, or None: the one rule for all weights that are read.

    Floats of any size will do, they become float32; but not whole numbers, complex ones or truth values in their place,
    none that isn't finite in float32, and no variance below 0. Shapes are to be checked before: a file may say any.
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
    # One pass without memory of its own. A sum is finite only where all are; the reverse needn't hold.
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
    """All that keeps tensors from being those of a network with `shapes`: names, shapes, and values by `fault_of`."""
    faults = [f"{key}: missing; expected {list(shapes[key])}" for key in sorted(shapes.keys() - found.keys())]
    faults += [f"{key}: not in this network" for key in sorted(found.keys() - shapes.keys())]
    for key in sorted(found.keys() & shapes.keys()):
        if found[key].shape != shapes[key]:
            faults.append(f"{key}: found shape {list(found[key].shape)}, expected {list(shapes[key])}")
        elif (fault := fault_of(key, found[key])) is not None:
            faults.append(f"{key}: {fault}")
    return faults


def listed(faults: list[str]) -> str:
    """As lines, the first `SHOWN` of them."""
    more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
    return "\n".join(f"  - {fault}" for fault in [*faults[:SHOWN], *more])


def check_outputs(outputs: Iterable[Tensor]) -> None:
    """Raises CheckpointError where a network's outputs aren't finite: each of its weights is, but they are too large.

    Such outputs pass no threshold, so they would look like an image in which there is nothing.
    """
    held = [one for one in outputs if one.numel()]
    if not held or torch.stack([one.sum(dtype=torch.float32) for one in held]).isfinite().all():
        return
    if not all(one.isfinite().all() for one in held):
        raise CheckpointError(
            "the network's outputs for an image are NaN or infinite, though its weights aren't: they are larger than "
            f"any trained network's; {AGAIN}"
        )
