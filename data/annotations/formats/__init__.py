"""Readers of masks, one format a file; `data.annotations.read` chooses among them.

They list all faults with file and record, look images up as all other readers do, and return run-length codes. No
library that was tried does: of these formats labelformat 0.1 reads YOLO alone; Datumaro 1.13 opened no JSON of labelme
and no YOLO folder with polygons, and left objects of Cityscapes out.
"""
