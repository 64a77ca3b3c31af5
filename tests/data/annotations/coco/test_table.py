from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.annotations.coco import file as coco_module
from data.annotations.coco import table
from data.annotations.coco.file import read_coco, to_instances
from data.errors import DataError
from tests.data.annotations.coco.test_file import read_both

SQUARE = [1.5, 1, 5, 1.25, 5, 5, 1, 5]
RLE = {"size": [8, 9], "counts": [10, 20, 42]}
ODD = {
    "id": [True, "1", None, 2**63, 1.0, 3],
    "image_id": [1, 3, None, True, 2**70, [1]],
    "category_id": [1, 9, None, "1"],
    "iscrowd": [0, 1, True, 1.0, 2, None, [1]],
    "area": [0, 7, 2.5, 2**24 + 1, 2**70, 1e39, 10**400, True, -1, None, float("nan"), "1"],
    "bbox": [
        None, [1, 2, 3, 4], [1, 2.5, 3, 4], [1, 2, 3, 2**31 + 1], [1, 2, -3, 4], [1, 2, 3], "box",
        [1, 2, 3, True], [0, 0, 1, 10**400],
    ],
    "segmentation": [
        [SQUARE], [SQUARE, [6, 5, 9, 5, 9, 8, 6, 8]], RLE, {"size": [8, 9], "counts": "X"}, [], {}, None, 0, "", "text",
        [SQUARE, 5], [[]], [SQUARE[:-1]], [SQUARE[:4]], [[*SQUARE, 300, 1]], [[*SQUARE[:-1], True]],
        [[*SQUARE[:-1], None]], [[*SQUARE[:-1], "5"]], [[*SQUARE[:-1], [5]]], [[*SQUARE[:-1], float("inf")]],
        [[10**400] * 6], [[True] * 6], {"size": [9, 8], "counts": [72]}, {"size": [8, 9], "counts": [True] * 72},
    ],
}  # fmt: skip


@st.composite
def annotations(draw: st.DrawFn) -> list[Any]:
    """Up to twelve plain annotations, some with an odd field or without one, or of another kind."""
    rows: list[Any] = []
    for n in range(draw(st.integers(0, 12))):
        row: dict[str, Any] = {
            "id": 100 - n, "image_id": 1 + n % 2, "category_id": 1, "segmentation": [SQUARE], "iscrowd": 0,
            "area": 2.3, "bbox": [1, 1, 4.1, 4],
        }  # fmt: skip
        if draw(st.integers(0, 3)) == 0:
            field = draw(st.sampled_from(sorted(ODD)))
            if draw(st.booleans()):
                del row[field]
            else:
                row[field] = draw(st.sampled_from(ODD[field]))
        rows.append(draw(st.sampled_from([None, [], 3])) if draw(st.integers(0, 40)) == 0 else row)
    return rows


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=annotations(), need_masks=st.booleans(), size=st.sampled_from([1, 3, 100]), no_image=st.booleans()
)
def test_batches_give_the_rows_and_faults_of_single_records(
    tmp_path: Path, rows: list[Any], need_masks: bool, size: int, no_image: bool
) -> None:
    images = [{"id": n, "file_name": f"{n}.png", "width": 9, "height": 0 if no_image else 8} for n in (1, 2)]
    path = tmp_path / "file.json"
    document = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "nut"}]}
    path.write_text(json.dumps(document))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coco_module, "BATCH", size)
        with contextlib.suppress(DataError):
            read_both(path, need_masks=need_masks)


def test_plain_files_go_by_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No plain annotation is looked at singly, which would take several times as long."""
    rows = [
        {"id": n, "image_id": 1, "category_id": 1, "segmentation": [SQUARE], "area": 3, "bbox": None, "iscrowd": n % 2}
        for n in range(20)
    ]  # fmt: skip
    images = [{"id": 1, "file_name": "1.png", "width": 9, "height": 8}]
    path = tmp_path / "file.json"
    document = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "nut"}]}
    path.write_text(json.dumps(document))
    expected = to_instances(read_coco(path))

    def single(*_: Any) -> None:
        raise AssertionError("a record by itself")

    monkeypatch.setattr(table, "annotation_problem", single)
    assert to_instances(read_coco(path, keep_annotations=False)).equals(expected)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_an_id_is_used_once_in_all_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    rows = [{"id": n, "image_id": 1, "category_id": 1, "segmentation": [SQUARE]} for n in (7, 8, 9, 7)]
    images = [{"id": 1, "file_name": "1.png", "width": 9, "height": 8}]
    path = tmp_path / "file.json"
    document = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "nut"}]}
    path.write_text(json.dumps(document))
    monkeypatch.setattr(coco_module, "BATCH", size)
    with pytest.raises(DataError) as raised:
        read_coco(path, keep_annotations=False)
    assert [fault.record for fault in raised.value.faults] == ["annotation 7 (#3)"]
