"""The page beside `serve`, and how a browser gets the login."""

from __future__ import annotations

import socket
import stat
import time
from pathlib import Path

import httpx
import pytest

from flows.processes.login import read
from flows.serve.review.server import FILE, HOST, OPENER, listener, open_browser, review_served, user_name
from tasks.common.config import Params
from tasks.common.errors import TaskError


def test_the_page_is_served_meanwhile(project: Path, params: Params) -> None:
    said: list[str] = []
    with review_served(project, params, said.append, 0):
        (line,) = said
        address = line.split()[1].rstrip(";")
        login = read(project / FILE)
        assert login is not None and login not in line
        assert httpx.get(address).status_code == 200 and httpx.get(f"{address}api/project").status_code == 401
        name, _, password = login.partition(":")
        assert httpx.get(f"{address}api/project", auth=(name, password)).json()["name"] == project.name
    with pytest.raises(httpx.ConnectError):
        httpx.get(address)


def test_a_port_that_is_in_use_is_told(project: Path, params: Params) -> None:
    said: list[str] = []
    with listener(0) as other:
        port = other.getsockname()[1]
        with pytest.raises(TaskError, match=f"port {port}"):
            listener(port)
        with review_served(project, params, said.append, port):
            assert f"port {port} is in use" in said[0] and f"{HOST}:{port}/" not in said[0]


def test_responses_do_not_wait_for_confirmations() -> None:
    with listener(0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_a_login_that_others_can_read_is_told_and_serving_goes_on(project: Path, params: Params) -> None:
    (project / ".prefect").mkdir()
    (project / FILE).write_text("points2model:0123456789abcdef\n")
    (project / FILE).chmod(0o644)
    said: list[str] = []
    with review_served(project, params, said.append, 0):
        assert said[0].startswith("the review page isn't served") and "0644" in said[0]


def test_the_browser_gets_the_login_in_a_file_of_the_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser, seen = tmp_path / "browser", tmp_path / "seen"
    browser.write_text(f'#!/bin/sh\necho "$@" > "{seen}.part"; mv "{seen}.part" "{seen}"\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(browser))
    assert open_browser(tmp_path, "http://127.0.0.1:4244/", "points2model:</script>0123456789")
    end = time.monotonic() + 30
    while not seen.exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    page = tmp_path / OPENER
    assert seen.read_text().strip() == page.as_uri()
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert "#login=points2model%3A%3C%2Fscript%3E0123456789" in page.read_text()


def test_the_name_of_the_user_is_a_reviewers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, expected in (("Anna Müller", "anna-m-ller"), ("_www", "www"), ("bob", "bob"), ("..", "")):
        monkeypatch.setenv("LOGNAME", name)
        assert user_name() == expected
