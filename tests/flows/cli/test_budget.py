"""What `points2model budget` prints."""

from __future__ import annotations

import io
import json

import pytest

from flows.cli.budget import _chosen, _show, _summary
from flows.cli.console import Console
from tasks.budget.forecast import Forecaster
from tests.tasks.budget.test_forecast import RISING, measurement


@pytest.fixture(scope="module")
def forecaster() -> Forecaster:
    return Forecaster(measurement(RISING))


def test_tables_back_test_and_the_next_batch(forecaster: Forecaster) -> None:
    stream = io.StringIO()
    _show(forecaster, _chosen(forecaster, None, 60), Console(file=stream, width=120, soft_wrap=True))
    said = stream.getvalue()
    rows = [line for line in said.splitlines() if line.startswith("│")]
    assert len(rows) == 6 + 6
    assert "Back-test: the trainings with at most half of the masks" in said and "inside the band" in said
    last = said.splitlines()[-2:]
    assert last[0].startswith("Masks on 10 more images (about 300) cost 6.6 hours and bring between +")
    assert last[1].startswith(
        "Clicks on 60 more images (about 1,800) cost 1.2 hours; no forecast: the band is wider"
    )


def test_json(forecaster: Forecaster) -> None:
    found = json.loads(json.dumps(_summary(forecaster, _chosen(forecaster, 41, None))))
    masks, clicks = found["next"]
    assert masks["gain"] is None and "more than twice" in masks["refused"] and masks["kind"] == "masks"
    assert clicks["images"] == 25 and "wider than the gain" in clicks["text"]
    assert set(found["batches"][0]["gain"]) == {"low", "middle", "high"}
    assert len(found["runs"]) == 6 and len(found["batches"]) == 6 and found["back_test"]["inside"] is True
