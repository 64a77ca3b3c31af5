"""Parts on a Ray cluster of two nodes that see neither each other's folders nor the project: the same bytes as here."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest
import yaml

from data.tables import IMAGES, Split, read_arrow, write_arrow
from tasks import evaluate, pseudo_label
from tasks.common.config import Params
from tasks.common.errors import TaskError
from tasks.common.ray_parts import Job, map_parts
from tests.conftest import Bucket
from tests.s3_server import environment
from tests.tasks.conftest import ROOT, tiny_recipe
from tests.tasks.test_pseudo_label import image_counts

ray = pytest.importorskip("ray", reason="the extra `ray` isn't installed")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

WORKSPACE = Path("workspace")
OUTPUTS = ("pseudo", "evaluation")


class Node:
    """A Ray node in processes of its own: its folders have nothing of the project, but its code."""

    def __init__(self, folder: Path, address: str | None, endpoint: str) -> None:
        for name in ("here", "tmp"):
            (folder / name).mkdir(parents=True)
        where = ["--head", "--port", "0"] if address is None else ["--address", address]
        if address is None:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                where[-1] = str(free.getsockname()[1])
            # A path of a socket has at most 107 characters.
            where += ["--include-dashboard", "false", "--temp-dir", str(folder / "ray")]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus", "1", *where]
        variables = {
            "PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "tmp"), "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
        }  # fmt: skip
        self.address = address or f"127.0.0.1:{where[2]}"
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--object-store-memory", str(100 << 20)],
                cwd=folder / "here", env=os.environ | environment(endpoint) | variables, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def kill(self) -> None:
        """SIGKILL to all of its processes: as if the machine lost its power."""
        for one in [*psutil.Process(self.process.pid).children(recursive=True), self.process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self.process.wait()


class Nodes:
    """The cluster: a head, where the driver is too, and a second node."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        self.folder, self.endpoint, self.count = folder, endpoint, 1
        self.head = Node(folder / "0", None, endpoint)
        self.address = self.head.address
        self.second = self._next()

    def _next(self) -> Node:
        node = Node(self.folder / str(self.count), self.address, self.endpoint)
        self.count += 1
        return node

    def wait(self, count: int = 2) -> None:
        """Until the cluster counts so many nodes."""
        until = time.monotonic() + 120
        while self.alive() != count:
            assert time.monotonic() < until, [log.read_text() for log in self.folder.glob("*/log")]
            time.sleep(0.2)

    def alive(self) -> int:
        """How many nodes the cluster counts."""
        if not ray.is_initialized():
            try:
                ray.init(address=self.address, log_to_driver=False, logging_level="ERROR")
            except (ConnectionError, RuntimeError, ValueError):
                return 0
        return sum(node["Alive"] for node in ray.nodes())

    def replace(self) -> None:
        """A new second node, once the killed one isn't counted any more."""
        self.wait(1)
        self.second = self._next()
        self.wait()


@pytest.fixture(scope="module")
def nodes(s3_endpoint: str) -> Iterator[Nodes]:
    # pytest's own folders have too long names for sockets.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    found = Nodes(folder, s3_endpoint)
    try:
        found.wait()
        yield found
    finally:
        ray.shutdown()
        found.second.kill()
        found.head.kill()
        shutil.rmtree(folder, ignore_errors=True)


def with_keys(params: Params, **sections: dict[str, Any]) -> Params:
    """Params with other values of some keys."""
    changed = {name: getattr(params, name).model_copy(update=keys) for name, keys in sections.items()}
    return params.model_copy(update=changed)


@pytest.fixture
def place(
    line: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], None]:
    """Changes into a new copy of the line, whose student is its teacher."""

    def enter(name: str) -> None:
        shutil.copytree(
            line[0] / "workspace",
            tmp_path / name / "workspace",
            ignore=shutil.ignore_patterns("runs", *OUTPUTS),
        )
        monkeypatch.chdir(tmp_path / name)
        shutil.copytree(WORKSPACE / "teacher", WORKSPACE / "student")

    return enter


def results() -> dict[str, str]:
    """Hashes of all outputs, by their paths."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for name in OUTPUTS
        for path in sorted((WORKSPACE / name).rglob("*"))
        if path.is_file()
    }


def run(params: Params) -> dict[str, str]:
    pseudo_label.run(params, WORKSPACE)
    evaluate.run(params, WORKSPACE)
    return results()


def store_images(bucket: Bucket) -> str:
    """Puts the line's images into the bucket; returns their address."""
    images = WORKSPACE / "demo" / "dataset" / "images"
    bucket.fill({f"photos/{p.relative_to(images)}": p.read_bytes() for p in images.rglob("*") if p.is_file()})
    return f"s3://{bucket.name}/photos"


@pytest.mark.parametrize("where", ["local", "s3"])
def test_the_bytes_of_one_machine(
    line: tuple[Path, Params], place: Callable[[str], None], nodes: Nodes, bucket: Bucket, where: str
) -> None:
    place("one")
    params = with_keys(line[1], pseudo={"part_images": 2})
    expected = run(params)
    assert len(expected) > 15
    place("cluster")
    params = with_keys(params, runtime={"ray": nodes.address})
    if where == "s3":
        params = with_keys(params, ingest={"images": store_images(bucket)})
        # The driver's own copies are elsewhere but for one, which S3 has not as it was ingested.
        weak = Split.open(WORKSPACE / "dataset" / "weak")
        kept = weak.image_path(3)
        bucket.client.put_object(
            Bucket=bucket.name, Key=f"photos/{weak.images['uri'][3].as_py()}", Body=b"another picture"
        )
        for path in sorted(Path(weak.image_root).rglob("*.png")):
            if path not in [weak.image_path(row) for row in (2, 3)]:
                path.unlink()
        assert kept.exists()
    assert run(params) == expected
    assert not list((nodes.folder / "1" / "tmp").glob("points2model-*"))


def test_a_node_is_killed_midway(
    line: tuple[Path, Params], place: Callable[[str], None], nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = with_keys(line[1], pseudo={"part_images": 1}, evaluate={"part_images": 1})
    place("one")
    expected = run(params)
    place("cluster")
    killed = []
    for owner, name in ((pseudo_label.Ledger, "add"), (evaluate.Predictions, "path")):
        after = getattr(owner, name)

        def kill_once(*args: Any, name: str = name, after: Callable[..., Any] = after) -> Any:
            written = list(Path("workspace/runs").rglob("predictions-*/part-*.parquet"))
            if name not in killed and (name == "add" or written):
                killed.append(name)
                nodes.second.kill()
            return after(*args)

        monkeypatch.setattr(owner, name, kill_once)
    params = with_keys(params, runtime={"ray": nodes.address})
    try:
        pseudo_label.run(params, WORKSPACE)
        assert killed == ["add"] and image_counts(WORKSPACE)["computed"] == 14
        nodes.replace()
        evaluate.run(params, WORKSPACE)
        assert killed == ["add", "path"]
    finally:
        nodes.replace()
    assert results() == expected


def square(folder: Path, number: int) -> int:
    """A worker's part, which notes that it began, and on which node."""
    (folder / f"{number}_{ray.get_runtime_context().get_node_id()}").touch()
    time.sleep(1.5)
    if number < 0:
        raise TaskError(f"record {number}")
    return number**2


def notes_folder(params: Params, folder: Path) -> Path:
    """A worker's state: the folder whose path was sent in a file."""
    return Path((folder / "path").read_text())


def test_parts_of_a_lost_node_are_done_again_and_errors_are_not(
    line: tuple[Path, Params], tmp_path: Path, nodes: Nodes
) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    (tmp_path / "path").write_text(str(notes))
    params = with_keys(line[1], runtime={"ray": nodes.address})
    job = Job("evaluate", params, notes_folder, square, {"path": tmp_path / "path"})
    first, second = (node["NodeID"] for node in ray.nodes() if node["Alive"])
    head = ray.get_runtime_context().get_node_id()
    lost = second if head == first else first

    def kill_at_work() -> None:
        while not list(notes.glob(f"*_{lost}")):
            time.sleep(0.02)
        nodes.second.kill()

    killer = threading.Thread(target=kill_at_work, daemon=True)
    killer.start()
    numbers = itertools.takewhile(lambda n: killer.is_alive(), range(200))
    found = dict(map_parts(job, ((n, n) for n in numbers)))
    assert found == {n: n**2 for n in range(len(found))} and not killer.is_alive()
    begun = [path.name.split("_") for path in notes.iterdir()]
    again = [number for number, node in begun if node == lost]
    assert len(again) == 1 and [again[0], head] in begun
    with pytest.raises(TaskError, match="record -3"):
        list(map_parts(job, [(None, -3)]))
    assert len(list(notes.glob("-3_*"))) == 1
    nodes.replace()


def failures(params: Params, stages: Mapping[str, Callable[[Params, Path], None]]) -> dict[str, str]:
    """The error of each stage."""
    found = {}
    for name, stage in stages.items():
        with pytest.raises(TaskError) as caught:
            stage(params, WORKSPACE)
        found[name] = str(caught.value)
    return found


def test_an_error_shows_the_record(
    line: tuple[Path, Params], place: Callable[[str], None], nodes: Nodes
) -> None:
    """A missing file, which the driver finds, and one that only a worker, which decodes it, can find."""
    found = []
    for name, address in (("one", None), ("cluster", nodes.address)):
        place(name)
        if address is None:
            pseudo_label.run(line[1], WORKSPACE)  # an input of evaluate
        else:
            shutil.copytree(Path("..") / "one" / "workspace" / "pseudo", WORKSPACE / "pseudo")
        shutil.rmtree(WORKSPACE / "runs", ignore_errors=True)
        for split, rows in (("weak", (1, 4)), ("val", (0, 5))):
            images = Split.open(WORKSPACE / "dataset" / split)
            gone, broken = (images.image_path(row) for row in rows)
            gone.unlink()
            content = broken.read_bytes()
            content = content[:60] + bytes(40) + content[100:]
            broken.write_bytes(content)
            path = WORKSPACE / "dataset" / split / "images.arrow"
            table = read_arrow(path, IMAGES)
            hashes = table["sha256"].to_pylist()
            hashes[rows[1]] = hashlib.sha256(content).hexdigest()
            at = table.schema.get_field_index("sha256")
            write_arrow(table.set_column(at, "sha256", pa.array(hashes)), path)
        params = with_keys(line[1], runtime={"ray": address})
        stages = {"pseudo_label": pseudo_label.run, "evaluate": evaluate.run}
        found.append(failures(params, stages))
        assert not list((WORKSPACE / "evaluation").glob("*"))
    assert found[0] == found[1]
    assert "2 weak images can't be read" in found[1]["pseudo_label"]
    assert "can't be decoded" in found[1]["pseudo_label"] and "no such file" in found[1]["pseudo_label"]


def test_the_driver_is_killed_and_resumed(
    line: tuple[Path, Params], place: Callable[[str], None], nodes: Nodes
) -> None:
    place("one")
    recipe = tiny_recipe()
    recipe["pseudo"]["part_images"] = 1
    params = with_keys(line[1], pseudo={"part_images": 1})
    pseudo_label.run(params, WORKSPACE)
    expected = results()
    place("cluster")
    recipe["runtime"]["ray"] = nodes.address
    # `processes` is of the trainings: the driver is one process.
    recipe["runtime"]["processes"] = 2
    Path("params.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    command = [sys.executable, "-m", "tasks.pseudo_label"]
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    driver = subprocess.Popen(command, env=variables)
    while not list(Path("workspace/runs").rglob("ledger-*/*.json")):
        assert driver.poll() is None
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert not (WORKSPACE / "pseudo").exists()
    subprocess.run(command, env=variables, check=True)
    counts = image_counts(WORKSPACE)
    assert counts["carried"] >= 1 and counts["computed"] + counts["carried"] == 14
    assert results() == expected
