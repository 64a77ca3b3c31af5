"""Networks of transformers with one output: for each of Q queries the logits of its class and of its mask.

Mask2Former (Cheng et al., CVPR 2022, arXiv 2112.01527) and EoMT (Kerssies et al., CVPR 2025, arXiv 2503.19108).

Legend: N images, C classes, Q queries, L layers, H x W pixels of the padded input, h x w its mask map.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from models.config import SIZE_DIVISOR
from models.hub import FolderError, Use, quiet
from models.inputs import check_images, normalised
from models.queries.config import BACKBONES, FAMILIES, QueryConfig

USE = Use(("transformers", "scipy"), "students", "student.network.weights")
CLASSES = {"id2label", "label2id", "num_labels"}
"""Keys of a config of transformers that depend on the classes."""
DROPPED = {
    "_name_or_path", "architectures", "attn_implementation", "auto_map", "backbone", "backbone_kwargs", "dtype",
    "experts_implementation", "torch_dtype", "use_pretrained_backbone", "use_timm_backbone",
}  # fmt: skip
"""Keys that say where weights or code come from; ours are read from a folder alone."""
LEAST = {"num_queries": 1, "train_num_points": 1, "oversample_ratio": 1.0, "importance_sample_ratio": 0.0}
WEIGHTS = ("class_weight", "mask_weight", "dice_weight", "no_object_weight")
"""Numbers of a config that the loss reads."""


class QueryOutputs(NamedTuple):
    """The network's outputs for a batch: in training of all its layers that learn, the last one last; else of the last
    one alone."""

    class_logits: list[Tensor]
    """L x [N, Q, C + 1]; the last class is `no object`"""
    mask_logits: list[Tensor]
    """L x [N, Q, h, w]"""

    @property
    def tensors(self) -> list[Tensor]:
        return [*self.class_logits, *self.mask_logits]


class QueryNetwork(nn.Module):
    """The network of `config` for classes 0..num_classes - 1, with random weights."""

    network: Any
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: QueryConfig, num_classes: int) -> None:
        """Raises FolderError, with what to correct, where transformers can't build it."""
        super().__init__()
        self.config, self.num_classes = config, num_classes
        self.categories: list[dict[str, Any]] = []
        """Class i is categories[i], {"id", "name"}; filled in when a checkpoint is read."""
        self.network = build(config.name, config.network, num_classes)
        self.register_buffer("pixel_mean", torch.tensor(config.pixel_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(config.pixel_std).view(3, 1, 1), persistent=False)

    @property
    def settings(self) -> Any:
        """The network's config of transformers."""
        return self.network.config

    @property
    def side(self) -> int | None:
        """Pixels of a side of the only input that it takes, a square; None: it takes any."""
        return int(self.settings.image_size) if self.config.name == "eomt" else None

    @property
    def published_parts(self) -> list[nn.Module]:
        """The parts that have the weights of a pretrained backbone."""
        parts: nn.Module = self.network
        return [parts.get_submodule(name) for name in FAMILIES[self.config.name].encoder]

    def normalise(self, images: Tensor, content_sizes: list[tuple[int, int]] | None) -> Tensor:
        """RGB 0..255 [N, 3, H, W] to zero mean and unit deviation; padding is set to 0."""
        return normalised(images, self.pixel_mean, self.pixel_std, False, content_sizes)

    def forward(
        self,
        images: Tensor,
        content_sizes: list[tuple[int, int]] | None = None,
        origins: Sequence[tuple[float, float]] | Tensor | None = None,
    ) -> QueryOutputs:
        """Images [N, 3, H, W], uint8 or float, RGB 0..255, padded at the bottom and right; `origins` have no effect.

        Raises ValueError for another shape, H or W not a multiple of 32, or more than `side`.
        """
        check_images(images)
        height, width = images.shape[-2:]
        x = self.normalise(images, content_sizes)
        if self.side is None:
            found = self.network(pixel_values=x, output_auxiliary_logits=True)
            before = found.auxiliary_logits if self.settings.use_auxiliary_loss else []
            layers = [(one["class_queries_logits"], one["masks_queries_logits"]) for one in before]
            layers.append((found.class_queries_logits, found.masks_queries_logits))
        else:
            if max(height, width) > self.side:
                raise ValueError(f"images: found {height} x {width} pixels, expected at most {self.side}")
            layers = self._of_square(x)
        if not self.training:
            layers = layers[-1:]
        return QueryOutputs([one for one, _ in layers], [one for _, one in layers])

    def _of_square(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Of all layers; the image is padded to `side`, and the masks are cut to it again."""
        height, width = x.shape[-2:]
        assert self.side is not None
        layers: list[tuple[Tensor, Tensor]] = []
        predict = self.network.predict

        def recorded(states: Tensor) -> tuple[Tensor, Tensor]:
            masks, classes = predict(states)
            layers.append((classes, masks))
            return masks, classes

        # The network returns those of the last layer alone.
        self.network.predict = recorded
        try:
            self.network(pixel_values=pad(x, (0, self.side - width, 0, self.side - height)))
        finally:
            del self.network.predict
        stride = self.side // layers[-1][1].shape[-1]
        return [(classes, masks[..., : height // stride, : width // stride]) for classes, masks in layers]


def build(name: str, settings: dict[str, Any], num_classes: int | None) -> nn.Module:
    """The network of transformers with random weights, without its loss; None: with the classes of `settings`.

    Raises:
        FolderError: it can't be built; the text says what to correct.
    """
    made = settings_of(name, settings, num_classes)
    import transformers

    family = FAMILIES[name]
    try:
        with quiet():
            network: nn.Module = getattr(transformers, family.network)(made)
    except Exception as error:  # of widths that don't fit each other
        raise not_buildable(name, error) from None
    del network.criterion  # its only tensor are the classes' weights
    return network


def settings_of(name: str, settings: dict[str, Any], num_classes: int | None) -> Any:
    """The config of transformers.

    Raises:
        FolderError: transformers is missing, or doesn't take these settings.
    """
    USE.check_installed()
    import transformers

    family = FAMILIES[name]
    used = {key: value for key, value in settings.items() if key not in DROPPED and key != "model_type"}
    backbone = used.get("backbone_config")
    if isinstance(backbone, dict):
        kind = backbone.get("model_type")
        if kind not in BACKBONES:
            raise FolderError(
                f"backbone_config.model_type {kind!r:.100}", " or ".join(BACKBONES), "take one of these"
            )
        used["backbone_config"] = {key: value for key, value in backbone.items() if key not in DROPPED}
    elif backbone is not None:
        raise FolderError(f"backbone_config {backbone!r:.100}", "keys and values, or null", "correct it")
    if num_classes is not None:
        used = {key: value for key, value in used.items() if key not in CLASSES}
        used["num_labels"] = num_classes
    try:
        with quiet():
            made = getattr(transformers, family.config)(**used)
    except Exception as error:  # transformers checks each value, with errors of many kinds
        raise not_buildable(name, error) from None
    for key, least in LEAST.items():
        check_number(key, getattr(made, key), least)
    for key in WEIGHTS:
        check_number(key, getattr(made, key), 0.0)
    if name == "eomt":
        if not 1 <= made.num_blocks <= made.num_hidden_layers:
            expected = f"1 to {made.num_hidden_layers}, the layers (num_hidden_layers)"
            raise FolderError(f"num_blocks {made.num_blocks}", expected, "correct student.network.config")
        sides = made.image_size, made.patch_size
        stride = sides[1] / 2**made.num_upscale_blocks if isinstance(sides[1], int) else 0
        if not isinstance(sides[0], int) or stride not in (1, 2, 4, 8) or sides[0] % SIZE_DIVISOR:
            found = f"image_size {sides[0]!r:.50}, patch_size {sides[1]!r:.50}"
            expected = f"a multiple of {SIZE_DIVISOR}, and patches whose masks have a stride of 1, 2, 4 or 8"
            raise FolderError(found, expected, "name other weights, or correct student.network.config")
    return made


def check_keys(name: str, settings: Mapping[str, Any]) -> None:
    """Raises FolderError, with all of them, for keys of `student.network.config` that transformers doesn't know, and
    would ignore."""
    import transformers

    faults = _unknown(getattr(transformers, FAMILIES[name].config), settings, "")
    backbone = settings.get("backbone_config")
    if isinstance(backbone, dict) and backbone.get("model_type") in BACKBONES:
        faults += _unknown(transformers.CONFIG_MAPPING[backbone["model_type"]], backbone, "backbone_config.")
    if faults:
        raise FolderError(
            f"config with unknown keys {', '.join(faults)}", f"those of a {FAMILIES[name].config}",
            "correct student.network.config",
        )  # fmt: skip


def _unknown(config: Any, settings: Mapping[str, Any], within: str) -> list[str]:
    """The keys that a class of settings doesn't have, each with the nearest one."""
    fields = {field.name.removeprefix("_") for field in dataclasses.fields(config)}
    known = fields | set(config.attribute_map) | DROPPED | CLASSES | {"model_type"}
    near = {key: difflib.get_close_matches(key, sorted(fields), 1) for key in sorted(settings.keys() - known)}
    return [f"{within}{key}" + (f" ({names[0]}?)" if names else "") for key, names in near.items()]


def check_number(key: str, value: Any, least: float) -> None:
    """Raises FolderError for a value that is no number from `least` on."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < 1e6:
        raise FolderError(
            f"{key} {value!r:.50}", f"a number from {least:g} on", "correct student.network.config"
        )


def plain_settings(made: Any) -> dict[str, Any]:
    """What `settings_of` needs to make this config again, as JSON."""
    found: dict[str, Any] = json.loads(made.to_json_string(use_diff=True))
    backbone = found.get("backbone_config")
    if isinstance(backbone, dict):
        found["backbone_config"] = {
            key: value for key, value in backbone.items() if key not in DROPPED | CLASSES
        }
    return {key: value for key, value in found.items() if key not in DROPPED | CLASSES}


def not_buildable(name: str, error: Exception) -> FolderError:
    """The error for settings that transformers refuses."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = " ".join(lines)[:300] or type(error).__name__
    return FolderError(
        f"settings that transformers makes no {name} of ({reason})",
        f"those of a {FAMILIES[name].config}", "correct student.network.config, or name other weights",
    )  # fmt: skip
