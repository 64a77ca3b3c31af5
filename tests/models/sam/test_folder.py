from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub.constants
import pytest

from models.hub import OFFLINE, files_of
from models.sam.folder import FAMILIES, USE, SamError, read_family

COMMIT = "0123456789abcdef0123456789abcdef01234567"
COMMAND = (
    "run `hf download owner/model --include 'config.json' --include 'model*.safetensors' --include "
    "'model.safetensors.index.json' --include 'preprocessor_config.json' --local-dir model` on a machine with a network"
)


def made(path: Path, kind: str = "sam", weights: str = "model.safetensors") -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps({"model_type": kind}))
    (path / weights).write_bytes(b"")
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def cached(cache: Path) -> Path:
    """owner/model in the cache, as the hub's package keeps it."""
    (cache / "models--owner--model" / "refs").mkdir(parents=True)
    (cache / "models--owner--model" / "refs" / "main").write_text(COMMIT)
    return made(cache / "models--owner--model" / "snapshots" / COMMIT)


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("sam", "SamModel"),
        ("sam2", "Sam2Model"),
        ("sam2_video", "Sam2Model"),
        ("edgetam", "EdgeTamModel"),
        ("edgetam_video", "EdgeTamModel"),
        ("sam3_tracker", "Sam3TrackerModel"),
        ("sam3_video", "Sam3TrackerModel"),
    ],
)
def test_the_model_of_a_folder(tmp_path: Path, kind: str, model: str) -> None:
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASK_GENERATION_MAPPING_NAMES

    found = read_family(made(tmp_path, kind))
    assert found.model == model == MODEL_FOR_MASK_GENERATION_MAPPING_NAMES[kind]
    assert hasattr(transformers, found.processor)
    assert len(FAMILIES) == 7


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            '{"model_type": "resnet"}',
            "model_type 'resnet' in .*expected a model of one of the types sam, sam2, ",
        ),
        ('{"model_type": "sam_hq"}', "model_type 'sam_hq' in .*name the folder of such a model"),
        ('{"architectures": ["SamModel"]}', "model_type None in"),
        ('{"model_type": ["sam"]}', r"model_type \['sam'\] in"),
        ("[]", "model_type None in"),
        ("{", "config.json that isn't JSON"),
        ("[" * 100_000, "config.json that isn't JSON"),
        (None, "no file .*config.json"),
    ],
)
def test_another_model_is_refused(tmp_path: Path, content: str | None, text: str) -> None:
    path = made(tmp_path) / "config.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(SamError, match=text):
        read_family(tmp_path)


def test_pickles_are_not_read(tmp_path: Path) -> None:
    made(tmp_path, weights="pytorch_model.bin")
    with pytest.raises(SamError, match=re.escape("no model*.safetensors in ") + ".*pickles"):
        read_family(tmp_path)


def test_a_folder_is_used_as_it_is(tmp_path: Path, cache: Path) -> None:
    made(tmp_path / "owner" / "model")
    cached(cache)
    assert USE.find("owner/model", None, tmp_path) == tmp_path / "owner" / "model"
    with pytest.raises(SamError, match="revision v1 with a folder, owner/model; expected null"):
        USE.find("owner/model", "v1", tmp_path)


@pytest.mark.parametrize(
    "weights", ["./sam", "../sam", "/a/sam", "a/b/c", "sam", "owner/", "owner/a b", "a/b..c"]
)
def test_what_is_neither_a_folder_nor_an_id(cache: Path, tmp_path: Path, weights: str) -> None:
    text = f"found no folder {weights}; expected a folder, or the id of a hub model: OWNER/NAME; correct the path"
    with pytest.raises(SamError, match=f"^{re.escape(text)}$"):
        USE.find(weights, None, tmp_path)


def test_a_file_is_no_folder(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner" / "model").write_text("")
    with pytest.raises(SamError, match="found no folder owner/model"):
        USE.find("owner/model", None, tmp_path)
    with pytest.raises(SamError, match="found no folder owner/modle"):  # what is misspelt in a folder of ours
        USE.find("owner/modle", None, tmp_path)


def test_the_cached_copy_of_a_hub_model(cache: Path) -> None:
    assert USE.find("owner/model", None) is None
    copy = cached(cache)
    for revision in (None, "main", COMMIT):
        assert USE.find("owner/model", revision) == copy == USE.fetch("owner/model", revision)
    assert USE.find("owner/model", "v2") is None
    (copy / "model.safetensors").unlink()  # a download that was broken off
    assert USE.find("owner/model", None) is None


def test_a_hub_model_without_a_network(tmp_path: Path) -> None:
    """At an address where nobody listens, as a user's process sees it; it says at once how to get a folder."""
    code = "from models.sam.folder import USE; USE.fetch('owner/model', None)"
    hub = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **hub}, capture_output=True, text=True, check=False
    )
    assert time.monotonic() - started < 40
    text = done.stderr.splitlines()[-1]
    assert (
        "found no folder owner/model, and no hub model of that id in the cache, and it can't be downloaded ("
        in text
    )
    assert f"; expected one of them; {COMMAND}, copy the folder here" in text


def test_a_network_that_may_not_be_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        SamError, match=r"it can't be downloaded .*hf download owner/model --revision v2 --include"
    ):
        USE.fetch("owner/model", "v2")
    for name in OFFLINE:
        monkeypatch.delenv(name, raising=False)
    USE.check_cached("owner/model", None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        SamError, match=f"and HF_HUB_OFFLINE is set; expected one of them; {re.escape(COMMAND)}"
    ):
        USE.check_cached("owner/model", None)


def test_a_missing_package(tmp_path: Path) -> None:
    use = USE._replace(packages=("transformers", "no_such_timm"))
    with pytest.raises(
        SamError, match=re.escape("no package no_such_timm; expected the extra `sam`; run `pip")
    ):
        use.find("owner/model", None, tmp_path)


def test_the_files_on_which_masks_depend(tmp_path: Path) -> None:
    made(tmp_path, weights="model-00001-of-00002.safetensors")
    for name in ("model-00002-of-00002.safetensors", "model.safetensors.index.json", "README.md", "sam.pt"):
        (tmp_path / name).write_text("")
    names = [path.name for path in files_of(tmp_path)]
    shards = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    assert names == ["config.json", *shards, "model.safetensors.index.json"]
    (tmp_path / "preprocessor_config.json").write_text("{}")
    assert [path.name for path in files_of(tmp_path)] == [*names, "preprocessor_config.json"]


def test_nothing_heavy_is_imported() -> None:
    """The doctor and the command line read folders."""
    code = "import sys, models.sam.folder; print({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
