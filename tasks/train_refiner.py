"""Trains MaskRefineNet on the strong images: from the teacher's rough masks to the true ones.

At every step a random milestone of the teacher makes new rough masks, on augmented images, at a random inner pixel of
each object. So the refiner learns from errors like those on weak images.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from pathlib import Path

import torch
from torch import Tensor, nn

from data.samples.sharding import share
from data.storage import atomic_dir, discard_partials
from data.tables import Split
from models.checkpoint import load_teacher
from models.config import PromptConfig
from models.inference.coarse_masks import rough_masks
from models.masks.geometry import inner_points
from models.masks.resize import Sizes
from models.refiner.crops import crop_boxes, crop_inputs, crop_masks, refine
from models.refiner.network import MaskRefineNet, refine_loss, spare_channels
from models.solov2.network import SOLOv2
from tasks.common import processes
from tasks.common.config import Params, RefinerConfig
from tasks.common.device import set_up
from tasks.common.errors import TaskError
from tasks.common.stage_main import run_folder, stage_main
from tasks.labelling.gate import Gate, write_gate
from tasks.labelling.measure_refiner import gate_of, measure
from tasks.labelling.solov2_proposer import SOLOv2Proposer
from tasks.training.holdout import read_held_out
from tasks.training.loop import Job, Piece, read_milestone, train
from tasks.training.setup import (
    StepBatch,
    new_network,
    resume_key,
    step_batches,
    training_data,
    write_training,
)

log = logging.getLogger(__name__)


def run(params: Params, workspace: Path) -> None:
    """Writes workspace/refiner: model.safetensors, model.json, gate.json, log.jsonl, manifest.json.

    The weights are those of the milestone, or of the last step, with the best masks on the held-out images; gate.json
    has their step, and the masks for which refinement helps. See tasks/labelling/gate.py and
    tasks/training/holdout.py.

    Raises:
        TaskError: the teacher has no milestones, a held-out image can't be read, or refiner.net.heatmap_channels
            doesn't match the number of classes.
    """
    config = params.refiner
    device = set_up(params.runtime, params.threads, params.seed)
    strong = Split.open(workspace / "dataset" / "strong")
    folders = sorted((workspace / "teacher" / "milestones").glob("*"))
    if not folders:
        raise TaskError(f"{workspace}/teacher/milestones: empty; run `dvc repro train_teacher`")
    teachers = [load_teacher(folder, device) for folder in folders]
    leave_out = read_held_out(workspace / "teacher", strong)
    try:
        spare_channels(config.net, len(strong.categories))
    except ValueError as error:
        raise TaskError(f"refiner.net.{error}") from None
    torch.manual_seed(params.seed)
    model, weights = new_network("refiner.net", config.net.backbone, lambda: MaskRefineNet(config.net))
    model.categories = [{"id": one.id, "name": one.name} for one in strong.categories]
    dataset = training_data([strong], params, config, leave_out)
    job = Job(
        name="train_refiner",
        model=model,
        pieces=refiner_pieces(teachers, model, config, params.prompt, params.seed, device),
        batches=step_batches(dataset, params, config, "refiner"),
        config=config,
        device=device,
        run_folder=run_folder(workspace, "train_refiner"),
        key=resume_key(
            "train_refiner", params, config, [strong], leave_out, device, [params.prompt.model_dump(), weights],
            [folder / "model.safetensors" for folder in folders],
        ),
        keep_checkpoints=params.runtime.keep_checkpoints,
        milestones=config.milestones,
        pieces_use_model=config.rounds > 1,
    )  # fmt: skip
    train(job)
    with processes.first_alone() as first:
        if first:
            counts = {"images": len(dataset), "milestones": len(teachers), "held_out": len(leave_out)}
            _write(job, workspace, params, strong, leave_out, counts, weights)


def _write(
    job: Job,
    workspace: Path,
    params: Params,
    strong: Split,
    leave_out: frozenset[int],
    counts: dict[str, int],
    backbone_weights: str | None,
) -> None:
    """Writes workspace/refiner after the training; then removes the resume states."""
    gate, best = choose_weights(
        params, job, strong, leave_out, load_teacher(workspace / "teacher", job.device)
    )
    discard_partials(workspace, "refiner")
    with atomic_dir(workspace / "refiner") as folder:
        write_gate(folder, gate)
        write_training(
            folder, job, params, params.refiner.net, strong, {"": best.state_dict()}, counts,
            backbone_weights, step=gate.step,
        )  # fmt: skip
    job.states.clear()


def choose_weights(
    params: Params, job: Job, strong: Split, held_out: Collection[int], teacher: SOLOv2
) -> tuple[Gate, nn.Module]:
    """The gate, measured on the held-out images with masks of the final teacher, and the network with the chosen
    weights."""
    config = params.refiner
    if not isinstance(job.model, MaskRefineNet):
        raise TypeError(f"job.model: found a {type(job.model).__name__}, expected a MaskRefineNet")
    refiners = {step: _refiner_at(job, step, job.model) for step in config.milestones if held_out}
    refiners[config.steps] = job.model
    proposer = SOLOv2Proposer(teacher, params.prompt, params.input.tile, job.device)
    measured = measure(params, strong, held_out, proposer, refiners, job.device)
    gate = gate_of(params, measured, len(held_out))
    if held_out:
        log.info(
            "train_refiner: on %d held-out images, %d objects: IoU rough %s, refined %s with the weights of step %d",
            gate.held_out_images, gate.all.objects, gate.all.rough_iou, gate.all.refined_iou, gate.step,
        )  # fmt: skip
        for one in gate.bins:
            log.info(
                "train_refiner: rough masks of %.0f to %s pixels: %s -> %s, refinement %s",
                one.area_from, "any" if one.area_to is None else f"{one.area_to:.0f}",
                one.rough_iou, one.refined_iou, "used" if one.use else "not used",
            )  # fmt: skip
    return gate, refiners[gate.step]


def _refiner_at(job: Job, step: int, trained: MaskRefineNet) -> MaskRefineNet:
    """The network with the weights of a milestone, in eval mode on the job's device."""
    config = trained.config
    bare = config.model_copy(update={"backbone": config.backbone.model_copy(update={"weights": None})})
    model = MaskRefineNet(bare)
    model.categories = trained.categories
    model.load_state_dict(read_milestone(job, step))
    return model.to(job.device).eval().requires_grad_(False)


def refiner_pieces(
    teachers: list[SOLOv2],
    refiner: MaskRefineNet,
    config: RefinerConfig,
    prompt: PromptConfig,
    seed: int,
    device: torch.device,
) -> Callable[[StepBatch], list[Piece]]:
    """From a step's batch to at most `config.crops` crops of it, in `config.accumulate` pieces, with their loss.

    `refiner` is the network that is trained; with `config.rounds` above 1 it refines some masks before. All draws
    depend on (seed, step) only, and are made for the whole step's batch, of which this process takes its part.
    """
    # After the image pooling a single crop has one value per channel, too few for batch norm's statistics.
    least = 2 if config.net.norm == "batch_norm" else 1

    def pieces(batch: StepBatch) -> list[Piece]:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + batch["step"])
        teacher = teachers[int(torch.randint(len(teachers), (), generator=generator))]
        inputs, truth = rough_crops(teacher, refiner, batch, config, prompt, generator, device)
        counts = processes.gather(len(inputs))
        total = sum(counts)
        if total < least:
            # No crop to learn: a step with zero gradients keeps step count and optimiser consistent.
            return [Piece(_nothing, batch["image_ids"])]

        # The same number in all processes, though some piece of a process may have no crop.
        number = min(config.accumulate, max(1, max(counts) // least))

        def piece(n: int) -> Piece:
            part = share(len(inputs), n, number)

            def loss(model: nn.Module) -> dict[str, Tensor]:
                return refine_loss(
                    model(inputs[part]), truth[part], config.dice_weight, config.cross_entropy_weight, total
                )

            return Piece(loss, batch["image_ids"])

        return [piece(n) for n in range(number)]

    return pieces


def _nothing(model: nn.Module) -> dict[str, Tensor]:
    """A loss of 0 with a gradient of 0 for every parameter."""
    zero = torch.stack([parameter.sum() for parameter in model.parameters()]).sum() * 0.0
    return {"loss": zero, "loss_dice": zero.detach(), "loss_cross_entropy": zero.detach()}


@torch.no_grad()
def rough_crops(
    teacher: SOLOv2,
    refiner: MaskRefineNet,
    batch: StepBatch,
    config: RefinerConfig,
    prompt: PromptConfig,
    generator: torch.Generator,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Network inputs [M, C, S, S] and true masks bool [M, S, S] of random objects of the batch; M may be 0.

    All objects of an image are clicked, as in pseudo_label, since masks are made exclusive; `config.crops` of the whole
    step's objects, over all processes, become crops.

    Rough masks and crops are limited to an image's content, without its padding. The crops are from the resized and
    augmented image, in pseudo_label from the original: only the resolution differs.

    With `config.rounds` above 1 an object's mask is one of those that the network gets in use: the rough one, or what
    `refiner`, as far as it is trained, makes of it in up to rounds - 1 rounds.

    Objects with an empty rough mask are left out.
    """
    images = batch["images"].to(device)
    input_size = (images.shape[2], images.shape[3])
    outputs = teacher(images, batch["content_sizes"], batch["crop_origins"])
    spare = spare_channels(config.net, len(teacher.categories))
    start, total = processes.place(sum(len(masks) for masks in batch["masks"]))
    # All draws at once, one per object, so that they don't depend on other images or processes.
    chosen = torch.zeros(total, dtype=torch.bool)
    chosen[torch.randperm(total, generator=generator)[: config.crops]] = True
    clicks, context = torch.rand(total, 1, generator=generator), torch.rand(total, generator=generator)
    rounds = torch.randint(config.rounds, (total,), generator=generator)  # of refinement before this one
    side = config.net.crop_size
    channels = 3 + config.net.heatmap_channels + 1
    inputs = [torch.zeros(0, channels, side, side, device=device)]
    truths = [torch.zeros(0, side, side, dtype=torch.bool, device=device)]
    for n, (masks, labels) in enumerate(zip(batch["masks"], batch["labels"], strict=True)):
        mine = slice(start, start + len(masks))
        start += len(masks)
        content = batch["content_sizes"][n]
        if not bool(chosen[mine].any()):
            continue
        masks, labels = masks[:, : content[0], : content[1]], labels.to(device)
        points = inner_points(masks, clicks[mine])[:, 0].to(device)
        rough = rough_masks(outputs, n, points, labels, Sizes(input_size, content, content), prompt).masks
        held = chosen[mine].to(device) & rough.flatten(1).any(1)
        if not bool(held.any()):
            continue
        rough, masks, points, labels = rough[held], masks.to(device)[held], points[held], labels[held]
        enlarge = config.enlarge_min + (config.enlarge_max - config.enlarge_min) * context[mine].to(device)
        image = images[n, :, : content[0], : content[1]]
        rough = _refined_before(
            refiner, image, rough, points, labels, rounds[mine].to(device)[held], config, prompt
        )
        boxes = crop_boxes(rough, points, enlarge[held])
        inputs.append(crop_inputs(image, rough, points, boxes, config.net, labels=labels + spare))
        truths.append(crop_masks(masks, boxes, side))
    return torch.cat(inputs), torch.cat(truths)


def _refined_before(
    refiner: MaskRefineNet,
    image: Tensor,
    masks: Tensor,
    points_xy: Tensor,
    labels: Tensor,
    rounds: Tensor,
    config: RefinerConfig,
    prompt: PromptConfig,
) -> Tensor:
    """Masks bool [K, H, W] after `rounds` [K] rounds of refinement each, as `refine` does it in use."""
    training = refiner.training
    refiner.eval()  # no statistics are updated by it
    for done in range(config.rounds - 1):
        masks = refine(
            refiner, image, masks, points_xy, config.net, len(masks), enlarge=config.enlarge,
            mask_threshold=prompt.mask_threshold, rounds=1, labels=labels, selected=rounds > done,
        ).masks  # fmt: skip
    refiner.train(training)
    return masks


if __name__ == "__main__":
    stage_main("train_refiner", run, parallel=True)
