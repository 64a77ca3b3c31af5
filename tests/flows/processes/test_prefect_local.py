"""Prefect's settings, made before it is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.processes.login import API, set_client_login
from tasks.common.errors import TaskError
from tests.tasks.conftest import ROOT

PROXIES = "import os, pathlib; from flows.processes.prefect_local import use_local_prefect as use; use(pathlib.Path())"
PROXIES += "; print(os.environ['NO_PROXY'], os.environ['no_proxy'])"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, "127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "a.example,localhost"}, "a.example,localhost,127.0.0.1,::1"),
        ({"NO_PROXY": "a.example", "no_proxy": "b.example"}, "b.example,127.0.0.1,localhost,::1"),
        ({"no_proxy": "*"}, "*"),
    ],
)
def test_this_machine_is_reached_without_a_proxy(tmp_path: Path, before: dict[str, str], after: str) -> None:
    mine = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy" and name != API}
    env = {**mine, "PYTHONPATH": str(ROOT), **before}
    command = [sys.executable, "-c", PROXIES]
    printed = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    ).stdout
    assert printed.split() == [after, after]


@pytest.mark.parametrize(
    "address",
    [
        "http://[::1:4200/api",
        "http://127.0.0.1:port/api",
        "http://127.0.0.1:99999/api",
        "127.0.0.1:4200",
        "http:///api",
    ],
)
def test_an_invalid_address_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv(API, address)
    with pytest.raises(TaskError) as raised:
        set_client_login(tmp_path)
    assert str(raised.value).startswith(
        f"{API}: address: found {address!r}; expected an address such as http://127"
    )
