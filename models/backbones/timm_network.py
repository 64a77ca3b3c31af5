"""Networks of the library timm, named timm/NAME, with one map for each level of the pyramid.

A network in stages (ConvNeXt, ResNet, Swin, ...) has maps of strides 4 to 32. A plain vision transformer has one
stride, its patch: a simple feature pyramid makes the other maps from its last one (simple_pyramid.py). Where the patch
isn't a power of 2 (14 in DINOv2), the network sees the image resized by 14 / 16, so that a patch is 16 x 16 pixels of
the input: without padding, its map has stride 16.

timm is imported where a network is built: it is an extra of this package.

Legend: N images, H x W pixels.
"""

from __future__ import annotations

import difflib
import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.backbones.base import Backbone, BackboneError
from models.backbones.config import BackboneConfig
from models.backbones.registry import PREFIX
from models.backbones.simple_pyramid import SimplePyramid

LEVELS = (1, 2, 3, 4, 5)
"""Of a backbone's maps: strides 2 to 32."""
PATIENCE = 10.0
"""Seconds for the hub to reply."""
ANY_SIZE: tuple[dict[str, bool], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})
"""Arguments that let a network take inputs of any size; the first that it has is used."""


class Plan(NamedTuple):
    """How a network is built, found by a trial that allocates nothing."""

    arguments: dict[str, bool]
    indices: list[int]
    """of the intermediate maps"""
    levels: list[int]
    """of these maps"""
    modules: list[str]
    """whose outputs they are"""
    channels: list[int]
    scale: float
    """of the image before the network; not 1 if its patch isn't a power of 2"""
    unused: frozenset[str]
    """weights of the whole network that the maps don't need: the classifier's"""

    @property
    def is_plain(self) -> bool:
        return len(self.levels) == 1


def timm_library() -> Any:
    """Raises BackboneError if timm isn't installed."""
    try:
        import timm
    except ImportError:
        raise BackboneError(
            "name: timm isn't installed, which has this network; pip install 'points2model[timm]'"
        ) from None
    return timm


class TimmBackbone(Backbone):
    """A network of timm, without its classifier.

    The map of stride 2 is the network's, where it has one; else the image itself at half its size, for networks that
    join it late in a decoder. `frozen_stages` 5 freezes the whole network, but not the layers of the simple pyramid.
    """

    def __init__(self, config: BackboneConfig, in_channels: int) -> None:
        super().__init__(config, in_channels)
        self.plan = plan(config.name, in_channels)
        self.network = _build(config.name, in_channels, self.plan.arguments)
        _prune(self.network, self.plan)
        self.STEM = f"{self.network.pretrained_cfg.get('first_conv')}.weight"
        self.network = _with_norm(self.network, config)
        own = dict(zip(self.plan.levels, self.plan.channels, strict=True))
        self.pyramid: SimplePyramid | None = None
        if self.plan.is_plain:
            ((level, channels),) = own.items()
            if isinstance(position := getattr(self.network, "pos_embed", None), nn.Parameter):
                # It is resized for each input, for which a GPU has no deterministic gradient.
                position.requires_grad_(False)
            self.pyramid = SimplePyramid(channels, level)
            own = self.pyramid.channels
        self.channels = [own.get(level, in_channels) for level in LEVELS]

    def forward(self, images: Tensor) -> list[Tensor]:
        scale = self.plan.scale
        x = images
        if scale != 1:
            size = (round(images.shape[2] * scale), round(images.shape[3] * scale))
            x = F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)
        maps = _forward(self.network, x, self.plan)
        found = dict(zip(self.plan.levels, maps, strict=True))
        if self.pyramid is not None:
            found = self.pyramid(*maps)
        if 1 not in found:
            found[1] = F.avg_pool2d(images, 2)
        return [found[level] for level in LEVELS]

    def pretrained(self) -> nn.Module:
        return self.network

    def frozen_parts(self) -> list[nn.Module]:
        stages = self.frozen_stages
        if stages in (0, LEVELS[-1]):
            return [self.network] if stages else []
        modules = dict(zip(self.plan.levels, self.plan.modules, strict=True))
        if self.plan.is_plain or stages not in modules:
            able = [0, *(level for level in self.plan.levels if not self.plan.is_plain and level != 5), 5]
            raise BackboneError(f"frozen_stages: found {stages}, expected one of {able} for this network")
        return _parts_up_to(self.network, modules[stages])

    @staticmethod
    def published_file(name: str) -> Path:
        """The weights in the hub's cache, downloaded if necessary."""
        timm_library()
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

        repository, file = hub_file(name)
        if (cached := cached_file(repository, file)) is not None:
            return cached
        try:
            # The download itself would try again for half a minute.
            get_hf_file_metadata(hf_hub_url(repository, file), timeout=PATIENCE)
            return Path(hf_hub_download(repository, file))
        except Exception as error:  # of one of several HTTP libraries
            raise FileNotFoundError(
                f"weights pretrained of {name}: {repository} can't be fetched from the hub "
                f"({str(error).partition(chr(10))[0] or type(error).__name__}); where there is a network, run "
                f"`hf download {repository} {file} --local-dir .`, and name that file in weights"
            ) from None

    def from_published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {key: value for key, value in state.items() if key not in self.plan.unused}


def hub_file(name: str) -> tuple[str, str]:
    """Repository and file of the published weights on the hub.

    Raises FileNotFoundError if there are none.
    """
    settings = _settings(name)
    if settings is None or not settings.hf_hub_id:
        raise FileNotFoundError(f"weights pretrained of {name}: timm names none; name a file, or set null")
    return settings.hf_hub_id, settings.hf_hub_filename or "model.safetensors"


def cached_file(repository: str, file: str) -> Path | None:
    """A file of the hub in its cache on this machine."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, file)
    return Path(found) if isinstance(found, str) else None


def pixel_statistics(name: str) -> tuple[list[float], list[float]] | None:
    """Mean and deviation of RGB 0..255 that the published weights expect; None if there are none."""
    settings = _settings(name)
    if settings is None:
        return None
    mean, std = ([round(255 * value, 3) for value in values] for values in (settings.mean, settings.std))
    return mean, std


def _settings(name: str) -> Any:
    return timm_library().get_pretrained_cfg(name.removeprefix(PREFIX))


def plan(name: str, in_channels: int) -> Plan:
    """Finds the maps of a network on an input of another size than its own, by a trial without memory.

    Raises:
        BackboneError: timm has no such network, or it can't give the maps.
    """
    with torch.device("meta"):
        for arguments in ANY_SIZE:
            try:
                network = _build(name, in_channels, arguments)
                break
            except TypeError as error:
                refused = error
        else:
            raise _unfit(name, str(refused))
        rows = getattr(network, "feature_info", None)
        if not rows or not hasattr(network, "forward_intermediates"):
            raise _unfit(name, "it gives no intermediate maps")
        last = {row["reduction"]: i for i, row in enumerate(rows)}
        strides = {2**level: level for level in LEVELS}
        patch = next(iter(last))
        if len(last) == 1:
            indices, levels = [len(rows) - 1], [round(math.log2(patch))]
            scale = patch / 2 ** levels[0]
            if levels[0] not in LEVELS[2:]:
                raise _unfit(name, f"its patch is {patch} pixels; expected 8 to 32")
        elif strides.keys() - {2} <= last.keys():
            scale = 1.0
            indices = sorted(i for stride, i in last.items() if stride in strides)
            levels = [strides[rows[i]["reduction"]] for i in indices]
        else:
            raise _unfit(name, f"its maps have strides {sorted(last)}; expected 4, 8, 16 and 32, or one")
        modules = [str(rows[i].get("module")) for i in indices]
        before = network.state_dict().keys()
        found = Plan(arguments, indices, levels, modules, [], scale, frozenset())
        height, width = 96, 160
        try:
            _prune(network, found)
            x = torch.zeros(1, in_channels, round(height * scale), round(width * scale))
            maps = _forward(network.eval(), x, found)
        except Exception as error:  # timm's networks raise anything
            raise _unfit(name, str(error).partition("\n")[0]) from None
        for level, x in zip(levels, maps, strict=True):
            expected = (height // 2**level, width // 2**level)
            if x.ndim != 4 or tuple(x.shape[2:]) != expected:
                raise _unfit(name, f"level {level} of its maps has the shape {list(x.shape)}, not {expected}")
    unused = frozenset(before - network.state_dict().keys())
    return found._replace(channels=[x.shape[1] for x in maps], unused=unused)


def _unfit(name: str, reason: str) -> BackboneError:
    return BackboneError(
        f"name: {name} can't be a backbone for images of any size: {reason}; choose another network"
    )


def _build(name: str, in_channels: int, arguments: dict[str, bool]) -> Any:
    timm, own = timm_library(), name.removeprefix(PREFIX)
    if not timm.is_model(own):
        near = difflib.get_close_matches(own.partition(".")[0], timm.list_models(), n=3, cutoff=0.6)
        meant = f"; did you mean {' or '.join(PREFIX + one for one in near)}?" if near else ""
        raise BackboneError(f"name: timm {timm.__version__} has no network {own}{meant}")
    try:
        return timm.create_model(own, pretrained=False, in_chans=in_channels, **arguments)
    except RuntimeError as error:  # the tag after the point
        tags = ", ".join(timm.list_pretrained(own.partition(".")[0] + ".*")) or "none"
        raise BackboneError(f"name: timm {timm.__version__}: {error} It has {tags}") from None


def _prune(network: Any, plan: Plan) -> None:
    """Removes what the maps don't need. A plain network keeps its last norm, which its one map is passed through."""
    network.prune_intermediate_layers(plan.indices, prune_norm=not plan.is_plain, prune_head=True)


def _forward(network: Any, x: Tensor, plan: Plan) -> list[Tensor]:
    maps: list[Tensor] = network.forward_intermediates(
        x,
        indices=plan.indices,
        norm=plan.is_plain,
        stop_early=True,
        output_fmt="NCHW",
        intermediates_only=True,
    )
    return maps


def _with_norm(network: Any, config: BackboneConfig) -> Any:
    """The network with frozen batch norms, if `norm` says so. Networks without batch norm stay as they are."""
    if config.norm == "frozen_bn":
        from timm.layers.norm_act import freeze_batch_norm_2d

        network = freeze_batch_norm_2d(network)
    kinds = {type(one) for one in network.modules() if isinstance(one, _BatchNorm)}
    if config.norm == "frozen_bn" and kinds:
        raise BackboneError(f"norm: found frozen_bn, but {config.name} has batch norms that can't be frozen")
    # In several processes only plain ones take their statistics over all of them (sync_norm.py).
    if other := sorted(kind.__name__ for kind in kinds - {nn.BatchNorm2d}):
        raise BackboneError(
            f"norm: found {config.norm}, expected frozen_bn for {config.name}: it has {other[0]}"
        )
    return network


def _parts_up_to(network: nn.Module, target: str) -> list[nn.Module]:
    """The modules in their order, up to the one named `target`."""
    parts: list[nn.Module] = []
    for name, child in network.named_children():
        if target.startswith(f"{name}."):
            return [*parts, *_parts_up_to(child, target.removeprefix(f"{name}."))]
        parts.append(child)
        if name == target:
            break
    return parts
