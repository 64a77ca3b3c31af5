"""A point file: its bytes, and their content as JSON, XML or text, each parsed once."""

from __future__ import annotations

import codecs
import hashlib
import os
from functools import cached_property
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from data.annotations.strict_json import duplicate_fault, parse_json
from data.annotations.xml_file import REFUSED_STEP, RefusedXml, parse_xml
from data.errors import DataError, Fault
from data.points.values import without_suffix
from data.storage import open_regular

MAGIC = (
    (b"\x89PNG", "an image (PNG)"),
    (b"\xff\xd8\xff", "an image (JPEG)"),
    (b"GIF8", "an image (GIF)"),
    (b"II*\0", "an image (TIFF)"),
    (b"MM\0*", "an image (TIFF)"),
    (b"RIFF", "an image or a video (RIFF)"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"%PDF", "a PDF"),
)
BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is its beginning
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class PointFile:
    """A file of points.

    Args:
        path: of the file.
        name: its name in tables and ids: the path below the folder of point files. Default: the bare name.
    """

    def __init__(self, path: str | os.PathLike[str], name: str | None = None) -> None:
        self.path = Path(path)
        self.name = name or self.path.name

    @property
    def stem(self) -> str:
        """`name` without its suffix, of files whose name is that of their image."""
        return without_suffix(self.name)

    def fault(self, found: str, expected: str, next_step: str, record: str = "file") -> DataError:
        """A DataError about the file as a whole."""
        return DataError(Fault(str(self.path), record, found, expected, next_step))

    def forget(self) -> None:
        """Free the bytes and the parsed content; the hash is kept."""
        for name in ("content", "_parsed_json", "_parsed_xml", "_decoded"):
            self.__dict__.pop(name, None)

    @cached_property
    def content(self) -> bytes:
        """The file's bytes.

        Raises:
            DataError: missing or unreadable.
        """
        try:
            with open_regular(self.path) as file:
                return file.read()
        except FileNotFoundError:
            raise self.fault("no such file", "a point file", "correct points.files") from None
        except OSError as error:
            raise self.fault(f"unreadable ({error})", "a point file", "check its permissions") from error

    @cached_property
    def sha256(self) -> str:
        """Of the bytes, hex."""
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def _parsed_json(self) -> tuple[Any, str | None]:
        try:
            value, duplicates = parse_json(self.content)
        except ValueError as error:
            return None, str(error)
        if duplicates:
            raise DataError(duplicate_fault(str(self.path), *one) for one in duplicates)
        return value, None

    @property
    def json(self) -> Any:
        """The parsed content; None if it isn't JSON.

        Raises:
            DataError: duplicate keys.
        """
        return self._parsed_json[0]

    @property
    def json_error(self) -> str | None:
        """Why the content isn't JSON."""
        return self._parsed_json[1]

    @cached_property
    def _parsed_xml(self) -> tuple[Element | None, str | None]:
        if not self.content[:64].lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n").startswith(b"<"):
            return None, "it doesn't begin with '<'"
        try:
            return parse_xml(self.content), None
        except RefusedXml as error:
            expected = "plain XML: entities may read other files or fill the memory"
            raise self.fault(str(error), expected, REFUSED_STEP) from None
        except ValueError as error:
            return None, str(error)

    @property
    def xml(self) -> Element | None:
        """The root element; None if the content isn't XML.

        Raises:
            DataError: it has a document type, entities or references to other files.
        """
        return self._parsed_xml[0]

    @property
    def xml_error(self) -> str | None:
        """Why the content isn't XML."""
        return self._parsed_xml[1]

    @cached_property
    def _decoded(self) -> tuple[str | None, str | None]:
        encoding = next((name for bom, name in BOMS if self.content.startswith(bom)), "utf-8")
        try:
            decoded = self.content.decode(encoding)
        except UnicodeDecodeError as error:
            return None, f"bytes that are not {encoding.upper()} text (at byte {error.start})"
        if "\0" in decoded:
            return None, f"binary data (a null character at {decoded.index(chr(0))})"
        return decoded, None

    @property
    def text(self) -> str | None:
        """The content as text, UTF-8 or as its byte order mark says; None if it isn't text."""
        return self._decoded[0]

    @property
    def text_error(self) -> str | None:
        """Why the content isn't text."""
        return self._decoded[1]

    def described(self) -> str:
        """The apparent kind of a file that is no point file, for a message."""
        kind = next((kind for magic, kind in MAGIC if self.content.startswith(magic)), None)
        if kind is not None:
            return kind
        if self.text is None:
            return str(self.text_error)
        if not self.text.strip():
            return "an empty file"
        start = self.text.lstrip()[:1]
        if start == "<":
            return f"broken XML ({self.xml_error})" if self.xml is None else f"XML <{self.xml.tag[:50]}>"
        if start in ("{", "["):
            return self._described_json()
        return f"text that begins with {self.text.strip()[:80]!r}"

    def _described_json(self) -> str:
        if self.json_error is not None:
            lines = (self.text or "").split("\n", 2)[:2]
            if len(lines) == 2 and all(map(_is_json, lines)):
                return "a JSON value on each line (NDJSON)"
            return f"broken JSON ({self.json_error})"
        if isinstance(self.json, dict):
            return f"JSON with keys {', '.join(map(repr, list(self.json)[:8]))}"[:300]
        return f"a JSON list of {len(self.json)}"


def _is_json(line: str) -> bool:
    try:
        parse_json(line)
    except ValueError:
        return False
    return True
