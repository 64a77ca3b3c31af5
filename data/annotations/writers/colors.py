"""Colours of classes in label tools."""

from __future__ import annotations

import colorsys


def colors(count: int) -> list[str]:
    """Colours that differ, as #rrggbb; the first ones are the same for any count."""
    found = (colorsys.hsv_to_rgb((0.07 + 0.618034 * n) % 1, 0.75, 0.9) for n in range(count))
    return ["#" + "".join(f"{round(255 * part):02x}" for part in color) for color in found]
