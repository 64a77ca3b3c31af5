"""Builds a backbone of the registry and loads its weights."""

from pathlib import Path
from pickle import UnpicklingError

from torch import Tensor

from models.backbones.base import Backbone
from models.backbones.config import BackboneConfig
from models.backbones.registry import entry_of
from models.weights import WeightsError, fault_of, read_pickle, read_safetensors


def build_backbone(config: BackboneConfig, in_channels: int = 3) -> Backbone:
    """The network of `config` with its weights loaded and its stages frozen.

    With `in_channels` above 3 the further channels of the stem convolution keep their random weights.

    Raises ValueError when the weights don't fit the network, OSError when their file is missing.
    """
    network = entry_of(config.name).load()(config, in_channels)
    if config.weights is not None:
        load_weights(network, config.name, config.weights)
    network.freeze(config.frozen_stages)
    return network


def weights_file(name: str, weights: str) -> Path:
    """The file of `weights`: a path, or `imagenet` or `pretrained` for the published ones, downloaded if necessary.

    Raises FileNotFoundError when it doesn't exist or can't be downloaded.
    """
    entry = entry_of(name)
    if weights == entry.published:
        return entry.load().published_file(name)
    path = Path(weights)
    if not path.is_file():
        raise FileNotFoundError(
            f"{weights}: no such file; name a .pth or .safetensors file, or {entry.published}"
        )
    return path


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or .pth file by name. Never executes code.

    Raises ValueError when it is damaged, or doesn't contain named tensors only.
    """
    try:
        state = read_safetensors(path) if path.suffix == ".safetensors" else read_pickle(path)
    except (UnpicklingError, WeightsError) as error:
        raise ValueError(f"{path}: not readable as weights ({error}); fetch or save it again") from None
    strange = (
        [key for key, value in state.items() if not isinstance(value, Tensor)]
        if isinstance(state, dict)
        else []
    )
    if strange or not isinstance(state, dict):
        found = f"entries {', '.join(map(str, strange))}" if strange else type(state).__name__
        raise ValueError(f"{path}: found {found}, expected a state dict: tensors by name and nothing else")
    return state


def load_weights(network: Backbone, name: str, weights: str) -> None:
    """Loads the published weights, or a file of weights with their names; the classifier's are left out.

    Raises ValueError that lists every fault, FileNotFoundError when the file doesn't exist.
    """
    state, stem = network.from_published(read_weights(weights_file(name, weights))), network.STEM
    own = network.pretrained().state_dict()
    if stem in state and state[stem].shape[1] < own[stem].shape[1]:
        widened = own[stem].clone()
        widened[:, : state[stem].shape[1]] = state[stem]
        state = {**state, stem: widened}
    # Group norm has no running statistics; step counters aren't used.
    spare = ("num_batches_tracked", "running_mean", "running_var")
    faults = [f"{key}: missing" for key in own.keys() - state.keys() if "num_batches" not in key]
    for key, value in state.items():
        if key in own and own[key].shape != value.shape:
            faults.append(f"{key}: found {list(value.shape)}, expected {list(own[key].shape)}")
        elif key in own and (fault := fault_of(key, value)) is not None:
            faults.append(f"{key}: {fault}")
        elif key not in own and not key.endswith(spare):
            faults.append(f"{key}: not in this network")
    if faults:
        shown = "\n  ".join(sorted(faults))
        raise ValueError(
            f"weights {weights!r} do not fit {name} ({len(faults)} faults):\n  {shown}\n"
            "Use width 1.0 with published weights, the same depth, or weights: null."
        )
    network.pretrained().load_state_dict(
        {key: value for key, value in state.items() if key in own}, strict=False
    )
