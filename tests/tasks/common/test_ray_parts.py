"""What is reported where there is no Ray; with it: tests/tasks/test_on_ray.py."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from tasks.common import processes
from tasks.common.errors import TaskError
from tasks.common.ray_parts import worker_hardware
from tests.tasks.conftest import tiny_recipe

ADDRESS = "head:6379"


def test_ray_is_not_installed(params_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny_recipe()
    recipe["runtime"]["ray"] = ADDRESS
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        TaskError, match=r"runtime\.ray: found head:6379, .*`pip install 'points2model\[ray\]'`"
    ):
        worker_hardware("evaluate", params_of(recipe))


def test_torchrun_and_ray(params_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny_recipe()
    recipe["runtime"]["ray"] = ADDRESS
    monkeypatch.setitem(sys.modules, "ray", type(sys)("ray"))
    monkeypatch.setattr(processes, "count", lambda: 2)
    with pytest.raises(TaskError, match="in one of 2 processes; start the step without torchrun"):
        worker_hardware("evaluate", params_of(recipe))
