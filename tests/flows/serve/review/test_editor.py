"""The editor in a real Chromium: clicks at which networks draw, a polygon, a brush, undo, and what is saved."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.decisions.record import Decision
from data.decisions.store import read_decisions
from data.masks.rle import BoolArray, decode
from flows.serve.review.app import Project
from flows.serve.review.server import listener, make_server
from tests.attacks.browser import CHROMIUM, Tab
from tests.flows.serve.review.conftest import LOGIN, SETTLED
from tests.flows.serve.review.test_editing import SIDE, trained

__all__ = ["trained"]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
OPEN = "page.editor.isOpen && document.body.dataset.busy === ''"
READY = f"{OPEN} && document.getElementById('editor').dataset.state === 'ready' && !page.editor.settling"
LEFT, RIGHT = ("left", 1), ("right", 2)
ALT = 1

Place = Sequence[float]


@pytest.fixture
def page(tab: Tab, trained: Project) -> Iterator[Tab]:
    listening = listener(0)
    port = listening.getsockname()[1]
    server = make_server(trained, LOGIN, port)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    tab.blocked.clear()
    tab.open("about:blank#")
    tab.open(f"http://127.0.0.1:{port}/#login={LOGIN}")
    tab.wait_for(SETTLED)
    yield tab
    assert tab.blocked == []
    tab.run("sessionStorage.clear()")
    server.should_exit = True
    thread.join(30)


def press(tab: Tab, *keys: str) -> None:
    for key in keys:
        text = key if len(key) == 1 else ""
        tab.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=text)
        tab.call("Input.dispatchKeyEvent", type="keyUp", key=key)


def screen(tab: Tab, place: Place) -> tuple[float, float]:
    """Of a place in the image."""
    x, y = tab.run(
        "(() => { const box = page.editor.board.getBoundingClientRect(), { origin, scale } = page.editor;"
        f"return [box.left + ({place[0]} - origin[0]) * scale, box.top + ({place[1]} - origin[1]) * scale]; }})()"
    )
    return x, y


def drag(tab: Tab, *places: Place, button: tuple[str, int] = LEFT, modifiers: int = 0) -> None:
    """Presses at the first place, releases at the last one."""
    points = [screen(tab, place) for place in places]
    kinds = ["mousePressed", *["mouseMoved"] * (len(points) - 1), "mouseReleased"]
    for kind, (x, y) in zip(kinds, [*points, points[-1]], strict=True):
        tab.call(
            "Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button[0], buttons=button[1], clickCount=1,
            modifiers=modifiers,
        )  # fmt: skip


def edit(tab: Tab) -> None:
    press(tab, "e")
    tab.wait_for(READY)


def state(tab: Tab, name: str) -> Any:
    return tab.run(f"page.editor.state.{name}")


def mask(tab: Tab) -> BoolArray:
    tab.wait_for(READY)
    return pixels(state(tab, "answer.mask"))


def pixels(one: dict[str, Any]) -> BoolArray:
    assert one["size"] == [SIDE, SIDE]
    return decode(one["counts"].encode(), SIDE, SIDE)


def stored() -> Decision:
    """The latest decision."""
    found: Decision = read_decisions(Path("decisions")).decisions[-1]
    return found


def saved(tab: Tab) -> Decision:
    tab.wait_for(f"!page.editor.isOpen && {SETTLED}")
    return stored()


def stored_mask(one: Decision) -> BoolArray:
    assert one.mask is not None
    return decode(one.mask.counts, one.mask.height, one.mask.width)


def test_clicks(page: Tab) -> None:
    name = page.run("page.shown.id")
    edit(page)
    before = mask(page)
    x, y = state(page, "point")
    # Moved: the networks draw at once.
    to = [min(max(x + 6, 8), 56), min(max(y + 5, 8), 56)]
    drag(page, (x, y), (x + 2, y + 2), to)
    page.wait_for(READY)
    assert state(page, "point") == pytest.approx(to, abs=0.2)
    moved = state(page, "answer.mask")
    assert state(page, "answer.milliseconds") is not None
    # A click beside the object, with the right button; one on it, with Alt reversed twice.
    drag(page, (to[0] - 7, to[1] - 6), button=RIGHT)
    page.wait_for(READY)
    (further,) = state(page, "further")
    assert further["inside"] is False and further["x"] == pytest.approx(to[0] - 7, abs=0.2)
    press(page, "x")
    drag(page, (to[0] + 7, to[1] + 6), modifiers=ALT)
    page.wait_for(READY)
    assert [one["inside"] for one in state(page, "further")] == [False, True]
    press(page, "Delete")
    page.wait_for(READY)
    assert state(page, "further") == [further]
    press(page, "z", "z", "z")
    page.wait_for(READY)
    assert state(page, "further") == [] and state(page, "answer.mask") == moved
    press(page, "z")
    assert state(page, "point") == [x, y] and (mask(page) == before).all()
    press(page, "y", "y")
    page.wait_for(READY)
    assert state(page, "further") == [further]
    press(page, "d")
    one = saved(page)
    assert (one.action, one.object) == ("clicks", name)
    assert one.point == pytest.approx(to, abs=0.2) and one.further is not None
    assert [(click.x, click.inside) for click in one.further] == [(further["x"], False)]
    # After a reload the object has its clicks, until they are undone.
    page.call("Page.reload")
    page.wait_for(f"document.readyState === 'complete' && {SETTLED}")
    assert page.run("page.shown.id") != name
    press(page, "z")
    page.wait_for(f"{SETTLED} && page.shown.id === {name!r}")
    assert stored().action == "undo"


def test_the_mask_of_clicks_is_taken(page: Tab) -> None:
    edit(page)
    x, y = state(page, "point")
    drag(page, (x, y), (32, 30))
    drag(page, (20, 22))
    page.wait_for(READY)
    if state(page, "answer.mask") is None:  # a tiny network
        press(page, "z")
    shown = state(page, "answer.mask")
    press(page, "f")
    one = saved(page)
    assert (one.action, one.source) == ("mask", "click")
    assert (stored_mask(one) == pixels(shown)).all()


def test_an_untouched_mask_is_accepted(page: Tab) -> None:
    edit(page)
    before = mask(page)
    press(page, "f")
    one = saved(page)
    assert one.action == "accept" and (stored_mask(one) == before).all()


def test_a_polygon(page: Tab) -> None:
    edit(page)
    before = mask(page)
    press(page, "2")
    page.wait_for(f"{READY} && page.editor.rings")
    corners = page.run("page.editor.rings.length")
    assert corners >= 1 and (mask(page) == before).all()  # as long as nothing is changed
    press(page, "n")
    for corner in ((20, 20), (40, 20), (40, 44)):
        drag(page, corner)
    assert state(page, "open") == 0
    press(page, "Enter")
    page.wait_for(f"{READY} && page.editor.state.open === null && page.editor.state.answer.mask")
    drag(page, (30, 32))  # on the edge: a corner more
    page.wait_for(READY)
    assert len(state(page, "rings")[0]) == 4
    drag(page, (30, 32), (26, 40), (20, 44))
    drawn = mask(page)
    exact = np.zeros_like(drawn)
    exact[20:44, 20:40] = True
    assert (drawn ^ exact).sum() <= 24
    drag(page, (40, 20), button=RIGHT)  # without this corner
    assert mask(page).sum() == pytest.approx(240, abs=24)
    press(page, "z")
    assert (mask(page) == drawn).all()
    press(page, "Enter")
    one = saved(page)
    assert (one.action, one.source) == ("mask", "polygon") and (stored_mask(one) == drawn).all()


def test_a_brush(page: Tab) -> None:
    name = page.run("page.shown.id")
    edit(page)
    before = mask(page)
    press(page, "3")
    page.wait_for(f"{READY} && page.editor.state.pixels")
    page.run("page.editor.size = 6")
    drag(page, (20, 30), (25, 30), (44, 30))
    painted = mask(page)
    rows, columns = np.mgrid[0:SIDE, 0:SIDE] + 0.5
    x = np.clip(columns, 20, 44)
    stroke = (columns - x) ** 2 + (rows - 30) ** 2 <= 9
    border = abs((columns - x) ** 2 + (rows - 30) ** 2 - 9) < 1.5  # places are rounded to the screen's pixels
    assert ((painted == (before | stroke)) | border).all() and stroke.sum() > 100
    press(page, "4")
    drag(page, (32, 24), (32, 36))
    erased = mask(page)
    assert not erased[25:35, 30:34].any() and erased[30, 24] and erased[30, 40]
    press(page, "z")
    assert (mask(page) == painted).all()
    press(page, "f")
    one = saved(page)
    assert (one.action, one.source, one.object) == ("mask", "brush", name)
    assert (stored_mask(one) == painted).all()
    # The page shows what was drawn.
    found = page.run(f"import('/static/api.js').then((api) => api.get('objects/{name}'))")
    assert (pixels(found["mask"]) == painted).all() and found["drawn"]
    # Leaving saves nothing.
    press(page, "e")
    page.wait_for(READY)
    press(page, "3")
    page.wait_for(f"{READY} && page.editor.state.pixels")
    drag(page, (10, 10), (20, 10))
    press(page, "Escape")
    page.wait_for(f"!page.editor.isOpen && {SETTLED}")
    assert stored() == one


def test_two_fingers_move_and_scale_the_view(page: Tab) -> None:
    edit(page)
    press(page, "3")
    page.wait_for(f"{READY} && page.editor.state.pixels")
    before, scale = state(page, "pixels.join('')"), page.run("page.editor.scale")
    at = [screen(page, place) for place in ((28, 30), (36, 30))]

    def touch(kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": x, "y": y, "id": n} for n, (x, y) in enumerate(places)]
        page.call("Input.dispatchTouchEvent", type=kind, touchPoints=points)

    touch("touchStart", at[0])
    touch("touchStart", *at)
    touch("touchMove", (at[0][0] - 40, at[0][1]), (at[1][0] + 40, at[1][1]))
    touch("touchEnd")
    assert page.run("page.editor.scale") > 1.2 * scale
    assert state(page, "pixels.join('')") == before and page.run("page.editor.past.length") == 0
    touch("touchStart", screen(page, (32, 32)))
    touch("touchMove", screen(page, (34, 34)))
    touch("touchEnd")
    page.wait_for(READY)
    assert state(page, "kind") == "brush" and page.run("page.editor.past.length") == 1
