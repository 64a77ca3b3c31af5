"""Pickles of arrays: every way that NumPy writes one is read, anything else is refused before it runs."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from models.reference.pickled_arrays import UnsafePickleError, load_arrays


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pickles") / "arrays.pkl"


@settings(deadline=None)  # the first example may pay for imports
@given(
    array=arrays(st.sampled_from(["<f4", ">f4", "<f8", "<i8", "|u1"]), array_shapes(min_dims=0, min_side=0)),
    protocol=st.integers(0, 5),
    fortran=st.booleans(),
)
def test_arrays_come_back(file: Path, array: np.ndarray, protocol: int, fortran: bool) -> None:
    array = np.asfortranarray(array) if fortran else array
    file.write_bytes(pickle.dumps({"a": array, "nested": [{"b": array}], "n": 1.5}, protocol=protocol))
    content = load_arrays(file)
    assert content["n"] == 1.5
    for found in (content["a"], content["nested"][0]["b"]):
        # NumPy reads most of them in this machine's byte order.
        assert found.dtype.newbyteorder("=") == array.dtype.newbyteorder("=")
        np.testing.assert_array_equal(found, array)


def test_a_file_as_python_2_and_numpy_1_wrote_it(file: Path) -> None:
    """By hand, opcode by opcode: byte strings without a type of their own, and `numpy.core`."""
    data = struct.pack("<3f", 1.0, -2.0, 0.5)
    text = lambda word: b"U" + bytes([len(word)]) + word  # noqa: E731  # SHORT_BINSTRING
    dtype = b"cnumpy\ndtype\n(" + text(b"f4") + b"K\x00K\x01tR(K\x03" + text(b"<")
    dtype += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text(b"b") + b"tR"
    array += b"(K\x01(K\x03t" + dtype + b"\x89" + text(data) + b"tb"
    file.write_bytes(b"\x80\x02}" + text(b"conv1_w") + array + b"s.")
    np.testing.assert_array_equal(load_arrays(file)["conv1_w"], np.array([1, -2, 0.5], dtype=np.float32))


class Runs:
    """What an attacker would pickle: loading it would create a file."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    "what",
    [
        lambda trap: Runs(os.system, f"touch {trap}"),
        lambda trap: Runs(eval, f"open({str(trap)!r}, 'w')"),
        lambda trap: Runs(np.lib.format.open_memmap, str(trap), "w+", "f4", (1,)),
        lambda trap: Runs(np.fromfile, str(trap)),
        lambda trap: Path,
        lambda trap: np.float32(1),
        lambda trap: object(),
    ],
)
def test_nothing_else_is_built(tmp_path: Path, protocol: int, what: Any) -> None:
    path, trap = tmp_path / "evil.pkl", tmp_path / "trap"
    path.write_bytes(pickle.dumps({"conv1_w": np.zeros(2), "x": what(trap)}, protocol=protocol))
    with pytest.raises(UnsafePickleError, match=r"evil\.pkl: found the name .*nothing else"):
        load_arrays(path)
    assert not trap.exists()


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def text(value: bytes) -> bytes:
    return b"U" + bytes([len(value)]) + value  # SHORT_BINSTRING


FORGED = bytes(range(1, 9))
"""Where an array of objects would have the address of an object."""


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        # numpy.ndarray((1,), "O8", FORGED) makes an array of objects from any bytes.
        (named("numpy", "ndarray") + b"(K\x01\x85" + text(b"O8") + text(FORGED) + b"tR", "not callable"),
        (named("numpy", "dtype") + text(b"O8") + b"\x85R", "which isn't one of numbers"),
        (named("numpy", "dtype") + text(b"V8") + b"\x85R", "which isn't one of numbers"),
        # Fields of objects, under the flags of numbers.
        (
            named("numpy", "dtype") + text(b"f8") + b"\x85R(K\x03" + text(b"|") + b"N"
            + text(b"a") + b"\x85}K\x08K\x01K\x00tb",
            "a type of numbers with the state",
        ),
        (
            named("numpy.core.multiarray", "_reconstruct") + b"(" + named("numpy", "ndarray") + b"K\x00\x85"
            + text(b"b") + b"tR(K\x01K\x09\x85" + named("numpy", "dtype") + text(b"f8") + b"\x85R\x89"
            + text(FORGED) + b"tb",
            "that its numbers don't fill",
        ),
    ],
)  # fmt: skip
def test_no_pointer_can_be_forged(tmp_path: Path, array: bytes, reason: str) -> None:
    path = tmp_path / "evil.pkl"
    path.write_bytes(b"\x80\x02}" + text(b"conv1_w") + array + b"s.")
    with pytest.raises(UnsafePickleError, match=reason):
        load_arrays(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not readable as a pickle"),
        (b"\x80\x02}q\x00U", "not readable as a pickle"),
        (pickle.dumps([np.zeros(2)]), "found a list"),
        # An array of a trillion numbers, of which the file holds none.
        (
            b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(\x8a\x06\x00\x00\x00\x00\x00\x01t"
            b"U\x01btR.",
            "isn't how arrays begin",
        ),
    ],
)
def test_a_damaged_file_is_told(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "damaged.pkl"
    path.write_bytes(content)
    with pytest.raises(UnsafePickleError, match=reason):
        load_arrays(path)
