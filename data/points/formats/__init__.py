"""The formats of point files. A new one is a module here, with an ``Importer``, and an entry in ``_ORDER``."""

from __future__ import annotations

from data.points.formats import coco, cvat, delimited, label_studio, labelme, parquet, via, via3
from data.points.record import Importer

# In the order of sniffing. The most specific come first: two words in its header are enough for a CSV.
_ORDER = (
    parquet.IMPORTER, cvat.IMPORTER, coco.IMPORTER, label_studio.IMPORTER, labelme.IMPORTER, via.IMPORTER,
    via3.IMPORTER, via.CSV_IMPORTER, delimited.IMPORTER,
)  # fmt: skip
IMPORTERS: dict[str, Importer] = {importer.name: importer for importer in _ORDER}
