"""The review page in a real Chromium: decisions by keyboard, undo, reload, a server that is killed, a full disk."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest

from data.decisions.record import Mask
from data.decisions.store import DecisionLog, read_decisions
from data.masks.rle import encode
from data.tables import PSEUDO, read_parquet, write_parquet
from tests.attacks.browser import CHROMIUM, Tab, evil_server
from tests.flows.serve.review.conftest import LOGIN, SETTLED
from tests.prefect_processes import free_port
from tests.tasks.conftest import ROOT

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")


class Served:
    """`points2model review` in a process of its own, that may be killed and started anew on the same port."""

    def __init__(self, root: Path) -> None:
        self.root, self.port = root, free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        env = {**os.environ, "POINTS2MODEL_REVIEW_AUTH": LOGIN, "PYTHONPATH": str(ROOT)}
        arguments = ["review", "--reviewer", "anna", "--port", str(self.port), "--no-open"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli.main", *arguments], cwd=self.root, env=env
        )
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                httpx.get(f"{self.address}api/health")
                return
            except httpx.TransportError:
                assert self.process.poll() is None
                time.sleep(0.1)
        raise AssertionError("the server doesn't start")

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stored(self) -> list[tuple[str, str | None]]:
        return [(one.action, one.object) for one in read_decisions(self.root / "decisions").decisions]


@pytest.fixture
def served(project: Path) -> Iterator[Served]:
    yield from started(project)


def started(project: Path) -> Iterator[Served]:
    """A server, until the test has ended."""
    served = Served(project)
    served.start()
    yield served
    served.kill()


def opened(tab: Tab, served: Served, storage: str) -> Iterator[Tab]:
    """Its page, logged in; what it stored is forgotten at the end."""
    tab.blocked.clear()
    tab.open("about:blank#")
    tab.open(f"{served.address}#login={LOGIN}")
    tab.wait_for(SETTLED)
    yield tab
    assert tab.blocked == []
    tab.run(f"{storage}.clear()")


@pytest.fixture
def page(tab: Tab, served: Served) -> Iterator[Tab]:
    yield from opened(tab, served, "localStorage")


def press(tab: Tab, keys: str, settle: bool = True) -> None:
    for key in keys:
        tab.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=key)
        tab.call("Input.dispatchKeyEvent", type="keyUp", key=key)
        if settle:
            tab.wait_for(SETTLED)


def click(tab: Tab, x: float, y: float) -> None:
    for kind in ("mousePressed", "mouseReleased"):
        tab.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


def shown(tab: Tab) -> str:
    return str(tab.run("page.shown.id"))


def text(tab: Tab, name: str) -> str:
    return str(tab.run(f"document.getElementById({json.dumps(name)}).innerText"))


def test_five_decisions_by_keyboard_undo_and_reload(page: Tab, served: Served) -> None:
    assert "login" not in page.run("location.href")
    seen = []
    for key in "fdfdf":
        seen.append(shown(page))
        press(page, key)
    assert served.stored() == [
        (action, name) for action, name in zip(["accept", "reject"] * 3, seen, strict=False)
    ]
    assert text(page, "place") == "6 of 178" and "an hour" in text(page, "pace")
    sixth = shown(page)
    press(page, "z")
    assert shown(page) == seen[4] and served.stored()[-1] == ("undo", None)
    press(page, "2")
    assert served.stored()[-1] == ("class", seen[4]) and text(page, "about").startswith("banana")
    page.call("Page.reload")
    page.wait_for(f"!document.readyState.startsWith('load') && {SETTLED}")
    assert shown(page) == seen[4] and text(page, "place") == "1 of 174"
    assert "class banana" in text(page, "said")
    press(page, "f")
    assert shown(page) == sixth
    press(page, "s")
    assert shown(page) != sixth
    press(page, "a")
    assert shown(page) == sixth and len(served.stored()) == 8


def test_a_killed_server_is_told_and_nothing_is_lost(page: Tab, served: Served) -> None:
    seen = [shown(page)]
    press(page, "f")
    seen.append(shown(page))
    served.send(signal.SIGSTOP)  # the decision is on its way, and no response comes
    press(page, "d", settle=False)
    page.wait_for("document.body.dataset.busy === 'yes'")
    press(page, "ffff", settle=False)  # keys that are pressed meanwhile decide nothing
    assert shown(page) == seen[1]
    served.kill()
    page.wait_for("document.getElementById('message').innerText.startsWith('No connection')")
    assert shown(page) == seen[1]
    served.start()
    page.wait_for(f"{SETTLED} && page.shown.id !== {json.dumps(seen[1])}")
    assert text(page, "message") == ""
    assert served.stored() == [("accept", seen[0]), ("reject", seen[1])]
    seen.append(shown(page))
    press(page, "d")
    assert served.stored()[2:] == [("reject", seen[2])]


def test_a_kill_after_each_decision_loses_none(page: Tab, served: Served) -> None:
    seen = []
    for _ in range(3):
        seen.append(shown(page))
        press(page, "d")
        served.kill()
        served.start()
        page.wait_for(SETTLED)
    assert served.stored() == [("reject", name) for name in seen] and len({*seen}) == 3


def test_what_was_saved_as_the_response_was_lost_is_saved_once(page: Tab, served: Served) -> None:
    """The response is thrown away in the page."""
    first = shown(page)
    page.run(
        "(() => { const real = fetch; let lost = false;"
        "window.fetch = async (...a) => { const r = await real(...a);"
        "if (String(a[0]).endsWith('decisions') && !lost) { lost = true; throw new TypeError('torn'); }"
        "return r; }; })()"
    )
    press(page, "d")
    page.wait_for(f"{SETTLED} && page.shown.id !== {json.dumps(first)}")
    assert served.stored() == [("reject", first)]


def test_a_full_disk_is_told_and_the_page_stays(page: Tab, served: Served) -> None:
    """A limit on the size of files, which the kernel enforces as it does the end of a disk."""
    press(page, "d")
    before = (served.root / "decisions/anna.jsonl").read_bytes()
    assert served.process is not None
    resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, (len(before) + 20, resource.RLIM_INFINITY))
    second = shown(page)
    press(page, "d")
    assert "Nothing was saved" in text(page, "message") and shown(page) == second
    assert (served.root / "decisions/anna.jsonl").read_bytes() == before
    infinite = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, infinite)
    press(page, "d")
    assert text(page, "message") == "" and served.stored()[1:] == [("reject", second)]


def test_another_reviewer_contradicts_and_the_page_shows_it(page: Tab, served: Served) -> None:
    first, image = shown(page), page.run("page.shown.image.name")
    press(page, "f")
    log = DecisionLog(served.root / "decisions", "bob")
    log.append("reject", image=image, object=first)
    log.append("reject", image=image, object="0123456789abcdef")
    page.wait_for("!document.getElementById('notices').hidden", 30)
    assert "there is no object 0123456789abcdef" in page.run("document.getElementById('notices').textContent")
    press(page, "a")
    assert "Contradiction" in text(page, "said") and "bob: reject" in text(page, "said").replace("\n", "")
    press(page, "d")
    assert "Contradiction" not in text(page, "said")
    assert served.stored()[:2] == [("accept", first), ("reject", first)]


def test_older_decisions_are_found_and_taken_back_and_undone_ones_made_again(
    page: Tab, served: Served
) -> None:
    seen = []
    for key in "fdf":
        seen.append(shown(page))
        press(page, key)
    press(page, "zz")
    assert shown(page) == seen[1]
    press(page, "y")
    assert shown(page) == seen[1] and "rejected" in text(page, "said")
    press(page, "y")
    assert shown(page) == seen[2] and "accepted" in text(page, "said")
    # The list of what one decided, the latest first; one that isn't the last is taken back.
    page.run("document.getElementById('show-filters').click()")
    page.run(
        "(() => { const one = document.querySelector('[name=decided]'); one.value = 'by anna';"
        "one.dispatchEvent(new Event('change', { bubbles: true })); })()"
    )
    page.wait_for(f"{SETTLED} && page.queue.total === 3")
    found = [shown(page)]
    for _ in range(2):
        press(page, "g")
        found.append(shown(page))
    assert found == seen[::-1]
    press(page, "x")
    assert shown(page) == seen[0] and text(page, "said") == "" and text(page, "decided").startswith("2 of")
    press(page, "z")
    assert [action for action, _ in served.stored()] == [
        "accept", "reject", "accept", "undo", "undo", "undo", "undo", "undo", "undo"
    ]  # fmt: skip
    page.run("sessionStorage.clear()")


def test_agreeing_with_another_reviewer_takes_one_key(page: Tab, served: Served) -> None:
    name, image = page.run("[page.shown.id, page.shown.image.name]")
    press(page, "d")
    log = DecisionLog(served.root / "decisions", "bob")
    pixels = np.zeros((128, 128), np.bool_)
    pixels[30:60, 30:60] = True
    mask = Mask(128, 128, encode(pixels))
    log.append("mask", image=image, object=name, mask=mask, source="brush")
    press(page, "a")
    page.wait_for(f"{SETTLED} && page.shown.rivals.length === 1", 30)
    assert page.run("document.querySelectorAll('#picture .rival').length") == 1
    assert "decide as bob" in text(page, "said")
    press(page, "t")
    page.wait_for(f"{SETTLED} && page.shown.id !== {json.dumps(name)}")
    last = read_decisions(served.root / "decisions").decisions[-2]  # anna's come first
    assert (last.reviewer, last.action, last.mask) == ("anna", "accept", mask)
    press(page, "a")
    assert page.run("page.shown.contradicted") == {} and "decide as" not in text(page, "said")


def test_an_added_object_is_opened_and_taken_back(page: Tab, served: Served) -> None:
    press(page, "w")
    page.wait_for("!!page.whole")
    box: dict[str, Any] = page.run(
        "document.querySelector('#picture image').getBoundingClientRect().toJSON()"
    )
    press(page, "n2")
    place = box["x"] + box["width"] * 0.03, box["y"] + box["height"] * 0.97  # nothing is drawn there
    click(page, *place)
    page.wait_for(f"{SETTLED} && page.whole.whole.objects.length === 10")
    name = page.run("page.whole.whole.objects.at(-1).id")
    press(page, "n")
    click(page, *place)
    page.wait_for(f"{SETTLED} && !page.whole && page.shown.id === {json.dumps(name)}")
    assert "added by anna" in text(page, "about") and text(page, "place") == "not in the queue"
    press(page, "3")
    assert served.stored()[-1] == ("class", name) and text(page, "about").startswith("cherry")
    press(page, "x")
    assert text(page, "about").startswith("banana")
    press(page, "x")
    assert shown(page) != name and [action for action, _ in served.stored()] == [
        "add",
        "class",
        "undo",
        "undo",
    ]


def test_what_another_reviewer_decided_isnt_shown_as_undecided(page: Tab, served: Served) -> None:
    """Two work on the same queue: the next object is fetched before the other one decides on it."""
    page.wait_for("page.next?.position === 1 && page.queue.ahead.has(1)")
    page.run("page.queue.ahead.get(1).then(({ object }) => window.second = object), 0")
    page.wait_for("!!window.second")
    image, second = page.run("[second.image.name, second.id]")
    DecisionLog(served.root / "decisions", "bob").append("reject", image=image, object=second)
    press(page, "f")
    assert text(page, "place") == "3 of 178" and shown(page) != second


def test_a_mask_that_a_run_drew_anew_lies_on_its_own_part_of_the_image(page: Tab, served: Served) -> None:
    object_id, window = page.run("[page.shown.id, page.shown.window]")
    for path in (served.root / "workspace/pseudo").glob("part-*"):
        rows = read_parquet(path, PSEUDO).to_pylist()
        for row in rows:
            if row["point_id"] == object_id:
                row["bbox_xywh"] = [0.0, 0.0, 50.0, 40.0]
        write_parquet(pa.Table.from_pylist(rows, schema=PSEUDO), path)
    time.sleep(2.5)  # LOOK_EVERY
    press(page, "2")
    shown_window = page.run("page.shown.window")
    assert shown(page) == object_id and shown_window != window
    page.run("window.picture = Object.assign(new Image(), { src: page.url }), 0")
    page.wait_for("picture.complete")
    assert page.run("[picture.naturalWidth, picture.naturalHeight]") == shown_window[2:]


def test_an_image_that_cant_be_read_holds_nothing_up(page: Tab, served: Served) -> None:
    first, image = shown(page), page.run("page.shown.image.id")
    page.wait_for("page.next?.position === 1 && page.queue.ahead.has(1)")
    page.run("page.queue.ahead.get(1).then(({ object }) => window.second = object), 0")
    page.wait_for("!!window.second")
    second = page.run("second.image.id")
    assert second != image
    served.kill()
    (served.root / f"images/scene_{second - 1:03d}.jpg").unlink()
    served.start()
    page.call("Page.reload")
    page.wait_for(f"!document.readyState.startsWith('load') && {SETTLED}")
    press(page, "s")
    assert shown(page) == first and f"scene_{second - 1:03d}.jpg" in text(page, "message")
    press(page, "s")
    assert shown(page) != first
    (served.root / "images" / f"scene_{page.run('page.shown.image.id') - 1:03d}.jpg").unlink()
    served.kill()
    served.start()
    press(page, "w")
    assert ".jpg" in text(page, "message") and page.run("page.whole") is None
    press(page, "d")
    assert [action for action, _ in served.stored()] == ["reject"]


def test_the_whole_image_gets_an_object_and_is_complete(page: Tab, served: Served) -> None:
    press(page, "w")
    page.wait_for("!!page.whole")
    image = page.run("page.whole.whole.image.name")
    box: dict[str, Any] = page.run(
        "document.querySelector('#picture image').getBoundingClientRect().toJSON()"
    )
    press(page, "n2")
    click(page, box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    page.wait_for(f"{SETTLED} && page.whole.whole.objects.length === 10")
    press(page, "nc")
    page.wait_for("page.whole.whole.complete.length === 1")
    added, complete = read_decisions(served.root / "decisions").decisions
    assert (added.action, added.category, added.image) == ("add", "banana", image)
    side = page.run("page.whole.whole.image.width")
    assert added.point == pytest.approx((side / 4, side / 2), abs=side / box["width"])
    assert (complete.action, complete.image) == ("complete", image)
    middle = {"x": box["x"] + box["width"] / 4, "y": box["y"] + box["height"] / 2}
    page.call("Input.dispatchMouseEvent", type="mouseWheel", **middle, deltaX=0, deltaY=-300)
    page.wait_for(f"page.whole.view[2] === {0.8 * side}")
    # What the wheel points at stays where it is.
    assert page.run("page.whole.view[0] + page.whole.view[2] / 4") == pytest.approx(side / 4, abs=0.5)
    press(page, "zz")
    page.wait_for("page.whole.whole.objects.length === 9 && page.whole.whole.complete.length === 0")
    press(page, "w")
    page.wait_for("!page.whole")
    assert text(page, "place") == "1 of 178"


def test_keys_may_be_changed_and_stay(page: Tab, served: Served) -> None:
    page.run("document.getElementById('show-keys').click()")
    page.run(
        "document.querySelector('#dialog td button').focus(); document.querySelector('#dialog td button').click()"
    )
    press(page, "j", settle=False)
    page.run("document.getElementById('dialog').close()")
    page.call("Page.reload")
    page.wait_for(f"!document.readyState.startsWith('load') && {SETTLED}")
    first = shown(page)
    press(page, "f")
    assert served.stored() == []
    press(page, "j")
    assert served.stored() == [("accept", first)]


def test_the_login_is_asked_for_where_there_is_none(tab: Tab, served: Served) -> None:
    tab.open("about:blank#")
    tab.open(served.address)
    tab.run("sessionStorage.clear()")
    tab.open(f"{served.address}?")
    tab.wait_for("document.getElementById('dialog').open")
    tab.run(f"document.querySelector('#dialog input').value = {json.dumps(LOGIN)}")
    tab.run("document.querySelector('#dialog form').requestSubmit()")
    tab.wait_for(SETTLED)
    assert text(tab, "place") == "1 of 178"


def test_another_page_reaches_nothing(tab: Tab, served: Served) -> None:
    script = (
        f"Promise.all(['api/project', 'static/review.js', ''].map((path) => fetch('{served.address}' + path, "
        "{headers: {Authorization: 'Basic ' + btoa('"
        + LOGIN
        + "')}}).then((r) => r.text(), () => 'blocked')))"
    )
    with evil_server("<!doctype html><title>evil</title>") as evil:
        tab.answers.clear()  # those of earlier tests
        tab.open(f"{evil}/attack.html")
        assert tab.run(script) == ["blocked"] * 3
        place = f"{served.address}api/decisions"
        tab.run(f"fetch('{place}', {{method: 'POST', mode: 'no-cors', body: '{{}}'}}).catch(() => 0)")
        assert 200 not in tab.answers.get("/api/decisions", [403])
    assert served.stored() == []
