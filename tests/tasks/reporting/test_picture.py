"""The report's galleries as one picture."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from defusedxml import ElementTree
from markupsafe import Markup

from tasks.reporting.gallery import Panel, image_definition, panel
from tasks.reporting.picture import MARGIN, PANEL, WIDTH, _sheet
from tasks.reporting.rows import Gallery, Row

SVG = "{http://www.w3.org/2000/svg}"


def row(name: str, size: tuple[int, int], fault: str | None = None) -> Row:
    panels = [(f"panel {n}", panel("a", size, Panel("", [], []))) for n in range(3)]
    return Row("best, rank 1 of 2", name, ["2 clicks"], Markup(""), panels, fault)


def drawn(galleries: list[tuple[str, Gallery]]) -> Any:
    return ElementTree.fromstring(str(_sheet(galleries)))


def test_rows_lie_below_each_other_with_their_panels_side_by_side() -> None:
    gallery = Gallery([row("wide.png", (50, 100)), row("high.png", (200, 100))], "rule")
    root = drawn([("Weak images", gallery), ("Validation images", gallery)])
    panels = root.findall(f"{SVG}svg")
    assert [int(panel.attrib["height"]) for panel in panels] == 2 * ([PANEL // 2] * 3 + [2 * PANEL] * 3)
    boxes = [[int(panel.attrib[key]) for key in ("x", "y", "width", "height")] for panel in panels]
    assert all(x >= MARGIN and x + width <= WIDTH - MARGIN for x, _, width, _ in boxes)
    assert [y for x, y, *_ in boxes if x == MARGIN] == sorted({y for _, y, *_ in boxes})
    assert boxes[-1][1] + boxes[-1][3] < int(root.attrib["height"])
    texts = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    assert {"Weak images", "Validation images", "panel 0"} <= set(texts)


def test_names_and_faults_are_data() -> None:
    evil = "<script>&\"'\u202e"
    root = drawn([("Weak images", Gallery([row(evil, (50, 50), fault=evil)], "rule"))])
    assert root.find(f".//{SVG}script") is None
    assert "".join("".join(text.itertext()) for text in root.iter(f"{SVG}text")).count(evil) == 2


def test_nothing_to_show_is_an_empty_card() -> None:
    assert list(drawn([]).iter(f"{SVG}svg"))[1:] == []


@pytest.mark.parametrize("longest", [32, 640])
def test_images_are_kept_as_small_as_asked(longest: int, tmp_path: Path) -> None:
    import base64

    import cv2
    import numpy as np

    image = np.zeros((100, 200, 3), np.uint8)
    definition = str(image_definition(image, "a", longest))
    code = base64.b64decode(re.findall(r"base64,([^\"]+)", definition)[0])
    height, width = cv2.imdecode(np.frombuffer(code, np.uint8), cv2.IMREAD_COLOR).shape[:2]
    assert (width, height) == (min(200, longest), min(100, longest // 2))
    assert 'width="200" height="100"' in definition  # units stay the image's pixels
