"""The formats of point files. A new one is a module here, with an ``Importer``, and an entry in ``_ORDER``."""

from __future__ import annotations

from data.points.formats import (
    cell_counter,
    coco,
    cvat,
    delimited,
    dotdotgoose,
    geojson,
    imagej_results,
    imagej_roi,
    label_studio,
    label_studio_csv,
    labelme,
    parquet,
    via,
    via3,
    yolo_pose,
    zooniverse,
)
from data.points.record import Importer

# In the order of sniffing. The most specific come first: two words in its header are enough for a CSV.
_ORDER = (
    parquet.IMPORTER, imagej_roi.IMPORTER, cvat.IMPORTER, cell_counter.IMPORTER, coco.IMPORTER,
    label_studio.IMPORTER, labelme.IMPORTER, via.IMPORTER, via3.IMPORTER, geojson.IMPORTER, dotdotgoose.IMPORTER,
    via.CSV_IMPORTER, zooniverse.IMPORTER, label_studio_csv.IMPORTER, imagej_results.IMPORTER, yolo_pose.IMPORTER,
    delimited.IMPORTER,
)  # fmt: skip
IMPORTERS: dict[str, Importer] = {importer.name: importer for importer in _ORDER}
