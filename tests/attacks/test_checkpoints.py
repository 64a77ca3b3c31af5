"""Networks that can't work, and files that aren't what they are taken for: each is refused where it is read."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

from data.errors import DataError
from models.backbones.config import BackboneConfig
from models.checkpoint import load_teacher, save_checkpoint
from models.config import RefineNetConfig, SOLOv2Config
from models.reference.published import solov2_names
from models.reference.published_config import STUDENT, solov2_config
from models.refiner.network import MaskRefineNet
from models.solov2.network import SOLOv2
from models.weights import CheckpointError
from tasks.common.errors import TaskError
from tasks.labelling.gate import Comparison, unmeasured, write_gate
from tasks.tools.import_checkpoint import import_checkpoint
from tasks.tools.predict_images import predict_images
from tasks.training.resume import States
from tasks.training.setup import new_network
from tasks.training.start import start_from
from tests.attacks.attack import Attack, check
from tests.models.conftest import BACKBONE, REFINENET, SOLOV2

CATEGORIES = [{"id": 3, "name": "disc"}, {"id": 7, "name": "étoile"}]
INPUT = {"short_side": 32, "max_side": 64, "enlarge": True, "tile": None}
NORMED = {**BACKBONE, "norm": "batch_norm"}
"""Batch norm has variances and counters of steps, which the tests spoil."""
NOTHING = Comparison.nothing().model_dump()
Meta = dict[str, Any]


class Place(NamedTuple):
    """Sound files, a copy for each row."""

    root: Path
    model: Path
    refiner: Path
    image: Path
    published: Path
    """The reference's file of a small SOLOv2 of 3 classes."""

    def meta(self) -> Meta:
        return json.loads((self.model / "model.json").read_text())

    def predict(self) -> str:
        """As `points2model predict` does; a refusal leaves nothing."""
        clicks = {
            "images": [{"id": 1, "file_name": self.image.name}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "point": [9, 9]}],
        }
        (self.root / "clicks.json").write_text(json.dumps(clicks))
        out, old = self.root / "out", torch.are_deterministic_algorithms_enabled()
        try:
            counts = predict_images(
                [self.image], self.model, out, compat=True, points=self.root / "clicks.json", refiner=self.refiner,
                params=None, short_side=None, max_side=None, device="cpu",
            )  # fmt: skip
        except Exception:
            assert not list(out.glob("*.json"))
            raise
        finally:
            torch.use_deterministic_algorithms(old, warn_only=True)
        return str(counts)

    def take(self, file: Path) -> str:
        """As `points2model import-checkpoint` does; a refusal leaves nothing."""
        out = self.root / "imported"
        try:
            return import_checkpoint(file, out, categories=None, settings=None, config=None).text
        except Exception:
            assert not out.exists()
            raise


def plain_meta(network: SOLOv2 | MaskRefineNet) -> Meta:
    kind = "solov2" if isinstance(network, SOLOv2) else "refinenet"
    config = network.config.model_dump(mode="json")
    return {"format": 1, "kind": kind, "config": config, "categories": CATEGORIES, "input": INPUT}


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("sound")
    solov2 = SOLOv2(SOLOv2Config.model_validate({**SOLOV2, "backbone": NORMED}), 2)
    meta = plain_meta(solov2) | {"inference": STUDENT.inference.model_dump(), "imported": {"nms": "matrix"}}
    save_checkpoint(folder / "model", solov2.state_dict(), meta)
    refiner = MaskRefineNet(RefineNetConfig.model_validate({**REFINENET, "crop_size": 32}))
    save_checkpoint(folder / "refiner", refiner.state_dict(), plain_meta(refiner))
    write_gate(folder / "refiner", unmeasured(1, enlarge=2.0, rounds=1))
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "image.png")
    config, _ = solov2_config({}, STUDENT)
    sizes = {"fpn_channels": 8, "head_channels": 8, "kernel_channels": 8, "mask_channels": 8, "head_convs": 1}
    narrow = {**config.model_dump(), **sizes, "backbone": {**config.backbone.model_dump(), "width": 0.0625}}
    state = SOLOv2(SOLOv2Config.model_validate(narrow), 3).state_dict()
    torch.save(
        {theirs: state[ours] for theirs, ours in solov2_names("resnet50", 1).items()}, folder / "student.pth"
    )
    return folder


@pytest.fixture
def place(sound: Path, tmp_path: Path) -> Place:
    root = tmp_path / "place"
    shutil.copytree(sound, root)
    return Place(root, root / "model", root / "refiner", root / "image.png", root / "student.pth")


def edited(change: Callable[[Meta], object]) -> Callable[[Place], str]:
    """`change` edits model.json; then the model is used."""

    def act(place: Place) -> str:
        meta = place.meta()
        change(meta)
        (place.model / "model.json").write_text(json.dumps(meta))
        return place.predict()

    return act


def put(at: str, value: Any) -> Callable[[Place], str]:
    """A value at a dotted key of model.json."""

    def change(meta: Meta) -> None:
        *above, last = at.split(".")
        inner: Any = meta
        for key in above:
            inner = inner[int(key) if isinstance(inner, list) else key]
        inner[int(last) if isinstance(inner, list) else last] = value

    return edited(change)


def written(content: str | bytes) -> Callable[[Place], str]:
    """model.json has another content."""

    def act(place: Place) -> str:
        (place.model / "model.json").write_bytes(content.encode() if isinstance(content, str) else content)
        return place.predict()

    return act


def replaced(old: str, new: str) -> Callable[[Place], str]:
    """A piece of model.json's text is another one."""

    def act(place: Place) -> str:
        text = (place.model / "model.json").read_text()
        assert old in text
        return written(text.replace(old, new, 1))(place)

    return act


def spoilt(key: str, change: Callable[[Tensor], Tensor], folder: str = "model") -> Callable[[Place], str]:
    """A tensor of model.safetensors is another one."""

    def act(place: Place) -> str:
        path = place.root / folder / "model.safetensors"
        state = load_file(path)
        state[key] = change(state[key].clone())
        path.write_bytes(save(state))
        return place.predict()

    return act


def at_first(value: float) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        tensor.view(-1)[0] = value
        return tensor

    return change


CONV, BIAS = "backbone.body.layer1.0.conv1.weight", "instance_head.category_predictor.bias"
VARIANCE, COUNTER = "backbone.body.bn1.running_var", "backbone.body.bn1.num_batches_tracked"


def weights(change: Callable[[Path], object]) -> Callable[[Place], str]:
    """`change` is done to model.safetensors; then the model is used."""

    def act(place: Place) -> str:
        change(place.model / "model.safetensors")
        return place.predict()

    return act


def header(change: Callable[[Meta], object]) -> Callable[[Place], str]:
    """The header of model.safetensors is another one; its numbers stay."""

    def act(place: Place) -> str:
        path = place.model / "model.safetensors"
        content = path.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        found = json.loads(content[8 : 8 + length])
        change(found)
        text = json.dumps(found).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
        return place.predict()

    return act


def instead(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        path.unlink()
        make(path)

    return change


def half(path: Path, kind: torch.dtype = torch.float16) -> None:
    state = load_file(path)
    save_file({key: one.to(kind) if one.is_floating_point() else one for key, one in state.items()}, path)


def published(change: Callable[[dict[str, Any]], object]) -> Callable[[Place], str]:
    """`change` edits the reference's file; then it is imported."""

    def act(place: Place) -> str:
        state = torch.load(place.published, weights_only=True)
        change(state)
        torch.save(state, place.published)
        return place.take(place.published)

    return act


def wide(state: dict[str, Any]) -> None:
    """Tensors of enormous size that take no room in the file."""
    for key, value in list(state.items()):
        state[key] = torch.zeros(()).expand([1 << 20 if side == 8 else side for side in value.shape])


def packed(place: Place) -> str:
    """A zip bomb: torch would unpack it."""
    torch.save({"ins_head.cate_pred.bias": torch.zeros(1 << 22)}, place.root / "large.pth")
    with (
        zipfile.ZipFile(place.root / "large.pth") as large,
        zipfile.ZipFile(place.root / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for entry in large.infolist():
            bomb.writestr(entry.filename, large.read(entry))
    assert (place.root / "bomb.pth").stat().st_size < 1 << 20
    return place.take(place.root / "bomb.pth")


def gate(change: Callable[[Meta], object]) -> Callable[[Place], str]:
    """The refiner's gate.json is edited; then masks at clicks are refined."""

    def act(place: Place) -> str:
        path = place.refiner / "gate.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        return place.predict()

    return act


def beside(content: str | Callable[[Path], object]) -> Callable[[Place], str]:
    """A config.yaml lies beside the reference's file."""

    def act(place: Place) -> str:
        path = place.root / "config.yaml"
        path.write_text(content) if isinstance(content, str) else content(path)
        return place.take(place.published)

    return act


def bins(*sizes: tuple[float, float | None], use: bool = True) -> Callable[[Meta], object]:
    rows = [
        {"area_from": low, "area_to": high, "use": use, "decided_by": "bin"} | NOTHING for low, high in sizes
    ]
    return lambda content: content.update(bins=rows)


def address(place: Place) -> str:
    """A number whose type says, in the file, that it is kept elsewhere: NumPy would read the address as the number."""
    torch.save(
        {"model": torch.load(place.published, weights_only=True), "AP": np.float64(3.5)}, place.published
    )
    file = place.root / "forged.pth"
    with zipfile.ZipFile(place.published) as sound, zipfile.ZipFile(file, "w") as forged:
        for entry in sound.infolist():
            content = sound.read(entry)
            if entry.filename.endswith("data.pkl"):
                # The flags are the last of the type's state.
                at = content.index(b"t", content.index(b"J\xff\xff\xff\xff"))
                assert content[at - 2 : at] == b"K\0"
                content = content[: at - 1] + b"\4" + content[at:]
            forged.writestr(entry.filename, content)
    text = place.take(file)
    assert json.loads((place.root / "imported/model.json").read_text())["imported"]["said"] == {"AP": 3.5}
    return text


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def trap(place: Place, file: Path, read: Callable[[], str]) -> str:
    sprung = place.root / "sprung"
    if file.suffix == ".pth":
        torch.save({"ins_head.cate_pred.bias": Trap(sprung)}, file)
    else:
        file.write_bytes(pickle.dumps({"res2_0_branch1_w": Trap(sprung)}))
    try:
        return read()
    finally:
        assert not sprung.exists()


def started(network: Callable[[], SOLOv2]) -> Callable[[Place], str]:
    """A student starts from the model."""

    def act(place: Place) -> str:
        path = place.model / "model.safetensors"
        path.write_bytes(save(load_file(path) | {BIAS: torch.tensor([1.0, torch.nan])}))
        model = network()
        before = {key: value.clone() for key, value in model.state_dict().items()}
        try:
            start_from("train_student", model, place.model, ["a", "b"])
        finally:
            assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
        return "started"

    return act


def teaches(place: Place) -> str:
    """As pseudo_label, evaluate and compare read a model."""
    path = place.model / "model.safetensors"
    path.write_bytes(save(load_file(path) | {BIAS: torch.tensor([1.0, torch.nan])}))
    return str(load_teacher(place.model, torch.device("cpu")))


def deep_gate(place: Place) -> str:
    (place.refiner / "gate.json").write_text("[" * 100_000)
    return place.predict()


def own_network() -> SOLOv2:
    return SOLOv2(SOLOv2Config.model_validate({**SOLOV2, "backbone": NORMED}), 2)


def backbone(spoil: Callable[[dict[str, Tensor]], object]) -> Callable[[Place], str]:
    """`model.backbone.weights` of params.yaml names a file."""

    def act(place: Place) -> str:
        state = own_network().backbone.body.state_dict()
        spoil(state)
        file = place.root / "backbone.safetensors"
        save_file(state, file)
        config = BackboneConfig.model_validate({**NORMED, "weights": str(file)})

        def build() -> nn.Module:
            return SOLOv2(SOLOv2Config.model_validate({**SOLOV2, "backbone": config.model_dump()}), 2)

        new_network("model", config, build)
        return "built"

    return act


def resumed(state: Callable[[], Any]) -> Callable[[Place], str]:
    """A training goes on from a state that has the right hash."""

    def act(place: Place) -> str:
        states = States("train", place.root / "resume", "key", 2, ())
        states.save(4, {"model": {"a": torch.ones(3)}, "history": []})
        path = place.root / "resume/key/state_0000004.pt"
        torch.save(state(), path)
        about = path.with_suffix(".json")
        about.write_text(
            json.dumps({"step": 4, "key": "key", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
        )
        return str(states.load()[0])

    return act


def stranger(place: Place) -> str:
    """Names among the states that no training gave."""
    states = States("train", place.root / "resume", "key", 2, ())
    states.save(4, {"model": {"a": torch.ones(3)}, "history": []})
    for name in ("state_x.json", "state_-1.json", "state_99999999999999999999999.json"):
        (place.root / "resume/key" / name).write_text("{}")
    return str(states.load()[0])


NAN, INF = float("nan"), float("inf")
LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n" for old, new in pairwise("abcdefghi")
)
FILE, WEIGHTS = "model.json", "model.safetensors"
ATTACKS = [
    Attack("a sound model", Place.predict, ("'images': 1",), refused=False),
    # --- numbers
    Attack("a weight is NaN", spoilt(CONV, at_first(NAN)), (WEIGHTS, CONV, "found nan at [0, 0, 0, 0] (1 of")),
    Attack("a weight is infinite", spoilt(BIAS, at_first(-INF)), (WEIGHTS, BIAS, "found -inf at [0]", "finite")),
    Attack("the refiner has a NaN", spoilt("head.bias", at_first(NAN), "refiner"), ("refiner/" + WEIGHTS, "head.bias")),
    Attack("NaN and infinity cancel in no sum", spoilt(CONV, lambda w: at_first(INF)(w.neg())), (CONV, "found inf")),
    Attack("a variance below 0", spoilt(VARIANCE, at_first(-0.5)), (VARIANCE, "found -0.5 at [0]", "0 or more")),
    Attack("whole numbers for floats", spoilt(CONV, lambda w: w.long()), (CONV, "found numbers of type int64")),
    Attack("complex numbers", spoilt(CONV, lambda w: w.to(torch.complex64)), (CONV, "complex64", "float32")),
    Attack("truth values", spoilt(BIAS, lambda w: w > 0), (BIAS, "type bool")),
    Attack("a counter of fractions", spoilt(COUNTER, lambda w: w.float()), (COUNTER, "type float32", "int64")),
    Attack("doubles too large for floats", spoilt(BIAS, lambda w: w.double() + 1e300), (BIAS, "1e+300")),
    Attack("finite weights, infinite outputs", spoilt(CONV, lambda w: w * 0 + 3e38), ("image.png", "NaN or infinite")),
    Attack("float16 is read as float32", weights(half), ("'images': 1",), refused=False),
    Attack("bfloat16 too", weights(lambda p: half(p, torch.bfloat16)), ("'images': 1",), refused=False),
    # --- model.safetensors
    Attack("a tensor is missing", header(lambda h: h.pop(BIAS)), (WEIGHTS,)),
    Attack("two tensors at one place", header(lambda h: h.update({BIAS: h[CONV]})), (WEIGHTS, "damaged")),
    Attack("a tensor more", weights(lambda p: save_file(load_file(p) | {"x": torch.ones(1)}, p)), ("x: not in this",)),
    Attack("another shape", spoilt(BIAS, lambda w: w.repeat(2)), (f"{BIAS}: found shape [4], expected [2]",)),
    Attack("a cut file", weights(lambda p: p.write_bytes(p.read_bytes()[:-9])), (WEIGHTS, "damaged", "copy the")),
    Attack("a cut header", weights(lambda p: p.write_bytes(p.read_bytes()[:99])), (WEIGHTS, "damaged")),
    Attack("a header of 2^63 bytes", weights(lambda p: p.write_bytes(struct.pack("<Q", 2**63) + b"{}")), (WEIGHTS,)),
    Attack("an empty file", weights(lambda p: p.write_bytes(b"")), (WEIGHTS, "damaged")),
    Attack("a pickle by that name", lambda p: trap(p, p.model / WEIGHTS, p.predict), (WEIGHTS, "damaged")),
    Attack("a folder in its place", weights(instead(lambda p: p.mkdir())), (WEIGHTS, "no regular file")),
    Attack("a pipe in its place", weights(instead(os.mkfifo)), (WEIGHTS, "no regular file")),
    Attack("a link to itself", weights(instead(lambda p: p.symlink_to(p))), (WEIGHTS,)),
    # --- model.json
    Attack("a deviation of 0", put("config.pixel_std.1", 0.0), (FILE, "config.pixel_std.1: found 0.0")),
    Attack("a negative deviation", put("config.pixel_std.0", -1.0), ("config.pixel_std.0: found -1.0",)),
    Attack("a deviation that float32 doesn't have", put("config.pixel_std.0", 1e-60), ("pixel_std.0: found 1e-60",)),
    Attack("a mean beyond float", replaced("123.675", "1e999"), ("config.pixel_mean.0: found inf",)),
    Attack("NaN for a mean", replaced("123.675", "NaN"), (FILE, "NaN isn't a number of JSON")),
    Attack("classes out of order", put("categories", CATEGORIES[::-1]), (FILE, "found id 3 after 7, expected")),
    Attack("an id twice", put("categories.1.id", 3), ("categories", "found id 3 after 3")),
    Attack("a name twice", put("categories.1.name", "disc"), ("found the name 'disc' 2 times",)),
    Attack("no classes", put("categories", []), (FILE, "categories: found []")),
    Attack("a class without a name", put("categories.0.name", ""), ("categories.0.name: found ''",)),
    Attack("an id that is text", put("categories.0.id", "3"), ("categories.0.id: found '3'",)),
    Attack("a name of half a character", put("categories.0.name", "\ud800"), ("categories.0.name",)),
    Attack("another class", put("categories", [*CATEGORIES, {"id": 9, "name": "x"}]), (BIAS, "expected [3]")),
    Attack("no config", edited(lambda m: m.pop("config")), (FILE, "config: missing")),
    Attack("a config that is a list", put("config", [1]), (FILE, "config: found [1]")),
    Attack("a backbone that is text", put("config.backbone", "resnet18"), ("config.backbone: found 'resnet18'",)),
    Attack("no input", edited(lambda m: m.pop("input")), (FILE, "input")),
    Attack("an input of 10^9 pixels", put("input.short_side", 10**9), (FILE, "input.short_side", "1000000000")),
    Attack("a grid of 10^9 cells", put("config.grids.0", 10**9), ("config.grids.0: found 1000000000",)),
    Attack("a layer of 10^9 channels", put("config.fpn_channels", 10**9), ("config.fpn_channels",)),
    Attack("10^6 blocks", put("config.head_convs", 10**6), ("config.head_convs",)),
    Attack("10^6 levels", put("config.grids", [8] * 10**6), ("config.grids",)),
    Attack("layers that are large together", put("config.backbone.width", 16.0), (FILE, "a network of")),
    Attack("10^19 detections", put("inference.max_detections", 10**19), ("inference.max_detections",)),
    Attack("a decay of nothing", put("inference.nms_sigma", 0.0), ("inference.nms_sigma: found 0.0",)),
    Attack("a number of 5,000 digits", replaced("123.675", "9" * 5000), (FILE, "not JSON", "copy the checkpoint")),
    Attack("100,000 brackets", written("[" * 100_000), (FILE, "nested too deeply")),
    Attack("a note nested deeply", replaced('"format"', '"x": ' + "[" * 900 + "]" * 900 + ', "format"'), refused=False),
    Attack("a key twice", replaced('"format": 1', '"format": 1, "format": 1'), (FILE, "key 'format' 2 times")),
    Attack("bytes that are no text", written(b"\xff\xfe{}"), (FILE, "not JSON")),
    Attack("model.json is 100 MB", written(b" " * (100 << 20)), (FILE, "104857600 bytes", "at most")),
    Attack("a wrong key of the config", put("config.grid", 1), ("config.grid: found 1",)),
    Attack("notes that are text", put("imported", "yes"), ("imported: found 'yes'",)),
    # --- gate.json
    Attack("crops of nothing", gate(lambda g: g.update(enlarge=0.0)), ("refiner/gate.json", "enlarge", "found 0.0")),
    Attack("10^9 rounds", gate(lambda g: g.update(rounds=10**9)), ("gate.json", "rounds", "found 1000000000")),
    Attack("sizes that fall", gate(bins((0, 9.0), (4.0, None))), ("gate.json", "9.0 before 4.0, expected sizes that")),
    Attack("a refusal without a reason", gate(bins((0, None), use=False)), ("gate.json", "none measured from 0.0")),
    Attack("a gate in 100,000 brackets", deep_gate, ("gate.json", "nested too deeply")),
    # --- other readers
    Attack("a teacher with a NaN", teaches, (WEIGHTS, BIAS, "found nan")),
    Attack("a student starts from NaN", started(own_network), (WEIGHTS, BIAS, "found nan at [1]")),
    Attack("a backbone with a NaN", backbone(lambda s: s["conv1.weight"].fill_(NAN)), ("backbone.weights", "nan")),
    Attack("a backbone below 0", backbone(lambda s: s["bn1.running_var"].fill_(-1)), ("bn1.running_var: found -1",)),
    Attack("a state with a NaN", resumed(lambda: {"model": {"a": torch.tensor([NAN])}}), ("a: found nan",)),
    Attack("a state that is a list", resumed(lambda: [1]), ("state_0000004.pt", "remove", "starts over")),
    Attack("a state without random numbers", resumed(lambda: {"model": {}}), ("state_0000004.pt", "random")),
    Attack("states with odd names", stranger, ("4",), refused=False),
    # --- import-checkpoint
    Attack("a sound file", lambda p: p.take(p.published), ("3 classes",), refused=False),
    Attack("a NaN in it", published(lambda s: s["ins_head.cate_pred.bias"].fill_(NAN)), ("cate_pred.bias: found nan",)),
    Attack("doubles", published(lambda s: s.update({k: v.double() for k, v in s.items()})), refused=False),
    Attack("tensors that share memory", published(lambda s: s.update(
        {k: s["ins_head.cate_tower.1.weight"] for k in s if k.startswith("ins_head.cate_tower.1.")}
    )), ("3 classes",), refused=False),
    Attack("sizes without numbers", published(wide), ("student.pth",)),
    Attack("a packed file that grows", packed, ("bomb.pth", "would unpack to")),
    Attack("code in a .pth", lambda p: trap(p, p.root / "x.pth", lambda: p.take(p.root / "x.pth")), ("run code",)),
    Attack("code in a .pkl", lambda p: trap(p, p.root / "x.pkl", lambda: p.take(p.root / "x.pkl")), ("Don't trust",)),
    Attack("tensors in two places", published(lambda s: s.update(
        {"model": dict(s), "state_dict": dict(s)}
    )), ("model, state_dict", "one of them")),
    Attack("names with and without a prefix", published(lambda s: s.update(
        {f"module.{k}": v for k, v in list(s.items())}
    )), ("module.ins_head.cate_pred.bias: unknown",)),
    Attack("a number beyond float beside them", published(lambda s: s.update(
        model=dict(s), last_itr=10**400
    )), ("3 classes",), refused=False),
    Attack("a number that is an address", address, ("3 classes",), refused=False),
    Attack("a config of laughs beside it", beside(LAUGHS), ("config.yaml", "not readable as YAML")),
    Attack("a config of brackets", beside("MODEL: {SOLOV2: {NUM_GRIDS: '" + "(" * 9999 + "'}}"), ("NUM_GRIDS",)),
    Attack("a config of 10^9 cells", beside("MODEL: {SOLOV2: {NUM_GRIDS: [1000000000, 9, 9, 9, 9]}}"), ("grids.0",)),
    Attack("a config of inputs of 10^9 pixels", beside(
        "{MODEL: {SOLOV2: {}}, INPUT: {MIN_SIZE_TEST: 1000000000}}"
    ), ("short_side", "1000000000")),
    Attack("a config of a score above 1", beside("MODEL: {SOLOV2: {SCORE_THR: 2.0}}"), ("score_threshold",)),
    Attack("a pipe for a config", lambda p: [
        os.mkfifo(p.root / "c"), import_checkpoint(
            p.published, p.root / "out", categories=None, settings=None, config=p.root / "c"
        ),
    ][1].text, ("not a regular file",)),
    Attack("sparse tensors", published(lambda s: s.update(
        {"ins_head.cate_pred.bias": s["ins_head.cate_pred.bias"].to_sparse()}
    )), ("cate_pred.bias: found a sparse",)),
    Attack("tensors of no memory", published(lambda s: s.update(
        {"ins_head.cate_pred.bias": s["ins_head.cate_pred.bias"].to("meta")}
    )), ("student.pth",)),
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=[attack.name for attack in ATTACKS])
def test_checkpoints(attack: Attack, place: Place) -> None:
    check(attack, place, (DataError, TaskError, CheckpointError))  # those that stage_main prints


def places_of(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where a JSON document has a value, itself left out."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [(*at, key) for key, _ in inner]
    return found + [place for key, one in inner for place in places_of(one, (*at, key))]


LARGE = (10**6, 2**31, 10**9, 2**63, 10**19, 10**400, -(10**9))
SIMPLE = (
    st.none()
    | st.booleans()
    | st.integers(-3, 40)
    | st.sampled_from(LARGE)
    | st.floats()
    | st.text(max_size=4)
)
ANYTHING = st.recursive(
    SIMPLE, lambda one: st.lists(one, max_size=4) | st.dictionaries(st.text(max_size=4), one)
)
DOUBLE = "THE OTHER ONE"


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_edit_of_model_json_is_refused_or_works(
    sound: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("edited")
    meta = json.loads((sound / "model/model.json").read_text())
    *above, last = data.draw(st.sampled_from(places_of(meta)))
    inner = meta
    for key in above:
        inner = inner[key]
    match data.draw(st.sampled_from(("another value", "another's value", "away", "twice"))):
        case "another value":
            inner[last] = data.draw(ANYTHING)
        case "another's value":
            other = meta
            for key in data.draw(st.sampled_from(places_of(meta))):
                other = other[key]
            inner[last] = copy.deepcopy(other)
        case "away":
            del inner[last]
        case _ if isinstance(inner, dict):
            inner[DOUBLE] = data.draw(st.just(inner[last]) | ANYTHING)
    (folder / "model").mkdir()
    os.link(sound / "model/model.safetensors", folder / "model/model.safetensors")
    text = json.dumps(meta).replace(json.dumps(DOUBLE), json.dumps(str(last)))
    (folder / "model/model.json").write_text(text)
    refusal = None
    try:
        predict_images(
            [sound / "image.png"], folder / "model", folder / "out", compat=data.draw(st.booleans()), points=None,
            refiner=None, params=None, short_side=None, max_side=None, device="cpu",
        )  # fmt: skip
    except TaskError as error:
        refusal = str(error)
    if refusal is None:
        json.loads((folder / "out/results.json").read_text())
        assert DOUBLE not in json.dumps(meta)
    else:
        assert str(folder / "model") in refusal or "image.png" in refusal
