"""A few images of the report's galleries as one picture, for places that can't show a page."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup, escape

from data.tables import Split
from tasks.common.config import ReportConfig
from tasks.reporting.charts import safe
from tasks.reporting.rows import Gallery, Row, pseudo_rows, val_rows

ROWS = 2
"""Images of a gallery: the best and the worst, the first and the last."""
PANEL, GAP, MARGIN = 240, 10, 20
HEADING, ABOUT, CAPTION, LEGEND = 34, 24, 22, 30
WIDTH = 2 * MARGIN + 4 * PANEL + 3 * GAP

# As in report.html.j2, but on a white card: the picture may be shown on a light or a dark page.
_STYLE = """
text { font-family: system-ui, "Segoe UI", "Liberation Sans", sans-serif; fill: #1d2430; font-size: 13px; }
.heading { font-size: 17px; font-weight: 650; } .soft { fill: #5b6575; } .bold { font-weight: 650; }
.mask { fill-opacity: 0.38; stroke-width: 1.75; vector-effect: non-scaling-stroke; stroke-linejoin: round; }
.click { stroke: #000; paint-order: stroke; } .cross { stroke: #ff3b30; fill: none; stroke-linecap: round; }
"""


def gallery_picture(workspace: Path, config: ReportConfig) -> str:
    """A self-contained SVG: pseudo masks of weak images, then the models' detections on val images.

    Reads the outputs of the stages up to `evaluate`. Images are smaller than in the report.
    """
    splits = {name: Split.open(workspace / "dataset" / name) for name in ("weak", "kept_aside", "val")}
    longest = 2 * PANEL  # sharp on screens with two pixels per point
    galleries = [
        (
            "Weak images: from clicks to masks",
            pseudo_rows(workspace, splits["weak"], splits["kept_aside"], ROWS, longest),
        ),
        (
            "Validation images: what the models find",
            val_rows(workspace, splits["val"], ROWS, config.score_threshold, longest),
        ),
    ]
    return str(_sheet([(heading, gallery) for heading, gallery in galleries if gallery.rows]))


def _sheet(galleries: list[tuple[str, Gallery]]) -> Markup:
    y = MARGIN
    parts: list[str] = []
    for heading, gallery in galleries:
        parts.append(_text(MARGIN, y + 18, heading, "heading"))
        y += HEADING
        for row in gallery.rows:
            drawn, height = _row(row, y)
            parts.append(drawn)
            y += height
    if galleries:
        drawn, height = _legend(galleries[0][1].legend, y)
        parts.append(drawn)
        y += height
    return safe(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + MARGIN}" '
        f'viewBox="0 0 {WIDTH} {y + MARGIN}"><style>{_STYLE}</style>'
        f'<rect width="{WIDTH}" height="{y + MARGIN}" rx="10" fill="#ffffff"/>{"".join(parts)}</svg>'
    )


def _row(row: Row, y: int) -> tuple[str, int]:
    """An image with its panels side by side at height `y`: the SVG and its height."""
    about = " · ".join(filter(None, [row.rank, *row.facts, row.fault]))
    parts = [
        f'<text x="{MARGIN}" y="{y + 14}"><tspan class="bold">{escape(row.name)}</tspan>'
        f'<tspan class="soft" dx="8">{escape(about)}</tspan></text>',
        str(row.definition),
    ]
    y += ABOUT
    height = max((_height(picture) for _, picture in row.panels), default=0)
    for n, (caption, picture) in enumerate(row.panels):
        x = MARGIN + n * (PANEL + GAP)
        parts.append(f'<svg x="{x}" y="{y}" width="{PANEL}" height="{height}">{picture}</svg>')
        parts.append(_text(x, y + height + 15, caption, "soft"))
    return "".join(parts), ABOUT + height + CAPTION + GAP


def _height(picture: Markup) -> int:
    """The height of a panel as wide as PANEL, from its viewBox="0 0 WIDTH HEIGHT"."""
    _, _, width, height = picture.split('viewBox="', 1)[1].split('"', 1)[0].split()
    return round(PANEL * float(height) / float(width))


def _legend(classes: list[tuple[str, str]], y: int) -> tuple[str, int]:
    """Names and colours of the classes, on as many lines as needed: the SVG and its height."""
    parts, x, top = [], MARGIN, y
    for name, colour in classes:
        width = 34 + round(7.5 * len(name))
        if x > MARGIN and x + width > WIDTH - MARGIN:
            x, y = MARGIN, y + LEGEND - 8
        parts.append(
            f'<rect x="{x}" y="{y + 6}" width="12" height="12" rx="3" fill="{colour}" stroke="#0006"/>'
            + _text(x + 18, y + 16, name, "soft")
        )
        x += width
    return "".join(parts), y + LEGEND - top


def _text(x: int, y: int, words: str, style: str) -> str:
    return f'<text x="{x}" y="{y}" class="{style}">{escape(words)}</text>'
