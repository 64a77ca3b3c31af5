"""What ingest and import_points are made of: images, sources, what is rejected."""
