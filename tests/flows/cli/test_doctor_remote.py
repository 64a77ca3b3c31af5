"""The doctor's look at the remote that runs push to."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.cli.doctor import check_remote
from flows.dvc.remote_setup import set_up
from tasks.common.config import Params, load_params
from tasks.doctor.finding import Diagnosis
from tests.flows.conftest import Toy
from tests.tasks.conftest import ROOT


def params(folder: Path, push: bool) -> Params:
    recipe: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    recipe["operate"]["push"] = push
    (folder / "whole.yaml").write_text(yaml.safe_dump(recipe))
    return load_params(folder / "whole.yaml")


def examine(toy: Toy, push: bool = True) -> Diagnosis:
    diagnosis = Diagnosis()
    check_remote(toy.root, params(toy.root, push), diagnosis)
    return diagnosis


def test_a_remote_is_looked_at_only_where_a_run_pushes(
    toy: Toy, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert examine(toy, push=False) == Diagnosis()
    (missing,) = examine(toy).errors
    assert missing.check == "remote" and "no default remote is set" in missing.fault.found
    store = tmp_path_factory.mktemp("store")
    set_up(toy.root, "store", {"url": str(store)}, share=True, replace=False, seconds=60)
    assert examine(toy) == Diagnosis()
    shutil.rmtree(store)
    store.write_text("no folder")
    (unusable,) = examine(toy).errors
    assert "can't be written" in unusable.fault.found and unusable.fault.file == ".dvc/config"
    toy.path(".dvc/config").write_text('[core]\nremote = store\n[remote "store"\nurl = x\n')
    (broken,) = examine(toy).errors
    assert "can't be read" in broken.fault.found


def test_a_server_that_doesnt_answer_now_is_a_warning(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr("flows.cli.doctor.REMOTE_SECONDS", 2.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        toy.path(".dvc/config").write_text(
            '[core]\nremote = store\n[remote "store"]\nurl = s3://b/line\n'
            f"endpointurl = http://127.0.0.1:{silent.getsockname()[1]}\naccess_key_id = a\nsecret_access_key = b\n"
        )
        diagnosis = examine(toy)
    assert not diagnosis.errors and "no response in 2 s" in diagnosis.warnings[0].fault.found
