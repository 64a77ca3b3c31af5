"""Networks and the mathematics on tensors: no files of annotations, no COCO, nothing of our other packages."""
