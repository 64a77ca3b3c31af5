"""Any JSON is read as COCO instances, with masks that can be decoded, or refused with a DataError."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from data.annotations.coco.file import read_coco, to_instances
from data.errors import DataError
from data.masks import rle as masks
from tests.data.fuzzing import any_json, few_times, ten_thousand_times
from tests.data.scalabel_files import HEIGHT, WIDTH, written

whole = st.integers(-2, 12) | st.sampled_from([2**63, -(2**63) - 1, 10**400])
number = st.floats(-3, 30) | whole | st.sampled_from([1e308, float("nan"), float("inf")])
value = any_json(number)


def or_any(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Nearly always what belongs there, sometimes anything."""
    return st.integers(0, 15).flatmap(lambda n: strategy if n else value)


def record(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(fields)


polygon = st.lists(or_any(st.floats(-3, 12)), min_size=4, max_size=10)
rle = record(
    size=or_any(st.sampled_from([[HEIGHT, WIDTH], [HEIGHT, WIDTH], [10**9, 10**9]])),
    counts=or_any(
        st.text("".join(map(chr, range(48, 112))), max_size=10)
        | st.lists(st.integers(0, 80), max_size=5)
        | st.just([HEIGHT * WIDTH])
    ),
)
annotation = record(
    id=or_any(st.integers(0, 5)),
    image_id=or_any(st.sampled_from([1, 2])),
    category_id=or_any(st.sampled_from([3, 4])),
    segmentation=or_any(st.lists(polygon, max_size=2) | rle),
    iscrowd=or_any(st.sampled_from([0, 1, True])),
    area=or_any(number),
    bbox=or_any(st.lists(number, min_size=4, max_size=4) | st.none()),
)
image = record(
    id=or_any(st.sampled_from([1, 2])),
    file_name=or_any(st.sampled_from(["1.png", "a/2.png"])),
    width=or_any(st.just(WIDTH)),
    height=or_any(st.just(HEIGHT)),
)
category = record(id=or_any(st.sampled_from([3, 4])), name=or_any(st.sampled_from(["nut", "bolt"])))
documents = or_any(
    record(
        images=or_any(st.lists(or_any(image), max_size=2, unique_by=repr)),
        annotations=or_any(st.lists(or_any(annotation), max_size=2)),
        categories=or_any(st.lists(or_any(category), max_size=2, unique_by=repr)),
    )
)


def read_or_refuse(folder: Path, document: Any) -> None:
    path = written(folder / "labels.json", document)
    for need_masks in (True, False):
        try:
            coco = read_coco(path, need_masks=need_masks)
        except DataError:
            continue
        sizes = {row["id"]: (row["height"], row["width"]) for row in coco.images}
        for row in to_instances(coco).to_pylist():
            assert masks.decode(row["rle_counts"], *sizes[row["image_id"]]).shape == sizes[row["image_id"]]


@few_times
@given(documents)
def test_any_json_is_read_or_refused(tmp_path: Path, document: Any) -> None:
    read_or_refuse(tmp_path, document)


@ten_thousand_times
@given(documents)
def test_any_json_is_read_or_refused_ten_thousand_times(tmp_path: Path, document: Any) -> None:
    read_or_refuse(tmp_path, document)
