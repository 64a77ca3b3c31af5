"""Masks at a reviewer's clicks: those that pseudo_label draws after the same decision."""

from __future__ import annotations

import math
import shutil
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.decisions.record import Click, Decision, Mask
from data.decisions.store import DecisionLog, read_decisions
from data.decisions.words import Word, last_word
from data.errors import DataError
from data.tables import POINTS, read_parquet, write_parquet
from models.checkpoint import CheckpointError
from tasks import import_points, pseudo_label
from tasks.common.config import Params
from tasks.review.clicked import Clicked, ClickTable, clicks_of, decided
from tasks.review.drawing import Drawer, Drawing
from tasks.train_student import read_pseudo
from tests.tasks.conftest import blank_registry

WORKSPACE = Path("workspace")
LOG = Path("decisions")


@pytest.fixture
def params(line: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """Those of the line, of which the current folder is a copy, with pseudo masks."""
    shutil.copytree(line[0] / "workspace", tmp_path / "workspace")
    monkeypatch.chdir(tmp_path)
    blank_registry(Path())
    pseudo_label.run(line[1], WORKSPACE)
    return line[1]


@pytest.fixture
def drawer(params: Params) -> Iterator[Drawer]:
    found = Drawer(params, WORKSPACE)
    yield found
    found.close()


def pseudo() -> dict[str, dict[str, Any]]:
    return {row["point_id"]: row for row in read_pseudo(WORKSPACE / "pseudo").to_pylist()}


def expected(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["refined_rle"] or row["rough_rle"], about(row["score"]), row["reason"]


def about(score: float | None) -> float | None:
    """Sums over other numbers of clicks may round differently; masks are compared byte for byte."""
    return None if score is None else pytest.approx(score, rel=1e-5)


def found(drawing: Drawing) -> tuple[Any, ...]:
    by = None if drawing.drawn_by is None or drawing.counts is None else f"drawn by {drawing.drawn_by}"
    reason = "; ".join(part for part in (drawing.reason, by) if part is not None)
    return drawing.counts, drawing.score, reason or None


def words() -> dict[str, Word]:
    decisions: dict[str, list[Decision]] = {}
    for one in read_decisions(LOG).decisions:
        decisions.setdefault(str(one.object), []).append(one)
    return {name: last_word(same) for name, same in decisions.items()}


def image_id(table: ClickTable, image: int) -> int:
    return int(table.weak.images["image_id"][image].as_py())


def all_drawn(drawer: Drawer, table: ClickTable, some: Mapping[str, Word]) -> dict[str, tuple[Any, ...]]:
    """What is drawn at all objects of all images with these decisions; those of one image are the only ones."""
    drawn = {}
    for image in range(len(table.weak)):
        objects = table.of_image(image)
        name = table.weak.images["file_name"][image].as_py()
        here = {key: word for key, word in some.items() if word.parts()[0].image == name}
        clicks = clicks_of(decided(objects, here, table.weak.categories), image_id(table, image))
        for row, key in enumerate(clicks.point_ids):
            drawn[key] = found(drawer.draw(image, clicks, row))
    return drawn


def test_untouched_objects_get_their_pseudo_masks(drawer: Drawer) -> None:
    rows = pseudo()
    assert {row["status"] for row in rows.values()} >= {"ok", "empty"}
    assert all_drawn(drawer, ClickTable(WORKSPACE), {}) == {name: expected(row) for name, row in rows.items()}


def test_decisions_draw_what_the_next_run_draws(params: Params, drawer: Drawer) -> None:
    """A moved click, further ones, a class, an added object: neighbours' masks change too."""
    before, table = pseudo(), ClickTable(WORKSPACE)
    image = next(
        n
        for n in range(len(table.weak))
        if sum(before[one.object]["area"] is not None for one in table.of_image(n)) >= 3
    )
    name = table.weak.images["file_name"][image].as_py()
    *_, first, second, third = sorted(table.of_image(image), key=lambda one: before[one.object]["area"] or 0)
    # Far off, where no mask is the old one. Not round in float32, further clicks in another order than the table's.
    moved = max(product((4.3, 59.7), repeat=2), key=lambda corner: math.dist(corner, first.point))
    further = (Click(9.3, 50.1, False), Click(20.7, 30.3, True), Click(5.1, 8.7, True))
    log = DecisionLog(LOG, "anna")
    log.append("clicks", image=name, object=first.object, point=moved, further=further)
    log.append("clicks", image=name, object=second.object, point=second.point, further=further)
    names = [one.name for one in table.weak.categories if one.id != third.category_id]
    log.append("class", image=name, object=third.object, category=names[0])
    log.append("add", image=name, object="new", category=names[1], point=(40.1, 12.9))
    log.append("accept", image=name, object=third.object, mask=_mask(before[third.object]))
    drawn = all_drawn(drawer, table, words())
    import_points.run(params, WORKSPACE)
    pseudo_label.run(params, WORKSPACE)
    after = pseudo()
    assert drawn == {key: expected(row) for key, row in after.items()}
    changed = {key for key, row in after.items() if expected(row)[0] != expected(before.get(key, row))[0]}
    assert {first.object, second.object} < changed
    # Read again with the decisions in the table: nothing changes.
    assert all_drawn(drawer, ClickTable(WORKSPACE), words()) == drawn


def _mask(row: dict[str, Any]) -> Mask:
    return Mask(64, 64, row["refined_rle"] or row["rough_rle"])


@pytest.mark.parametrize("exclusive", ["same_class", "all", "none"])
def test_crowded_images(params: Params, exclusive: str) -> None:
    """Only masks that may reach each other are drawn, and of these only the new ones; as if all were."""
    config = params.prompt.model_copy(update={"exclusive": exclusive})
    params = params.model_copy(update={"prompt": config})
    table = ClickTable(WORKSPACE)
    categories = [one.id for one in table.weak.categories]
    ids = table.weak.images["image_id"].to_pylist()[:3]
    rows = [
        {
            **dict.fromkeys(POINTS.names), "point_id": f"{n:016x}", "image_id": image, "category_id": category,
            "x": (n * 17.3) % 64, "y": (n * 7.9) % 64, "source_file": "f", "source_record": str(n),
        }
        for n, (image, category) in enumerate((i, c) for i in ids for c in categories[:2] * 8)
    ]  # fmt: skip
    write_parquet(pa.Table.from_pylist(rows, schema=POINTS), WORKSPACE / "points/points.parquet")
    pseudo_label.run(params, WORKSPACE)
    drawer = Drawer(params, WORKSPACE)
    table = ClickTable(WORKSPACE)
    drawn = all_drawn(drawer, table, {})
    assert drawn == {key: expected(row) for key, row in pseudo().items()}
    again = Drawer(params, WORKSPACE)
    (moved, *others) = table.of_image(1)
    clicks = clicks_of([moved._replace(point=(33.1, 30.2)), *others], image_id(table, 1))
    for row in range(len(clicks)):  # with masks of the other clicks in memory, and without
        assert drawer.draw(1, clicks, row) == again.draw(1, clicks, row)
    points = read_parquet(WORKSPACE / "points/points.parquet", POINTS).to_pylist()
    (point,) = (one for one in points if one["point_id"] == moved.object)
    point |= {"x": 33.1, "y": 30.2}
    write_parquet(pa.Table.from_pylist(points, schema=POINTS), WORKSPACE / "points/points.parquet")
    pseudo_label.run(params, WORKSPACE)
    after = pseudo()
    for row, key in enumerate(clicks.point_ids):
        assert found(drawer.draw(1, clicks, row)) == expected(after[key])


def test_the_judge_chooses_as_in_the_run(params: Params) -> None:
    """With a student of earlier rounds, each object's mask is of the proposer that the run would choose."""
    shutil.copytree(WORKSPACE / "teacher", WORKSPACE / "rounds" / "student")
    params = params.model_copy(update={"rounds": 2})
    pseudo_label.run(params, WORKSPACE)
    drawer = Drawer(params, WORKSPACE)
    drawn = all_drawn(drawer, ClickTable(WORKSPACE), {})
    assert drawn == {key: expected(row) for key, row in pseudo().items()}
    assert any(str(row["reason"]).startswith("drawn by ") for row in pseudo().values())


def test_many_requests_at_once(params: Params) -> None:
    table = ClickTable(WORKSPACE)
    alone = all_drawn(Drawer(params, WORKSPACE), table, {})
    earlier = {*threading.enumerate()}
    drawer = Drawer(params, WORKSPACE, encoded_bytes=0)
    jobs = [
        (image, clicks_of(table.of_image(image), image_id(table, image)), row)
        for row in range(2)
        for image in range(len(table.weak))
        if len(table.of_image(image)) > row
    ]
    for image, clicks, row in jobs[::3]:
        drawer.ahead(image, clicks, row)
    with ThreadPoolExecutor(4) as pool:
        drawings = list(pool.map(lambda job: drawer.draw(*job), jobs))
    for (_, clicks, row), drawing in zip(jobs, drawings, strict=True):
        assert found(drawing) == alone[clicks.point_ids[row]]
    drawer.close()
    assert not [one for one in {*threading.enumerate()} - earlier if one.name.startswith("encode")]


def test_the_latest_images_stay_encoded(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    table = ClickTable(WORKSPACE)
    clicks = {n: clicks_of(table.of_image(n), image_id(table, n)) for n in range(4)}
    drawer = Drawer(params, WORKSPACE)
    drawer.draw(0, clicks[0], 0)
    one = next(iter(drawer._images.values())).result().nbytes
    assert one > 64 * 64 * 3  # the network's outputs too
    small = Drawer(params, WORKSPACE, encoded_bytes=2 * one)
    for n in (0, 1, 0, 2):
        small.draw(n, clicks[n], 0)
    assert list(small._images) == [0, 2]
    monkeypatch.setattr(small, "_encode", None)  # those aren't encoded again
    small.draw(0, clicks[0], 0)
    with pytest.raises(TypeError):
        small.draw(1, clicks[1], 0)


def test_what_cannot_be_drawn(params: Params, drawer: Drawer) -> None:
    table = ClickTable(WORKSPACE)
    clicks = clicks_of(table.of_image(0), image_id(table, 0))
    path = table.weak.image_path(0)
    moved = path.rename(path.with_suffix(".gone"))
    drawer.ahead(0, clicks, 0).result()
    with pytest.raises(DataError, match=path.name):
        drawer.draw(0, clicks, 0)
    moved.rename(path)
    assert found(drawer.draw(0, clicks, 0)) == expected(pseudo()[clicks.point_ids[0]])
    import torch

    with torch.no_grad():
        for weight in drawer._labeller.proposer.network.parameters():  # type: ignore[union-attr]
            weight.fill_(torch.nan)
    with pytest.raises(CheckpointError, match="NaN"):
        drawer.draw(1, clicks_of(table.of_image(1), image_id(table, 1)), 0)


def test_clicks_are_those_of_the_table(params: Params) -> None:
    """Order and rounding; and words that say nothing on clicks change nothing."""
    one = Clicked("b", 2, (1.1, 2.2), (Click(3.3, 4.4, False), Click(9.9, 1.0, True)))
    other = Clicked("a", 2, (1.1, 2.2))
    clicks = clicks_of([one, other], 7)
    assert clicks.point_ids == ["a", "b"] and clicks.xy.dtype == "float32" and clicks.image_id == 7
    assert clicks.further is not None and clicks.further[0] is None
    assert [click["inside"] for click in clicks.further[1] or ()] == [True, False]
    assert clicks.further[1][0]["x"] == float(np.float32(9.9))  # type: ignore[index]
    assert clicks_of([other], 7).further is None
    assert decided([one], {"b": Word(), "gone": Word()}, []) == [one]


def test_a_request_to_networks_that_a_run_has_replaced_ends(params: Params) -> None:
    drawer, table = Drawer(params, WORKSPACE), ClickTable(WORKSPACE)
    drawer.close()
    assert drawer.ahead(0, clicks_of(table.of_image(0), image_id(table, 0)), 0).result() is None
