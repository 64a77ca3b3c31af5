"""COCO's figures, intervals, and the quality of pseudo masks."""
