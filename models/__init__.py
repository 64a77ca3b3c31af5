"""Networks and the mathematics on tensors: no annotation files, no COCO, nothing of our other packages."""
