from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from data.samples.dataset import InstanceDataset, collate
from data.tables import Split
from models.checkpoint import build_model, load_teacher
from models.refiner.network import MaskRefineNet
from models.solov2.network import SOLOv2
from tasks import train_refiner
from tasks.common.config import Params, RefinerConfig
from tasks.common.errors import TaskError
from tasks.labelling.gate import Comparison, read_gate
from tasks.labelling.measure_refiner import measure
from tasks.labelling.solov2_proposer import SOLOv2Proposer
from tasks.train_refiner import refiner_pieces, rough_crops, run
from tasks.training.holdout import read_held_out, write_held_out
from tasks.training.loop import Job

CPU = torch.device("cpu")


def batch_of(workspace: Path, params: Params, step: int) -> dict[str, object]:
    strong = Split.open(workspace / "dataset" / "strong")
    dataset = InstanceDataset(
        strong,
        short_side=params.input.short_side,
        max_side=params.input.max_side,
        enlarge=params.input.enlarge,
        augment=None,
        cache_images=False,
    )
    return {**collate([dataset[0], dataset[1]]), "step": step}


def crops_of(
    teacher: SOLOv2,
    batch: dict[str, object],
    params: Params,
    config: RefinerConfig,
    refiner: MaskRefineNet | None = None,
) -> tuple[Tensor, Tensor]:
    """`rough_crops` with the same draws each time; by default with a refiner that isn't asked."""
    refiner = refiner or MaskRefineNet(config.net)
    return rough_crops(teacher, refiner, batch, config, params.prompt, torch.Generator().manual_seed(0), CPU)


def test_it_leaves_a_checkpoint_and_a_log(line: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = line
    monkeypatch.chdir(folder)
    model = build_model(Path("workspace/refiner"))
    assert isinstance(model, MaskRefineNet)
    rows = [json.loads(text) for text in Path("workspace/refiner/log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    assert all({"loss", "loss_dice", "loss_cross_entropy", "lr"} < row.keys() for row in rows)
    assert not Path("workspace/runs/train_refiner/resume").exists()


def test_crops_hold_what_the_network_expects(
    line: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, params = line
    monkeypatch.chdir(folder)
    teacher = load_teacher(Path("workspace/teacher"), CPU)
    batch = batch_of(Path("workspace"), params, 0)
    crops = crops_of(teacher, batch, params, params.refiner)
    assert len(crops[0])
    inputs, truth = crops
    size = params.refiner.net.crop_size
    assert inputs.shape[1:] == (5, size, size) and truth.shape == (len(inputs), size, size)
    assert truth.dtype == torch.bool
    few = params.refiner.model_copy(update={"crops": 1})
    one = crops_of(teacher, batch, params, few)
    assert len(one[0]) <= 1


def test_with_rounds_some_masks_are_refined_before(
    line: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, params = line
    monkeypatch.chdir(folder)
    teacher = load_teacher(Path("workspace/teacher"), CPU)
    batch = batch_of(Path("workspace"), params, 0)
    refiner = MaskRefineNet(params.refiner.net).train()
    refiner.categories = teacher.categories
    with torch.no_grad():
        refiner.head.weight.zero_()
        # Whatever it sees is the object, to the crop's edge.
        refiner.head.bias.copy_(torch.tensor([-9.0, 9.0]))
    before = copy.deepcopy(refiner.state_dict())

    def crops(rounds: int) -> tuple[Tensor, Tensor]:
        # Crops of the mask's own box: a refined mask, whose box was larger, fills another crop wholly.
        config = params.refiner.model_copy(
            update={"rounds": rounds, "crops": 64, "enlarge_min": 1.0, "enlarge_max": 1.0}
        )
        return crops_of(teacher, batch, params, config, refiner)

    (rough, truth), (inputs, new_truth) = crops(1), crops(3)
    assert len(inputs) == len(rough) > 1
    same = torch.tensor([torch.equal(one, other) for one, other in zip(inputs, rough, strict=True)])
    assert 0 < int(same.sum()) < len(same)
    assert torch.equal(truth[same], new_truth[same])
    assert not rough[~same, -1].all()
    assert inputs[~same, -1].all()
    assert refiner.training
    for name, value in refiner.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("rounds", [1, 2])
def test_batches_that_its_weights_decide_wait_for_them(
    line: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    class Begun(Exception):
        pass

    def begin(job: Job) -> None:
        raise Begun(job.pieces_use_model)

    folder, params = line
    monkeypatch.chdir(folder)
    monkeypatch.setattr(train_refiner, "train", begin)
    config = params.refiner.model_copy(update={"rounds": rounds})
    with pytest.raises(Begun, match=str(rounds > 1)):
        run(params.model_copy(update={"refiner": config}), Path("workspace"))


@pytest.mark.parametrize(("channels", "first"), [(4, 0), (5, 1)])
def test_training_tells_the_class_where_use_does(
    line: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch, channels: int, first: int
) -> None:
    folder, params = line
    monkeypatch.chdir(folder)
    teacher = load_teacher(Path("workspace/teacher"), CPU)
    net = params.refiner.net.model_copy(update={"heatmap_channels": channels})
    config = params.refiner.model_copy(update={"net": net})
    batch = batch_of(Path("workspace"), params, 0)
    crops = crops_of(teacher, batch, params, config)
    assert len(crops[0])
    used = crops[0][:, 3 : 3 + channels].flatten(2).any(2)
    assert (used.sum(1) == 1).all()
    known = set(torch.cat(batch["labels"]).tolist())  # type: ignore[arg-type]
    assert set((used.int().argmax(1) - first).tolist()) <= known
    model = MaskRefineNet(net)
    model.categories = teacher.categories
    assert model.spare_channels == first


def test_crops_keep_to_the_content_of_a_padded_image(
    line: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, params = line
    monkeypatch.chdir(folder)
    teacher = load_teacher(Path("workspace/teacher"), CPU)
    height, width = 40, 24
    batch = {
        "images": torch.zeros(1, 3, 64, 64, dtype=torch.uint8),
        "content_sizes": [(height, width)],
        "crop_origins": [(0, 0)],
        "masks": [torch.zeros(4, 64, 64, dtype=torch.bool)],
        "labels": [torch.arange(4)],
    }
    batch["images"][:, :, :height, :width] = 255
    batch["masks"][0][:, : height - 4, : width - 4] = True
    # So much context that every crop reaches the content's end, and would go on into a padding it doesn't see.
    config = params.refiner.model_copy(update={"enlarge_min": 9.0, "enlarge_max": 9.0})
    crops = crops_of(teacher, batch, params, config)
    assert len(crops[0])
    inputs, truth = crops
    white = (255 - torch.tensor(config.net.pixel_mean)) / torch.tensor(config.net.pixel_std)
    torch.testing.assert_close(inputs[:, :3], white.view(1, 3, 1, 1).expand(len(inputs), 3, 32, 32))
    whole = F.interpolate(
        batch["masks"][0][:1, None, :height, :width].float(), size=(32, 32), mode="nearest-exact"
    )
    assert any(torch.equal(one.float(), whole[0, 0]) for one in truth)


def test_draws_depend_on_the_step_alone(line: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, params = line
    monkeypatch.chdir(folder)
    teachers = [load_teacher(path, CPU) for path in sorted(Path("workspace/teacher/milestones").glob("*"))]
    torch.manual_seed(0)
    model = MaskRefineNet(params.refiner.net)
    pieces = refiner_pieces(teachers, model, params.refiner, params.prompt, seed=3, device=CPU)
    values = []
    for step, noise in ((5, 1), (5, 2), (6, 1)):
        torch.manual_seed(noise)
        (piece,) = pieces(batch_of(Path("workspace"), params, step))
        values.append(float(piece.loss(model)["loss"].detach()))
    assert values[0] == values[1] != values[2]


def test_a_batch_without_objects_is_a_step_of_no_gradient(
    line: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, params = line
    monkeypatch.chdir(folder)
    batch = batch_of(Path("workspace"), params, 0)
    batch |= {
        "masks": [torch.zeros(0, 64, 64, dtype=torch.bool)] * 2,
        "labels": [torch.zeros(0, dtype=torch.long)] * 2,
    }
    model = MaskRefineNet(params.refiner.net)
    (piece,) = refiner_pieces(
        [load_teacher(Path("workspace/teacher"), CPU)], model, params.refiner, params.prompt, 0, CPU
    )(batch)
    loss = piece.loss(model)
    loss["loss"].backward()
    assert float(loss["loss"].detach()) == 0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize(("norm", "learns"), [("batch_norm", False), ("group_norm", True)])
def test_a_single_crop_is_too_few_for_batch_norm(
    line: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch, norm: str, learns: bool
) -> None:
    folder, params = line
    monkeypatch.chdir(folder)
    config = params.refiner.model_copy(
        update={"crops": 1, "net": params.refiner.net.model_copy(update={"norm": norm})}
    )
    teachers = [load_teacher(Path("workspace/teacher"), CPU)]
    pieces = refiner_pieces(teachers, MaskRefineNet(config.net), config, params.prompt, 0, CPU)
    total = sum(
        float(piece.loss(MaskRefineNet(config.net).train())["loss"].detach())
        for step in range(3)
        for piece in pieces(batch_of(Path("workspace"), params, step))
    )
    assert (total > 0) == learns


def test_the_best_weights_are_kept_and_the_gate_is_theirs(
    line: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, params = line
    monkeypatch.chdir(folder)
    workspace = Path("workspace")
    gate = read_gate(workspace / "refiner")
    assert sorted(gate.refined_iou_by_step) == [4, 6, 8]
    assert (
        gate.refined_iou_by_step[gate.step] == max(gate.refined_iou_by_step.values()) == gate.all.refined_iou
    )
    refiner = build_model(workspace / "refiner")
    assert isinstance(refiner, MaskRefineNet)
    strong = Split.open(workspace / "dataset" / "strong")
    held_out = read_held_out(workspace / "teacher", strong)
    assert gate.held_out_images == len(held_out) == 1
    teacher = load_teacher(workspace / "teacher", CPU)
    proposer = SOLOv2Proposer(teacher, params.prompt, params.input.tile, CPU)
    found = measure(params, strong, held_out, proposer, {0: refiner}, CPU)[0]
    assert gate.all == Comparison.over(found)
    manifest = json.loads((workspace / "refiner" / "manifest.json").read_text())
    assert manifest["counts"] | {"images": 5, "held_out": 1, "steps": 8} == manifest["counts"]
    assert json.loads((workspace / "refiner" / "model.json").read_text())["step"] == gate.step


@pytest.fixture
def place(line: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Params]:
    """A copy of the line's workspace to run in."""
    folder, params = line
    shutil.copytree(folder / "workspace", tmp_path / "workspace")
    monkeypatch.chdir(tmp_path)
    return Path("workspace"), params


def test_without_held_out_images_the_last_weights_are_used_everywhere(place: tuple[Path, Params]) -> None:
    workspace, params = place
    write_held_out(workspace / "teacher", set())
    run(params, workspace)
    gate = read_gate(workspace / "refiner")
    assert (gate.step, gate.use, gate.bins, gate.held_out_images) == (8, True, (), 0)
    assert json.loads((workspace / "refiner/manifest.json").read_text())["counts"]["images"] == 6


def test_a_held_out_image_that_can_not_be_read_is_named(place: tuple[Path, Params]) -> None:
    workspace, params = place
    strong = Split.open(workspace / "dataset" / "strong")
    (held_out,) = read_held_out(workspace / "teacher", strong)
    row = strong.images["image_id"].to_pylist().index(held_out)
    strong.image_path(row).unlink()
    before = (workspace / "refiner" / "gate.json").read_bytes()
    with pytest.raises(TaskError, match=r"1 held-out strong images can't be read") as caught:
        run(params, workspace)
    assert strong.image(row)["file_name"] in str(caught.value)
    assert (workspace / "refiner" / "gate.json").read_bytes() == before


def test_the_same_run_gives_the_same_bytes(place: tuple[Path, Params]) -> None:
    workspace, params = place
    before = {path.name: path.read_bytes() for path in (workspace / "refiner").iterdir()}
    run(params, workspace)
    assert before == {path.name: path.read_bytes() for path in (workspace / "refiner").iterdir()}


def test_a_run_killed_while_it_measures_ends_the_same(
    place: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, params = place
    before = {path.name: path.read_bytes() for path in (workspace / "refiner").iterdir()}
    shutil.rmtree(workspace / "refiner")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tasks.train_refiner.measure", killed)
        with pytest.raises(KeyboardInterrupt):
            run(params, workspace)
    assert not (workspace / "refiner").exists()
    assert list((workspace / "runs" / "train_refiner" / "resume").glob("*/state_0000004.pt"))
    run(params, workspace)
    assert before == {path.name: path.read_bytes() for path in (workspace / "refiner").iterdir()}


def test_no_milestones(line: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, params = line
    shutil.copytree(folder / "workspace" / "dataset", tmp_path / "workspace" / "dataset")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TaskError, match="milestones: empty; run `dvc repro train_teacher`"):
        run(params, Path("workspace"))


@pytest.mark.parametrize("channels", [3, 6])
def test_heatmap_channels_that_suit_no_layout(place: tuple[Path, Params], channels: int) -> None:
    workspace, params = place
    net = params.refiner.net.model_copy(update={"heatmap_channels": channels})
    refiner = params.refiner.model_copy(update={"net": net})
    with pytest.raises(TaskError, match=rf"refiner\.net\.heatmap_channels: found {channels} with 4 classes"):
        run(params.model_copy(update={"refiner": refiner}), workspace)


def test_with_a_spare_channel_the_gate_is_measured_as_use_tells_the_class(
    place: tuple[Path, Params],
) -> None:
    workspace, params = place
    net = params.refiner.net.model_copy(update={"heatmap_channels": 5})
    params = params.model_copy(update={"refiner": params.refiner.model_copy(update={"net": net})})
    run(params, workspace)
    refiner = build_model(workspace / "refiner")
    assert isinstance(refiner, MaskRefineNet) and refiner.spare_channels == 1
    strong = Split.open(workspace / "dataset" / "strong")
    held_out = read_held_out(workspace / "teacher", strong)
    teacher = load_teacher(workspace / "teacher", CPU)
    proposer = SOLOv2Proposer(teacher, params.prompt, params.input.tile, CPU)
    found = measure(params, strong, held_out, proposer, {0: refiner}, CPU)[0]
    assert read_gate(workspace / "refiner").all == Comparison.over(found)
