"""Names of images in annotation files, looked up among the image files: tools write bare names or other folders."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from data.annotations.image_index import ImageIndex, listed
from data.errors import Fault
from data.remote.fetch import Refused
from data.storage import is_safe
from tasks.intake.sources import SourceImages

log = logging.getLogger(__name__)


class ImageNames:
    """The image files of a run, by name and by the end of a name.

    Attributes:
        ambiguous: names that fit several image files.
    """

    def __init__(self, files: SourceImages) -> None:
        self._files = files
        self.ambiguous: dict[str, Refused] = {}

    @cached_property
    def _index(self) -> ImageIndex:
        return ImageIndex(self._files.names())

    def resolve(self, rows: Sequence[dict[str, Any]], file: str) -> tuple[list[dict[str, Any]], list[Fault]]:
        """The image records with the path of their image below the image root as `file_name`.

        `./a.png` is `a.png`. A name that is no file's is that of the only image file whose path ends with it, or with
        whose path it ends. A name that fits none stays, as the name of a missing image.

        Args:
            rows: image records of one annotation file.
            file: its path, for messages.

        Returns:
            The records, and the faults of those whose name leads out of the image root.
        """
        found: list[dict[str, Any]] = []
        faults: list[Fault] = []
        moved: list[str] = []
        near = self._files.below_root(Path(file).parent)
        for row in rows:
            name = PurePosixPath(row["file_name"]).as_posix()
            if name != row["file_name"]:
                row = row | {"file_name": name}
            if self._files.exists(name):
                found.append(row)
                continue
            fits = self._index.find(name, near=near)
            if len(fits) == 1:
                moved.append(f"{name} is {fits[0]}")
                found.append(row | {"file_name": fits[0]})
                continue
            if not is_safe(name):
                wrong = f"file_name {row['file_name']!r}"[:300]
                expected = "a path under the image root" if not fits else f"one of {listed(fits)}"
                faults.append(Fault(file, f"image {row['id']}", wrong, expected, "correct this record"))
            elif fits:
                self.ambiguous[name] = Refused(
                    "ambiguous",
                    f"{len(fits)} image files that the name fits: {listed(fits)}",
                    "the path of one image",
                )
            found.append(row)
        if moved:
            log.info(
                "%s: %d images are found by the end of their path; the first: %s", file, len(moved), moved[0]
            )
        return found, faults
