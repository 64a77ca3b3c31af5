"""What a forecast says, where there is none, and what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.budget.forecast import Band, Batch, Forecaster, came
from tasks.budget.record import ASSUMED_SPREAD, Cost, Finished, Measurement, Run, add_measurement, read_budget
from tasks.budget.words import back_test_sentence, batch_sentence, came_sentence, notes
from tasks.common.errors import TaskError

SHARES = [(masks, clicks) for masks in (0.25, 0.5, 1.0) for clicks in (0.5, 1.0)]


def measurement(ap: list[float], noise: float = 0.01, seeds: int = 1, **changed: Any) -> Measurement:
    """40 images with 1,200 masks, and 100 with 3,000 clicks."""
    runs = [
        Run(
            mask_share=masks, click_share=clicks, seed=seed, mask_images=round(40 * masks), masks=round(1200 * masks),
            click_images=round(100 * clicks), clicks=round(3000 * clicks), AP=one + (0.5 if seed else 0),
        )
        for (masks, clicks), one in zip(SHARES, ap, strict=True)
        for seed in range(seeds)
    ]  # fmt: skip
    size = len(runs)
    content = {
        "made": "2026-11-29", "val": "abc", "val_images": 66, "steps": {"teacher": 100, "refiner": 50, "student": 200},
        "runs": runs, "covariance": (noise * np.eye(size)).tolist(), "mask": Cost(seconds=79.2, source="COCO"),
        "click": Cost(seconds=2.4, source="points"), "finished": Finished(AP=36.0, model="m"),
    }  # fmt: skip
    return Measurement(**(content | changed))


def power(masks: float, clicks: float) -> float:
    return 40 - 12 * (masks + 0.1 * clicks) ** -0.7


RISING = [power(*one) for one in SHARES]


def test_a_batch_costs_and_brings() -> None:
    forecaster = Forecaster(measurement(RISING))
    batch = forecaster.batch("masks", 20)
    assert (batch.images, batch.labels, batch.refused) == (20, 600, None)
    assert batch.hours == pytest.approx(600 * 79.2 / 3600)
    assert batch.gain is not None and batch.gain.low <= power(1.5, 1) - power(1, 1) <= batch.gain.high
    assert batch.per_hour is not None and batch.per_hour.high == pytest.approx(batch.gain.high / 13.2)
    text = batch_sentence(batch)
    assert text.startswith("Masks on 20 more images (about 600) cost 13.2 hours and bring between +")
    clicks = forecaster.batch("clicks", 50)
    assert clicks.labels == 1500 and clicks.hours == pytest.approx(1.0)
    assert [one.images for one in forecaster.batches("masks")] == [10, 20, 40]


@pytest.mark.parametrize(("images", "refused"), [(40, False), (41, True)])
def test_nothing_is_forecast_beyond_twice_the_data(images: int, refused: bool) -> None:
    batch = Forecaster(measurement(RISING)).batch("masks", images)
    assert (batch.gain is None) == refused
    assert not refused or "more than twice the present 40 images" in str(batch.refused)


def test_a_band_that_is_wider_than_the_gain_is_no_forecast() -> None:
    batch = Forecaster(measurement([10.0, 11.0, 9.0, 12.0, 10.5, 11.2], noise=4.0)).batch("masks", 40)
    assert batch.gain is None and "the band is wider than the gain" in str(batch.refused)
    assert "no forecast: the band is wider" in batch_sentence(batch)


def test_ap_that_falls_is_said() -> None:
    forecaster = Forecaster(measurement([30.0, 29.0, 24.0, 23.0, 15.0, 14.0], noise=1e-4))
    batch = forecaster.batch("clicks", 10)
    assert batch.gain is None and "AP falls as labels are added" in str(batch.refused)
    test = forecaster.back_test()
    assert not test.is_inside


def test_trainings_that_learnt_nothing_forecast_nothing() -> None:
    forecaster = Forecaster(measurement([0.0, 0.1, 0.0, 0.3, 0.2, 0.9]))
    assert "the best training has 0.9 AP" in str(forecaster.batch("masks", 10).refused)
    assert "the best training has 0.9 AP" in back_test_sentence(forecaster.back_test())


def test_what_brings_nothing_is_said_and_not_refused() -> None:
    assert "bring next to nothing, at most +0.20 AP" in batch_sentence(
        Batch("clicks", 5, 50, 0.4, Band(0.0, 0.05, 0.2), None)
    )


def test_the_back_test_sees_half_of_the_masks_only() -> None:
    test = Forecaster(measurement(RISING)).back_test()
    assert test.band is not None and test.is_inside and abs(test.error or 9) < 1.5
    assert (test.measured, test.before) == (pytest.approx(RISING[5]), pytest.approx(RISING[3]))
    broken = [
        *RISING[:4],
        RISING[4] + 9,
        RISING[5] + 9,
    ]  # the largest ones don't change the forecast of themselves
    other = Forecaster(measurement(broken)).back_test()
    assert other.band is not None and not other.is_inside
    assert other.band.middle == pytest.approx(test.band.middle, abs=0.6)
    assert "outside the band: don't rely on the forecast" in back_test_sentence(other)


def test_masks_alone_have_no_back_test() -> None:
    alone = measurement(RISING)
    runs = [
        run.model_copy(update={"clicks": 0, "click_images": 0}) for run in alone.runs if run.click_share == 1
    ]
    forecaster = Forecaster(
        alone.model_copy(update={"runs": runs, "covariance": (0.01 * np.eye(3)).tolist()})
    )
    assert forecaster.batch("masks", 20).gain is not None
    assert forecaster.batches("clicks") == []
    assert "no clicks yet" in str(forecaster.batch("clicks", 5).refused)
    assert "2 smaller trainings are too few" in back_test_sentence(forecaster.back_test())


def test_the_spread_between_seeds_is_measured_where_it_can_be() -> None:
    assert measurement(RISING).spread() == (pytest.approx(ASSUMED_SPREAD * max(RISING)), False)
    spread, is_measured = measurement(RISING, seeds=2).spread()
    assert is_measured and spread == pytest.approx(0.5 / 2**0.5)
    assert "standard deviation of 0.35;" not in notes(measurement(RISING))[0]
    assert (
        "assumed" in notes(measurement(RISING))[0] and "assumed" not in notes(measurement(RISING, seeds=2))[0]
    )


def test_a_forecast_beside_what_came() -> None:
    earlier = measurement(RISING)
    found = came(earlier, 1800, 3000, 37.4, "abc")
    assert found is not None and found.forecast is not None
    assert (found.masks, found.clicks, found.came) == (600, 0, pytest.approx(1.4))
    assert came_sentence(found).startswith("On 2026-11-29 the forecast for 600 more masks was between +")
    assert came_sentence(found).endswith("what came is +1.4: 36.0 before, 37.4 now.")
    far = came(earlier, 2401, 3000, 37.4, "abc")
    assert far is not None and far.forecast is None and "more than twice" in came_sentence(far)


@pytest.mark.parametrize(
    ("masks", "clicks", "ap", "val"),
    [
        (1200, 3000, 37.0, "abc"), (1199, 3100, 37.0, "abc"), (1300, 2999, 37.0, "abc"), (1300, 3000, None, "abc"),
        (1300, 3000, 37.0, "other"),
    ],
)  # fmt: skip
def test_nothing_came_or_can_be_compared(masks: int, clicks: int, ap: float | None, val: str) -> None:
    assert came(measurement(RISING), masks, clicks, ap, val) is None


def test_the_file_keeps_a_measurement_of_each_state_of_the_data(tmp_path: Path) -> None:
    assert read_budget(tmp_path).measurements == []
    first, again = measurement(RISING), measurement(RISING, made="2026-12-01")
    add_measurement(tmp_path, first)
    add_measurement(tmp_path, again)
    assert read_budget(tmp_path).measurements == [again]
    add_measurement(tmp_path, measurement(RISING, val="other"))
    assert [one.val for one in read_budget(tmp_path).measurements] == ["abc", "other"]
    (tmp_path / "budget.json").write_text('{"measurements": 1}')
    with pytest.raises(TaskError, match=r"budget\.json: damaged"):
        add_measurement(tmp_path, first)
    assert (tmp_path / "budget.json").read_text() == '{"measurements": 1}'
