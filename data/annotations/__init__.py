"""Annotation files of COCO, Scalabel and BDD100K: readers and writers."""
