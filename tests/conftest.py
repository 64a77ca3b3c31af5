"""What all tests share."""

from __future__ import annotations

import fcntl
import gc
import importlib.metadata
import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from flows.processes import children
from flows.processes.prefect_local import use_local_prefect
from tasks.common.startup import gc_off
from tests.prefect_processes import make_database
from tests.s3_server import Proxy, environment, proxy, s3_server

if TYPE_CHECKING:
    from tasks.common.config import Params

# Tests are small: threads would only wait for each other. Said before torch is imported, and to every process started.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Persisted results live in PREFECT_HOME, which Prefect's test harness doesn't swap; it must be set before the import.
_prefect_home = tempfile.TemporaryDirectory(prefix="points2model-prefect-")
os.environ["PREFECT_HOME"] = _prefect_home.name  # not setdefault: a worker of `-n` inherits its parent's
use_local_prefect(Path(_prefect_home.name))
# `make test &` in a script ignores Ctrl-C, and so would the processes that tests start and interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes depends on what else the machine does: it says nothing of our code.
# On what is active: where CI is set (.ci/run), Hypothesis draws the same examples each time, so that a run of CI says
# something about the change and not about luck. Elsewhere they are drawn anew, and find what nobody thought of.
hypothesis.settings.register_profile("points2model", hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("points2model")

LONGEST = (
    "test_kill_line.py", "test_arrival_line.py", "test_line.py", "test_kill.py", "test_decide.py", "test_machines.py",
    "test_push.py", "test_on_ray.py", "test_parallel.py", "test_pipeline.py", "test_s3_dvc.py", "test_init.py",
    "test_server.py", "test_main.py", "test_damage.py", "test_doctor.py", "test_trackers.py",
)  # fmt: skip
"""Files that start many processes. They come first, so that no worker of `-n` is left with one of them at the end."""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is made here stays to the end: without garbage collection, 8 s of CPU and not 13, and a tenth less later."""
    with gc_off():
        found = yield
        gc.freeze()
    return found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; the order within a file stays, as some go through a project's life."""
    order = {name: n for n, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(LONGEST)))


@pytest.fixture(autouse=True)
def signal_handlers() -> Iterator[None]:
    """A test that runs a command in this process leaves no handler: a later test's processes would ignore Ctrl-C."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def processes_may_start() -> Iterator[None]:
    """A test that stops everything, as Ctrl-C does, stops no later test's processes."""
    yield
    children.begin()


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of large fixtures beside the repository; absent in a plain clone."""
    folder = Path(__file__).resolve().parents[1] / "../shared"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: no reference fixtures here")
    return folder.resolve()


@dataclass
class Bucket:
    """A bucket of its own on a real S3 server, seen through a proxy that can break answers."""

    name: str
    client: Any  # boto3's, past the proxy
    proxy: Proxy
    endpoint: str  # of the server itself

    def fill(self, objects: dict[str, bytes]) -> None:
        """Stores objects by key."""
        for key, content in objects.items():
            self.client.put_object(Bucket=self.name, Key=key, Body=content)


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3 server, one for all tests."""
    with s3_server(tmp_path_factory.mktemp("s3") / "server.log") as address:
        yield address


@pytest.fixture
def bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A new bucket; boto3 finds the proxy before its server by the environment."""
    import boto3

    with proxy(s3_endpoint) as before:
        for name, value in environment(before.address).items():
            monkeypatch.setenv(name, value)
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
            monkeypatch.delenv(name, raising=False)
        client = boto3.client("s3", endpoint_url=s3_endpoint)
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        client.create_bucket(Bucket=name)
        yield Bucket(name, client, before, s3_endpoint)


@pytest.fixture(scope="session")
def prefect_database(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new database of Prefect, to be copied: making its tables takes longer than all else that a server does at its
    start. Made once for all processes, and kept for later runs of the tests."""
    version = importlib.metadata.version("prefect")
    has_cache = pytestconfig.pluginmanager.hasplugin("cacheprovider")
    folder = pytestconfig.cache.mkdir("prefect") if has_cache else tmp_path_factory.mktemp("prefect")  # type: ignore[union-attr]
    path = folder / f"{version}.db"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            make_database(path)
    return path


@pytest.fixture(scope="session")
def prefect_home(prefect_database: Path) -> None:
    """For servers that our commands start: PREFECT_HOME of this process, with a database in it."""
    assert os.environ["PREFECT_HOME"].startswith(_prefect_home.name)
    if not (database := Path(os.environ["PREFECT_HOME"], "prefect.db")).exists():
        shutil.copy(prefect_database, database)


@pytest.fixture(scope="session")
def prefect_server(prefect_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A temporary Prefect server for flows in this process, one for all tests: starting it takes some seconds."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    assert os.environ["PREFECT_HOME"].startswith(_prefect_home.name)
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(prefect_database, folder / "prefect-test.db")  # the harness's name
    no_heartbeat = temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})
    with pytest.MonkeyPatch.context() as patch, no_heartbeat:
        patch.setattr("prefect.testing.utilities.mkdtemp", lambda: str(folder))
        with prefect_test_harness(server_startup_timeout=240):
            yield


@pytest.fixture(scope="session")
def line(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Params]:
    """A folder in which the tiny line was run up to the pseudo labels, and its params. Copy it before changing it.

    Paths in the recipe are relative, so the tests that use it must `chdir` into the folder.
    """
    from tests.tasks.conftest import TRAINING_STEPS, run_tiny  # torch takes seconds

    folder = tmp_path_factory.mktemp("line")
    return folder, run_tiny(folder, TRAINING_STEPS)
