"""A reviewer's session in a real Chromium, with kills of the server, and the run after it, which honours all of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data.decisions.record import Decision
from data.decisions.store import read_decisions
from data.tables import POINTS, Split, read_parquet
from flows.serve.review.app import Project
from tasks import import_points, pseudo_label
from tasks.intake.decisions import read_reviewed
from tasks.train_student import read_pseudo
from tasks.training.student_labels import with_pseudo_masks
from tests.attacks.browser import CHROMIUM, Tab
from tests.flows.serve.review.conftest import SETTLED
from tests.flows.serve.review.test_editing import trained
from tests.flows.serve.review.test_editor import READY, RIGHT, drag, edit, state
from tests.flows.serve.review.test_page import Served, opened, press, shown, started
from tests.tasks.test_pseudo_label import image_counts

__all__ = ["trained"]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
WORKSPACE = Path("workspace")


@pytest.fixture
def served(trained: Project) -> Iterator[Served]:
    yield from started(Path().resolve())


@pytest.fixture
def page(tab: Tab, served: Served) -> Iterator[Tab]:
    yield from opened(tab, served, "sessionStorage")


def rows() -> dict[str, dict[str, Any]]:
    return {row["point_id"]: row for row in read_pseudo(WORKSPACE / "pseudo").to_pylist()}


def points() -> dict[str, dict[str, Any]]:
    table = read_parquet(WORKSPACE / "points/points.parquet", POINTS)
    return {row["point_id"]: row for row in table.to_pylist()}


def learnt(project: Project) -> dict[bytes, list[tuple[str, bool, int]]]:
    """By mask: source, whether it is ignored, and class of what the student is trained on, on weak images."""
    strong, weak = (Split.open(WORKSPACE / "dataset" / name) for name in ("strong", "weak"))
    table = read_parquet(WORKSPACE / "points/points.parquet", POINTS)
    pseudo, decisions = read_pseudo(WORKSPACE / "pseudo"), read_reviewed(WORKSPACE / "points")
    config = project.params.student
    split = with_pseudo_masks(weak, strong, table, pseudo, config, Path("labelled"), decisions)
    found: dict[bytes, list[tuple[str, bool, int]]] = {}
    for one in split.instances.to_pylist():
        fact = (one["source"], one["iscrowd"], one["category_id"])
        found.setdefault(one["rle_counts"], []).append(fact)
    return found


def on_another_image(page: Tab, images: set[str]) -> str:
    """Skips to an object of an image that isn't among these, and adds it; the object's id."""
    for _ in range(50):
        name: str = page.run("page.shown.image.name")
        if name not in images:
            images.add(name)
            return shown(page)
        press(page, "s")
    raise AssertionError(f"all undecided objects are on {images}")


def in_view(page: Tab, *shares: tuple[float, float]) -> list[list[float]]:
    """Places in the image at shares of the width and height of what the editor shows of it."""
    left, top, width, height = page.run("""(() => {
        const { origin: [x, y], scale, board, object: { image } } = page.editor, box = board.getBoundingClientRect();
        const [left, top] = [Math.max(x, 0), Math.max(y, 0)];
        return [left, top, Math.min(x + box.width / scale, image.width) - left,
                Math.min(y + box.height / scale, image.height) - top];
    })()""")
    return [[left + x * width, top + y * height] for x, y in shares]


def leave(page: Tab, key: str) -> None:
    """Saves an edit."""
    press(page, key, settle=False)
    page.wait_for(f"!page.editor.isOpen && {SETTLED}")


def test_a_session_and_the_run_after_it(page: Tab, served: Served, trained: Project) -> None:
    pseudo_label.run(trained.params, WORKSPACE)  # fills what later runs reuse
    before, clicked, taken = rows(), points(), learnt(trained)

    # Five decisions by keyboard, the server killed after the second one.
    keys = {}
    for n, key in enumerate("fdf"):
        keys[shown(page)] = key
        press(page, key)
        if n == 1:
            served.kill()
            served.start()
            page.wait_for(SETTLED)
    other = page.run("page.classes.findIndex((name) => name !== page.shown.category)")
    classed = shown(page)
    press(page, f"{other + 1}f")

    # A moved click, and a negative one, on images of their own; the next run draws there.
    images: set[str] = set()
    moved = on_another_image(page, images)
    edit(page)
    x, y = state(page, "point")
    left, right = in_view(page, (0.2, 0.2), (0.8, 0.8))
    drag(page, (x, y), right if x - left[0] < right[0] - x else left)
    page.wait_for(READY)
    leave(page, "d")
    pushed = on_another_image(page, images)
    edit(page)
    drag(page, *in_view(page, (0.1, 0.1)), button=RIGHT)
    page.wait_for(READY)
    leave(page, "d")

    # A polygon and a brush stroke.
    polygon = shown(page)
    edit(page)
    press(page, "2", settle=False)
    page.wait_for(f"{READY} && page.editor.rings")
    press(page, "n", settle=False)
    corners = in_view(page, (0.3, 0.3), (0.7, 0.3), (0.7, 0.7))
    for corner in (*corners, corners[0]):  # the last one closes the ring
        drag(page, corner)
    page.wait_for(f"{READY} && page.editor.state.open === null && page.editor.state.answer.mask")
    leave(page, "f")
    brush = shown(page)
    edit(page)
    press(page, "3", settle=False)
    page.wait_for(f"{READY} && page.editor.state.pixels")
    drag(page, *in_view(page, (0.2, 0.5), (0.8, 0.5)))
    page.wait_for(READY)
    leave(page, "f")

    # A decision that is undone; then a reload and a kill: all of it is there.
    undone = shown(page)
    press(page, "d")
    press(page, "z")
    served.kill()
    served.start()
    page.call("Page.reload")
    page.wait_for(f"document.readyState === 'complete' && {SETTLED}")
    assert shown(page) == undone
    decided = [one for one in read_decisions(Path("decisions")).decisions if one.action != "undo"]
    by_object: dict[str, list[Decision]] = {}
    for one in decided:
        by_object.setdefault(str(one.object), []).append(one)
    actions = {name: [one.action for one in own] for name, own in by_object.items()}
    assert actions == {name: ["accept" if key == "f" else "reject"] for name, key in keys.items()} | {
        classed: ["class", "accept"], moved: ["clicks"], pushed: ["clicks"], polygon: ["mask"], brush: ["mask"],
        undone: ["reject"],
    }  # fmt: skip

    # The run.
    import_points.run(trained.params, WORKSPACE)
    pseudo_label.run(trained.params, WORKSPACE)
    states = {row["decision_id"]: row["state"] for row in read_reviewed(WORKSPACE / "points").to_pylist()}
    assert states == {one.id: "undone" if one.object == undone else "honoured" for one in decided}

    # Only images whose clicks or class changed were computed; what is on others is the same.
    computed = {before[name]["image_id"] for name in (classed, moved, pushed)}
    count = len({row["image_id"] for row in before.values()})
    expected = {"computed": len(computed), "carried": count - len(computed), "failed": 0}
    assert image_counts(WORKSPACE) == expected and 2 <= len(computed) <= 3 < count
    after, now = rows(), points()
    assert after.keys() == before.keys()
    assert all(after[name] == row for name, row in before.items() if row["image_id"] not in computed)
    assert {name for name, row in now.items() if row != clicked[name]} == {classed, moved, pushed}
    assert [now[moved]["x"], now[moved]["y"]] == pytest.approx(by_object[moved][0].point)
    (further,) = now[pushed]["further"]
    assert not further["inside"] and now[pushed]["x"] == clicked[pushed]["x"]

    # What the student learns.
    learns = learnt(trained)
    for name, own in by_object.items():
        mask = own[-1].mask
        if mask is not None and name != undone:
            (one,) = [fact for fact in learns[mask.counts] if fact[0] == "review"]
            assert one == ("review", False, now[name]["category_id"])
        elif own[-1].action == "reject":
            was = before[name]["refined_rle"] or before[name]["rough_rle"]
            usual = [fact for fact in taken[was] if fact[0] == "pseudo" and not fact[1]]
            left = [fact for fact in learns.get(was, ()) if not fact[1]]
            assert len(left) == len(usual) - (name != undone)
    assert sum(ignored for facts in learns.values() for _, ignored, _ in facts) >= 1
