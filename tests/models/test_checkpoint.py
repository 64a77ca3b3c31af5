from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from models.checkpoint import build_model, load_checkpoint, load_meta, save_checkpoint
from models.refiner.network import MaskRefineNet
from models.solov2.network import SOLOv2
from models.weights import CheckpointError

CATEGORIES = [{"id": 3, "name": "disc"}, {"id": 7, "name": "étoile"}]


def meta_of(kind: str, model: nn.Module) -> dict:
    return {
        "format": 1,
        "kind": kind,
        "config": model.config.model_dump(mode="json"),
        "categories": CATEGORIES,
    }


@pytest.fixture
def solov2(solov2_config) -> SOLOv2:
    return SOLOv2(solov2_config(), 2)


def test_solov2_round_trip(solov2: SOLOv2, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "teacher", solov2.state_dict(), meta_of("solov2", solov2))
    again = build_model(tmp_path / "teacher")
    assert isinstance(again, SOLOv2)
    assert again.categories == CATEGORIES
    assert again.config == solov2.config
    assert not again.training
    assert not any(p.requires_grad for p in again.parameters())
    x = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(again(x).mask_features, solov2.eval()(x).mask_features)


def test_refinenet_round_trip(refinenet_config, tmp_path: Path) -> None:
    model = MaskRefineNet(refinenet_config())
    save_checkpoint(tmp_path, model.state_dict(), meta_of("refinenet", model))
    again = build_model(tmp_path)
    assert isinstance(again, MaskRefineNet)
    assert all(
        torch.equal(a, b)
        for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True)
    )


def test_a_checkpoint_needs_no_file_its_training_began_with(solov2: SOLOv2, tmp_path: Path) -> None:
    meta = meta_of("solov2", solov2)
    meta["config"]["backbone"]["weights"] = "/gone/resnet18.pth"
    save_checkpoint(tmp_path, solov2.state_dict(), meta)
    build_model(tmp_path)
    assert load_meta(tmp_path)["config"]["backbone"]["weights"] == "/gone/resnet18.pth"


def test_same_weights_give_the_same_bytes(solov2: SOLOv2, tmp_path: Path) -> None:
    state, meta = solov2.state_dict(), meta_of("solov2", solov2)
    save_checkpoint(tmp_path / "a", state, meta)
    save_checkpoint(tmp_path / "b", dict(reversed(state.items())), dict(reversed(meta.items())))
    for name in ("model.safetensors", "model.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_saving_replaces_an_older_one_and_leaves_no_scraps(solov2: SOLOv2, tmp_path: Path) -> None:
    meta = meta_of("solov2", solov2)
    save_checkpoint(tmp_path / "c", solov2.state_dict(), meta)
    (tmp_path / "c" / "log.jsonl").write_text("{}\n")
    changed = {key: value + 1 for key, value in solov2.state_dict().items()}
    save_checkpoint(tmp_path / "c", changed, meta)
    state, _ = load_checkpoint(tmp_path / "c")
    assert all(torch.equal(state[key], changed[key]) for key in changed)
    assert {p.name for p in tmp_path.rglob("*")} == {"c", "model.safetensors", "model.json", "log.jsonl"}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda p: (p / "model.json").unlink(), "model.json: not found"),
        (lambda p: (p / "model.safetensors").unlink(), "model.safetensors: not found"),
        (lambda p: (p / "model.json").write_text("{"), "not JSON"),
        (lambda p: (p / "model.safetensors").write_bytes(b"torch"), "damaged"),
        (lambda p: edit(p, format=2), "found format 2, expected 1"),
        (lambda p: edit(p, kind="yolo"), "kind: found 'yolo'"),
        (lambda p: edit(p, config={}), "config is incomplete"),
        (lambda p: edit(p, categories=[*CATEGORIES, {"id": 9, "name": "x"}]), "do not fit"),
    ],
)
def test_a_damaged_checkpoint_says_what_is_wrong(solov2: SOLOv2, tmp_path: Path, spoil, reason: str) -> None:
    save_checkpoint(tmp_path, solov2.state_dict(), meta_of("solov2", solov2))
    spoil(tmp_path)
    with pytest.raises(CheckpointError, match=reason) as caught:
        build_model(tmp_path)
    assert str(tmp_path) in str(caught.value)


def edit(folder: Path, **changes: object) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_meta_without_its_keys_is_refused(solov2: SOLOv2, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"(?s)config: missing.*categories: missing"):
        save_checkpoint(tmp_path / "d", solov2.state_dict(), {"format": 1, "kind": "solov2"})
    assert not (tmp_path / "d").exists()
