from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models.solov2 import losses
from models.solov2.losses import Totals, dice_loss, focal_loss, solov2_loss
from models.solov2.network import SOLOv2
from models.solov2.targets import assign_targets

SIZE = (64, 64)


@pytest.fixture
def batch(rectangles):
    """Three images of 2, 0 and 1 objects."""
    masks = [
        rectangles(SIZE, (4, 4, 20, 20), (30, 30, 30, 30)),
        rectangles(SIZE),
        rectangles(SIZE, (40, 2, 9, 9)),
    ]
    return masks, [torch.tensor([0, 2]), torch.zeros(0, dtype=torch.long), torch.tensor([1])]


def run(model: SOLOv2, masks, labels, weights=None):
    weights = weights or [torch.ones(len(m)) for m in masks]
    images = torch.randint(
        0, 256, (len(masks), 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    outputs = model(images)
    return outputs, assign_targets(masks, labels, weights, SIZE, model.config)


def gradients(model: SOLOv2, loss: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return [p.grad.clone() for p in model.parameters() if p.requires_grad]


@pytest.mark.parametrize(
    ("probabilities", "targets", "expected"),
    [
        ([1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], 1 - 4 / 4.002),
        ([1.0, 0.0], [0.0, 1.0], 1.0),
        ([0.5, 0.5], [1.0, 0.0], 1 - 1 / 1.502),
        ([0.0, 0.0], [0.0, 0.0], 1.0),
    ],
)
def test_dice_by_hand(probabilities: list[float], targets: list[float], expected: float) -> None:
    assert dice_loss(torch.tensor([probabilities]), torch.tensor([targets])).item() == pytest.approx(
        expected, abs=1e-6
    )


def test_focal_with_gamma_zero_is_weighted_cross_entropy() -> None:
    logits, targets = torch.randn(50), (torch.rand(50) > 0.5).float()
    expected = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    expected = expected * torch.where(targets > 0, 0.25, 0.75)
    torch.testing.assert_close(focal_loss(logits, targets, 0.25, 0.0), expected)


def test_focal_stays_finite_at_a_confident_error() -> None:
    logits = torch.tensor([-200.0, 200.0], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([1.0, 0.0]), 0.25, 2.0)
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([50.0, 150.0])
    assert logits.grad.isfinite().all()


def run_wide(model: SOLOv2, rectangles):
    """A map with fewer rows than columns."""
    size = (32, 96)
    masks = [rectangles(size, (70, 4, 20, 20), (4, 4, 9, 9))]
    outputs = model(torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8))
    return outputs, assign_targets(masks, [torch.tensor([0, 2])], [torch.ones(2)], size, model.config)


@pytest.mark.parametrize("reference", [None, 64])
def test_mask_loss_equals_a_naive_loop(solov2_config, batch, rectangles, reference: int | None) -> None:
    model = SOLOv2(solov2_config(grid_reference=reference), 3)
    outputs, targets = run(model, *batch) if reference is None else run_wide(model, rectangles)
    if reference is not None:
        assert [tuple(k.shape[2:]) for k in outputs.kernels] == [(6, 18), (4, 12), (2, 6)]
    terms = []
    for image, level, cell, row in zip(
        targets.image.tolist(),
        targets.level.tolist(),
        targets.cell.tolist(),
        targets.instance.tolist(),
        strict=True,
    ):
        kernel = outputs.kernels[level][image].flatten(1)[:, cell]
        p = torch.einsum("e,ehw->hw", kernel, outputs.mask_features[image]).sigmoid()
        g = targets.masks[row]
        terms.append(1 - 2 * (p * g).sum() / ((p**2).sum() + (g**2).sum() + 0.002))
    expected = 3 * torch.stack(terms).mean()
    torch.testing.assert_close(solov2_loss(outputs, targets, model.config)["loss_mask"], expected)


def test_category_loss_equals_a_naive_loop(solov2_config, batch) -> None:
    model = SOLOv2(solov2_config(focal_weight=2.0), 3)
    outputs, targets = run(model, *batch)
    total, positives = 0.0, 0
    for logits, categories in zip(outputs.category_logits, targets.categories, strict=True):
        for i in range(3):
            positives += int((categories[i] >= 0).sum())
            for c in range(3):
                p = logits[i, c].detach().sigmoid()
                hit = categories[i] == c
                total += float((-0.25 * (1 - p[hit]) ** 2 * p[hit].log()).sum())
                total += float((-0.75 * p[~hit] ** 2 * (1 - p[~hit]).log()).sum())
    loss = solov2_loss(outputs, targets, model.config)["loss_category"].item()
    assert loss == pytest.approx(2 * total / (positives + 1), rel=1e-4)


def test_a_batch_with_no_object(solov2_config, rectangles) -> None:
    model = SOLOv2(solov2_config(), 3)
    outputs, targets = run(model, [rectangles(SIZE)] * 2, [torch.zeros(0, dtype=torch.long)] * 2)
    parts = solov2_loss(outputs, targets, model.config)
    assert parts["loss_mask"].item() == 0
    assert parts["loss_category"].item() > 0
    # The parameters that only serve masks get a gradient too, of zero.
    assert all(g.isfinite().all() for g in gradients(model, parts["loss"]))


def test_chunks_change_neither_loss_nor_gradient(
    solov2_config, batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = SOLOv2(solov2_config(), 3)
    results = []
    for elements in (1 << 25, 2 * 16 * 16):
        monkeypatch.setattr(losses, "CHUNK_ELEMENTS", elements)
        outputs, targets = run(model, *batch)
        loss = solov2_loss(outputs, targets, model.config)["loss"]
        results.append((loss, gradients(model, loss)))
    assert len(targets.cell) > 2  # else the second run had no chunks
    torch.testing.assert_close(results[0][0], results[1][0])
    for whole, chunked in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(whole, chunked, rtol=1e-4, atol=1e-6)


def test_a_doubtful_object_counts_less_and_the_sure_ones_no_less(solov2_config, batch) -> None:
    """The loss is a mean by weight: of weights alike it is the mean, and what has a weight of 0 changes nothing."""
    model = SOLOv2(solov2_config(), 3)
    masks, labels = batch

    def parts(weight: float, image: int = 0) -> dict[str, float]:
        weights = [torch.full((len(m),), weight if n == image else 1.0) for n, m in enumerate(masks)]
        outputs, targets = run(model, masks, labels, weights)
        return {name: value.item() for name, value in solov2_loss(outputs, targets, model.config).items()}

    alone = solov2_loss(*run(model, [m[:0] if n == 0 else m for n, m in enumerate(masks)],
                             [k[:0] if n == 0 else k for n, k in enumerate(labels)]), model.config)  # fmt: skip
    assert parts(0.0)["loss_mask"] == pytest.approx(alone["loss_mask"].item())
    full, half, none = (parts(weight)["loss_mask"] for weight in (1.0, 0.5, 0.0))
    _, targets = run(model, masks, labels)
    first = int((targets.image == 0).sum())
    rest = len(targets.image) - first
    assert half == pytest.approx(
        (0.5 * ((first + rest) * full - rest * none) + rest * none) / (0.5 * first + rest)
    )


def test_a_doubtful_object_alone_is_no_sure_one(solov2_config, rectangles) -> None:
    """Weights that sum to less than 1 are not scaled up: the mask loss then falls with the weight."""
    model = SOLOv2(solov2_config(), 3)
    masks, labels = [rectangles(SIZE, (4, 4, 20, 20))], [torch.tensor([1])]
    outputs, targets = run(model, masks, labels)
    pairs = len(targets.cell)
    assert pairs > 1
    sure = solov2_loss(outputs, targets, model.config)["loss_mask"].item()
    for share in (0.25, 0.75, 1.0, 1.5):  # the sum of all pairs' weights
        outputs, targets = run(model, masks, labels, [torch.tensor([share / pairs])])
        found = solov2_loss(outputs, targets, model.config)["loss_mask"].item()
        assert found == pytest.approx(min(share, 1.0) * sure, rel=1e-5)


def test_weight_zero_silences_an_object_in_both_losses(solov2_config, batch) -> None:
    model = SOLOv2(solov2_config(), 3)
    masks, labels = batch
    outputs, targets = run(model, masks, labels, [torch.tensor([0.0, 1.0]), torch.zeros(0), torch.ones(1)])
    category = outputs.category_logits[0]
    logits = category.detach().clone()
    y, x = (targets.categories[0][0] == 0).nonzero()[0].tolist()
    logits[0, :, y, x] = 9.0
    changed = outputs._replace(category_logits=[logits, *outputs.category_logits[1:]])
    before, after = (solov2_loss(o, targets, model.config) for o in (outputs, changed))
    assert before["loss_category"].item() == pytest.approx(after["loss_category"].item())


def test_training_overfits_one_batch(solov2_config, batch) -> None:
    model = SOLOv2(solov2_config(focal_weight=4.0), 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    first = None
    for _ in range(60):
        outputs, targets = run(model, *batch)
        loss = solov2_loss(outputs, targets, model.config)["loss"]
        first = first or loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.35 * first


class NoCopies(TorchDispatchMode):
    """Fails where a tensor moves between host and device, which waits unless the memory is pinned."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        tensors = [one for one in tree_leaves((args, kwargs, found)) if isinstance(one, torch.Tensor)]
        # `fill_` reads a number of the host.
        assert len({one.device.type for one in tensors}) < 2 or func is torch.ops.aten.fill_.Tensor, func
        return found


@pytest.mark.parametrize("reference", [None, 64])
def test_the_host_does_not_wait_for_a_gpu(solov2_config, batch, reference: int | None) -> None:
    """On torch's fake tensors, whose values can't be read: each attempt is an error."""
    config = solov2_config(grid_reference=reference)
    masks, labels = batch
    clicks = [torch.full((len(one), 2), float("nan")) for one in labels]
    clicks[2] = torch.tensor([[44.0, 6.0]])
    targets = assign_targets(
        masks, labels, [torch.ones(len(one)) for one in labels], SIZE, config, clicks_xy=clicks
    )
    assert targets.skipped_negatives.numel()

    with FakeTensorMode() as mode, torch.device("cuda"):

        def on_gpu(value: Any) -> Any:
            if isinstance(value, list):
                return [on_gpu(one) for one in value]
            return mode.from_tensor(value).to("cuda") if isinstance(value, torch.Tensor) else value

        moved = type(targets)(**{name: on_gpu(value) for name, value in vars(targets).items()})
        model = SOLOv2(config, 3)
        images = torch.empty(3, 3, *SIZE, dtype=torch.uint8)
        totals = Totals(torch.empty(()), torch.empty(()))
        with NoCopies():
            outputs = model(images, [SIZE, (60, 50), SIZE], torch.zeros(3, 2))
            assert solov2_loss(outputs, moved, config, totals)["loss"].device.type == "cuda"
