"""All bad point files.

``python -m tests.bad_inputs.points FOLDER`` writes them, to look at or to feed to other tools.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.bad_inputs.coco_xml import COCO_CASES, XML_CASES
from tests.bad_inputs.tables_tools import EMPTY, TABLE_CASES, TOOL_CASES

__all__ = ["CASES", "EMPTY"]

CASES = (*COCO_CASES, *XML_CASES, *TABLE_CASES, *TOOL_CASES)


def main(folder: str) -> None:
    """Writes each case into a folder of its own."""
    for n, bad in enumerate(CASES):
        place = Path(folder) / f"{n:02d} {bad.case[:60].replace('/', ' ')}"
        place.mkdir(parents=True, exist_ok=True)
        (place / bad.file).write_bytes(bad.content)


if __name__ == "__main__":
    main(sys.argv[1])
