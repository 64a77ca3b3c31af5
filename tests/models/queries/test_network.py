"""Networks with queries: inputs, weights of a folder, class layers, checkpoints; what can't be used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.checkpoint import build_model, load_checkpoint, load_detector, load_teacher, save_checkpoint
from models.hub import FolderError
from models.queries import network as module
from models.queries.network import QueryNetwork, QueryOutputs, check_keys
from models.queries.pretrained import load_pretrained
from models.weights import CheckpointError
from tests.models.queries.tiny import SETTINGS, SWIN, network, saved

NAMES = ("mask2former", "eomt")
CPU = torch.device("cpu")
PIXELS = ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])


def image(height: int, width: int, count: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("name", NAMES)
def test_outputs(name: str) -> None:
    model = network(name)
    layers = {"mask2former": 3, "eomt": 3}[name]
    found = model(image(64, 96), [(60, 90)])
    assert len(found.class_logits) == len(found.mask_logits) == layers
    for logits, maps in zip(found.class_logits, found.mask_logits, strict=True):
        assert logits.shape == (1, 10, 4) and maps.shape == (1, 10, 16, 24)
    last = model.eval()(image(64, 96), [(60, 90)])
    assert [len(part) for part in last] == [1, 1]
    with pytest.raises(ValueError, match="multiples of 32"):
        model(image(64, 90))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_in_the_padding_has_no_effect(name: str) -> None:
    model, one = network(name).eval(), image(64, 64)
    other = one.clone()
    other[..., 50:] = 255
    other[..., 40:, :] = 0
    first, second = (model(x, [(40, 50)]) for x in (one, other))
    assert torch.equal(first.mask_logits[0], second.mask_logits[0])
    assert not torch.equal(model(one, [(64, 64)]).mask_logits[0], first.mask_logits[0])


def test_a_square_network_pads_and_cuts() -> None:
    model = network("eomt").eval()
    small, whole = image(64, 32), torch.zeros(1, 3, 96, 96, dtype=torch.uint8)
    whole[..., :64, :32] = small
    first, second = model(small, [(64, 32)]), model(whole, [(64, 32)])
    assert torch.allclose(first.mask_logits[0], second.mask_logits[0][..., :16, :8], atol=1e-5)
    with pytest.raises(ValueError, match="found 64 x 128 pixels, expected at most 96"):
        model(image(64, 128))
    assert "predict" not in vars(model.network)


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_of_ours(name: str, tmp_path: Path) -> None:
    """Loading needs neither hub nor the first folder, and gives the same network."""
    model = network(name).eval().requires_grad_(False)
    meta = {
        "format": 1, "kind": name, "config": model.config.model_dump(mode="json"),
        "categories": [{"id": n, "name": f"c{n}"} for n in range(3)],
    }  # fmt: skip
    save_checkpoint(tmp_path / "a", model.state_dict(), meta)
    loaded = load_detector(tmp_path / "a", CPU)
    assert isinstance(loaded, QueryNetwork) and loaded.categories == meta["categories"]
    assert not loaded.training
    first, second = model(image(64, 64)), loaded(image(64, 64))
    assert torch.equal(first.mask_logits[0], second.mask_logits[0])
    with pytest.raises(CheckpointError, match=f"found a {name}, expected a SOLOv2"):
        load_teacher(tmp_path / "a", CPU)
    damaged = json.loads((tmp_path / "a" / "model.json").read_text())
    damaged["config"]["network"]["num_queries"] = 11
    (tmp_path / "a" / "model.json").write_text(json.dumps(damaged))
    with pytest.raises(CheckpointError, match=r"found shape \[10, 32\], expected \[11, 32\]"):
        load_checkpoint(tmp_path / "a")
    damaged["config"]["network"]["num_queries"] = "many"
    (tmp_path / "a" / "model.json").write_text(json.dumps(damaged))
    with pytest.raises(CheckpointError, match="num_queries"):
        build_model(tmp_path / "a")


def test_an_untrusted_config_fetches_nothing(tmp_path: Path) -> None:
    """A backbone that transformers would fetch by name is refused, or its name has no effect."""
    timm = {
        "backbone_config": {
            "model_type": "timm_backbone",
            "backbone": "resnet18",
            "use_pretrained_backbone": True,
        }
    }
    with pytest.raises(FolderError, match=r"backbone_config\.model_type 'timm_backbone'; expected swin or"):
        network(**timm)
    with pytest.raises(FolderError, match="backbone_config"):
        network(backbone_config="facebook/some")
    named = network(
        backbone="owner/no-such-model", use_timm_backbone=True, attn_implementation="owner/kernel"
    )
    assert named.settings.backbone_config.model_type == "swin"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"feature_size": 16}, "transformers makes no mask2former of"),
        ({"num_queries": 0}, "num_queries 0; expected a number from 1 on"),
        ({"mask_weight": float("nan")}, "mask_weight nan; expected a number from 0 on"),
        ({"no_such_key_num": 1, "num_attention_heads": 3}, "transformers makes no mask2former of"),
        ({"backbone_config": SWIN | {"depths": "deep"}}, "transformers makes no mask2former of"),
    ],
)
def test_settings_that_make_no_network(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(FolderError, match=text):
        network(**changes)


@pytest.mark.parametrize(
    ("changes"), [{"image_size": 100}, {"image_size": [96, 64]}, {"num_upscale_blocks": 0}]
)
def test_squares_that_make_no_network(changes: dict[str, Any]) -> None:
    with pytest.raises(FolderError, match="expected a multiple of 32"):
        network("eomt", **changes)


@pytest.mark.parametrize("blocks", [0, 4])
def test_queries_that_no_layer_sees(blocks: int) -> None:
    with pytest.raises(FolderError, match=rf"num_blocks {blocks}; expected 1 to 3"):
        network("eomt", num_blocks=blocks)


def test_unknown_keys() -> None:
    """Which transformers would ignore."""
    for name, settings in SETTINGS.items():
        check_keys(name, settings | {"model_type": name, "dtype": "float32"})
    wrong = {"num_querys": 5, "dice_weight": 2.0, "backbone_config": SWIN | {"drop_path": 0.1}}
    text = r"num_querys \(num_queries\?\), backbone_config\.drop_path \(drop_path_rate\?\); expected those of a Mask2"
    with pytest.raises(FolderError, match=text):
        check_keys("mask2former", wrong)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("queries")

    def folder(name: str) -> Path:
        return (
            root / name
            if (root / name).is_dir()
            else saved(name, root / name, ["cat", "apple", "pear"], seed=3)
        )

    return folder


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_a_folder(name: str, folder_of: Callable[[str], Path]) -> None:
    """All but the class layer are the folder's; of the class layer the rows of equal names and `no object`."""
    folder = folder_of(name)
    torch.manual_seed(11)
    model, known = load_pretrained(name, folder, {}, PIXELS, ["pear", "kiwi", "cat", "plum"])
    assert known == ["pear", "cat"]
    file = load_file(folder / "model.safetensors")
    own = {key.removeprefix("network."): value for key, value in model.state_dict().items()}
    classes = {key for key in own if key.startswith("class_predictor.")}
    assert len(classes) == 2
    compared = [key for key in own if key not in classes and key in file]
    assert len(compared) > 30
    assert all(torch.equal(own[key], file[key]) for key in compared)
    for key in classes:
        assert own[key].shape[0] == 5
        for ours, theirs in ((0, 2), (2, 0), (4, 3)):
            assert torch.equal(own[key][ours], file[key][theirs])
    for row in (1, 3):  # biases may start as 0
        weight = own["class_predictor.weight"][row]
        assert not any(torch.equal(weight, one) for one in file["class_predictor.weight"])
    assert model.config.pixel_mean == (1.0, 2.0, 3.0)
    # A training's other value, which no weight depends on.
    model, _ = load_pretrained(name, folder, {"train_num_points": 7}, PIXELS, ["a"])
    assert model.settings.train_num_points == 7


def test_pixels_of_a_folder(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folder_of("eomt"), tmp_path / "m")
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.2]}))
    model, _ = load_pretrained("eomt", folder, {}, PIXELS, ["a"])
    assert model.config.pixel_mean == pytest.approx(
        (127.5, 102, 76.5)
    ) and model.config.pixel_std == pytest.approx([51.0] * 3)
    path.write_text("{}")
    with pytest.raises(FolderError, match=r"preprocessor_config\.json without image_mean"):
        load_pretrained("eomt", folder, {}, PIXELS, ["a"])


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def of_pickles(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def of_another_class(folder: Path) -> None:
    change(folder, model_type="maskformer")


def of_the_other(folder: Path) -> None:
    change(folder, model_type="eomt")


def without_a_tensor(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    del state["class_predictor.bias"]
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def not_finite(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state["class_predictor.bias"][0] = torch.nan
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def with_more_queries(folder: Path) -> None:
    change(folder, num_queries=12)


def change(folder: Path, **keys: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (without_weights, r"no model\*\.safetensors in"),
        (of_pickles, "pickles"),
        (of_another_class, "model_type 'maskformer'"),
        (of_the_other, "set student.network.name to eomt"),
        (without_a_tensor, "class_predictor.bias: missing"),
        (not_finite, r"class_predictor\.bias: found nan"),
        (cut_short, "not readable"),
        (with_more_queries, r"found shape \[10, 32\], expected \[12, 32\]"),
    ],
)
def test_a_folder_that_can_not_be_used(
    damage: Callable[[Path], None], text: str, folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(folder_of("mask2former"), tmp_path / "m")
    damage(folder)
    with pytest.raises(FolderError, match=text):
        load_pretrained("mask2former", folder, {}, PIXELS, ["a"])


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "USE", module.USE._replace(packages=("transformers", "no_such_scipy")))
    with pytest.raises(
        FolderError, match=r"no package no_such_scipy.*pip install 'points2model\[students\]'"
    ):
        network()


@pytest.mark.parametrize("name", NAMES)
def test_a_backbones_parts_are_known(name: str) -> None:
    model = network(name)
    of_encoder = sum(p.numel() for part in model.published_parts for p in part.parameters())
    assert 0 < of_encoder < sum(p.numel() for p in model.parameters())
    assert SETTINGS[name]["train_num_points"] == 128
    assert isinstance(model(image(64, 64)), QueryOutputs)
