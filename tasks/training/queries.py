"""Training of a network of transformers with queries as the student; docs/students.md."""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from data.images.content import sha256
from data.images.resize import padded_shape
from data.samples.sharding import share
from data.tables import Split
from models.hub import FolderError, files_of
from models.queries.config import QueryConfig
from models.queries.loss import QueryLossConfig, QueryTotals, Truth, query_loss
from models.queries.network import USE, QueryNetwork, check_keys, plain_settings, settings_of
from models.queries.pretrained import load_pretrained
from tasks.common import processes
from tasks.common.config import DetectorTrainConfig, NetworkConfig, Params, StudentConfig
from tasks.common.errors import TaskError
from tasks.training.detector import Learner
from tasks.training.loop import Piece
from tasks.training.setup import StepBatch
from tasks.training.start import start_from

log = logging.getLogger(__name__)

KEY = "student.network"


def query_learner(
    stage: str, params: Params, training: DetectorTrainConfig, splits: Sequence[Split], initial: Path | None,
    device: torch.device,
) -> Learner:  # fmt: skip
    """The network of `student.network`, with its weights or random ones by `params.seed`.

    Raises:
        TaskError: the extra, the weights or hub can't be used, the input is too large, or `initial` is another network.
    """
    assert isinstance(training, StudentConfig) and training.network is not None
    network = training.network
    names = [category.name for category in splits[0].categories]
    try:
        model, weights = new_model(stage, network, params, names)
    except FolderError as error:
        raise TaskError(f"{KEY}: {error}") from None
    if (fault := side_fault(params, model.side)) is not None:
        raise TaskError(f"{KEY}: {fault}")
    if initial is not None:
        start_from(stage, model, initial, names)
    _report_crowded(stage, splits, model.settings.num_queries, training)
    if processes.count() > 1:
        freeze_unused(model)
    pieces = query_pieces(model, device, training, params.seed)
    return Learner(model.config, model, pieces, weights, [model.config.model_dump(mode="json")])


def new_model(
    stage: str, network: NetworkConfig, params: Params, names: Sequence[str]
) -> tuple[QueryNetwork, str | None]:
    """The network for classes of these names, and the hash of its weights' files, None for random ones.

    Raises:
        FolderError
    """
    mean, std = (tuple(float(one) for one in params.model[key]) for key in ("pixel_mean", "pixel_std"))
    if params.model["bgr"]:
        mean, std = mean[::-1], std[::-1]
    USE.check_installed()
    check_keys(network.name, network.config)
    if network.weights is None:
        made = plain_settings(settings_of(network.name, network.config, len(names)))
        config = QueryConfig.model_validate(
            {"name": network.name, "network": made, "pixel_mean": mean, "pixel_std": std}
        )
        return QueryNetwork(config, len(names)), None
    folder = USE.fetch(network.weights, network.revision)
    model, known = load_pretrained(network.name, folder, network.config, (mean, std), names)
    log.info(
        "%s: %s starts from %s, with the class layer of %d of %d classes",
        stage, network.name, network.weights, len(known), len(names),
    )  # fmt: skip
    hashes = " ".join(sha256(path) for path in files_of(folder))
    return model, hashlib.sha256(hashes.encode()).hexdigest()


def side_fault(params: Params, side: int | None) -> str | None:
    """Why a network that takes a square of `side` pixels alone can't have these params' inputs."""
    if side is None:
        return None
    augment, tile = params.student.augment, params.input.tile
    crop = augment.crop_side
    grows = not augment.crop and crop is None and augment.scale_max > 1
    longest = round(params.input.max_side * (augment.scale_max if grows else 1))
    largest = max(padded_shape((longest, longest)))
    if crop is not None and tile is not None:
        largest = max(crop, tile.side)
    if largest <= side:
        return None
    cropped = "student.augment.crop to true and " if grows else ""
    return (
        f"found inputs of up to {largest} pixels with a network that takes {side} x {side}; expected no more; set "
        f"{cropped}input.max_side to {side}, or tiles and crops of at most that (input.tile.side, "
        "student.augment.crop_side)"
    )


def _report_crowded(stage: str, splits: Sequence[Split], queries: int, training: DetectorTrainConfig) -> None:
    if training.augment.crop_side is not None or not processes.is_first():
        return
    counts = [np.unique(split.instances["image_id"].to_numpy(), return_counts=True)[1] for split in splits]
    crowded = sum(int((one > queries).sum()) for one in counts)
    if crowded:
        log.warning(
            "%s: %d images have more than %d objects, as many as the network has queries, which finds no more in an "
            "image; train on crops (input.tile), or from random weights with more num_queries",
            stage, crowded, queries,
        )  # fmt: skip


def freeze_unused(model: QueryNetwork) -> None:
    """Freezes what has no effect on the outputs, such as a norm after a backbone's last map: other processes would wait
    for its gradient."""
    side = model.side or 64
    tried = copy.deepcopy(model).train()  # batch norms change their statistics
    with torch.random.fork_rng(devices=[]):
        outputs = tried(torch.zeros(1, 3, side, side))
    torch.stack([one.float().sum() for one in outputs.tensors]).sum().backward()
    for parameter, other in zip(model.parameters(), tried.parameters(), strict=True):
        if other.grad is None:
            parameter.requires_grad_(False)


def query_pieces(
    model: QueryNetwork, device: torch.device, training: DetectorTrainConfig, seed: int
) -> Callable[[StepBatch], list[Piece]]:
    """From a step's batch to its `training.accumulate` pieces with the loss of queries.

    Points are drawn for each image and layer by (seed, step, the image's place in the step's batch), so they don't
    depend on the pieces and processes; a network's dropout does.
    """
    config = QueryLossConfig.of(model.settings, training.weighs_categories)
    queries = model.settings.num_queries
    generator = torch.Generator(device)

    def pieces(batch: StepBatch) -> list[Piece]:
        images = batch["images"].to(device, non_blocking=True)
        first, _ = processes.place(len(images))
        truths = [
            Truth(
                batch["masks"][n].to(device),
                batch["labels"][n].to(device),
                batch["weights"][n].to(device),
                None if (crowd := batch["crowds"][n]) is None else crowd.to(device),
            )
            for n in range(len(images))
        ]
        own = QueryTotals.of(truths, queries, config)
        totals = QueryTotals(processes.add(own.classes), processes.add(own.masks))

        def piece(part: slice) -> Piece:
            def draws(n: int, layer: int) -> torch.Generator:
                return generator.manual_seed(_seed(seed, batch["step"], first + part.start + n, layer + 1))

            def loss(network: nn.Module) -> dict[str, Tensor]:
                with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                    torch.manual_seed(_seed(seed, batch["step"], first + part.start, 0))
                    outputs = network(images[part], batch["content_sizes"][part])
                return query_loss(outputs, truths[part], config, totals, draws)

            return Piece(loss, batch["image_ids"][part])

        return [piece(share(len(images), n, training.accumulate)) for n in range(training.accumulate)]

    return pieces


def _seed(*numbers: int) -> int:
    """63 bits of these numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
