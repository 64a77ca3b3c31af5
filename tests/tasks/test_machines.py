"""`runtime.launcher` trains: over two network namespaces, each with a host name of its own, and with accelerate."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.test_line import Project

pytestmark = pytest.mark.slow

# In place of ssh: a host name, and a command for a shell there. Each machine has its own network, name and hosts file.
RSH = """\
#!/bin/sh
host=$1; shift
exec ip netns exec "$host" unshare --uts sh -c '
    hostname "$0" && mount --bind {hosts} /etc/hosts && exec sh -c "$1"' "$host" "$*"
"""


def call(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Two hosts that reach each other, and nothing else; POINTS2MODEL_RSH reaches both."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if missing := [name for name in ("ip", "unshare", "hostname", "mount") if shutil.which(name) is None]:
        pytest.skip(f"found no {missing[0]}: apt-get install iproute2 util-linux hostname")
    folder = tmp_path_factory.mktemp("hosts")
    names = (f"p2m-{os.getpid()}-a", f"p2m-{os.getpid()}-b")
    addresses = ("10.213.7.1", "10.213.7.2")
    table = "".join(f"{address} {name}\n" for name, address in zip(names, addresses, strict=True))
    (folder / "hosts").write_text(f"127.0.0.1 localhost\n{table}")
    (folder / "rsh").write_text(RSH.format(hosts=folder / "hosts"))
    (folder / "rsh").chmod(0o755)
    try:
        try:
            for name in names:
                call("ip", "netns", "add", name)
            call(
                "ip", "-n", names[0], "link", "add", "eth0", "type", "veth", "peer", "eth0", "netns", names[1]
            )
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
        for name, address in zip(names, addresses, strict=True):
            call("ip", "-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                call("ip", "-n", name, "link", "set", link, "up")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("POINTS2MODEL_RSH", str(folder / "rsh"))
            yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def test_a_cluster_trains_as_one_machine_does(hosts: tuple[str, str], tmp_path: Path) -> None:
    """`dvc repro` alone starts both machines and records what they made: the bytes of two processes on one machine."""
    project = Project(tmp_path / "project")
    project.recipe["teacher"] |= {"steps": 4, "milestones": [2]}
    project.recipe["runtime"] |= {
        "processes": 1,
        "launcher": f"{{python}} -m tasks.common.on_hosts {','.join(hosts)} env GLOO_SOCKET_IFNAME=eth0 "
        "{python} -m tasks.common.launch --nnodes 2 --nproc-per-node {processes} --rdzv-backend c10d "
        f"--rdzv-endpoint {hosts[0]}:29500 -m {{module}} --params {{params}}",
    }
    project.save()
    done = project.call("dvc", "repro", "train_teacher")
    assert done.returncode == 0, done.stdout + done.stderr
    run, weights = made(project)
    assert (run["processes"], run["host"]) in [(2, host) for host in hosts]
    recorded = yaml.safe_load((project.folder / "dvc.lock").read_text())["stages"]["train_teacher"]
    assert recorded["outs"][0]["path"] == "workspace/teacher"
    status = project.call("dvc", "status", "train_teacher")
    assert "up to date" in status.stdout, status.stdout

    for processes, launcher in (
        (2, None),
        (
            2,
            "accelerate launch --multi_gpu --num_machines 1 --num_processes {processes} --mixed_precision no "
            "--dynamo_backend no --main_process_port 0 -m {module} --params {params}",
        ),
    ):
        project.recipe["runtime"] |= {"processes": processes, "launcher": launcher}
        project.save()
        shutil.rmtree(project.folder / "workspace/teacher")
        done = project.call("tasks.train_teacher")
        assert done.returncode == 0, done.stderr
        run, again = made(project)
        assert run["processes"] == 2
        assert again == weights, launcher
    status = project.call("dvc", "status", "train_teacher")
    assert "up to date" in status.stdout, status.stdout


def made(project: Project) -> tuple[dict[str, object], dict[str, str]]:
    """The teacher's run.json, and the hashes of its files."""
    workspace = project.folder / "workspace"
    run = json.loads((workspace / "runs/train_teacher/run.json").read_text())
    files = sorted(path for path in (workspace / "teacher").rglob("*") if path.is_file())
    return run, {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
