"""Image files by the ends of their paths: label files name images by bare names, or with folders of their own."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Generic, TypeVar

T = TypeVar("T")


class Endings(Generic[T]):
    """Images by their path and by each suffix of its parts."""

    def __init__(self) -> None:
        self._whole: dict[str, list[T]] = {}
        self._ends: dict[str, list[T]] = {}

    def add(self, path: str, image: T) -> None:
        parts = PurePosixPath(path).parts
        self._whole.setdefault("/".join(parts), []).append(image)
        for n in range(len(parts)):
            self._ends.setdefault("/".join(parts[n:]), []).append(image)

    def whole(self, path: str) -> list[T]:
        """Images of exactly this path."""
        return self._whole.get(path, [])

    def alike(self, path: str) -> list[T]:
        """Images whose path ends with ``path``, else those with which ``path`` ends, by the longest match."""
        if path.rpartition("/")[2] in ("", "."):  # a folder
            return []
        parts = PurePosixPath(path).parts
        found = self._ends.get("/".join(parts), [])
        for n in range(1, len(parts)):
            if found:
                break
            found = self._whole.get("/".join(parts[n:]), [])
        return found
