from __future__ import annotations

import cv2
import numpy as np
import pytest

from data.images.jpeg import to_jpeg


@pytest.mark.parametrize(
    ("size", "longest", "expected"),
    [((40, 80), 80, (40, 80)), ((40, 80), 100, (40, 80)), ((40, 80), 20, (10, 20)), ((1, 80), 8, (1, 8))],
)
def test_size_and_colours(size: tuple[int, int], longest: int, expected: tuple[int, int]) -> None:
    image = np.full((*size, 3), (200, 30, 60), np.uint8)
    code = np.frombuffer(to_jpeg(image, longest, 92), np.uint8)
    read = cv2.cvtColor(cv2.imdecode(code, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert read.shape == (*expected, 3)
    assert abs(read.astype(int) - (200, 30, 60)).max() <= 4
