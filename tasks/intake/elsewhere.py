"""Images that take no clicks. Not part of rejected.py, which ingest imports: ingest doesn't depend on this code."""

from __future__ import annotations

from data.points.elsewhere import Elsewhere
from data.tables import IMAGES, INSTANCES, Split, read_arrow
from tasks.intake.rejected import rejected_images


def images_elsewhere(weak: Split) -> Elsewhere:
    """Rejected weak images, and those of the splits strong and val."""
    splits = {}
    for name in ("strong", "val"):
        folder = weak.root.parent / name
        if (folder / "images.arrow").is_file():
            images = read_arrow(folder / "images.arrow", IMAGES)
            splits[name] = Split(folder, images, INSTANCES.empty_table(), weak.categories, weak.image_root)
    return Elsewhere(rejected_images(weak), splits)
