from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

from data.strict_yaml import MAX_BYTES, YamlError, parse, read
from tests.tasks.conftest import ROOT

LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{one}: &{one} [{','.join([f'*{before}'] * 9)}]\n"
    for before, one in zip("abcdefgh", "bcdefghi", strict=True)
)


OURS = [ROOT / "params.yaml", ROOT / "dvc.yaml", *sorted(ROOT.glob("recipes/*.yaml"))]


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_our_own_files_are_read_as_before(path: Path) -> None:
    assert read(path) == yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("", None), ("x: 1:30", "1:30"), ("x: 2024-01-01", "2024-01-01"),
        ("x: False", False), ("x: 'no'", "no"), ("x: [true, TRUE, y]", [True, True, "y"]),
        ("x: {1: a, '1': b, 0: c, '': d}", {1: "a", "1": "b", 0: "c", "": "d"}),
        ("x: 1e-4", 1e-4),
        ("x: 1_000", 1000), ("x: 0x10", 16), ("x: -5", -5), ("x: 0", 0), ("x: .5", 0.5), ("x: 1.", 1.0),
        ("x: '010'", "010"), ("\ufeffx: 1", 1), ("x: ~", None), ("a: &a {b: 1}\nx: {<<: *a, b: 2}", {"b": 2}),
        ("a: &a [1]\nx: [*a, *a]", [[1], [1]]), ('x: "\\U0001F989"', "🦉"),
    ],
)  # fmt: skip
def test_values(text: str, content: object) -> None:
    found = parse(text)
    assert (found if found is None else found["x"]) == content


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: &a [*a]", "line 1, column 8: alias *a contains itself"),
        ("a: &a {b: {c: *a}}", "alias *a contains itself"),
        (LAUGHS, "line 6, column 8: more than 100,000 values"),
        ("a: 1\nb: {d: 1,\n d: 2}\na: 3", "b.d: found 2 times, in lines 2, 3; a: found 2 times, in lines 1, 4"),
        ("[" * 3000, "column 51: more than 50 levels"),
        ("- " * 3000, "more than 50 levels"),
        ("x: 010", "line 1, column 4: 010 is octal for some parsers"),
        ("x: " + "9" * 5000, "not a whole number, or too long"),
        ("a:\n\t- b", "line 2, column 1: while scanning for the next token found character '\\t' that cannot start any "
         "token; indent with spaces, not tabs"),
        ("x: !!python/object/apply:os.system [ls]", "tag:yaml.org,2002:python/object/apply:os.system"),
        ('x: "\\ud800"', "a lone surrogate"), ('"\\ud800": x', "a lone surrogate"),
        ('x: "\\U00110000"', "0x110000"), ("a: \0b", "unacceptable character #x0000"),
        ("--- 1\n--- 2", "expected a single document"), ("? [a]\n: 1", "unhashable key"),
        ("!!timestamp 2000-99-99: 1", "timestamp"),
        ("x: !!timestamp 2000-01-01", "line 1, column 4: could not determine a constructor for the tag"),
        ("x: !!set {a, b}", "2002:set"), ("x: !!omap [a: 1]", "2002:omap"),
        ("x: !!pairs [a: 1]", "2002:pairs"), ("x: !!binary YQ==", "2002:binary"),
        *((f"x: {word}", f"line 1, column 4: {word} is a boolean for some parsers, text for others; write true "
           "or false, or put it in quotes") for word in ("yes", "No", "ON", "off")),
        ("on: 1", "line 1, column 1: on is a boolean"), ("{yes: 1, on: 2}", "yes is a boolean"),
        ("a: {1: a,\n 0x1: b}", "a.1 and 0x1: found 2 times, in lines 1, 2"),
        ("{1.0: a, 1.00: b}", "1.0 and 1.00: found 2 times"),
        ("{1: a, 1.0: b, true: c}", "1 and 1.0 and true: found 3"),
        ("{~: a, null: b}", "~ and null: found 2 times"), ("{'a': 1, a: 2}", "a: found 2 times"),
        ("a: &a {b: 1}\nx: {<<: *a, <<: *a}", "x.<<: found 2 times"),
        ("x: !!bool maybe", "maybe"), ("a: *b", "undefined alias"),
        ("<<<<<<< HEAD\na: 1\n=======\na: 2\n>>>>>>> main\n", "line 1: marks of a merge that isn't resolved"),
    ],
)  # fmt: skip
def test_refused_soon_and_in_one_line(text: str, why: str) -> None:
    began = time.monotonic()
    with pytest.raises(YamlError) as caught:
        parse(text)
    assert why in str(caught.value) and "\n" not in str(caught.value)
    assert time.monotonic() - began < 10


def test_duplicate_keys_are_collected_on_request() -> None:
    duplicates: list[str] = []
    assert parse("a: 1\na: 2\nb: [{c: 1, c: 2}]", duplicates=duplicates) == {"a": 2, "b": [{"c": 2}]}
    assert duplicates == ["b.c: found 2 times, in lines 3, 3", "a: found 2 times, in lines 1, 2"]


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    for content, why in (
        (b"a: 1\n" + b"#" * MAX_BYTES, "more than 1,048,576 bytes"),
        ("a: ä".encode("latin-1"), "not UTF-8 (byte 3)"),
        ("a: 1".encode("utf-16"), "not UTF-8"),
    ):
        path.write_bytes(content)
        with pytest.raises(YamlError) as caught:
            read(path)
        assert why in str(caught.value)
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\n")  # as Windows' Notepad saves it
    assert read(path) == {"a": 1}
