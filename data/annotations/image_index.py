"""Image files by the names that label files give them: bare names, paths of another machine, names without suffix."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from data.images.endings import Endings
from data.storage import IMAGE_SUFFIXES

SHOWN = 5
_COMPARED = 200  # unknown names that are compared with known ones, to bound the time
_UPLOADED = re.compile(r"^[0-9a-f]{8}-(.+)$")  # how Label Studio renames a file


class ImageIndex:
    """The image files of a data set, as paths below the image root."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(names)
        self._paths, self._stems = Endings[str](), Endings[str]()
        for name in sorted(self.names):
            self._paths.add(name, name)
            self._stems.add(stem(name), name)
        self._compared = 0

    def find(self, *given: str, near: str | None = None) -> list[str]:
        """The image files that fit the first of some names that any fits.

        A name is a path below the image root, else one below `near`, else the end of the path of an image, or a path
        that ends in an image's. A name that has no image suffix is one of an image without its suffix.

        Args:
            given: names, the most likely first; `\\` separates folders too.
            near: the folder of the label file, below the image root.
        """
        for name in given:
            for spelled in dict.fromkeys((name, name.replace("\\", "/"))):
                path = PurePosixPath(spelled).as_posix()
                for one in (path, *([f"{near}/{path}"] if near else [])):
                    if one in self.names:
                        return [one]
                    if one.lower().endswith(IMAGE_SUFFIXES):
                        continue
                    fits = self._stems.whole(one)
                    if fits:
                        return fits
                if fits := self._alike(path):
                    return fits
        for name in given:
            bare = name.replace("\\", "/").rpartition("/")[2]
            if (uploaded := _UPLOADED.match(bare)) and (fits := self._alike(uploaded[1])):
                return fits
        return []

    def _alike(self, path: str) -> list[str]:
        if path.lower().endswith(IMAGE_SUFFIXES):
            return self._paths.alike(path)
        return self._paths.alike(path) or self._stems.alike(path)

    def expected(self, name: str) -> str:
        """What a name that fits no image could have been, for messages."""
        self._compared += 1
        near = []
        if self._compared <= _COMPARED and len(self.names) <= 10_000:
            near = difflib.get_close_matches(name, sorted(self.names), n=3, cutoff=0.5)
        some = near or sorted(self.names)[:3]
        if not some:
            return "image files below ingest.images, which has none"
        return f"an image file, {'the nearest' if near else 'such as'}: {', '.join(some)}"


def stem(name: str) -> str:
    """A path without its last suffix."""
    folder, slash, bare = name.rpartition("/")
    return folder + slash + (bare.rpartition(".")[0] or bare)


def listed(names: list[str]) -> str:
    """Some names, for messages."""
    return ", ".join(names[:SHOWN]) + ", ..." * (len(names) > SHOWN)
