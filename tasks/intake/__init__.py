"""Parts of ingest and import_points: images, sources, rejected images and points."""
