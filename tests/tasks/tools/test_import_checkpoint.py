"""Published files: every key and shape of the real ones imports, every fault is named, nothing is executed."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from models.backbones.build import build_backbone
from models.backbones.config import BackboneConfig
from models.checkpoint import build_model, load_meta
from models.reference.published import AFFINE, msra_names, refinenet_names, solov2_names
from models.reference.published_config import STUDENT, TEACHER, refinenet_config, solov2_config
from models.refiner.network import MaskRefineNet
from models.solov2.network import SOLOv2
from tasks.common.config import load_params
from tasks.common.errors import TaskError
from tasks.labelling.gate import read_gate
from tasks.tools.import_checkpoint import Imported, import_checkpoint
from tasks.tools.model_section import with_network_of
from tasks.training.start import start_from
from tests.tasks.conftest import ROOT

State = dict[str, Tensor]
FIXTURES = {
    "solov2_keys/r50_coco80.json": (SOLOv2, 80),
    "solov2_keys/r101_teacher80.json": (SOLOv2, 80),
    "solov2_tiny/keys.json": (SOLOv2, 5),
    "refine/keys_80.json": (MaskRefineNet, 80),
    "refine/keys_5.json": (MaskRefineNet, 5),
}


def take(file: Path, out: Path, **options: Any) -> Imported:
    return import_checkpoint(file, out, **{"categories": None, "settings": None, "config": None, **options})


def narrow(reference_names: dict[str, str], network: nn.Module) -> State:
    """Random weights of `network` by the reference's names."""
    state = network.state_dict()
    return {theirs: state[ours].clone() for theirs, ours in reference_names.items()}


@pytest.fixture(scope="module")
def solov2_state() -> State:
    """A narrow SOLOv2 of 3 classes, found from the published one by dividing its sizes."""
    torch.manual_seed(0)
    config, _ = solov2_config({}, STUDENT)
    small = {
        "fpn_channels": 16,
        "head_channels": 24,
        "kernel_channels": 12,
        "mask_channels": 8,
        "head_convs": 2,
    }
    width = {"backbone": {**config.backbone.model_dump(), "width": (0.25, 0.125)}}
    network = SOLOv2(type(config).model_validate({**config.model_dump(), **small, **width}), 3)
    return narrow(solov2_names("resnet50", 2), network)


@pytest.fixture(scope="module")
def refinenet_state() -> State:
    torch.manual_seed(0)
    config, _ = refinenet_config({})
    small = {"aspp_channels": 8, "decoder_channels": (16, 8, 8, 4), "heatmap_channels": 4}
    width = {"backbone": {**config.backbone.model_dump(), "width": 0.125}}
    network = MaskRefineNet(type(config).model_validate({**config.model_dump(), **small, **width}))
    return narrow(refinenet_names(3), network)


def spoil(state: State, renamed: str, missing: str, misshapen: str) -> State:
    state = dict(state)
    state[renamed + "_"] = state.pop(renamed)
    del state[missing]
    state[misshapen] = torch.zeros(*state[misshapen].shape, 2)
    return state


@pytest.fixture(params=FIXTURES)
def published(request: pytest.FixtureRequest, shared_dir: Path) -> tuple[State, type[nn.Module], int]:
    """Every key and shape of a real file; the values take no room."""
    path = shared_dir / "fixtures/reference" / request.param
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    rows = json.loads(path.read_text())["state_dict"]
    facts = {k: (v["shape"], v["dtype"]) if isinstance(v, dict) else (v[0], v[2]) for k, v in rows.items()}
    state = {
        k: torch.zeros((), dtype=getattr(torch, kind)).expand(shape) for k, (shape, kind) in facts.items()
    }
    return state, *FIXTURES[request.param]


def test_every_key_of_the_published_files_imports(
    published: tuple[State, type[nn.Module], int], tmp_path: Path
) -> None:
    state, kind, classes = published
    file = tmp_path / "file.pth"
    wrapper = "model" if kind is SOLOv2 else "model_state"
    torch.save({wrapper: state, "epoch": 3, "last_itr": 7, "best_AP": np.float64(31.5)}, file)
    take(file, tmp_path / "out")
    network = build_model(tmp_path / "out")
    assert isinstance(network, kind)
    assert network.categories == [{"id": i, "name": str(i)} for i in range(1, classes + 1)]
    assert sum(value.numel() for value in network.state_dict().values()) == sum(
        value.numel() for value in state.values()
    )


def test_faults_of_the_published_files_are_all_named(
    published: tuple[State, type[nn.Module], int], tmp_path: Path
) -> None:
    state, kind, _ = published
    solov2 = (
        "ins_head.kernel_pred.bias",
        "backbone.fpn_output3.weight",
        "backbone.bottom_up.res4.1.conv2.weight",
    )
    refinenet = ("head.bias", "aspp.convs.0.1.1.running_var", "decoder_2.conv.0.0.weight")
    renamed, missing, misshapen = solov2 if kind is SOLOv2 else refinenet
    torch.save(spoil(state, renamed, missing, misshapen), tmp_path / "file.pth")
    with pytest.raises(TaskError) as caught:
        take(tmp_path / "file.pth", tmp_path / "out")
    text = str(caught.value)
    assert "it has 4 faults" in text
    assert f"{renamed}_: unknown; did you mean {renamed}?" in text
    assert f"{renamed}: missing" in text
    assert f"{missing}: missing; expected {list(state[missing].shape)}" in text
    shape = list(state[misshapen].shape)
    assert f"{misshapen}: found shape {[*shape, 2]}, expected {shape}" in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapper", ["model", None])
def test_a_narrow_solov2_keeps_its_numbers(
    solov2_state: State, tmp_path: Path, wrapper: str | None, prefix: str
) -> None:
    """Names of the published checkpoints, one of each kind, spelt out."""
    state = {prefix + key: value for key, value in solov2_state.items()}
    torch.save({wrapper: state} if wrapper else state, tmp_path / "narrow.pth")
    take(tmp_path / "narrow.pth", tmp_path / "out", settings="teacher")
    found = load_file(tmp_path / "out/model.safetensors")
    pairs = {
        "backbone.bottom_up.stem.conv1.norm.running_var": "backbone.body.bn1.running_var",
        "backbone.bottom_up.res2.0.shortcut.weight": "backbone.body.layer1.0.downsample.0.weight",
        "backbone.bottom_up.res5.2.conv3.norm.bias": "backbone.body.layer4.2.bn3.bias",
        "backbone.fpn_lateral4.bias": "backbone.fpn.inner_blocks.2.0.bias",
        "backbone.fpn_output2.weight": "backbone.fpn.layer_blocks.0.0.weight",
        "ins_head.cate_tower.3.weight": "instance_head.category_tower.3.weight",
        "ins_head.kernel_tower.1.bias": "instance_head.kernel_tower.1.bias",
        "ins_head.cate_pred.weight": "instance_head.category_predictor.weight",
        "mask_head.convs_all_levels.3.conv2.0.weight": "mask_branch.levels.3.2.0.weight",
        "mask_head.conv_pred.1.weight": "mask_branch.predictor.1.weight",
    }
    assert all(torch.equal(solov2_state[theirs], found[ours]) for theirs, ours in pairs.items())
    assert len(found) == len(solov2_state)
    network = build_model(tmp_path / "out")
    assert isinstance(network, SOLOv2)
    assert network.config.backbone.widths == (0.25, 0.125)
    assert network.config.grids == TEACHER.grids
    meta = load_meta(tmp_path / "out")
    assert meta["input"] == {"short_side": 800, "max_side": 1333, "enlarge": True, "tile": None}
    assert (meta["imported"]["settings"], meta["imported"]["nms"]) == ("teacher", "mask")


def test_a_training_starts_from_an_imported_one(solov2_state: State, tmp_path: Path) -> None:
    """After `use --model-of`, from any recipe: the network is the imported one, all of its weights are taken."""
    torch.save(solov2_state, tmp_path / "narrow.pth")
    take(tmp_path / "narrow.pth", tmp_path / "out", settings="teacher")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    path = tmp_path / "params.yaml"
    path.write_text(with_network_of(tmp_path / "out", path).text)
    params = load_params(path)
    names = [row["name"] for row in load_meta(tmp_path / "out")["categories"]]
    model = SOLOv2(params.detector(params.student), len(names))
    start_from("train_student", model, tmp_path / "out", names)
    found = load_file(tmp_path / "out/model.safetensors")
    assert all(torch.equal(value, found[key]) for key, value in model.state_dict().items())


def test_a_narrow_refinenet_keeps_its_numbers(refinenet_state: State, tmp_path: Path) -> None:
    torch.save({"model_state": refinenet_state, "epoch": 1}, tmp_path / "narrow.pt")
    take(tmp_path / "narrow.pt", tmp_path / "out")
    found = load_file(tmp_path / "out/model.safetensors")
    pairs = {
        "layer0.0.weight": "encoder.conv1.weight",
        "layer0.1.running_mean": "encoder.bn1.running_mean",
        "layer1.1.0.downsample.1.weight": "encoder.layer1.0.downsample.1.weight",
        "layer3.22.conv2.weight": "encoder.layer3.22.conv2.weight",
        "aspp.convs.0.1.0.weight": "aspp.pooled.0.weight",
        "aspp.convs.1.0.weight": "aspp.branches.0.0.weight",
        "aspp.convs.4.1.bias": "aspp.branches.3.1.bias",
        "decoder_3.conv.0.0.weight": "decoder.0.0.0.weight",
        "decoder_0.conv.1.1.weight": "decoder.3.1.1.weight",
        "head.weight": "head.weight",
    }
    assert all(torch.equal(refinenet_state[theirs], found[ours]) for theirs, ours in pairs.items())
    network = build_model(tmp_path / "out")
    assert isinstance(network, MaskRefineNet)
    assert (len(network.categories), network.config.heatmap_channels) == (3, 4)
    gate = read_gate(tmp_path / "out")
    assert (gate.enlarge, gate.rounds, gate.refusals([1.0, 1e6])) == (2.0, 1, [None, None])


@pytest.mark.parametrize("state_of", ["solov2_state", "refinenet_state"])
@pytest.mark.parametrize("seed", range(3))
def test_any_three_faults_are_named(
    request: pytest.FixtureRequest, tmp_path: Path, state_of: str, seed: int
) -> None:
    state: State = request.getfixturevalue(state_of)
    keys = np.random.default_rng(seed).permutation(sorted(state))[:3].tolist()
    torch.save({"model": spoil(state, *keys)}, tmp_path / "spoilt.pth")
    with pytest.raises(TaskError) as caught:
        take(tmp_path / "spoilt.pth", tmp_path / "out")
    listed = [line.split(":")[0].strip(" -") for line in str(caught.value).splitlines()]
    assert {keys[0] + "_", *keys} <= set(listed)


@pytest.mark.parametrize("state_of", ["solov2_state", "refinenet_state"])
def test_a_wrong_channel_count_is_named_wherever_it_is(
    request: pytest.FixtureRequest, tmp_path: Path, state_of: str
) -> None:
    """Sizes are found from shapes, yet one wrong shape must not pass for the right one."""
    state: State = request.getfixturevalue(state_of)
    keys = (
        np.random.default_rng(0).permutation([key for key in sorted(state) if state[key].ndim]).tolist()[:4]
    )
    keys += ["ins_head.cate_pred.weight", "ins_head.cate_pred.bias", "ins_head.kernel_pred.bias", "head.bias"]
    for key in keys:
        if key in state:
            shape = [state[key].shape[0] + 1, *state[key].shape[1:]]
            torch.save(state | {key: torch.zeros(shape)}, tmp_path / "spoilt.pth")
            with pytest.raises(TaskError, match=f"{key}.* {re.escape(str(shape))}"):
                take(tmp_path / "spoilt.pth", tmp_path / "out")


def as_caffe2(key: str) -> str:
    """detectron2's name as an MSRA file spells it."""
    key = (
        key.replace("stem.conv1.norm", "res_conv1.bn").replace("stem.conv1", "conv1").replace(".norm", ".bn")
    )
    parts = {"shortcut": "branch1", "conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}
    for theirs, ours in parts.items():
        key = key.replace(f".{theirs}", f".{ours}")
    head, _, tail = key.rpartition(".")
    ends = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}
    return f"{head}.{ends[tail] if head.endswith('.bn') else 'w'}".replace(".", "_")


Write = Callable[[dict[str, Any]], Path]


@pytest.fixture
def msra(tmp_path: Path) -> tuple[dict[str, np.ndarray], Write]:
    """Arrays of a ResNet-50 by detectron2's names, values that take no room, and what pickles them."""
    config = BackboneConfig(
        name="resnet50",
        width=1.0,
        norm="frozen_bn",
        norm_groups=32,
        frozen_stages=2,
        stride_in_1x1=True,
        weights=None,
    )
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in build_backbone(config).state_dict().items()}
    rng = np.random.default_rng(0)
    arrays = {
        theirs: rng.random(tuple(shapes[ours]), dtype=np.float32)
        for theirs, ours in msra_names("resnet50", []).items()
    }

    def write(content: dict[str, Any]) -> Path:
        path = tmp_path / "R-50.pkl"
        path.write_bytes(pickle.dumps(content, protocol=2))
        return path

    return arrays, write


def test_an_msra_backbone_becomes_backbone_weights(
    msra: tuple[dict[str, np.ndarray], Write], tmp_path: Path
) -> None:
    arrays, write = msra
    caffe2: dict[str, Any] = {as_caffe2(key): value for key, value in arrays.items()}
    assert {"conv1_w", "res_conv1_bn_s", "res2_0_branch1_w", "res5_2_branch2c_bn_riv"} <= caffe2.keys()
    beside = {
        "fc1000_w": np.zeros((1000, 2048), np.float32),
        "fc1000_b": np.zeros(1000),
        "conv1_b": np.zeros(64),
    }
    # As Detectron wraps what it writes; other files have no wrapper.
    done = take(write({"blobs": caffe2 | beside}), tmp_path / "out")
    assert done.path == tmp_path / "out/resnet50_msra.safetensors"
    notes = json.loads(done.path.with_suffix(".json").read_text())
    backbone = build_backbone(BackboneConfig.model_validate(notes["model"]["backbone"]))  # loads the file
    assert (notes["model"]["bgr"], notes["model"]["backbone"]["stride_in_1x1"]) == (True, True)
    state = backbone.state_dict()
    for theirs, ours in msra_names("resnet50", []).items():
        np.testing.assert_array_equal(state[ours].numpy(), arrays[theirs])


def test_an_msra_file_without_statistics_has_them_in_its_scales(
    msra: tuple[dict[str, np.ndarray], Write], tmp_path: Path
) -> None:
    arrays, write = msra
    kept = {key: value for key, value in arrays.items() if key.endswith(AFFINE)}
    done = take(write({"model": kept, "__author__": "Caffe2"}), tmp_path / "out")
    state = load_file(done.path)
    assert not state["layer3.5.bn2.running_mean"].any()
    assert bool((state["layer3.5.bn2.running_var"] == 1).all())
    np.testing.assert_array_equal(state["layer1.0.conv1.weight"].numpy(), arrays["res2.0.conv1.weight"])


def test_faults_of_an_msra_file_are_all_named(
    msra: tuple[dict[str, np.ndarray], Write], tmp_path: Path
) -> None:
    arrays, write = msra
    caffe2: dict[str, Any] = {as_caffe2(key): value for key, value in arrays.items()}
    caffe2["res3_1_branch9_w"] = caffe2.pop("res3_1_branch2a_w")
    del caffe2["res_conv1_bn_b"]
    caffe2["res5_0_branch1_w"] = np.zeros((3, 3))
    with pytest.raises(TaskError) as caught:
        take(write(caffe2), tmp_path / "out")
    for fault in (
        "res3_1_branch9_w: unknown",
        "res3_1_branch2a_w: missing",
        "res_conv1_bn_b: missing; expected [64]",
        "res5_0_branch1_w: found shape [3, 3], expected [2048, 1024, 1, 1]",
    ):
        assert fault in str(caught.value)


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch trap",)


@pytest.mark.parametrize("suffix", ["pth", "pkl"])
def test_a_file_that_would_run_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"evil.{suffix}"
    if suffix == "pth":
        torch.save({"model": {"ins_head.cate_pred.bias": torch.zeros(3)}, "x": Evil()}, path)
    else:
        path.write_bytes(pickle.dumps({"conv1_w": np.zeros(3), "x": Evil()}))
    with pytest.raises(TaskError, match=f"evil.{suffix}"):
        take(path, tmp_path / "out")
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"categories": "coco"}, "weights of 3 classes, but 80 in --categories coco"),
        ({"settings": "pupil"}, "found 'pupil', expected student or teacher"),
        ({"config": Path("gone.yaml")}, "gone.yaml: no such file"),
    ],
)
def test_wrong_options(solov2_state: State, tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    torch.save(solov2_state, tmp_path / "narrow.pth")
    with pytest.raises(TaskError, match=reason):
        take(tmp_path / "narrow.pth", tmp_path / "out", **options)


def test_options_that_say_nothing_of_the_file(refinenet_state: State, tmp_path: Path) -> None:
    torch.save(refinenet_state, tmp_path / "narrow.pth")
    with pytest.raises(TaskError, match="found a refinenet, to which --settings doesn't apply"):
        take(tmp_path / "narrow.pth", tmp_path / "out", settings="teacher")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file"),
        (b"", "not readable"),
        (b"no torch file", "damaged|not readable"),
        ([torch.zeros(2)], "found a list"),
        (
            {"encoder.weight": torch.zeros(2)},
            "found encoder.weight; expected tensors of the reference's SOLOv2",
        ),
        ({"ins_head.cate_pred.bias": 3, "x": "y"}, "2 entries that aren't tensors"),
    ],
)
def test_files_that_are_something_else(tmp_path: Path, content: Any, reason: str) -> None:
    path = tmp_path / "other.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(TaskError, match=reason):
        take(path, tmp_path / "out")


def test_categories_come_sorted_and_the_same_file_gives_the_same_bytes(
    solov2_state: State, tmp_path: Path
) -> None:
    torch.save(solov2_state, tmp_path / "narrow.pth")
    classes = [{"id": 9, "name": "c"}, {"id": 2, "name": "a"}, {"id": 5, "name": "b"}]
    (tmp_path / "classes.json").write_text(json.dumps(classes))
    for name in ("one", "two"):
        take(tmp_path / "narrow.pth", tmp_path / name, categories=str(tmp_path / "classes.json"))
    assert [row["id"] for row in load_meta(tmp_path / "one")["categories"]] == [2, 5, 9]
    for name in ("model.safetensors", "model.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
