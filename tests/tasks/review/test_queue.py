from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from tasks.review.desk import Desk
from tasks.review.queue import Filters


def test_the_worst_come_first(desk: Desk) -> None:
    rows = desk.queue(Filters())
    doubt = desk._doubts.doubt[rows]
    assert (np.diff(doubt) <= 0).all()
    assert len(rows) == (desk.objects.area > 0).sum() == 178


@pytest.mark.parametrize("order", ["score", "disagreement", "size", "overlap"])
def test_each_sign_orders(desk: Desk, order: str) -> None:
    rows = desk.queue(Filters(order=order))
    assert (np.diff(getattr(desk._doubts, order)[rows]) <= 0).all() and len(rows) == 178


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"mask": "all"}, lambda o: o.area >= 0),
        ({"mask": "without"}, lambda o: o.area == 0),
        ({"mask": "rough"}, lambda o: o.status == 1),
        ({"mask": "ok"}, lambda o: o.status == 0),
        ({"category": 2}, lambda o: (o.category == 2) & (o.area > 0)),
        ({"proposer": "sam"}, lambda o: o.proposer == o.proposers.index("sam")),
        ({"proposer": "gone"}, lambda o: o.area < 0),
        ({"image": "DAY/00000"}, lambda o: (o.image < 9) & (o.area > 0)),
        ({"image": "(.*"}, lambda o: o.area < 0),
        ({"decided": "yes"}, lambda o: o.area < 0),
        ({"decided": "contradicted"}, lambda o: o.area < 0),
    ],
)
def test_filters(desk: Desk, filters: dict, expected: object) -> None:
    rows = desk.queue(Filters(**filters))
    assert sorted(rows.tolist()) == np.flatnonzero(expected(desk.objects)).tolist()  # type: ignore[operator]


def test_a_list_is_the_queue_in_its_order(desk: Desk) -> None:
    names = desk.objects.ids
    desk.listed = [names[50], "gone", names[3], names[20]]
    assert desk.queue(Filters(order="given")).tolist() == [50, 3, 20]
    assert sorted(desk.queue(Filters()).tolist()) == [3, 20, 50]
    desk.listed = []
    assert desk.queue(Filters(order="given")).tolist() == []


def test_a_misspelt_filter_is_an_error() -> None:
    with pytest.raises(ValidationError):
        Filters(clas=3)  # type: ignore[call-arg]
