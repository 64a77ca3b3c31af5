"""Pickles of NumPy arrays, read without trust: nothing but arrays is ever built, no code in the file can run.

detectron2's `.pkl` backbones are such files, written by Python 2.
"""

import pickle  # see find_class below
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


class _EmptyArray:
    """Stands in for NumPy's `_reconstruct`: the array that the pickle fills next."""

    __slots__ = ()

    def __call__(self, kind: type, shape: tuple[int, ...], code: bytes | str) -> np.ndarray:
        if kind is not np.ndarray or shape != (0,):
            raise UnsafePickleError(
                f"an array of kind {kind} and shape {shape}, which isn't how arrays begin"
            )
        return np.empty(0, dtype=np.int8)


class _FromBuffer:
    """Stands in for NumPy's `_frombuffer`, of arrays pickled by protocol 5."""

    __slots__ = ()

    def __call__(self, buffer: bytes, dtype: np.dtype, shape: tuple[int, ...], order: Any) -> np.ndarray:
        return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
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
