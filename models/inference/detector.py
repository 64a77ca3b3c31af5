"""Instances in images by any network that finds some: the one place that knows which there are."""

from collections.abc import Iterator, Sequence

from torch import Tensor

from models.config import InferenceConfig, TileConfig
from models.inference.detect import Predictions
from models.inference.queries import forward_queries, predict_queries
from models.inference.tiles import forward_tiled, predict
from models.masks.resize import Sizes
from models.queries.network import QueryNetwork
from models.solov2.network import SOLOv2

Detector = SOLOv2 | QueryNetwork


def detect(
    model: Detector,
    images: Tensor,
    content_sizes: list[tuple[int, int]],
    tile: TileConfig | None,
    config: InferenceConfig,
    sizes: Sequence[Sizes],
) -> Iterator[Predictions]:
    """Instances of each of the images uint8 RGB [N, 3, H, W], whose content ends at (h, w); in tiles with `tile`.

    Raises CheckpointError where the network's outputs aren't finite.
    """
    if isinstance(model, QueryNetwork):
        found, tiles = forward_queries(model, images, content_sizes, tile)
        for n, of in enumerate(sizes):
            yield predict_queries(found, tiles, n, config, of, 0 if tile is None else tile.side)
        return
    outputs = forward_tiled(model, images, content_sizes, tile)
    for n, of in enumerate(sizes):
        yield predict(outputs, n, config, of)
