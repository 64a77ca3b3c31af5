"""The columns of every table, with their units. See ``data.tables`` for files and conventions."""

from __future__ import annotations

import pyarrow as pa

IMAGES = pa.schema(
    [
        ("image_id", pa.int64()),
        ("file_name", pa.string()),  # as in the annotation file
        ("uri", pa.string()),  # relative to the split's image_root
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("sha256", pa.string()),  # of the file's bytes, hex
        ("split", pa.string()),  # "strong", "weak", "val", "kept_aside"
        ("label", pa.string()),  # "mask", "point", "none"
        ("status", pa.string()),  # "ok", or why the image can't be used
    ]
)
INSTANCES = pa.schema(
    [
        ("instance_id", pa.int64()),
        ("image_id", pa.int64()),
        ("category_id", pa.int64()),  # the data set's own id
        ("bbox_xywh", pa.list_(pa.float32(), 4)),
        ("area", pa.float32()),  # pixels
        ("iscrowd", pa.bool_()),
        ("rle_counts", pa.binary()),  # COCO compressed; the size is the image's
        ("source", pa.string()),  # "annotator", "pseudo", or "review": accepted or drawn by a reviewer
        ("score", pa.float32()),  # null but for pseudo masks
    ]
)
CLICKED_INSTANCES = pa.schema(
    [
        *INSTANCES,
        ("point_x", pa.float32()),  # click that the mask was made from; null for an annotator's mask
        ("point_y", pa.float32()),
    ]
)
CLICKS = pa.list_(
    pa.struct(
        [
            ("x", pa.float32()),
            ("y", pa.float32()),
            ("inside", pa.bool_()),  # false: the place isn't the object
        ]
    )
)
POINTS = pa.schema(
    [
        ("point_id", pa.string()),  # 16 hex digits, a hash of source_file and source_record
        ("image_id", pa.int64()),
        ("category_id", pa.int64()),
        ("x", pa.float32()),
        ("y", pa.float32()),
        ("annotator", pa.string()),
        ("labelled_at", pa.string()),
        ("source_file", pa.string()),
        ("source_record", pa.string()),
        ("further", CLICKS),  # clicks on the same object, those inside first; null: there are none
    ]
)
REJECTED = pa.schema(
    [
        ("file", pa.string()),
        ("record", pa.string()),
        ("reason", pa.string()),  # one word for counting, e.g. "unknown_image"
        ("found", pa.string()),
        ("expected", pa.string()),
        ("point_id", pa.string()),
        ("image", pa.string()),  # image and category as in the point file
        ("category", pa.string()),
        ("image_id", pa.int64()),
        ("category_id", pa.int64()),
        ("x", pa.float64()),
        ("y", pa.float64()),
        ("annotator", pa.string()),
        ("labelled_at", pa.string()),
    ]
)
DECISIONS = pa.schema(
    [
        ("decision_id", pa.string()),
        ("time", pa.string()),  # UTC, ISO 8601
        ("reviewer", pa.string()),
        ("action", pa.string()),  # "accept", "reject", "mask", "class", "clicks", "add", "complete"
        ("state", pa.string()),  # "honoured", or why it isn't, in one word: see tasks/intake/decisions.py
        ("found", pa.string()),  # what is in its way, and what was expected; null where nothing is
        ("expected", pa.string()),
        ("image", pa.string()),  # as in the file
        ("image_id", pa.int64()),  # null if there is no such weak image
        ("object_id", pa.string()),  # a point's id, or an added object's; null: the image
        ("category_id", pa.int64()),  # of the object, with all decisions on it; null unless honoured
        ("source", pa.string()),  # how a mask was drawn: "click", "polygon", "brush"
        ("rle_counts", pa.binary()),  # the object's mask, which is learnt; null in all other rows
    ]
)
PSEUDO = pa.schema(
    [
        ("point_id", pa.string()),
        ("image_id", pa.int64()),
        ("category_id", pa.int64()),
        ("status", pa.string()),  # "ok", "rough", "empty", "failed"
        ("reason", pa.string()),  # why, where status is not "ok"; of several proposers, whose mask
        ("level", pa.int32()),
        ("class_score", pa.float32()),
        ("maskness", pa.float32()),
        ("score", pa.float32()),
        ("rough_rle", pa.binary()),
        ("refined_rle", pa.binary()),
        ("iou_rough_refined", pa.float32()),
        ("bbox_xywh", pa.list_(pa.float32(), 4)),
        ("area", pa.float32()),
        ("contains_point", pa.bool_()),
    ]
)
SENT = pa.schema(
    [
        ("object_id", pa.string()),  # a point's id, or an added object's; null: a model found it
        ("image", pa.string()),  # file_name
        ("category", pa.string()),  # name
        ("height", pa.int32()),  # of the image
        ("width", pa.int32()),
        ("rle_counts", pa.binary()),
        ("score", pa.float32()),  # null for masks that a person accepted or drew
    ]
)
PREDICTIONS = pa.schema(
    [
        ("image_id", pa.int64()),
        ("category_id", pa.int64()),
        ("score", pa.float64()),  # as in COCO results, with 6 decimals
        ("bbox_xywh", pa.list_(pa.float32(), 4)),
        ("area", pa.float32()),  # pixels
        ("height", pa.int32()),  # of the image
        ("width", pa.int32()),
        ("rle_counts", pa.binary()),
    ]
)
