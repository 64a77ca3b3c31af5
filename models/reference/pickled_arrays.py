"""Reads untrusted pickles of numeric arrays: builds nothing else, executes no code of the file.

detectron2's `.pkl` backbones are such files, written by Python 2.

The file gets stand-ins for NumPy's names, not NumPy's objects: `numpy.ndarray` accepts any buffer as an array of
objects, and the state of a `numpy.dtype` can declare numbers to be objects. Either would let a file forge pointers.
"""

import math
import pickle  # see find_class below
import re
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np


class UnsafePickleError(Exception):
    """No pickle, or one that requests more than arrays; the text names what."""


class _Latin1:
    """Stand-in for `_codecs.encode`, with which Python 3 writes bytes into pickles for Python 2."""

    __slots__ = ()

    def __call__(self, text: str, encoding: str) -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise UnsafePickleError(f"bytes encoded as {encoding!r}, which arrays aren't")
        return text.encode("latin1")


class _NoBytes:
    """Stand-in for `bytes`, with which Python 3 writes an empty buffer for Python 2."""

    __slots__ = ()

    def __call__(self) -> bytes:
        return b""


class _ArrayKind:
    """Stand-in for `numpy.ndarray`, which pickles of arrays name but never call."""

    __slots__ = ()


class _Numbers:
    """Stand-in for a `numpy.dtype`: numbers of one kind and size, in the byte order of its state."""

    __slots__ = ("dtype",)

    def __init__(self, code: str) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[biufc]\d{1,2}", code):
            raise UnsafePickleError(f"an array of type {code!r}, which isn't one of numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        # Version, byte order, sub-array, names, fields, and sizes that only other types have.
        if not isinstance(state, tuple) or len(state) < 5 or state[2:5] != (None, None, None):
            raise UnsafePickleError(f"a type of numbers with the state {state!r:.200}")
        if state[1] not in ("<", ">", "=", "|"):
            raise UnsafePickleError(f"a byte order of {state[1]!r:.200}")
        self.dtype = self.dtype.newbyteorder(state[1])


class _MakeNumbers:
    """Stand-in for the class `numpy.dtype`; ignores the flags `align` and `copy`."""

    __slots__ = ()

    def __call__(self, code: str, align: Any = False, copy: Any = False) -> _Numbers:
        return _Numbers(code)


class _Array(np.ndarray):
    """An array that takes only its shape and numbers from a pickle."""

    def __setstate__(self, state: Any, /) -> None:
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise UnsafePickleError("an array with a state that arrays don't have")
        shape, numbers, fortran, data = state[-4:]
        if isinstance(data, str):  # Python 2's bytes
            data = data.encode("latin1")
        dtype = _dtype(numbers)
        if not _fits(shape, dtype, data):
            raise UnsafePickleError(f"an array of shape {shape!r:.200} that its numbers don't fill")
        super().__setstate__((1, shape, dtype, bool(fortran), data))  # type: ignore[arg-type]  # wrong stub


class _EmptyArray:
    """Stand-in for NumPy's `_reconstruct`: the array that the pickle fills next."""

    __slots__ = ()

    def __call__(self, kind: Any, shape: tuple[int, ...], code: bytes | str) -> _Array:
        if not isinstance(kind, _ArrayKind) or shape != (0,):
            raise UnsafePickleError(
                f"an array of kind {kind} and shape {shape}, which isn't how arrays begin"
            )
        return _Array((0,), np.int8)


class _FromBuffer:
    """Stand-in for NumPy's `_frombuffer`, for arrays pickled with protocol 5."""

    __slots__ = ()

    def __call__(self, buffer: Any, numbers: Any, shape: tuple[int, ...], order: Any) -> np.ndarray:
        dtype = _dtype(numbers)
        if not _fits(shape, dtype, buffer):
            raise UnsafePickleError(f"an array of shape {shape!r:.200} that its numbers don't fill")
        return np.frombuffer(buffer, dtype=dtype).reshape(shape, order="F" if order == "F" else "C")


class _Number:
    """Stand-in for NumPy's `scalar`: returns a Python number."""

    __slots__ = ()

    def __call__(self, numbers: Any, data: Any) -> Any:
        dtype = _dtype(numbers)
        if not _fits((), dtype, data):
            raise UnsafePickleError("a number that its bytes don't fill")
        return np.frombuffer(data, dtype)[0].item()


def _dtype(numbers: Any) -> np.dtype:
    if not isinstance(numbers, _Numbers):
        raise UnsafePickleError(f"an array whose type is a {type(numbers).__name__}")
    return numbers.dtype


def _fits(shape: Any, dtype: np.dtype, data: Any) -> bool:
    return (
        isinstance(shape, tuple)
        and len(shape) <= 32
        and all(isinstance(side, int) and side >= 0 for side in shape)
        and isinstance(data, bytes | bytearray)
        and math.prod(shape) * dtype.itemsize == len(data)
    )


ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _ArrayKind(),
    ("numpy", "dtype"): _MakeNumbers(),
    ("_codecs", "encode"): _Latin1(),
    ("__builtin__", "bytes"): _NoBytes(),
    # `numpy.core` became `numpy._core` in NumPy 2.
    ("numpy.core.multiarray", "_reconstruct"): _EmptyArray(),
    ("numpy._core.multiarray", "_reconstruct"): _EmptyArray(),
    ("numpy.core.numeric", "_frombuffer"): _FromBuffer(),
    ("numpy._core.numeric", "_frombuffer"): _FromBuffer(),
}
"""The names in pickled arrays of all NumPy versions, and their stand-ins. These have no attributes, so a pickle can't
change them."""


NUMBERS: list[Any] = [
    *((_Number(), f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *(
        (ALLOWED[module, name], f"{module}.{name}")
        for module, name in (("numpy", "dtype"), ("_codecs", "encode"))
    ),
    (_Numbers, f"{__name__}._Numbers"),  # whose state torch only sets if it is among them
]
"""Stand-ins for the names of NumPy's numbers in torch's files, for `torch.serialization.safe_globals`."""


class _ArrayUnpickler(pickle.Unpickler):
    """Resolves the names of `ALLOWED` only."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")  # Python 2's strings are bytes

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise UnsafePickleError(f"the name {module}.{name}, which arrays don't need")
        return ALLOWED[module, name]


def load_arrays(path: Path) -> dict[str, Any]:
    """The dict in a pickle of arrays: plain containers, strings, numbers and numeric arrays.

    Raises:
        UnsafePickleError: the file requests anything else, is damaged, or isn't a pickle of a dict.
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        try:
            content = _ArrayUnpickler(file).load()
        except UnsafePickleError as error:
            raise UnsafePickleError(
                f"{path}: found {error}; expected NumPy arrays and nothing else. Don't trust this file"
            ) from None
        except Exception as error:  # a damaged pickle can raise anything
            raise UnsafePickleError(
                f"{path}: not readable as a pickle of NumPy arrays ({error}); fetch it again"
            ) from None
    if not isinstance(content, dict):
        raise UnsafePickleError(f"{path}: found a {type(content).__name__}, expected a dict of NumPy arrays")
    return content
