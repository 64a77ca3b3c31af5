"""COCO JSON: read in a stream, checked, as tables."""
