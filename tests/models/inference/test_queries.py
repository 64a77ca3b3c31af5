"""From the outputs of queries to instances: scores, thresholds, places, tiles."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from models.config import InferenceConfig, TileConfig
from models.inference.detector import detect
from models.inference.queries import forward_queries, predict_queries, query_candidates
from models.masks.resize import Sizes
from models.queries.network import QueryNetwork, QueryOutputs
from models.weights import CheckpointError
from tests.models.queries.tiny import network

RULES = InferenceConfig(
    score_threshold=0.1, min_area=0.0, nms_pre=100, nms_kernel="gaussian", nms_sigma=2.0, nms_threshold=0.0,
    max_detections=10, mask_threshold=0.5,
)  # fmt: skip


def outputs(classes: list[list[float]], maps: Tensor) -> QueryOutputs:
    return QueryOutputs([torch.tensor([classes]).log()], [maps[None]])


def two() -> QueryOutputs:
    """A mask at the top left, one at the bottom right, one that is empty; probabilities of two classes and none."""
    maps = torch.full((3, 8, 8), -20.0)
    maps[0, :4, :4] = 20.0
    maps[1, 4:, 6:] = 0.4
    return outputs([[0.9, 0.05, 0.05], [0.3, 0.6, 0.1], [0.9, 0.05, 0.05]], maps)


def test_scores_are_class_times_certainty() -> None:
    found = query_candidates(two(), 0, RULES, (32, 32))
    sure = float(torch.tensor(0.4).sigmoid())
    assert found.scores.tolist() == pytest.approx([0.9, 0.6 * sure, 0.3 * sure])
    assert found.labels.tolist() == [0, 1, 0]
    assert torch.equal(found.probabilities[1], found.probabilities[2])
    few = query_candidates(two(), 0, RULES.model_copy(update={"score_threshold": 0.3}), (32, 32))
    assert few.labels.tolist() == [0, 1]  # 0.3 isn't above it
    large = query_candidates(two(), 0, RULES.model_copy(update={"min_area": 8.0}), (32, 32))
    assert large.labels.tolist() == [0]  # 8 places aren't more than 8


def test_masks_have_the_images_size() -> None:
    sizes = Sizes((32, 32), (32, 32), (64, 64))
    found = predict_queries(two(), None, 0, RULES, sizes, 0)
    assert found.masks.shape == (3, 64, 64) and found.scores.tolist() == sorted(
        found.scores.tolist(), reverse=True
    )
    assert found.masks[0, :30, :30].all() and not found.masks[0, 34:].any()


def test_duplicates_decay() -> None:
    maps = torch.full((2, 8, 8), -20.0)
    maps[:, :4, :4] = 20.0
    twice = outputs([[0.9, 0.05, 0.05], [0.8, 0.1, 0.1]], maps)
    found = predict_queries(twice, None, 0, RULES, Sizes((32, 32), (32, 32), (32, 32)), 0)
    assert found.scores[0] == pytest.approx(0.9) and found.scores[1] < 0.2
    off = RULES.model_copy(update={"nms_sigma": 1e-6})
    found = predict_queries(twice, None, 0, off, Sizes((32, 32), (32, 32), (32, 32)), 0)
    assert found.scores.tolist() == pytest.approx([0.9, 0.8], rel=1e-4)


class Bright(nn.Module):
    """Stands in for a network: its only query's mask is where a tile is bright; an image without has none."""

    def forward(self, images: Tensor, content_sizes: list[tuple[int, int]]) -> QueryOutputs:
        bright = nn.functional.avg_pool2d(images.float().mean(1, keepdim=True), 4) > 128
        maps = torch.where(bright, 10.0, -10.0)
        return QueryOutputs([torch.tensor([0.9, 0.1]).log().expand(len(images), 1, 2)], [maps])


@pytest.mark.parametrize("left", [20, 60, 76, 100])
def test_an_object_is_found_once_in_tiles(left: int) -> None:
    images = torch.zeros(1, 3, 64, 160, dtype=torch.uint8)
    images[..., 16:32, left : left + 16] = 255
    sizes = Sizes((64, 160), (64, 160), (64, 160))
    tile = TileConfig(side=64, overlap=32)
    made, tiles = forward_queries(Bright(), images, [(64, 160)], tile)  # type: ignore[arg-type]
    found = predict_queries(made, tiles, 0, RULES, sizes, 64)
    sure = [n for n, score in enumerate(found.scores.tolist()) if score > 0.5]
    assert len(sure) == 1
    assert found.masks[sure[0], 18:30, left + 2 : left + 14].all()
    assert int(found.masks[sure[0]].sum()) <= 20 * 20


def test_all_images_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network().eval()
    images = torch.randint(
        0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    sizes = [Sizes((64, 64), (64, 64), (64, 64))] * 2
    rules = RULES.model_copy(update={"score_threshold": 0.0, "nms_sigma": 1e-6})
    together = list(detect(model, images, [(64, 64)] * 2, None, rules, sizes))
    assert len(together) == 2
    for n, one in enumerate(together):
        (alone,) = detect(model, images[n : n + 1], [(64, 64)], None, rules, sizes[:1])
        assert torch.allclose(one.scores, alone.scores, atol=1e-5)
    assert isinstance(model, QueryNetwork)
    with torch.no_grad():
        model.network.class_predictor.bias.fill_(torch.inf)
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        list(detect(model, images, [(64, 64)] * 2, None, rules, sizes))
