from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.annotations.results import read_results
from data.errors import DataError
from data.masks import rle
from tests.data.fuzzing import any_json, few_times, ten_thousand_times

SIZES = {1: (8, 9), 2: (4, 5)}
CLASSES = {3, 5}
DISC = np.zeros((8, 9), dtype=bool)
DISC[2:6, 2:6] = True
GOOD = {
    "image_id": 1,
    "category_id": 3,
    "score": 0.5,
    "segmentation": {"size": [8, 9], "counts": rle.encode(DISC).decode()},
}


def written(folder: Path, value: Any) -> Path:
    path = folder / "results.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_masks_are_read_in_all_their_forms(tmp_path: Path) -> None:
    runs = {"size": [8, 9], "counts": rle.runs(rle.encode(DISC)).tolist()}
    polygon = [[2, 2, 6, 2, 6, 6, 2, 6]]
    rows = read_results(
        written(
            tmp_path, [GOOD, GOOD | {"segmentation": runs, "score": 1}, GOOD | {"segmentation": polygon}]
        ),
        SIZES,
        CLASSES,
    )
    assert [row["score"] for row in rows] == [0.5, 1.0, 0.5]
    for row in rows:
        assert row["segmentation"]["size"] == [8, 9]
        assert np.array_equal(rle.decode(row["segmentation"]["counts"], 8, 9), DISC)
    assert read_results(written(tmp_path, []), SIZES, CLASSES) == []


@pytest.mark.parametrize(
    ("record", "found"),
    [
        (3, "int"),
        ({}, "image_id None"),
        (GOOD | {"image_id": 7}, "image_id 7"),
        (GOOD | {"image_id": True}, "image_id True"),
        (GOOD | {"image_id": [1]}, "image_id [1]"),
        (GOOD | {"category_id": 4}, "category_id 4"),
        (GOOD | {"score": float("nan")}, "score nan"),
        (GOOD | {"score": float("inf")}, "score inf"),
        (GOOD | {"score": "0.5"}, "score '0.5'"),
        (GOOD | {"score": True}, "score True"),
        (GOOD | {"score": 10**400}, "score 1000"),
        ({key: GOOD[key] for key in ("image_id", "category_id", "score")}, "no segmentation"),
        (GOOD | {"segmentation": {"size": [9, 8], "counts": "x"}}, "of size [9, 8]"),
        (GOOD | {"segmentation": {"size": [10**9, 10**9], "counts": "x"}}, "of size [1000000000,"),
        (GOOD | {"segmentation": {"size": [8, 9], "counts": "ooooooooooooooooooooo0"}}, "9 digits"),
        (GOOD | {"segmentation": {"size": [8, 9], "counts": [73]}}, "73 pixels"),
        (GOOD | {"segmentation": "mask"}, "neither polygons nor an RLE"),
    ],
)
def test_each_bad_record_is_named(tmp_path: Path, record: Any, found: str) -> None:
    path = written(tmp_path, [GOOD, record, GOOD])
    with pytest.raises(DataError) as caught:
        read_results(path, SIZES, CLASSES)
    (fault,) = caught.value.faults
    assert (fault.file, fault.record) == (str(path), "result #1")
    assert found in fault.found
    assert fault.expected and fault.next_step


def test_all_bad_records_are_listed(tmp_path: Path) -> None:
    bad = [GOOD | {"image_id": n} for n in range(100, 170)]
    with pytest.raises(DataError) as caught:
        read_results(written(tmp_path, [*bad, GOOD]), SIZES, CLASSES)
    assert len(caught.value.faults) == 70


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "not readable as JSON"),
        ("[" * 100_000, "not readable as JSON"),
        ("{}", "an object with nothing in it"),
        ('{"images": [], "annotations": []}', "an object with 'annotations', 'images'"),
        ("null", "NoneType"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str, found: str) -> None:
    with pytest.raises(DataError, match=found):
        read_results(written(tmp_path, content), SIZES, CLASSES)
    with pytest.raises(DataError, match="no such file"):
        read_results(tmp_path / "absent.json", SIZES, CLASSES)


value = any_json(st.integers() | st.floats())
size = st.sampled_from([[8, 9], [4, 5], [10**9, 10**9]]) | value
counts = st.text("0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmno", max_size=12)
segmentation = (
    st.fixed_dictionaries(
        {"size": size, "counts": counts | st.lists(st.integers(-3, 80), max_size=6) | value}
    )
    | st.lists(st.lists(st.floats(-50, 50) | value, max_size=8), max_size=3)
    | value
)
record = st.fixed_dictionaries(
    {},
    optional={
        "image_id": st.sampled_from([1, 2]) | value,
        "category_id": st.sampled_from([3, 5]) | value,
        "score": st.floats(0, 1) | value,
        "segmentation": segmentation,
    },
)
documents = st.lists(record | value, max_size=4) | value


def read_or_refuse(folder: Path, document: Any) -> None:
    """Any JSON gives masks of their image's size, or a DataError whose faults have a place and a reason."""
    try:
        rows = read_results(written(folder, document), SIZES, CLASSES)
    except DataError:
        return
    for row in rows:
        assert (
            rle.decode(row["segmentation"]["counts"], *SIZES[row["image_id"]]).shape == SIZES[row["image_id"]]
        )


@few_times
@given(documents)
def test_any_json_is_read_or_refused(tmp_path: Path, document: Any) -> None:
    read_or_refuse(tmp_path, document)


@ten_thousand_times
@given(documents)
def test_any_json_is_read_or_refused_ten_thousand_times(tmp_path: Path, document: Any) -> None:
    read_or_refuse(tmp_path, document)
