"""XML of users, without document types and entities, which could read other files or fill the memory."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from data.errors import DataError, Fault
from data.storage import open_regular


class RefusedXml(ValueError):
    """XML with a document type or an entity."""


REFUSED_STEP = "export the file again, or remove its <!DOCTYPE ...>"


def parse_xml(content: bytes) -> Element:
    """The root element.

    Raises:
        RefusedXml: it has a document type, entities or references to other files.
        ValueError: it isn't XML.
    """
    try:
        root: Element = fromstring(content, forbid_dtd=True)
    except DefusedXmlException as error:
        name = type(error).__name__
        raise RefusedXml(f"an XML document type or entity, which is refused ({name})") from None
    except (ParseError, ValueError, LookupError, RecursionError) as error:
        raise ValueError(str(error)) from None
    return root


def load_xml(path: Path, expected: str) -> Element:
    """The root element of a file.

    Raises:
        DataError: missing, unreadable, not XML, or with a document type.
    """
    try:
        with open_regular(path) as file:
            return parse_xml(file.read())
    except FileNotFoundError:
        found, step = "no such file", "correct the path"
    except RefusedXml as error:
        found, step = str(error), REFUSED_STEP
    except (OSError, ValueError) as error:
        found, step = f"not readable as XML ({error})", "export the file again"
    raise DataError(Fault(str(path), "file", found, expected, step))
