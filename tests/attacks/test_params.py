"""params.yaml that is written in error or in malice: refused soon, in words, by all that read it."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from data.errors import DataError
from tasks.common.config import load_params
from tasks.common.errors import TaskError
from tasks.common.stage_main import stage_main
from tasks.doctor.doctor import quick_check
from tasks.tools.recipes import switch
from tests.attacks.attack import Attack, check
from tests.tasks.conftest import ROOT

SECRET = "wJalrXUtnFEMI/K7MDENG+bPx"  # noqa: S105  (the test's own)
SIGNED = f"https://b.s3.amazonaws.com/k?X-Amz-Signature={SECRET}"
SLACK = f"https://hooks.slack.com/services/T0/B0/{SECRET}"
LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{one}: &{one} [{','.join([f'*{before}'] * 9)}]\n"
    for before, one in zip("abcdefghi", "bcdefghij", strict=True)
)
LONGEST_S = 30.0
"""Of a row; one that doesn't end would take the machine with it."""


class Place(NamedTuple):
    """A project whose params.yaml is ours, to be spoilt; the current folder."""

    root: Path

    @property
    def file(self) -> Path:
        return self.root / "params.yaml"

    def set(self, key: str, value: str, text: str | None = None) -> None:
        """Writes another value for a key, `section.key` or `key`, as it stands in the file."""
        text = self.file.read_text(encoding="utf-8") if text is None else text
        section, _, name = key.rpartition(".")
        start = text.index(f"\n{section}:") if section else 0
        indent = "  " if section else ""
        changed = re.compile(rf"^{indent}{name}:.*$", re.MULTILINE)
        match = changed.search(text, start)
        assert match is not None, key
        text = text[: match.start()] + f"{indent}{name}: {value}" + text[match.end() :]
        self.file.write_text(text, encoding="utf-8", errors="surrogatepass")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "decisions").mkdir()
    (tmp_path / ".dvc" / "config").touch()
    (tmp_path / "dvc.yaml").write_text("stages:\n  ingest: {cmd: python -m tasks.ingest}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POINTS2MODEL_NOTIFY", raising=False)
    return Place(tmp_path)


def value(key: str, text: str) -> Callable[[Place], str]:
    """Another value of a key, read as a step reads it."""

    def act(place: Place) -> str:
        place.set(key, text)
        return load_params(place.file).model_dump_json()

    return act


def whole(content: str | bytes) -> Callable[[Place], str]:
    """Another content of the whole file."""

    def act(place: Place) -> str:
        place.file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return load_params(place.file).model_dump_json()

    return act


def doctor(place: Place) -> str:
    """All that the doctor prints of the set-up; raises where an error is among it, as `run` then ends."""
    diagnosis, _ = quick_check(Path(), Path("workspace"))
    text = "\n".join(str(one.fault) for one in [*diagnosis.errors, *diagnosis.warnings])
    if diagnosis.errors:
        raise TaskError(text)
    return text


def seen_by_doctor(key: str, text: str) -> Callable[[Place], str]:
    def act(place: Place) -> str:
        place.set(key, text)
        return doctor(place)

    return act


def a_secret_name(place: Place) -> str:
    (place.root / "mine").mkdir()
    place.set("ingest.annotations", "mine")
    place.set("ingest.strong", f"http:/me:{SECRET}@host/a.json")
    return doctor(place)


def command(*arguments: str) -> Callable[[Place], str]:
    """A command with a params.yaml in which a key stands twice."""

    def act(place: Place) -> str:
        from flows.cli.main import app

        with place.file.open("a", encoding="utf-8") as file:
            file.write("\nseed: 3\n")
        done = CliRunner().invoke(app, list(arguments))
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        if done.exit_code != 0:
            raise TaskError(done.output)
        return done.output

    return act


def step(place: Place) -> str:
    with place.file.open("a", encoding="utf-8") as file:
        file.write("\nseed: 3\n")
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(printed):
        patch.setattr(sys, "argv", ["step"])
        with pytest.raises(SystemExit) as ended:
            stage_main("ingest", lambda params, workspace: None)
    assert ended.value.code == 1
    raise TaskError(printed.getvalue())


def doubled_recipe(place: Place) -> str:
    recipe = place.root / "other.yaml"
    recipe.write_text(place.file.read_text() + "\nseed: 3\n")
    before = place.file.read_bytes()
    try:
        return switch(recipe, place.file, everything=True).text
    finally:
        assert place.file.read_bytes() == before


def webhook_in_use(place: Place) -> str:
    recipe = shutil.copy(place.file, place.root / "other.yaml")
    place.set("operate.notify", f"https://chat.example/{SECRET}")
    return "\n".join(switch(recipe, place.file, everything=True).changes)


def weights(make: Callable[[Path], object], name: str = "w.pth") -> Callable[[Place], str]:
    """The doctor's look at a file that is named as the backbone's weights."""

    def act(place: Place) -> str:
        make(place.root / name)
        text = place.file.read_text(encoding="utf-8")
        text = re.sub(r"(?m)^    weights:.*$", f"    weights: {name}", text, count=1)
        place.file.write_text(text, encoding="utf-8")
        return doctor(place)

    return act


def environment(name: str, text: str) -> Callable[[Place], str]:
    def act(place: Place) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(name, text)
            return doctor(place)

    return act


def linked_in_a_circle(place: Place) -> str:
    place.file.unlink()
    place.file.symlink_to(place.file)
    return load_params(place.file).model_dump_json()


def a_folder(place: Place) -> str:
    place.file.unlink()
    place.file.mkdir()
    return load_params(place.file).model_dump_json()


def a_pipe(place: Place) -> str:
    place.file.unlink()
    os.mkfifo(place.file)
    return load_params(place.file).model_dump_json()


def in_the_middle(place: Place) -> str:
    text = place.file.read_text()
    at = text.index("\nteacher:")
    place.file.write_text(text[:at] + "\n<<<<<<< HEAD" + text[at:] + "\n>>>>>>> main\n")
    return load_params(place.file).model_dump_json()


TWICE = ("seed: found 2 times, in lines ",)
AT_END = "demo: {}\n"
ATTACKS = [
    Attack("an alias to itself", whole("a: &a [*a]"), (
        "line 1, column 8: alias *a contains itself", "points2model use",
    )),
    Attack("aliases that expand to billions", whole(LAUGHS), ("more than 100,000 values",)),
    Attack("three thousand levels", whole("a: " + "[" * 3000), ("more than 50 levels",)),
    Attack("a file of a mebibyte", whole("#" * 2**20 + "\n"), ("more than 1,048,576 bytes",)),
    Attack("letters of latin-1", whole("a: \xe4".encode("latin-1")), ("not UTF-8 (byte 3); save it as UTF-8",)),
    Attack("a list", whole("- seed: 1"), ("expected sections", "found list")),
    Attack("no content", whole(""), ("expected sections", "found NoneType")),
    Attack("tabs", whole("teacher:\n\tsteps: 1"), ("line 2, column 1", "indent with spaces, not tabs")),
    Attack("an object of Python's", whole("seed: !!python/object/apply:os.system ['touch owned']"),
           ("python/object/apply:os.system",)),
    Attack("marks of a merge", in_the_middle, ("marks of a merge that isn't resolved; take one side",)),
    Attack("a link to itself", linked_in_a_circle, ("params.yaml: can't be read", "symbolic links")),
    Attack("a folder of that name", a_folder, ("params.yaml: can't be read: not a regular file",)),
    Attack("a pipe of that name", a_pipe, ("params.yaml: can't be read: not a regular file",)),
    Attack("a key twice, read by the doctor", command("doctor", "--quick"), TWICE),
    Attack("a key twice, read by run", command("run", "--target", "ingest"), (*TWICE, "nothing was run")),
    Attack("a key twice, read by a step", step, TWICE),
    Attack("a key twice, read by import-points", command("import-points", "clicks.csv"), TWICE),
    Attack("a key twice in what use would keep", command("use", "params.yaml", "--yes"), TWICE),
    Attack("a key twice in a recipe", doubled_recipe, TWICE),
    Attack("a nested key twice", value("teacher.steps", "12\n  steps: 13"), ("teacher.steps: found 2 times",)),
    Attack("a date as title", value("report.title", "2024-01-01"), ("2024-01-01",), refused=False),
    Attack("no as title", value("report.title", "no"), ("no is a boolean for some parsers", "put it in quotes")),
    Attack("an octal seed", value("seed", "010"), ("010 is octal for some parsers",)),
    Attack("minutes as steps", value("teacher.steps", "1:30"), ("teacher.steps", "found '1:30'")),
    Attack("yes as a number", value("teacher.steps", "yes"), ("yes is a boolean for some parsers",)),
    Attack("no number as learning rate", value("teacher.lr", ".nan"),
           ("teacher.lr: found nan; expected a number above 0 and at most 10",)),
    Attack("infinity as learning rate", value("teacher.lr", "1e999"),
           ("teacher.lr: found inf; expected a number above 0 and at most 10",)),
    Attack("steps beyond all clocks", value("teacher.steps", str(10**19)), ("teacher.steps", str(10**19))),
    Attack("a number of 5,000 digits", value("teacher.steps", "9" * 5000), ("not a whole number, or too long",)),
    Attack("a side of a billion pixels", value("input.short_side", str(10**9)), ("input.short_side",)),
    Attack("a million processes", value("runtime.processes", str(10**6)), ("runtime.processes", "1024")),
    Attack("a batch of a billion", value("teacher.batch_size", str(10**9)), ("teacher.batch_size", "65536")),
    Attack("a frame name that fills the memory", value("points.frame_name", '"{frame:999999999d}"'),
           ("points.frame_name", "a pattern with {frame}")),
    Attack("a NUL in a path", value("ingest.images", '"a\\0b"'), ("ingest.images", "a NUL character")),
    Attack("half a surrogate pair in a path", value("ingest.images", '"a\\ud800"'), ("a lone surrogate",)),
    Attack("an empty path", value("ingest.images", '""'), ("ingest.images: found an empty text",)),
    Attack("a time zone that isn't", value("operate.timezone", "Mars/Olympus"), ("operate.timezone",)),
    Attack("a time zone that is a file", value("operate.timezone", "../../../etc/passwd"), ("operate.timezone",)),
    Attack("a key that clears the screen", value("seed", '1\n"\\e[2Jfailed\\n": 1'),
           (r"\x1b[2Jfailed\n: found an unknown key",), ("\x1b", "\nfailed")),
    Attack("a password in the address of images", seen_by_doctor("ingest.images", f"https://AKIA1234:{SECRET}@host/b"),
           ("ingest.images", "an address of scheme https", "s3://BUCKET/PREFIX"), (SECRET, "AKIA1234")),
    Attack("a password in an address in S3", seen_by_doctor("ingest.images", f"s3://AKIA1234:{SECRET}@bucket/b"),
           ("ingest.images", "credentials and endpoint are not part of it"), (SECRET, "AKIA1234")),
    Attack("a signed address of points", seen_by_doctor("points.files", SIGNED),
           ("points.files", "scheme https"), (SECRET,)),
    Attack("a password in the name of a file", a_secret_name, ("ingest.strong: found no such file", "*****@host"),
           (SECRET,)),
    Attack("a webhook that is a file", seen_by_doctor("operate.notify", "file:///etc/passwd"),
           ("operate.notify", "scheme file", "https://HOST/")),
    Attack("a webhook that is a script", seen_by_doctor("operate.notify", "javascript:alert(1)"),
           ("operate.notify", "scheme javascript")),
    Attack("a webhook with a typing error", seen_by_doctor("operate.notify", SLACK.replace("https://", "https:/")),
           ("operate.notify", "no host"), (SECRET,)),
    Attack("a webhook in the environment that is none", environment("POINTS2MODEL_NOTIFY", f"ftp://h/{SECRET}"),
           ("POINTS2MODEL_NOTIFY", "scheme ftp", "unset it"), (SECRET,), refused=False),
    Attack("a webhook among the values that use changes", webhook_in_use, ("- operate.notify: *****",), (SECRET,),
           refused=False),
    Attack("weights that are the list of users", weights(lambda path: path.symlink_to("/etc/passwd")),
           ("model.backbone.weights", "a file that holds no weights", ".pth or .safetensors")),
    Attack("weights that are a folder", weights(Path.mkdir), ("no file but a folder",)),
    Attack("weights that are a pipe", weights(os.mkfifo), ("no file but a folder, pipe or device",)),
    Attack("weights that end before their header", weights(lambda path: path.write_bytes(struct.pack("<Q", 99) + b"{}"),
           "w.safetensors"), ("a file that holds no weights",)),
    Attack("weights that are a link to themselves", weights(lambda path: path.symlink_to(path)), ("no such file",)),
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_params(place: Place, attack: Attack) -> None:
    began = time.monotonic()
    check(attack, place, (DataError, TaskError))
    assert time.monotonic() - began < LONGEST_S
    assert not (place.root / "owned").exists()
