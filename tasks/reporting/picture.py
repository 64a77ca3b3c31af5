"""A few images of the report's galleries as one picture, for places that can't show a page."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup, escape

from tasks.common.config import ReportConfig
from tasks.reporting.charts import safe
from tasks.reporting.rows import Gallery, Row
from tasks.reporting.val import ValImages, val_gallery
from tasks.reporting.weak import WeakImages, pseudo_gallery

ROWS = 2
"""Images of a gallery: the best and the worst, the first and the last."""
PANEL, GAP, MARGIN = 240, 10, 20
HEADING, ABOUT, CAPTION = 34, 24, 22
WIDTH = 2 * MARGIN + 4 * PANEL + 3 * GAP

# As in style.css.j2, but on a white card: the picture may be shown on a light or a dark page.
_STYLE = """
text { font-family: system-ui, "Segoe UI", "Liberation Sans", sans-serif; fill: #1d2430; font-size: 13px; }
.heading { font-size: 17px; font-weight: 650; } .soft { fill: #5b6575; } .bold { font-weight: 650; }
.mask, .wrong, .miss { fill-opacity: 0.38; stroke-width: 1.75; vector-effect: non-scaling-stroke; }
.mask, .wrong, .miss { stroke-linejoin: round; }
.wrong { fill-opacity: 0.3; stroke-width: 3; }
.miss { fill-opacity: 0; stroke-width: 2.25; stroke-dasharray: 5 3; filter: drop-shadow(0 0 1.5px #000); }
.tag { fill: #fff; stroke: #000; paint-order: stroke; stroke-linejoin: round; font-weight: 600; }
.click { stroke: #000; paint-order: stroke; } .cross { stroke: #ff3b30; fill: none; stroke-linecap: round; }
"""


def gallery_picture(workspace: Path, config: ReportConfig) -> str:
    """A self-contained SVG: pseudo masks of weak images, then the models' detections on val images.

    Reads the outputs of the stages up to `evaluate`. Images are smaller than in the report.
    """
    longest = 2 * PANEL  # sharp on screens with two pixels per point
    galleries = [
        ("Weak images: from clicks to masks", pseudo_gallery(WeakImages(workspace), ROWS, longest)),
        (
            "Validation images: what the models find (red: false alarms; dashed: missed)",
            val_gallery(ValImages(workspace, config), ROWS, longest),
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


def _text(x: int, y: int, words: str, style: str) -> str:
    return f'<text x="{x}" y="{y}" class="{style}">{escape(words)}</text>'
