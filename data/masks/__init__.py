"""Masks as run-length codes and polygons."""
