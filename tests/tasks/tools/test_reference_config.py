from __future__ import annotations

from pathlib import Path

import pytest

from models.reference.published_config import STUDENT, TEACHER
from tasks.common.errors import TaskError
from tasks.tools.reference_config import read_reference_config


def test_what_the_file_says_goes_before_the_base(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "MODEL:\n  PIXEL_MEAN: [1, 2, 3]\n  RESNETS: {STRIDE_IN_1X1: false}\n"
        "  SOLOV2:\n    NUM_GRIDS: [6, 4]\n    FPN_SCALE_RANGES: [[1, 9], [9, 99]]\n    NMS_TYPE: mask\n"
        "INPUT: {FORMAT: RGB, MIN_SIZE_TEST: 320}\n"
    )
    settings = read_reference_config(path, STUDENT)
    assert (settings.grids, settings.ranges) == ((6, 4), ((1, 9), (9, 99)))
    assert (settings.nms, settings.bgr, settings.stride_in_1x1) == ("mask", False, False)
    assert settings.pixel_mean == (1, 2, 3)
    assert (settings.short_side, settings.max_side) == (320, 1333)
    assert settings.name == "config.yaml"
    assert settings.centre_shrink == STUDENT.centre_shrink


def test_lists_as_text(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        'MODEL:\n  SOLOV2:\n    NUM_GRIDS: "80,64,32,24,12"\n'
        '    FPN_SCALE_RANGES: "((1,72),(72,144),(144,288),(288,584),(584,2048))"\n'
    )
    settings = read_reference_config(path, STUDENT)
    assert (settings.grids, settings.ranges) == (TEACHER.grids, TEACHER.ranges)


def test_the_fixture_s_file(shared_dir: Path) -> None:
    settings = read_reference_config(shared_dir / "fixtures/reference/solov2_tiny/config.yaml", STUDENT)
    assert settings.grids == (20, 16, 12, 8, 6)
    assert settings.ranges == TEACHER.ranges
    assert settings.inference == STUDENT.inference


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        ("a: [", ["not readable as YAML"]),
        ("seed: 1", ["no section MODEL"]),
        ("_BASE_: x.yaml\nMODEL: {}", ["found _BASE_ 'x.yaml'"]),
        (
            "MODEL: {PIXEL_MEAN: [1], SOLOV2: {NUM_GRIDS: many, NMS_TYPE: soft}}",
            [
                "3 impossible values",
                "MODEL.PIXEL_MEAN: found [1]",
                "NUM_GRIDS: found 'many'",
                "expected one of matrix, mask",
            ],
        ),
    ],
)
def test_faults(tmp_path: Path, text: str, reasons: list[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(TaskError) as caught:
        read_reference_config(path, STUDENT)
    assert all(reason in str(caught.value) for reason in reasons)
