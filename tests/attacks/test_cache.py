"""DVC's cache, its remote, dvc.lock and .dvc files: nothing that was changed without DVC is used."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dvc_data.hashfile.build import build

from flows.dvc.damage import RECORD, remove_damaged
from flows.dvc.objects import DamageError
from flows.dvc.remote_config import RemoteError
from flows.dvc.remote_setup import set_up
from flows.dvc.repo import DvcRepo, PipelineError
from flows.dvc.send import send_all
from tests.attacks.attack import Attack, check
from tests.flows.whole import STAGES, Whole, damage, lose_workspace, make, md5

TEXT = "what another user keeps"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    whole = make(tmp_path_factory.mktemp("cache") / "made")
    with contextlib.chdir(whole.root):
        set_up(whole.root, "store", {"url": "../store"}, share=True, replace=False, seconds=60)
        send_all(whole.root, print, pauses=())
    return whole


@pytest.fixture
def project(made: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Whole]:
    """A copy of a pipeline that has run, its remote, and a file of another user, which must stay unchanged."""
    shutil.copytree(made.root, tmp_path / "project", symlinks=True)
    shutil.copytree(made.root.parent / "store", tmp_path / "store")
    (tmp_path / "victim").write_text(TEXT)
    monkeypatch.chdir(tmp_path / "project")
    yield Whole(tmp_path / "project")
    assert (tmp_path / "victim").read_text() == TEXT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["project", "store", "victim"]


def same(whole: Whole, ran: list[str], *, pull: bool = False) -> str:
    """Runs the pipeline: the outputs must be the same, and only these stages run again. Returns the lines."""
    whole.ran()
    lines = whole.run(pull=pull)
    assert whole.ran() == ran
    assert whole.outputs() == EXPECTED
    return "\n".join(lines)


EXPECTED: dict[str, bytes] = {}


@pytest.fixture(scope="module", autouse=True)
def _sound(made: Whole) -> None:
    EXPECTED.update(made.outputs())


def lost(change: Callable[[Path], None], what: str = "ws/file") -> Callable[[Whole], str]:
    """Changes an object and deletes the workspace, without a remote: only the object's stage must run again."""

    def act(whole: Whole) -> str:
        digest = (
            whole.member(what.removeprefix("member ")) if what.startswith("member") else whole.digest(what)
        )
        change(whole.stored(digest))
        lose_workspace(whole)
        return same(whole, ["folder" if what.startswith("member") else Path(what).name])

    return act


def link_to_a_file(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def folder_in_its_place(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "file").write_text("x")


def unreadable(path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    path.chmod(0)


def one_file_fewer(path: Path) -> None:
    damage(path, json.dumps(json.loads(path.read_text())[1:]).encode())


def another_object(whole: Whole) -> str:
    shutil.copyfile(whole.stored(whole.digest("ws/last")), whole.root / "copy")
    damage(whole.stored(whole.digest("ws/file")), (whole.root / "copy").read_bytes())
    (whole.root / "copy").unlink()
    lose_workspace(whole)
    return same(whole, ["file"])


def both(whole: Whole) -> str:
    for digest in (whole.digest("ws/file"), whole.member(), whole.digest("ws/last")):
        damage(whole.stored(digest))
    lose_workspace(whole)
    lines = same(whole, STAGES)
    assert same(whole, []) == ""
    return lines


def in_the_remote(change: Callable[[Path], None], what: str) -> Callable[[Whole], str]:
    def act(whole: Whole) -> str:
        change(whole.stored(whole.member() if what == "member" else whole.digest(what), "../store"))
        shutil.rmtree(whole.path(".dvc/cache"))
        lose_workspace(whole)
        return same(whole, ["folder"], pull=True)

    return act


def edited(name: str, old: Callable[[Whole], str], new: str) -> Callable[[Whole], str]:
    """Changes a file of git."""

    def act(whole: Whole) -> str:
        text = whole.path(name).read_text()
        assert old(whole) in text
        whole.path(name).write_text(text.replace(old(whole), new))
        return "\n".join(whole.run(pull=False))

    return act


def another_hash(whole: Whole) -> str:
    lock = whole.path("dvc.lock")
    lock.write_text(lock.read_text().replace(whole.digest("ws/last"), md5(b"of nothing here")))
    return same(whole, ["last"])


def output_elsewhere_in_the_lock(whole: Whole) -> str:
    lock = whole.path("dvc.lock")
    lock.write_text(lock.read_text().replace("path: ws/last", "path: ../victim"))
    shutil.rmtree(whole.path(".dvc/cache/runs"))
    return same(whole, ["last"])


def list_that_leads_out(whole: Whole) -> str:
    rows = json.loads(whole.stored(whole.digest("ws/folder")).read_text())
    rows.append({"md5": whole.member(), "relpath": "../../../evil"})
    content = json.dumps(rows, sort_keys=True).encode()
    digest = f"{md5(content)}.dir"
    target = whole.stored(digest)
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(content)
    target.chmod(0o444)
    lock = whole.path("dvc.lock")
    lock.write_text(lock.read_text().replace(whole.digest("ws/folder"), digest))
    lose_workspace(whole)
    return "\n".join(whole.run(pull=False))


def names_of_posix(whole: Whole) -> str:
    """Data under DVC with names that POSIX allows and other systems don't."""
    names = ("A:1.png", "a\\b.png", "c:\\x", "...", " ")
    whole.path("data/odd").mkdir()
    for name in names:
        whole.path(f"data/odd/{name}").write_text(name)
    whole.dvc("add", "data/odd")
    text = whole.path("dvc.yaml").read_text().replace("data/in.txt]", "data/in.txt, data/odd]")
    whole.path("dvc.yaml").write_text(text)
    shutil.rmtree(whole.path("data/odd"))
    lines = same(whole, ["file"])
    assert sorted(path.name for path in whole.path("data/odd").iterdir()) == sorted(names)
    return lines


def disk_that_fails(whole: Whole) -> str:
    """An output can't be read: it is neither recorded as whole nor removed."""
    repo = DvcRepo(whole.root)

    def read(odb: object, path: str, *rest: object, **options: object) -> object:
        if path.endswith("ws/file"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return build(odb, path, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.dvc.damage.build", read)
        try:
            remove_damaged(repo, STAGES, print)
        finally:
            assert not Path(repo.dvc.tmp_dir, RECORD).exists()
            assert whole.outputs() == EXPECTED
    return ""


def another_result_of_the_run(whole: Whole) -> str:
    """An entry of the run-cache names the output of another stage."""
    for entry in whole.path(".dvc/cache/runs").glob("*/*/*"):
        entry.write_text(entry.read_text().replace(whole.digest("ws/file"), whole.digest("ws/last")))
    whole.path("dvc.lock").unlink()
    lose_workspace(whole)
    return same(whole, ["file", "folder"])  # whose entries name that hash


def clock_set_back(whole: Whole) -> str:
    """An output in the workspace is changed and its times are set back."""
    whole.run()
    path = whole.path("ws/file")
    before = path.stat()
    damage(path)
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    return same(whole, [])


def by_an_earlier_version(whole: Whole) -> str:
    """DVC has restored damaged bytes: they differ from the hash of dvc.lock."""
    whole.links("symlink")
    damage(whole.stored(whole.digest("ws/file")))
    lose_workspace(whole)
    whole.check_out()
    return same(whole, ["file"])


def data(whole: Whole) -> str:
    """The first run finds it, and the next one still reports it."""
    damage(whole.stored(whole.digest("data/in.txt")))
    whole.path("data/in.txt").unlink()
    with contextlib.suppress(DamageError):
        whole.run(pull=False)
    assert whole.ran() == [] and not whole.path("data/in.txt").exists()
    assert (whole.path(".dvc/tmp/damaged") / whole.digest("data/in.txt")).exists()
    return "\n".join(whole.run(pull=False))


def data_back_by_hand(whole: Whole) -> str:
    with contextlib.suppress(DamageError):
        data(whole)
    whole.path("data/in.txt").write_text("in\n")
    return same(whole, [])


def data_with_a_remote(whole: Whole) -> str:
    damage(whole.stored(whole.digest("data/in.txt")))
    whole.path("data/in.txt").unlink()
    return same(whole, [], pull=True)


def notes_of_what_is_whole(whole: Whole) -> str:
    """The record of checked outputs lists everything as whole, or can't be read."""
    whole.run()
    record = Path(DvcRepo(whole.root).dvc.tmp_dir) / RECORD
    notes = json.loads(record.read_text())
    damage(whole.stored(whole.digest("ws/file")))
    lose_workspace(whole)
    whole.check_out()
    record.write_text(json.dumps(notes))
    lines = same(whole, ["file"])
    record.write_text("[" * 100_000)
    return lines + same(whole, [])


def sent(whole: Whole) -> str:
    """A push with a damaged object."""
    shutil.rmtree(whole.path("../store"))
    whole.path("../store").mkdir()
    damage(whole.stored(whole.member()))
    try:
        return send_all(whole.root, print, pauses=())
    finally:
        assert not whole.stored(whole.digest("ws/folder"), "../store").exists()


DAMAGED = ("in DVC's cache is damaged", "expected hash", "removed")
ATTACKS = (
    Attack("an object of other bytes", lost(damage), DAMAGED, refused=False),
    Attack("an object cut short", lost(lambda p: damage(p, p.read_bytes()[:-1])), DAMAGED, refused=False),
    Attack("an empty object", lost(lambda p: damage(p, b"")), ("found 0 bytes",), refused=False),
    Attack(
        "a writable object of other bytes",
        lost(lambda p: (damage(p), p.chmod(0o644))[1]),
        DAMAGED,
        refused=False,
    ),
    Attack("a file of a folder", lost(damage, "member part-0"), DAMAGED, refused=False),
    Attack(
        "an empty file of a folder that isn't empty",
        lost(lambda p: damage(p, b"x"), "member empty"),
        DAMAGED,
        refused=False,
    ),
    Attack("a folder's list that isn't JSON", lost(damage, "ws/folder"), DAMAGED, refused=False),
    Attack("a folder's list with a file fewer", lost(one_file_fewer, "ws/folder"), DAMAGED, refused=False),
    Attack(
        "a folder's list that leads out of the folder",
        list_that_leads_out,
        ("../../../evil", "expected a path below the folder"),
    ),
    Attack("data with names that Windows doesn't take", names_of_posix, refused=False),
    Attack(
        "an output on a disk that fails",
        disk_that_fails,
        ("ws/file: can't be read (Input/output error)", "hash of ws/file in dvc.lock", "check the disk"),
    ),
    Attack(
        "an object that is a link to /etc/passwd",
        lost(link_to_a_file),
        ("found a link",),
        ("root:",),
        refused=False,
    ),
    Attack("an object that is a folder", lost(folder_in_its_place), ("found no file",), refused=False),
    Attack("an object that can't be read", lost(unreadable), ("can't be read",), refused=False),
    Attack("an object with the bytes of another one", another_object, DAMAGED, refused=False),
    Attack("an object of each stage", both, DAMAGED, refused=False),
    Attack(
        "an object in the remote",
        in_the_remote(damage, "member"),
        ("in remote store is damaged", "Delete it there", "points2model push"),
        refused=False,
    ),
    Attack(
        "a folder's list in the remote that isn't JSON",
        in_the_remote(damage, "ws/folder"),
        ("in remote store is damaged",),
        refused=False,
    ),
    Attack(
        "a folder's list in the remote with a file fewer",
        in_the_remote(one_file_fewer, "ws/folder"),
        ("in remote store is damaged",),
        refused=False,
    ),
    Attack("dvc.lock with another hash", another_hash, refused=False),
    Attack(
        "dvc.lock with a path for a hash",
        edited("dvc.lock", lambda w: w.digest("ws/last"), "../../../../../victim"),
        ("dvc.lock: output ws/last: found hash '../", "expected 32 hex digits", "git checkout dvc.lock"),
    ),
    Attack(
        "a .dvc file with a path for a hash",
        edited("data/in.txt.dvc", lambda w: w.digest("data/in.txt"), "../../../../../victim"),
        ("in.txt.dvc", "expected 32 hex digits"),
    ),
    Attack("dvc.lock with an output outside of the project", output_elsewhere_in_the_lock, refused=False),
    Attack(
        "dvc.yaml with an output outside of the project",
        edited("dvc.yaml", lambda w: "[ws/last]", "[../victim]"),
        ("../victim", "outside"),
    ),
    Attack(
        "a run-cache that gives another stage's result",
        another_result_of_the_run,
        ("an entry of DVC's run-cache", "removed"),
        refused=False,
    ),
    Attack(
        "an output changed in place, its times set back",
        clock_set_back,
        ("ws/file is damaged", "as dvc.lock says"),
        refused=False,
    ),
    Attack(
        "outputs that are links to a damaged object",
        by_an_earlier_version,
        ("ws/file is damaged", *DAMAGED),
        refused=False,
    ),
    Attack(
        "data that nothing can make anew",
        data,
        ("the data of data/in.txt.dvc are damaged", ".dvc/tmp/damaged", "points2model remote URL"),
    ),
    Attack("data that a person lays back", data_back_by_hand, refused=False),
    Attack("data that a remote has", data_with_a_remote, ("moved to .dvc/tmp/damaged",), refused=False),
    Attack("notes that call everything whole", notes_of_what_is_whole, DAMAGED, refused=False),
    Attack("a damaged object that is to be sent", sent, ("nothing was sent", "points2model run")),
)


@pytest.mark.parametrize("attack", ATTACKS, ids=[attack.name for attack in ATTACKS])
def test_cache(attack: Attack, project: Whole) -> None:
    check(attack, project, (PipelineError, RemoteError))
