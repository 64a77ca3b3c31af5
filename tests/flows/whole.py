"""A small real pipeline with files, a folder and data under DVC, whose bytes can be damaged."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from pathlib import Path

import yaml

from flows.dvc.damage import remove_damaged
from flows.dvc.fetch import fetch_earlier_run, restore_outputs
from flows.dvc.repo import DvcRepo
from tests.flows.conftest import Toy

DVC_YAML = """\
stages:
  file:
    cmd: python step.py file
    deps: [step.py, data/in.txt]
    params: [file]
    outs: [ws/file]
  folder:
    cmd: python step.py folder ws/file
    deps: [step.py, ws/file]
    params: [folder]
    outs: [ws/folder]
  last:
    cmd: python step.py last ws/folder/part-0 ws/folder/below/part-1
    deps: [step.py, ws/folder]
    outs: [ws/last]
"""
STEP = """\
import sys
from pathlib import Path
name, *inputs = sys.argv[1:]
with open("ran.txt", "a") as ran:
    ran.write(name + "\\n")
text = name + Path("params.yaml").read_text().partition(name + ":")[2].partition("\\n")[0]
text += "".join(Path(one).read_text() for one in inputs or ["data/in.txt"]) + "\\n"
if name == "folder":
    Path("ws/folder/below").mkdir(parents=True)
    Path("ws/folder/part-0").write_text(text)
    Path("ws/folder/below/part-1").write_text("1" + text)
    Path("ws/folder/below/empty").touch()
else:
    Path("ws").mkdir(exist_ok=True)
    Path("ws", name).write_text(text)
"""
STAGES = ["file", "folder", "last"]
OUTS = {"file": "ws/file", "folder": "ws/folder", "last": "ws/last"}


class Whole(Toy):
    """The pipeline file -> folder -> last in a folder of its own."""

    def set(self, **params: object) -> None:
        """Writes params.yaml; what isn't given is 1."""
        values = {"file": 1, "folder": 1, **params}
        self.path("params.yaml").write_text("".join(f"{key}: {value}\n" for key, value in values.items()))

    def links(self, kind: str) -> None:
        """How DVC lays outputs into the workspace from here on: copy, hardlink, symlink."""
        with self.path(".dvc/config").open("a") as config:
            config.write(f"[cache]\n    type = {kind}\n")

    def check_out(self) -> None:
        """As `dvc checkout`."""
        with DvcRepo(self.root).dvc as repo:
            repo.checkout(force=True)

    def outputs(self) -> dict[str, bytes]:
        ws = self.path("ws")
        return {
            path.relative_to(ws).as_posix(): path.read_bytes()
            for path in ws.rglob("*")
            if path.is_file() and path.name != ".gitignore"
        }

    def digest(self, out: str) -> str:
        """What dvc.lock, or the .dvc file, has for an output."""
        pointer = self.path(f"{out}.dvc")
        if pointer.exists():
            return str(yaml.safe_load(pointer.read_text())["outs"][0]["md5"])
        lock = yaml.safe_load(self.path("dvc.lock").read_text())["stages"]
        return next(str(o["md5"]) for stage in lock.values() for o in stage["outs"] if o["path"] == out)

    def stored(self, digest: str, store: str | Path = ".dvc/cache") -> Path:
        """The file of an object in the cache, or in a remote that is a folder."""
        return self.root / store / "files/md5" / digest[:2] / digest[2:]

    def member(self, name: str = "part-0") -> str:
        """The hash of a file of the folder."""
        rows = yaml.safe_load(self.stored(self.digest("ws/folder")).read_text())
        return next(str(row["md5"]) for row in rows if row["relpath"].endswith(name))

    def run(self, *, pull: bool = True) -> list[str]:
        """As `bring_up_to_date`; returns the lines that it says."""
        return bring_up_to_date(self.root, "last", pull=pull)[0]


def bring_up_to_date(root: Path, target: str, *, pull: bool) -> tuple[list[str], list[str]]:
    """What the flow does, in its order, without Prefect; returns the lines that it says, and the stages that DVC ran or
    restored. In the current folder."""
    said: list[str] = []
    done: list[str] = []
    repo = DvcRepo(root)
    names = list(repo.graph(target))
    restore_outputs(repo, names, said.append, pull=pull)
    for name in names:
        for _ in range(2):
            if repo.is_done(name):
                break
            fetch_earlier_run(repo, name)
            done += [stage.name for stage in repo.dvc.reproduce(name, single_item=True)]
            if not remove_damaged(repo, [name], said.append):
                break
    return said, done


def damage(path: Path, content: bytes | None = None) -> None:
    """Other content under the same name, of the same size unless given; read-only, as DVC leaves it."""
    old = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(bytes(byte ^ 1 for byte in old) if content is None else content)
    path.chmod(0o444)


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def make(root: Path) -> Whole:
    """One that has run, with `data/in.txt` under `dvc add`."""
    from dvc.repo import Repo

    whole = Whole(root)
    (root / "data").mkdir(parents=True)
    for name, text in {"dvc.yaml": DVC_YAML, "step.py": STEP, "data/in.txt": "in\n"}.items():
        whole.path(name).write_text(text)
    whole.set()
    Repo.init(str(root), no_scm=True).close()
    with contextlib.chdir(root), DvcRepo(root).dvc as repo:
        repo.add("data/in.txt")
        repo.reproduce("last")
    assert whole.ran() == STAGES
    return whole


def lose_workspace(whole: Whole) -> None:
    shutil.rmtree(whole.path("ws"))
