"""XML of users, without document types and entities, which could read other files or fill the memory."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from data.errors import DataError, Fault
from data.storage import open_regular


def load_xml(path: Path, expected: str) -> Element:
    """The root element of a file.

    Raises:
        DataError: missing, unreadable, not XML, or with a document type.
    """
    try:
        with open_regular(path) as file:
            root: Element = fromstring(file.read(), forbid_dtd=True)
            return root
    except FileNotFoundError:
        found, step = "no such file", "correct the path"
    except DefusedXmlException as error:
        found = f"an XML document type or entity, which is refused ({type(error).__name__})"
        step = "export the file again, or remove its <!DOCTYPE ...>"
    except (OSError, ParseError, ValueError, LookupError, RecursionError) as error:
        found, step = f"not readable as XML ({error})", "export the file again"
    raise DataError(Fault(str(path), "file", found, expected, step))
