"""Data, params and code of an entry, from dvc.lock."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

from flows.registry.provenance import inputs_of

LOCK: dict[str, Any] = {
    "schema": "2.0",
    "stages": {
        "ingest": {
            "cmd": "python -m tasks.ingest",
            "deps": [
                {"path": "workspace/code/ingest.json", "md5": "111"},
                {"path": "data/images", "md5": "2.dir"},  # someone's own folder of that name
                {"path": "s3://bucket/masks", "etag": "333"},
                {"path": "odd", "size": 7},
            ],
            "params": {"params.yaml": {"ingest": {"images": "data/images"}}},
        },
        "train": {
            "cmd": "python -m tasks.train",
            "deps": [
                {"path": "workspace/code/train.json", "md5": "444"},
                {"path": "workspace/dataset", "md5": "5.dir"},
            ],
            "params": {"params.yaml": {"promotion.repeats": 3, "seed": 0, "student": {"lr": 1.0}}},
        },
        "compare": {"cmd": "c", "params": {"params.yaml": {"promotion": {"repeats": 3, "bootstrap": 9}}}},
        "stranger": {"cmd": "true", "deps": [{"path": "elsewhere", "md5": "666"}]},
    },
}


def test_data_params_and_sources(tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump(LOCK))
    found = inputs_of(tmp_path, ["ingest", "train", "not run"])
    assert found.data == {
        "data/images": "2.dir", "odd": None, "s3://bucket/masks": "333", "workspace/dataset": "5.dir",
    }  # fmt: skip
    assert found.params == {
        "ingest": {"images": "data/images"}, "promotion.repeats": 3, "seed": 0, "student": {"lr": 1.0},
    }  # fmt: skip
    # A key that a stage depends on alone is in its section where another stage depends on that.
    assert inputs_of(tmp_path, ["train"]).params["promotion.repeats"] == 3
    both = {"promotion": {"repeats": 3, "bootstrap": 9}, "seed": 0, "student": {"lr": 1.0}}
    assert inputs_of(tmp_path, ["train", "compare"]).params == both
    other = copy.deepcopy(LOCK)
    other["stages"]["ingest"]["deps"][0]["md5"] = "777"
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump(other))
    changed = inputs_of(tmp_path, ["ingest", "train"])
    assert changed.sources != found.sources and changed.data == found.data


def test_without_a_lock(tmp_path: Path) -> None:
    assert inputs_of(tmp_path, ["ingest"]).data == {}
