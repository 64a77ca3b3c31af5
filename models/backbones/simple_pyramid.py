"""The maps of a pyramid from a single one (ViTDet; Li et al., ECCV 2022, section 3, "simple feature pyramid")."""

from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d


class SimplePyramid(nn.Module):
    """Maps at levels 2 to 5, of strides 4 to 32, from one at `level`.

    Finer ones are made by transposed convolutions of stride 2, each of which halves the channels, coarser ones by max
    pooling.
    """

    def __init__(self, channels: int, level: int) -> None:
        super().__init__()
        self.channels: dict[int, int] = {}
        self.branches = nn.ModuleDict()
        for target in (2, 3, 4, 5):
            layers: list[nn.Module] = []
            width = channels
            for step in range(level - target):
                if step:
                    layers += [LayerNorm2d(width), nn.GELU()]
                layers.append(nn.ConvTranspose2d(width, width // 2, 2, stride=2))
                width //= 2
            if target > level:
                layers.append(nn.MaxPool2d(2 ** (target - level)))
            self.branches[str(target)] = nn.Sequential(*layers)
            self.channels[target] = width

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        """[N, c, h, w] to {level: map}."""
        return {int(target): branch(x) for target, branch in self.branches.items()}
