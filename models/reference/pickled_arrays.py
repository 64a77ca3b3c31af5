"""Pickles of numeric arrays, read without trust: nothing but these is ever built, no code in the file can run.

detectron2's `.pkl` backbones are such files, written by Python 2.

NumPy's own names aren't handed to the file: `numpy.ndarray` takes any buffer for an array of objects, and the state
of a `numpy.dtype` may say that numbers are objects. Either way a file could forge pointers.
"""

import math
import pickle  # see find_class below
import re
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np


class UnsafePickleError(Exception):
    """A pickle that asks for more than arrays, or none at all; says what it asked for."""


class _Latin1:
    """Stands in for `_codecs.encode`, by which Python 3 writes bytes into pickles that Python 2 can read."""

    __slots__ = ()

    def __call__(self, text: str, encoding: str) -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise UnsafePickleError(f"bytes encoded as {encoding!r}, which arrays aren't")
        return text.encode("latin1")


class _NoBytes:
    """Stands in for `bytes`, which is how Python 3 writes an empty buffer for Python 2."""

    __slots__ = ()

    def __call__(self) -> bytes:
        return b""


class _ArrayKind:
    """Stands in for `numpy.ndarray`, which pickles of arrays name but never call."""

    __slots__ = ()


class _Numbers:
    """Stands in for a `numpy.dtype`: numbers of one kind and size, in the byte order that its state tells."""

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
    """Stands in for the class `numpy.dtype`; the flags `align` and `copy` mean nothing here."""

    __slots__ = ()

    def __call__(self, code: str, align: Any = False, copy: Any = False) -> _Numbers:
        return _Numbers(code)


class _Array(np.ndarray):
    """An array that takes from a pickle its shape and its numbers, and nothing else."""

    def __setstate__(self, state: Any, /) -> None:
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise UnsafePickleError("an array with a state that arrays don't have")
        shape, numbers, fortran, data = state[-4:]
        if isinstance(data, str):  # Python 2's bytes
            data = data.encode("latin1")
        dtype = _dtype(numbers)
        if not _fits(shape, dtype, data):
            raise UnsafePickleError(f"an array of shape {shape!r:.200} that its numbers don't fill")
        # A bool of Python, whatever the stub says.
        super().__setstate__((1, shape, dtype, bool(fortran), data))  # type: ignore[arg-type]


class _EmptyArray:
    """Stands in for NumPy's `_reconstruct`: the array that the pickle fills next."""

    __slots__ = ()

    def __call__(self, kind: Any, shape: tuple[int, ...], code: bytes | str) -> _Array:
        if not isinstance(kind, _ArrayKind) or shape != (0,):
            raise UnsafePickleError(
                f"an array of kind {kind} and shape {shape}, which isn't how arrays begin"
            )
        return _Array((0,), np.int8)


class _FromBuffer:
    """Stands in for NumPy's `_frombuffer`, of arrays pickled by protocol 5."""

    __slots__ = ()

    def __call__(self, buffer: Any, numbers: Any, shape: tuple[int, ...], order: Any) -> np.ndarray:
        dtype = _dtype(numbers)
        if not _fits(shape, dtype, buffer):
            raise UnsafePickleError(f"an array of shape {shape!r:.200} that its numbers don't fill")
        return np.frombuffer(buffer, dtype=dtype).reshape(shape, order="F" if order == "F" else "C")


class _Number:
    """Stands in for NumPy's `scalar`: a number, as Python's own."""

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
"""What a pickled array names, whichever NumPy wrote it, and what stands for it here. The stand-ins have no
attributes, so a pickle can't change them."""


NUMBERS: list[Any] = [
    *((_Number(), f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *(
        (ALLOWED[module, name], f"{module}.{name}")
        for module, name in (("numpy", "dtype"), ("_codecs", "encode"))
    ),
    (_Numbers, f"{__name__}._Numbers"),  # whose state torch only sets if it is among them
]
"""What stands for the names of NumPy's numbers in a file of torch's, as `torch.serialization.safe_globals` takes it."""


class _ArrayUnpickler(pickle.Unpickler):
    """Finds the names that arrays need, and no other."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")  # Python 2's strings are bytes

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise UnsafePickleError(f"the name {module}.{name}, which arrays don't need")
        return ALLOWED[module, name]


def load_arrays(path: Path) -> dict[str, Any]:
    """The dict that a pickle of arrays holds: plain containers, strings, numbers and numeric arrays.

    Raises:
        UnsafePickleError: the file asks for anything else, is damaged, or isn't a pickle of a dict.
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
