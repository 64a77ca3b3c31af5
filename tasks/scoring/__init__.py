"""COCO metrics, confidence intervals, and the quality of pseudo masks."""
