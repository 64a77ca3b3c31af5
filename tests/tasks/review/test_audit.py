"""The random sample: drawn, kept, judged, and what it says; with the page's desk."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.decisions.record import Mask
from data.decisions.store import AUDIT, DecisionLog, read_decisions
from data.errors import DataError
from data.tables import PSEUDO, read_parquet, write_parquet
from tasks.common.config import Params
from tasks.common.errors import TaskError
from tasks.reporting.review import audit_view
from tasks.review.audit import (
    Sample,
    Sampled,
    draw_sample,
    hash_of,
    judged,
    present_masks,
    read_sample,
    shares,
    tally,
    write_sample,
)
from tasks.review.desk import Desk
from tasks.review.estimate import estimate, wilson
from tasks.tools.random_sample import open_sample
from tests.tasks.review.project import CLASSES, HEIGHT, WIDTH, rle, write_project

MASK = Mask(HEIGHT, WIDTH, rle(1, 1, 5))


def masks(**sizes: int) -> list[Sampled]:
    return [
        Sampled(f"{name}{n}", "7.png", name, hash_of(MASK.counts))
        for name, size in sizes.items()
        for n in range(size)
    ]


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 200), min_size=1), st.integers(1, 300))
def test_shares_are_of_the_size_asked_for(population: dict[str, int], count: int) -> None:
    found = shares(population, count)
    assert sum(found.values()) == min(count, sum(population.values()))
    assert all(0 <= found[name] <= size for name, size in population.items())


def test_a_rare_class_has_more_than_its_share() -> None:
    """Of 20 masks 10 are spread evenly over two classes, 10 by their sizes; what a class lacks goes to the other."""
    assert shares({"rare": 10, "usual": 990}, 20) == {"rare": 5, "usual": 15}
    assert shares({"rare": 3, "usual": 997}, 20) == {"rare": 3, "usual": 17}


def test_the_same_masks_and_seed_give_the_same_sample_in_random_order() -> None:
    one, other = (draw_sample(rows, 40, 3) for rows in (masks(a=100, b=30), masks(a=100, b=30)[::-1]))
    assert one.objects == other.objects and one.id == other.id
    assert draw_sample(masks(a=100, b=30), 40, 4).objects != one.objects
    assert len({row.object for row in one.objects}) == 40
    order = [row.category for row in one.objects]
    assert order != sorted(order) and order != sorted(order)[::-1]


def test_each_mask_is_drawn_as_often_as_the_others() -> None:
    """Of 12 masks 4 are drawn with 600 seeds: 200 times each, give or take five standard deviations."""
    drawn = Counter(row.object for seed in range(600) for row in draw_sample(masks(a=12), 4, seed).objects)
    assert len(drawn) == 12 and max(abs(number - 200) for number in drawn.values()) < 5 * (600 * 2 / 9) ** 0.5


def test_a_sample_is_kept(tmp_path: Path) -> None:
    assert read_sample(tmp_path) is None
    sample = draw_sample(masks(a=5, b=5), 6, 0)
    write_sample(tmp_path, sample)
    assert read_sample(tmp_path) == sample
    assert read_decisions(tmp_path).decisions == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "format 2"),
        ({"objects": [{"object": "a"}]}, "KeyError"),
        ({"population": []}, "AttributeError"),
        ({"population": {"b": 4}}, "class 'a'"),
    ],
)
def test_a_damaged_sample_is_reported(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    write_sample(tmp_path, draw_sample(masks(a=5), 3, 0))
    document = json.loads((tmp_path / AUDIT).read_text()) | change
    (tmp_path / AUDIT).write_text(json.dumps(document))
    with pytest.raises(DataError, match=said) as caught:
        read_sample(tmp_path)
    assert AUDIT in str(caught.value)


@pytest.fixture
def sample() -> Sample:
    return draw_sample(masks(disc=9), 9, 0)


@pytest.fixture
def anna(tmp_path: Path) -> DecisionLog:
    return DecisionLog(tmp_path / "decisions", "anna")


def found(log: DecisionLog, sample: Sample) -> dict[str, str]:
    return judged(sample, read_decisions(log.folder).decisions)


def test_what_counts_as_right_and_as_wrong(anna: DecisionLog, sample: Sample) -> None:
    names = [row.object for row in sample.objects]
    audit = {"image": "7.png", "audit": sample.id}
    anna.append("accept", object=names[0], mask=MASK, **audit)
    anna.append("reject", object=names[1], **audit)
    anna.append("mask", object=names[2], mask=MASK, source="brush", **audit)
    anna.append("clicks", object=names[3], point=(1.0, 1.0), further=(), **audit)
    anna.append("accept", object=names[4], mask=MASK, **audit)
    anna.append("class", object=names[4], category="ring", **audit)
    anna.append("accept", object=names[5], mask=Mask(HEIGHT, WIDTH, rle(0, 0, 2)), **audit)
    anna.append("class", object=names[6], category="disc", **audit)
    anna.append("accept", object=names[7], mask=MASK, **audit)
    anna.append("reject", object=names[7], **audit)
    verdicts = ("right", "rejected", "drawn", "clicks", "class", "other_mask")
    assert found(anna, sample) == dict(zip(names, verdicts, strict=False)) | {names[7]: "rejected"}


def test_decisions_that_were_not_made_for_the_sample_never_enter(anna: DecisionLog, sample: Sample) -> None:
    name = sample.objects[0].object
    anna.append("reject", image="7.png", object=name)
    anna.append("reject", image="7.png", object=name, audit="another")
    assert found(anna, sample) == {}
    made = anna.append("accept", image="7.png", object=name, mask=MASK, audit=sample.id)
    anna.append("reject", image="7.png", object=name)
    assert found(anna, sample) == {name: "right"}
    anna.append("undo", undoes=made.id)
    assert found(anna, sample) == {}


def test_reviewers_agree_or_the_object_does_not_count(anna: DecisionLog, sample: Sample) -> None:
    bert = DecisionLog(anna.folder, "bert")
    first, second = (row.object for row in sample.objects[:2])
    for log in (anna, bert):
        log.append("accept", image="7.png", object=first, mask=MASK, audit=sample.id)
    anna.append("accept", image="7.png", object=second, mask=MASK, audit=sample.id)
    bert.append("reject", image="7.png", object=second, audit=sample.id)
    assert found(anna, sample) == {first: "right", second: "disagreed"}


def test_wilson_by_the_textbook() -> None:
    """Of 10 draws: 0.0 to 27.8% for none, 23.7 to 76.3% for five."""
    np.testing.assert_allclose(wilson(0, 10), (0, 0.27753), atol=1e-4)
    np.testing.assert_allclose(wilson(0.5, 10), (0.23659, 0.76341), atol=1e-4)


def counted(population: dict[str, int], **verdicts: list[str | None]) -> dict[str, Any]:
    rows = [
        {"object": f"{name}{n}", "image": "", "category": name, "mask": "m", "verdict": verdict}
        for name, own in verdicts.items()
        for n, verdict in enumerate(own)
    ]
    return {"id": "s", "drawn": "", "population": population, "objects": rows}


def test_overall_each_class_counts_by_its_masks() -> None:
    """90% of 900 and 20% of 100 are 83%; of the sample itself it would be 55%."""
    a: list[str | None] = ["right"] * 9 + ["rejected"]
    b: list[str | None] = ["right"] * 2 + ["drawn"] * 8
    figures = estimate(counted({"a": 900, "b": 100}, a=a, b=b), {})
    assert figures["precision"] == 83 and (figures["judged"], figures["right"]) == (20, 11)
    assert figures["by_class"]["a"]["precision"] == 90 and figures["by_class"]["b"]["precision"] == 20
    assert figures["wrong"] == {"rejected": 1, "drawn": 8, "clicks": 0, "class": 0}
    assert figures["low"] < 83 < figures["high"]


def test_one_class_has_wilsons_interval() -> None:
    figures = estimate(counted({"a": 50}, a=["right"] * 5 + ["class"] * 5 + [None] * 3), {})
    np.testing.assert_allclose((figures["low"], figures["high"]), (23.659, 76.341), atol=1e-2)
    assert figures["sampled"] == 13 and figures["judged"] == 10


def test_without_judgements_there_is_no_figure() -> None:
    figures = estimate(counted({"a": 50, "b": 5}, a=[None, "disagreed", "other_mask"]), {})
    assert figures["precision"] is None and figures["judged"] == 0 and figures["disagreed"] == 1
    view = audit_view(figures)
    assert view is not None and view.sentence.startswith("None was judged yet: 0 of 3 masks")


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**16))
def test_intervals_hold_the_truth(seed: int) -> None:
    """By simulation, of two classes with 95% and 50% right: at least 90% of intervals of 95% hold the true share."""
    rng = np.random.default_rng(seed)
    truth = 100 * (0.8 * 0.95 + 0.2 * 0.5)
    held = 0
    for _ in range(60):
        rows = {
            name: ["right" if one else "rejected" for one in rng.random(30) < share]
            for name, share in (("a", 0.95), ("b", 0.5))
        }
        figures = estimate(counted({"a": 8000, "b": 2000}, **rows), {})  # type: ignore[arg-type]
        held += figures["low"] <= truth <= figures["high"]
    assert held >= 50


def test_masks_that_changed_are_counted() -> None:
    present = {"a0": ("a", "m"), "a1": ("a", "other"), "a2": ("b", "m")}
    figures = estimate(counted({"a": 50}, a=["right"] * 4), present)
    assert figures["changed"] == 3
    view = audit_view(figures)
    assert view is not None and any("3 of 4 sampled masks have changed" in note for note in view.notes)


def test_a_project_keeps_its_sample_until_it_is_redrawn(tmp_path: Path) -> None:
    workspace = write_project(tmp_path)
    folder = tmp_path / "decisions"
    first = open_sample(folder, workspace, 2, 0, redraw=False)
    assert first.is_new and len(first.sample.objects) == 2
    again = open_sample(folder, workspace, 3, 5, redraw=False)
    assert not again.is_new and again.sample == first.sample and again.changed == []
    path = workspace / "pseudo/part-0001.parquet"
    table = read_parquet(path, PSEUDO)
    rows = [row | {"refined_rle": rle(0, 0, 2), "rough_rle": rle(0, 0, 2)} for row in table.to_pylist()]
    write_parquet(pa.Table.from_pylist(rows, schema=PSEUDO), path)
    sampled = {row.object for row in first.sample.objects}
    assert open_sample(folder, workspace, 3, 5, redraw=False).changed == sorted(sampled & {"aa"})
    other = open_sample(folder, workspace, 3, 5, redraw=True)
    assert other.is_new and len(other.sample.objects) == 3 and other.sample.id != first.sample.id


def test_the_folder_of_decisions_may_be_within_one_that_is_missing(tmp_path: Path) -> None:
    workspace = write_project(tmp_path)
    folder = tmp_path / "labels/decisions"
    assert open_sample(folder, workspace, 2, 0, False).is_new and read_sample(folder) is not None


def test_without_masks_nothing_is_drawn(tmp_path: Path) -> None:
    workspace = write_project(tmp_path)
    for path in (workspace / "pseudo").iterdir():
        path.unlink()
    with pytest.raises(TaskError, match="no pseudo masks"):
        open_sample(tmp_path / "decisions", workspace, 2, 0, redraw=False)
    assert not (tmp_path / "decisions" / AUDIT).exists()


def test_the_tally_is_of_the_sample(tmp_path: Path) -> None:
    workspace = write_project(tmp_path)
    sample = open_sample(tmp_path / "decisions", workspace, 3, 0, redraw=False).sample
    log = DecisionLog(tmp_path / "decisions", "anna")
    log.append("accept", image="7.png", object="aa", mask=MASK, audit=sample.id)
    counts = tally(sample, read_decisions(tmp_path / "decisions").decisions)
    assert {row["object"]: row["verdict"] for row in counts["objects"]} == {
        "aa": "right",
        "bb": None,
        "cc": None,
    }
    parts = sorted((workspace / "pseudo").glob("*.parquet"))
    present = present_masks((read_parquet(part, PSEUDO) for part in parts), CLASSES)
    figures = estimate(counts, present)
    assert figures["changed"] == 0 and figures["by_class"]["disc"]["right"] == 1


def test_the_desk_of_an_audit_judges_anew_and_says_for_what(project: Path, params: Params) -> None:
    plain = Desk(params, project)
    name = plain.objects.ids[5]
    image = plain.image_facts(int(plain.objects.image[5]))["name"]
    plain.decide("anna", "reject", {"image": image, "object": name})
    opened = open_sample(project / params.review.decisions, project / "workspace", 1000, 0, redraw=False)
    listed = [row.object for row in opened.sample.objects]
    desk = Desk(params, project, listed, opened.sample.id)
    assert desk.now("anna")["decided"] == 0
    made = desk.decide("anna", "reject", {"image": image, "object": name})
    assert made.audit == opened.sample.id and desk.now("anna")["decided"] == 1
    desk.decide("anna", "complete", {"image": image})
    decisions = read_decisions(project / params.review.decisions).decisions
    assert [(one.action, one.audit) for one in decisions] == [
        ("reject", None), ("reject", opened.sample.id), ("complete", None)
    ]  # fmt: skip
    assert judged(opened.sample, decisions) == {name: "rejected"}
