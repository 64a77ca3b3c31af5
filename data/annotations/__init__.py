"""Annotation files of COCO, Scalabel and BDD100K, in and out."""
