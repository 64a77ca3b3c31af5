from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.annotations import json_stream
from data.annotations.json_stream import JsonFile
from data.annotations.strict_json import DuplicateKeys, load_json
from data.errors import DataError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text()
    | st.sampled_from(['"', "\\", '\\"', "[{", "}]"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
NAMES = st.sampled_from(["images", "annotations", "a]", '"', "\\", "é", ""])


@pytest.fixture(params=[7, 1 << 20])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are read some bytes at a time, so that strings and escapes cross the borders, or at once."""
    monkeypatch.setattr(json_stream, "CHUNK", request.param)


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "file.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
    return path


def read(path: Path, size: int) -> dict[str, list[Any]]:
    file = JsonFile.open(path)
    return {name: [one for batch in file.batches(name, size) for one in batch] for name in file.lists}


@pytest.mark.usefixtures("chunk")
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    document=st.dictionaries(NAMES, st.lists(VALUES | st.just({"id": 1}), max_size=12) | VALUES, max_size=5),
    size=st.integers(1, 5), indent=st.sampled_from([None, 1]), ascii_only=st.booleans(),
)  # fmt: skip
def test_lists_are_those_of_the_standard_library(
    tmp_path: Path, document: dict[str, Any], size: int, indent: int | None, ascii_only: bool
) -> None:
    path = written(tmp_path, json.dumps(document, indent=indent, ensure_ascii=ascii_only))
    expected = {name: value for name, value in document.items() if isinstance(value, list)}
    assert repr(read(path, size)) == repr(expected)  # NaN isn't equal to itself


@pytest.mark.usefixtures("chunk")
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_what_the_standard_library_refuses_is_refused(tmp_path: Path, data: st.DataObject) -> None:
    """A valid file with a piece removed, doubled or inserted."""
    document = {"info": {"a": [1]}, "images": [{"id": 1, "n": 'x\\"[y'}, {"id": 2}, None, {"id": 3}], "b": []}
    text = json.dumps(document)
    at = data.draw(st.integers(0, len(text)))
    end = at + data.draw(st.integers(0, 4))
    piece = data.draw(
        st.sampled_from(
            ["", ",", "{", "}", "[", "]", '"', "\\", "{}", "[]", ":", "1", "nul", text[at:end] * 2]
        )
    )
    broken = text[:at] + piece + text[end:]
    path = written(tmp_path, broken)
    try:
        expected = json.loads(broken)
    except ValueError:
        with pytest.raises(DataError, match="not readable as JSON"):
            read(path, 1)
        return
    lists = expected.items() if isinstance(expected, dict) else ()
    assert read(path, 1) == {name: value for name, value in lists if isinstance(value, list)}


@pytest.mark.parametrize(
    ("text", "is_object", "lists"),
    [
        (b"[{}]", False, {}),
        (b"3", False, {}),
        (b"{}", True, {}),
        (b'\xef\xbb\xbf{"a": [{"b": 1}]}', True, {"a": [{"b": 1}]}),
        ('{"a": [{"b": 1}]}'.encode("utf-16"), True, {"a": [{"b": 1}]}),
        (b'{"a": [1], "a": [2, 3]}', True, {"a": [2, 3]}),
        (b'{"a": [{"b": 1}, {"b": 1e999}, {"b": NaN}, {"b": 123456789012345678901234567890}]}', True,
            {"a": [{"b": 1}, {"b": math.inf}, {"b": math.nan}, {"b": 123456789012345678901234567890.0}]}),
    ],
)  # fmt: skip
def test_other_files_are_read_too(
    tmp_path: Path, text: bytes, is_object: bool, lists: dict[str, Any]
) -> None:
    path = written(tmp_path, text)
    assert JsonFile.open(path).is_object is is_object
    assert repr(read(path, 3)) == repr(lists)


@pytest.mark.usefixtures("chunk")
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.dictionaries(st.text(max_size=3), VALUES, min_size=1, max_size=4), min_size=1, max_size=5),
    at=st.integers(0, 4), deep=st.booleans(), size=st.integers(1, 3), space=st.sampled_from(["", " "]),
)  # fmt: skip
def test_a_key_that_stands_twice_is_found_in_its_record(
    tmp_path: Path, rows: list[dict[str, Any]], at: int, deep: bool, size: int, space: str
) -> None:
    texts = [json.dumps(row, separators=(",", f"{space}:")) for row in rows]
    at %= len(rows)
    key = next(iter(rows[at]))
    duplicate = f'{{{json.dumps(key)}{space}: ":",' + texts[at][1:]
    texts[at] = f'{{"in": [[{{"a": 1}}, {duplicate}]]}}' if deep else duplicate
    path = written(tmp_path, f'{{"list": [{", ".join(texts)}]}}')
    found = read(path, size)["list"]
    assert [isinstance(row, DuplicateKeys) for row in found] == [n == at for n in range(len(rows))]
    assert found[at].duplicates[0].startswith(repr(key)[:100])
    with pytest.raises(DataError, match=rf"list #{at}\D.* twice"):
        load_json(path)


def test_good_records_are_parsed_by_the_fast_parser_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Colons of addresses and RLEs are no keys."""
    row = {"id": 1, "url": "s3://a:b", "segmentation": {"counts": '0:1\\":'}, "parts": [{"x": {"y": 2}}, {}]}
    mixed = {"note": [1, {"a": [None, {"b": 1}]}, "a:b"]}
    file = JsonFile.open(written(tmp_path, json.dumps({"list": [row, {"more": [1, 2]}, mixed]})))
    monkeypatch.delattr(json_stream, "parse_json")
    rows = next(file.batches("list", 9))
    assert rows[0] == row and rows[2] == mixed


@pytest.mark.parametrize("blank", [" ", "\t", "\n", "\r", ""])
def test_a_duplicate_key_is_not_made_up_for_by_another_colon(tmp_path: Path, blank: str) -> None:
    path = written(tmp_path, f'{{"list": [{{"a"{blank}: 1, "a": 2, "b": "x:y"}}]}}')
    assert isinstance(read(path, 1)["list"][0], DuplicateKeys)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for opened in (JsonFile.open, load_json):
        with pytest.raises(DataError, match="no such file"):
            opened(tmp_path / "absent.json")
