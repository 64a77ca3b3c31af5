"""The registry: its files, the models that it names, and what promotes or rolls back."""

from __future__ import annotations

import contextlib
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from flows.dvc.repo import DvcRepo
from flows.processes.children import begin
from flows.registry import decide, versions
from flows.registry import git as registry_git
from flows.registry.current import promoted_model
from tasks.promotion.baseline import checked_model, folder_hash
from tasks.promotion.registry import Registry
from tests.attacks.attack import Attack, check
from tests.flows.whole import damage, md5
from tests.tasks.conftest import blank_registry, tiny_recipe
from tests.tasks.promotion.test_registry import entry, event

WEIGHTS = {"v1": b"weights of the first", "v2": b"weights of the second"}


class Place:
    """A project in Git whose registry has v1, then v2 promoted; the current folder."""

    def __init__(self, root: Path) -> None:
        self.root, self.registry = root, Registry(root / "registry")

    def folder(self, version: str) -> Path:
        return self.root / "registry" / version / "model"

    def stored(self, version: str, store: str = ".dvc/cache") -> Path:
        """The object with a version's weights, in the cache or a remote."""
        digest = md5(WEIGHTS[version])
        return self.root / store / "files/md5" / digest[:2] / digest[2:]

    def lose(self, version: str = "v2") -> None:
        shutil.rmtree(self.folder(version), ignore_errors=True)

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.root / "registry" / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    def git(self, *arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=self.root, check=True, capture_output=True, text=True
        ).stdout

    def whole(self, version: str = "v2") -> str:
        """The model that is used is that version's, byte for byte, and nothing else lies there."""
        found = promoted_model(self.root)
        assert found.entry.version == version
        files = {path.name: path.read_bytes() for path in found.folder.rglob("*") if path.is_file()}
        assert files == {"model.safetensors": WEIGHTS[version], "model.json": b"{}"}
        return found.description()


def model(folder: Path, version: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(WEIGHTS[version])
    (folder / "model.json").write_bytes(b"{}")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    begin()  # other tests stop all processes
    root = tmp_path_factory.mktemp("registry") / "made"
    root.mkdir()
    blank_registry(root)
    place = Place(root)
    place.git("init", "-q")
    for key, value in (("name", "Ada"), ("email", "ada@example.org")):
        place.git("config", f"user.{key}", value)
    (root / "params.yaml").write_text(yaml.safe_dump(tiny_recipe()))
    (root / "dvc.yaml").write_text("stages: {}\n")
    Repo.init(str(root)).close()
    for version in WEIGHTS:
        source = model(root / "trained" / version, version)
        digest = folder_hash(source)
        versions.store(root, version, source, digest)
        place.registry.write_entry(entry(version).model_copy(update={"model": digest}))
        place.registry.write_promotion(event(version))
    shutil.rmtree(root / "trained")
    place.git("add", "-A")
    place.git("commit", "-qm", "two models")
    return root


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    shutil.copytree(made, tmp_path / "project", symlinks=True)
    (tmp_path / "victim").write_text("another's")
    monkeypatch.chdir(tmp_path / "project")
    return Place(tmp_path / "project")


def edited(name: str, old: str, new: str) -> Callable[[Place], str]:
    """A file of the registry says something else, and the promoted model is wanted."""

    def act(place: Place) -> str:
        place.edit(name, old, new)
        return place.whole()

    return act


def listed(name: str, content: bytes) -> Callable[[Place], str]:
    """A file of the registry has other content, and the models are listed."""

    def act(place: Place) -> str:
        (place.root / "registry" / name).write_bytes(content)
        place.registry.promoted()
        return str(place.registry.entries())

    return act


def in_the_folder(change: Callable[[Path], object]) -> Callable[[Place], str]:
    """The model that lies in the registry is changed; DVC's cache has it whole."""

    def act(place: Place) -> str:
        change(place.folder("v2"))
        return place.whole()

    return act


def as_a_link(folder: Path) -> None:
    shutil.move(folder, folder.parents[3] / "elsewhere")
    (folder.parents[3] / "elsewhere/model.json").unlink()
    folder.symlink_to(folder.parents[3] / "elsewhere")


def lost_and_damaged(place: Place) -> str:
    place.lose()
    damage(place.stored("v2"))
    try:
        return place.whole()
    finally:
        assert not place.folder("v2").exists()
        assert (place.root / ".dvc/tmp/damaged" / md5(WEIGHTS["v2"])).exists()


def believed(place: Place) -> str:
    """The damaged bytes lie there already, brought by DVC, which takes them for whole."""
    place.lose()
    damage(place.stored("v2"))
    DvcRepo(place.root).dvc.checkout(["registry/v2/model.dvc"], force=True)
    assert place.folder("v2").is_dir()
    try:
        return place.whole()
    finally:
        assert not place.folder("v2").exists()


def with_a_remote(place: Place) -> str:
    remote(place)
    place.lose()
    damage(place.stored("v2"))
    return place.whole()


def with_a_damaged_remote(place: Place) -> str:
    remote(place)
    place.lose()
    damage(place.stored("v2", "../store"))
    shutil.rmtree(place.root / ".dvc/cache")
    try:
        return place.whole()
    finally:
        assert not place.folder("v2").exists()


def remote(place: Place) -> None:
    shutil.copytree(place.root / ".dvc/cache", place.root.parent / "store")
    (place.root / ".dvc/config").write_text(
        "[core]\n    remote = store\n['remote \"store\"']\n    url = ../../store\n"
    )


def pointer_out(place: Place) -> str:
    place.lose()
    pointer = place.root / "registry/v2/model.dvc"
    digest = yaml.safe_load(pointer.read_text())["outs"][0]["md5"]
    pointer.write_text(pointer.read_text().replace(digest, "../../../../../victim"))
    try:
        return place.whole()
    finally:
        assert (place.root.parent / "victim").read_text() == "another's"


def pointer_gone(place: Place) -> str:
    place.lose()
    (place.root / "registry/v2/model.dvc").unlink()
    return place.whole()


def pointer_to_the_former(place: Place) -> str:
    place.lose()
    shutil.copyfile(place.root / "registry/v1/model.dvc", place.root / "registry/v2/model.dvc")
    try:
        return place.whole()
    finally:
        assert not place.folder("v2").exists()


def back_to_a_damaged_one(place: Place) -> str:
    before = (place.root / "registry/promoted.json").read_bytes()
    place.lose("v1")
    damage(place.stored("v1"))
    try:
        return decide.roll_back(place.root, None, "v2 is odd").text
    finally:
        assert (place.root / "registry/promoted.json").read_bytes() == before
        assert not place.folder("v1").exists()
        place.whole()


def back_to_nowhere(place: Place) -> str:
    return decide.roll_back(place.root, "../../etc", "").text


def hook_says_no(place: Place) -> str:
    recipe = tiny_recipe()
    recipe["operate"]["git"] = True
    (place.root / "params.yaml").write_text(yaml.safe_dump(recipe))
    hook = place.root / ".git/hooks/pre-commit"
    hook.write_text("#!/bin/sh\necho 'not on a Friday' >&2\nexit 1\n")
    hook.chmod(0o755)
    head = place.git("rev-parse", "HEAD")
    text = decide.roll_back(place.root, None, "v2 is odd").text
    assert place.git("rev-parse", "HEAD") == head and place.git("tag") == ""
    place.whole("v1")
    return text


def no_git(place: Place) -> str:
    shutil.rmtree(place.root / ".git")
    try:
        return registry_git.commit(place.root, "m", "v2", "points", "decisions")
    except registry_git.GitError as error:
        return str(error)


def full_disk(place: Place) -> str:
    """There is no room for the next model: no half of it is left, and what is promoted stays."""
    source = model(place.root / "trained", "v2")
    (source / "model.safetensors").write_bytes(bytes(2 << 20))
    digest = folder_hash(source)
    before = (place.root / "registry/promoted.json").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))  # no file may grow larger
    try:
        versions.store(place.root, "v3", source, digest)
    except OSError as error:
        return str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert (place.root / "registry/promoted.json").read_bytes() == before
        assert [path.name for path in (place.root / "registry/v3").iterdir()] == []
    return ""


def leaves_the_only_copy(place: Place) -> str:
    """A former model is taken out of the tree, and DVC's cache has it damaged: the tree's is the last one."""
    damage(place.stored("v1"))
    versions.keep_only(place.root, {"v2"})
    assert not place.folder("v1").exists()
    assert place.stored("v1").read_bytes() == WEIGHTS["v1"]
    place.whole()
    return decide.roll_back(place.root, None, "").text


def from_elsewhere(place: Place) -> str:
    """The current folder is another one than the project's."""
    (place.root / "elsewhere").mkdir()
    with contextlib.chdir(place.root / "elsewhere"):
        assert DvcRepo(place.root).is_cached("registry/v1/model.dvc")
        assert versions.keep_only(place.root, {"v2"}) == ["v1"]
    assert not place.folder("v1").exists()
    return ""


def onto_a_damaged_object(place: Place) -> str:
    """The student is given to DVC, which has a damaged object of the same name."""
    source = model(place.root / "trained", "v1")
    damage(place.stored("v1"))
    versions.store(place.root, "v3", source, folder_hash(source))
    assert place.stored("v1").read_bytes() == WEIGHTS["v1"]
    assert folder_hash(place.folder("v3")) == folder_hash(source)
    return ""


def baseline_changed(place: Place) -> str:
    """Stage `compare` reads the baseline's model."""
    damage(place.folder("v1") / "model.json", b"[]")
    return str(checked_model(place.root / "registry", "v1", place.registry.entry("v1").model))


DAMAGED = ("damaged, or edited by hand", "git checkout")
HUGE = b'{"version": "v1", "metrics": {"AP": ' + b"9" * 5000 + b"}}"
ATTACKS = (
    Attack(
        "promoted.json names a version that isn't there",
        edited("promoted.json", '"v2"', '"v7"'),
        ("names v7", "git checkout"),
    ),
    Attack("promoted.json names ../../etc", edited("promoted.json", '"v2"', '"../../etc"'), DAMAGED),
    Attack(
        "promoted.json names a version that its history doesn't end with",
        edited("promoted.json", '"version": "v2"\n}', '"version": "v1"\n}'),
        ("its history ends with v2",),
    ),
    Attack(
        "two are promoted at once, as a list",
        edited("promoted.json", '"version": "v2"\n}', '"version": ["v1", "v2"]\n}'),
        DAMAGED,
    ),
    Attack(
        "two are promoted at once, by a key that stands twice",
        edited("promoted.json", '"version": "v2"\n}', '"version": "v1",\n"version": "v2"\n}'),
        ("'version'", "twice", *DAMAGED),
    ),
    Attack("promoted.json with merge markers", listed("promoted.json", b"<<<<<<< ours\n{}\n"), DAMAGED),
    Attack("promoted.json nested without an end", listed("promoted.json", b"[" * 200_000), DAMAGED),
    Attack(
        "entry.json of another version",
        edited("v2/entry.json", '"version": "v2"', '"version": "v1"'),
        ("found version v1, expected v2",),
    ),
    Attack(
        "entry.json of a version that isn't one",
        edited("v2/entry.json", '"version": "v2"', '"version": "v0"'),
        DAMAGED,
    ),
    Attack("entry.json that isn't JSON", listed("v1/entry.json", b"\x89PNG"), ("v1/entry.json", *DAMAGED)),
    Attack(
        "entry.json with an AP that is no number",
        listed("v1/entry.json", b'{"metrics": {"student": {"AP": NaN}}}'),
        DAMAGED,
    ),
    Attack(
        "entry.json whose metrics alone hold a NaN",
        edited("v2/entry.json", '"AP": 21.0', '"AP": NaN'),
        DAMAGED,
    ),
    Attack("entry.json with a number of 5,000 digits", listed("v1/entry.json", HUGE), DAMAGED),
    Attack(
        "entry.json with a number that is infinite as a float",
        edited("v2/entry.json", '"AP": 21.0', '"AP": 1e999'),
        DAMAGED,
    ),
    Attack(
        "entry.json with the hash of another model",
        lambda place: edited(
            "v2/entry.json", place.registry.entry("v2").model, place.registry.entry("v1").model
        )(place),
        ("v2", "can't be had whole", "another model than"),
    ),
    Attack(
        "entry.json with a path for a hash",
        lambda place: edited("v2/entry.json", place.registry.entry("v2").model, "../../victim")(place),
        DAMAGED,
    ),
    Attack(
        "a file of the model is changed",
        in_the_folder(lambda p: damage(p / "model.safetensors")),
        ("model: v2",),
        refused=False,
    ),
    Attack(
        "a file more in the model's folder",
        in_the_folder(lambda p: (p / "evil.py").write_text("x")),
        ("model: v2",),
        refused=False,
    ),
    Attack(
        "a file fewer in the model's folder",
        in_the_folder(lambda p: (p / "model.json").unlink()),
        ("model: v2",),
        refused=False,
    ),
    Attack(
        "the model's folder is a link to another one", in_the_folder(as_a_link), ("model: v2",), refused=False
    ),
    Attack(
        "the model's folder is a file",
        in_the_folder(lambda p: (shutil.rmtree(p), p.write_text("x"))),
        ("model: v2",),
        refused=False,
    ),
    Attack(
        "the model's object in the cache is damaged",
        lost_and_damaged,
        (
            "in DVC's cache is damaged",
            "can't be had whole",
            "moved to .dvc/tmp/damaged",
            "dvc push registry/v2/model.dvc",
        ),
        ("up to date",),
    ),
    Attack(
        "a damaged model that DVC takes for whole",
        believed,
        ("in DVC's cache is damaged", "can't be had whole"),
        ("up to date",),
    ),
    Attack("a damaged object that a remote has whole", with_a_remote, ("model: v2",), refused=False),
    Attack(
        "a remote whose object is damaged",
        with_a_damaged_remote,
        ("remote store (", "a damaged object: found 21 bytes", "delete it there", "can't be had whole"),
        ("up to date",),
    ),
    Attack("model.dvc with a path for a hash", pointer_out, ("expected 32 hex digits",)),
    Attack(
        "model.dvc that isn't there", pointer_gone, ("no such file", "git checkout registry/v2/model.dvc")
    ),
    Attack("model.dvc of another version", pointer_to_the_former, ("another model than",)),
    Attack(
        "a roll-back to a damaged model", back_to_a_damaged_one, ("v1", "is damaged", "can't be had whole")
    ),
    Attack("a roll-back to ../../etc", back_to_nowhere, ("there are: v1, v2",)),
    Attack(
        "a hook that refuses the commit",
        hook_says_no,
        ("not on a Friday", "commit registry, dvc.lock, params.yaml yourself"),
        refused=False,
    ),
    Attack("no Git", no_git, ("not a git repository",), refused=False),
    Attack("a promotion on a full disk", full_disk, ("File too large",), refused=False),
    Attack("a model that leaves the tree, from another folder", from_elsewhere, refused=False),
    Attack(
        "the tree's copy of a former model is the last whole one",
        leaves_the_only_copy,
        ("v1 is promoted again",),
        refused=False,
    ),
    Attack("a promotion onto a damaged object of the same name", onto_a_damaged_object, refused=False),
    Attack(
        "the baseline's model is changed", baseline_changed, ("found a model with hash", "points2model run")
    ),
)


@pytest.mark.parametrize("attack", ATTACKS, ids=[attack.name for attack in ATTACKS])
def test_registry(attack: Attack, place: Place) -> None:
    check(attack, place)
