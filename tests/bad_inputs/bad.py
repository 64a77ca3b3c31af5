"""A bad point file, and how its import must end."""

from __future__ import annotations

from typing import NamedTuple


class Bad(NamedTuple):
    """A bad file.

    Attributes:
        case: what is wrong.
        file: its name.
        content: its bytes.
        refused: what the error says where the file as a whole is refused; None where it is read.
        rejected: reasons of the rows in rejected.parquet, else.
        kept: points that are good beside them.
    """

    case: str
    file: str
    content: bytes
    refused: str | None = None
    rejected: tuple[str, ...] = ()
    kept: int = 0
