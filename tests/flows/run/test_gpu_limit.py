"""Stages that want a GPU wait for each other, across runs."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect import get_client
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings

from flows.run.gpu_limit import GPU_TAG, ensure_gpu_limit
from tests.flows.conftest import Toy

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def no_limit() -> Iterator[None]:
    """The server is shared with other tests, which know of no limit."""
    _forget()
    yield
    _forget()


def _forget() -> None:
    with get_client(sync_client=True) as client, contextlib.suppress(ObjectNotFound):
        client.delete_concurrency_limit_by_tag(GPU_TAG)


@pytest.mark.usefixtures("no_limit")
def test_the_limit_is_made_once_and_a_users_own_stays() -> None:
    assert ensure_gpu_limit() == 1
    assert ensure_gpu_limit() == 1
    _forget()
    with get_client(sync_client=True) as client:
        client.create_concurrency_limit(tag=GPU_TAG, concurrency_limit=4)
        assert ensure_gpu_limit() == 4
        assert client.read_concurrency_limit_by_tag(GPU_TAG).concurrency_limit == 4


@pytest.mark.slow
@pytest.mark.usefixtures("no_limit")
def test_two_runs_never_use_the_gpu_at_once(
    blank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", str(get_current_settings().api.url))
    ensure_gpu_limit()
    toys = []
    for name in ("one", "two"):
        toys.append(Toy(shutil.copytree(blank, tmp_path / name)))
        toys[-1].set(b="take your time")
    runs = [toy.cli("run", "--target", "b", "--json") for toy in toys]
    said = [run.communicate(timeout=200)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    spans = sorted([float(word) for word in toy.path("span.txt").read_text().split()] for toy in toys)
    assert spans[0][1] <= spans[1][0], f"both used the GPU: {spans}"
    assert spans[1][0] - spans[0][1] < 60, "the second waits for no longer than it must"
