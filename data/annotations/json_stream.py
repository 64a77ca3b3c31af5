"""Large JSON files in parts: the lists of the outermost object are read in batches.

The first pass finds where these lists and their elements begin and end, by counting brackets outside of strings. The
second pass parses batches of elements. A file of another shape is parsed as a whole.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from data.annotations.strict_json import DuplicateKeys, duplicate_keys, load_json, parse_json
from data.masks.rle import IntArray
from data.storage import open_regular

CHUNK = 4 << 20  # bytes that are scanned at once
_QUOTE, _BACKSLASH, _OPEN_LIST, _CLOSE_LIST, _OPEN_OBJECT = b'"\\[]{'
_STEP = np.zeros(256, np.int8)  # change of depth by a byte outside of strings
_STEP[list(b"[{")] = 1
_STEP[list(b"]}")] = -1
_MARKED = _STEP != 0
_MARKED[_QUOTE] = True
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


class _List(NamedTuple):
    """A list of the outermost object: its first byte, its last, and where its elements that are objects begin."""

    begin: int
    end: int
    elements: IntArray


@dataclass(frozen=True)
class JsonFile:
    """A JSON file whose outermost object's lists can be read in batches.

    Attributes:
        path: the file.
        is_object: whether its value is an object.
        lists: the lists of the outermost object by name: their place in the file, or their parsed values.
        duplicates: (record, keys) of duplicate keys outside of the lists; of two lists of a name the last one is read.
    """

    path: Path
    is_object: bool
    lists: dict[str, _List | list[Any]]
    duplicates: tuple[tuple[str, str], ...] = ()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> JsonFile:
        """Find the lists of a file.

        Raises:
            DataError: missing, unreadable or not JSON; or of another shape, with duplicate keys. Faults inside of the
                lists are raised when these are read.
        """
        try:
            with open_regular(path) as file:
                found = _lists(file)
        except OSError:
            found = None
        if found is not None:
            lists, duplicates = found
            return cls(Path(path), True, dict(lists), tuple(duplicates))
        document = load_json(path)
        if not isinstance(document, dict):
            return cls(Path(path), False, {})
        return cls(
            Path(path), True, {name: value for name, value in document.items() if isinstance(value, list)}
        )

    def batches(self, name: str, size: int) -> Iterator[list[Any]]:
        """The elements of a list in order, about `size` at a time; those with duplicate keys are `DuplicateKeys`.

        Raises:
            DataError: not JSON.
        """
        where = self.lists[name]
        if isinstance(where, list):
            for at in range(0, len(where), size):
                yield where[at : at + size]
            return
        cuts = [where.begin + 1, *where.elements[size::size].tolist(), where.end]
        done = 0
        with self.path.open("rb") as file:
            for begin, end in itertools.pairwise(cuts):
                file.seek(begin)
                text = file.read(end - begin)
                if end != where.end:
                    text = text.rstrip(b" \t\r\n")
                    # Text that doesn't end in the comma before the next element must not parse.
                    text = text[:-1] if text.endswith(b",") else text + b","
                try:
                    rows = _parsed(b"[" + text + b"]")
                except ValueError:
                    # This raises with the place of the error in the file; if it succeeds, it has the rest.
                    yield load_json(self.path)[name][done:]
                    return
                done += len(rows)
                yield rows


def _parsed(text: bytes) -> list[Any]:
    """A list, parsed by orjson, or by the standard library if orjson is stricter (NaN, lone surrogates) or if there are
    duplicate keys, of which orjson silently keeps the last.

    orjson makes floats of whole numbers beyond 64 bits, which are invalid as ids either way.
    """
    rows: list[Any]
    try:
        rows = orjson.loads(text)
    except ValueError:
        pass
    else:
        # As many colons as keys: no key is duplicate. Strings with colons (URLs, RLEs) are removed first.
        keys = _count_keys(rows)
        if text.count(b":") == keys or _STRING.sub(b"", text).count(b":") == keys:
            return rows
    rows, duplicates = parse_json(text)
    return [_marked(row) for row in rows] if duplicates else rows


def _count_keys(values: list[Any]) -> int:
    """Number of keys of all objects in the values; objects in lists of lists may be missed."""
    count = 0
    while values:
        kinds = set(map(type, values))
        objects = [value for value in values if type(value) is dict] if dict in kinds else []
        count += sum(map(len, objects))
        lists = (
            [value for value in values if type(value) is list and dict in map(type, value)]
            if list in kinds
            else []
        )
        values = list(itertools.chain(*map(dict.values, objects), *lists))
    return count


def _marked(row: Any) -> Any:
    """The row, as `DuplicateKeys` if it has any at any depth."""
    keys = tuple(keys + (f" of {place}" if place else "") for place, keys in duplicate_keys(row))
    if not keys or not isinstance(row, dict):
        return row
    marked = DuplicateKeys(row)
    marked.duplicates = keys
    return marked


def _lists(file: BinaryIO) -> tuple[dict[str, _List], list[tuple[str, str]]] | None:
    """The outermost object's lists, and (record, keys) of duplicate keys outside of them; None for another shape."""
    spans = _spans(file)
    if spans is None:
        return None
    # The file with a number in place of each list's content is small; it gives the names.
    pieces, at = [], 0
    for n, span in enumerate(spans):
        file.seek(at)
        pieces += [file.read(span.begin - at), b"[%d]" % n]
        at = span.end + 1
    file.seek(at)
    try:
        outline, duplicates = parse_json(b"".join([*pieces, file.read()]))
    except ValueError:
        return None
    if not isinstance(outline, dict):
        return None
    return {name: spans[value[0]] for name, value in outline.items() if isinstance(value, list)}, duplicates


def _spans(file: BinaryIO) -> list[_List] | None:
    """The lists at depth 2 of brackets; None if the brackets don't match."""
    depth, in_string, escaping, offset = 0, False, False, 0
    begins: list[IntArray] = []
    ends: list[IntArray] = []
    is_list: list[npt.NDArray[np.bool_]] = []
    ends_list: list[npt.NDArray[np.bool_]] = []
    elements: list[IntArray] = []
    while chunk := file.read(CHUNK):
        code = np.frombuffer(chunk, np.uint8)
        at = np.flatnonzero(_MARKED[code])
        if escaping or _BACKSLASH in chunk:
            escaped, escaping = _escaped(code, escaping)
            at = at[~escaped[at]]
        quote = code[at] == _QUOTE
        outside = ((np.cumsum(quote) + in_string) & 1) == 0
        in_string = bool((int(quote.sum()) + in_string) & 1)
        at = at[outside & ~quote]
        kind = code[at]
        step = _STEP[kind]
        after = depth + np.cumsum(step, dtype=np.int64)
        if after.size:
            if after.min() < 0 or (after[:-1] == 0).any() or (depth == 0 and offset and after.size):
                return None
            depth = int(after[-1])
        opens, closes = (step == 1) & (after == 2), (step == -1) & (after == 1)
        begins.append(at[opens] + offset)
        ends.append(at[closes] + offset)
        is_list.append(kind[opens] == _OPEN_LIST)
        ends_list.append(kind[closes] == _CLOSE_LIST)
        elements.append(at[(after == 3) & (kind == _OPEN_OBJECT)] + offset)
        offset += len(chunk)
    if depth or in_string or not begins:
        return None
    kept = np.concatenate(is_list)
    if not np.array_equal(kept, np.concatenate(ends_list)):
        return None
    begin, end, element = np.concatenate(begins)[kept], np.concatenate(ends)[kept], np.concatenate(elements)
    cuts = np.searchsorted(element, np.stack([begin, end], axis=1))
    return [
        _List(first, last, element[a:b])
        for first, last, (a, b) in zip(begin.tolist(), end.tolist(), cuts.tolist(), strict=True)
    ]


def _escaped(code: npt.NDArray[np.uint8], first: bool) -> tuple[npt.NDArray[np.bool_], bool]:
    """Which bytes follow an odd number of backslashes, and whether the next chunk's first byte does.

    Args:
        code: a chunk.
        first: whether its first byte does.
    """
    escaped = np.zeros(len(code) + 1, np.bool_)
    slashes = np.flatnonzero(code == _BACKSLASH)
    if first:
        escaped[0] = True
        slashes = slashes[1:] if slashes.size and slashes[0] == 0 else slashes
    if slashes.size:
        starts = np.flatnonzero(np.diff(slashes, prepend=-2) != 1)
        lengths = np.diff(starts, append=slashes.size)
        escaped[(slashes[starts] + lengths)[lengths % 2 == 1]] = True
    return escaped[:-1], bool(escaped[-1])
