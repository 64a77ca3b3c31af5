"""README's picture: clicks, the masks made of them, and what the trained student finds in an image that it never saw.

    make demo && python bench/picture.py    # writes docs/img/clicks-to-model.png; needs `chromium`

Of the report's galleries it takes the weak image with the most clicks among the better half of its gallery, and of
the val images in which the student misses no object and has no false alarm, one with most objects. So it is a good
case: the report shows the bad ones too.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tasks.common.config import load_params
from tasks.reporting.rows import Row
from tasks.reporting.val import ValImages, val_gallery
from tasks.reporting.weak import WeakImages, pseudo_gallery

OUT = Path(__file__).resolve().parents[1] / "docs" / "img" / "clicks-to-model.png"
SIDE, GAP, CAPTION = 250, 46, 34
STYLE = """
body { margin: 0; background: #fff; } .panel { position: absolute; top: 0; border-radius: 6px; }
.mask { fill-opacity: 0.45; stroke-width: 2; vector-effect: non-scaling-stroke; stroke-linejoin: round; }
.click { stroke: #000; paint-order: stroke; }
.tag { fill: #fff; stroke: #1d2430; paint-order: stroke; font-family: "DejaVu Sans", sans-serif; }
p, b { position: absolute; margin: 0; font: 15px "DejaVu Sans", sans-serif; color: #1d2430; text-align: center; }
b { font-size: 26px; width: 46px; color: #5b6575; }
"""


def main() -> None:
    workspace = Path("workspace")
    params = load_params("params.yaml")
    ranked = pseudo_gallery(WeakImages(workspace), shown=60).rows
    clicks = max(ranked[: len(ranked) // 2], key=lambda row: _count(row, r"(\d+) clicks"))
    found = max(
        val_gallery(ValImages(workspace, params.report), shown=100).rows,
        key=lambda row: (
            -_count(row, r"(\d+) missed") - _count(row, r"(\d+) false alarms?"),
            _count(row, r"(\d+) objects"),
        ),
    )
    panels = [
        (clicks, "clicks", "one click per object"),
        (clicks, "refined", "masks made of the clicks"),
        (found, "student", "the student, on a new image"),
    ]
    body = []
    for n, (row, name, caption) in enumerate(panels):
        left = n * (SIDE + GAP)
        picture = str(dict(row.panels)[name]).replace(
            "<svg ", f'<svg width="{SIDE}" height="{SIDE}" style="left:{left}px" ', 1
        )
        # An SVG image that several panels share must not be hidden with display: none.
        definition = str(row.definition).replace(
            'class="defs"', 'width="0" height="0" style="position:absolute"'
        )
        body.append(definition + picture)
        body.append(f'<p style="left:{left}px;width:{SIDE}px;top:{SIDE + 9}px">{caption}</p>')
        if n:
            body.append(f'<b style="left:{left - GAP}px;top:{SIDE // 2 - 20}px">→</b>')
    width, height = 3 * SIDE + 2 * GAP, SIDE + CAPTION
    OUT.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(f'<meta charset="utf-8"><style>{STYLE}</style>{"".join(body)}', encoding="utf-8")
        chromium = shutil.which("chromium") or sys.exit("chromium is missing: apt-get install chromium")
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--force-device-scale-factor=2"]
        subprocess.run(
            [chromium, *options, f"--window-size={width},{height}", f"--screenshot={OUT}", page.as_uri()],
            check=True,
            capture_output=True,
        )
    with Image.open(OUT) as taken:
        taken.convert("RGB").save(OUT, optimize=True)
    print(f"{OUT}: {clicks.name}, {found.name}")


def _count(row: Row, pattern: str) -> int:
    return next((int(found[1]) for fact in row.facts if (found := re.fullmatch(pattern, fact))), 0)


if __name__ == "__main__":
    main()
