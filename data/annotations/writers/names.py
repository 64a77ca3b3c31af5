"""Files that are named after images."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from data.annotations.frames import Frame
from data.errors import DataError, Fault
from data.storage import is_safe


class NewFiles:
    """Files in a folder, one an image, at the image's path with another ending."""

    def __init__(self, folder: Path, ending: str) -> None:
        self.folder, self.ending = folder, ending
        folder.mkdir(parents=True)

    def path(self, frame: Frame) -> Path:
        """The file of an image; its folder exists.

        Raises:
            DataError: an unsafe name; a second image of this name, with another suffix.
        """
        name = PurePosixPath(frame.file_name)
        path = self.folder / name.with_name(f"{name.stem}{self.ending}")
        problem = None
        if not is_safe(frame.file_name):
            problem = ("a name outside of the folder", "a path below the image root")
        elif path.exists():
            problem = ("a second image of this name, with another suffix", "names that differ without it")
        if problem is not None:
            raise DataError(Fault("export", f"image {frame.file_name!r}", *problem, "export another format"))
        path.parent.mkdir(parents=True, exist_ok=True)
        return path
