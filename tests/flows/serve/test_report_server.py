"""Reports over HTTP, by hash from DVC's cache."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.dvc.repo import DvcRepo
from flows.processes.login import REPORTS_FILE, read
from flows.run.report_address import VARIABLE, newest_address, report_address
from flows.serve.report_server import reports_served
from tasks.promotion.baseline import folder_hash
from tests.flows.conftest import Toy

OLD, NEW = b"<!DOCTYPE html>old", b"<!doctype html>new"
WEIGHTS = b"a model's weights"


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def get(address: str, login: str | None = None, kind: str = "text/html") -> tuple[int, bytes]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    shown = {} if login is None else {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}
    try:
        request = urllib.request.Request(address, headers=shown)  # noqa: S310
        with opener.open(request, timeout=10) as response:
            assert response.headers["Content-Type"] == f"{kind}; charset=utf-8"
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.fixture
def project(toy: Toy) -> Toy:
    """A project with a newest report in the workspace, an older one and a model in DVC's cache."""
    toy.path("old.html").write_bytes(OLD)
    toy.path("model.bin").write_bytes(WEIGHTS)
    toy.dvc("add", "-q", "old.html", "model.bin")
    toy.path("workspace").mkdir()
    toy.path("workspace/report.html").write_bytes(NEW)
    return toy


@pytest.fixture
def served(project: Toy, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where its reports are served, as runs learn it."""
    monkeypatch.delenv(VARIABLE, raising=False)
    with reports_served(project.root, lambda _: None, port=0):
        yield os.environ[VARIABLE]
    assert VARIABLE not in os.environ


def test_what_is_served_and_what_is_not(served: str, project: Toy) -> None:
    login = read(project.root / REPORTS_FILE)
    assert get(f"{served}/", login) == (200, NEW)
    assert get(f"{served}/report.html?x=1", login) == (200, NEW)
    assert get(f"{served}/report.html")[0] == get(f"{served}/report.html", f"{login}x")[0] == 401
    assert get(report_address(md5(OLD))) == (200, OLD)
    assert get(report_address(md5(NEW))) == (200, NEW)  # not in the cache, but it is the newest
    for path in (
        report_address(md5(WEIGHTS)).removeprefix(served),
        report_address("0" * 32).removeprefix(served),
        "/params.yaml",
        "/../params.yaml",
        "/reports/../../params.yaml",
        f"/reports/{md5(OLD).upper()}.html",
        f"/reports/{md5(OLD)}.dir.html",
        "/.dvc/config",
    ):
        status, page = get(served + path, login)
        assert status == 404 and b"No such report" in page, path
    project.path("workspace/report.html").unlink()
    assert get(f"{served}/report.html", login)[0] == 404


CSV = b"kind,image_id\n"
WEAK = b"<!doctype html><title>Weak images</title>"
FOLDER = {"weak-001.html": WEAK, "errors.csv": CSV, "evil.txt": WEIGHTS, "not-001.html": WEIGHTS}


def with_pages(project: Toy, title: bytes) -> bytes:
    """A report with a folder of pages in DVC's cache; returns it."""
    folder = project.path("pages")
    folder.mkdir()
    for name, content in FOLDER.items():
        (folder / name).write_bytes(content)
    report = b'<!doctype html>\n<meta name="report-pages" content="%s">%s' % (
        folder_hash(folder).encode(),
        title,
    )
    project.path("paged.html").write_bytes(report)
    project.dvc("add", "-q", "pages", "paged.html")
    for path in sorted(folder.iterdir()):
        path.unlink()
    return report


def test_the_pages_of_a_report_come_from_its_folder(served: str, project: Toy) -> None:
    """By its hash from DVC's cache; of the newest one from the workspace too."""
    report = with_pages(project, b"<title>Paged</title>")
    at = f"{served}/reports/{md5(report)}"
    assert get(f"{at}.html") == get(f"{at}/report.html") == (200, report)
    assert get(f"{at}/report/weak-001.html") == (200, WEAK)
    assert get(f"{at}/report/errors.csv", kind="text/csv") == (200, CSV)
    for name in (
        "evil.txt",
        "not-001.html",
        "weak-002.html",
        "../weak-001.html",
        "weak.html",
        "..%2fweak-001.html",
    ):
        assert get(f"{at}/report/{name}", read(project.root / REPORTS_FILE))[0] == 404, name
    # A damaged object of the folder is no page.
    cached = DvcRepo(project.root).cache_file(md5(WEAK))
    cached.chmod(0o644)
    cached.write_bytes(WEAK + b"!")
    assert get(f"{at}/report/weak-001.html")[0] == 404
    # The workspace's folder belongs to the newest report alone.
    pages = project.path("workspace/report")
    pages.mkdir()
    (pages / "weak-001.html").write_bytes(WEAK)
    assert get(f"{at}/report/weak-001.html")[0] == 404
    assert get(f"{served}/reports/{md5(NEW)}/report/weak-001.html") == (200, WEAK)
    assert get(f"{served}/report/weak-001.html", read(project.root / REPORTS_FILE)) == (200, WEAK)
    assert get(f"{served}/report/weak-001.html")[0] == 401


def test_a_hash_in_a_report_s_text_is_no_folder(served: str, project: Toy) -> None:
    """Text that comes from data is further down."""
    named = with_pages(project, b"").replace(b"<!doctype html>", b"<!doctype html>" + b" " * 1000)
    project.path("late.html").write_bytes(named)
    project.dvc("add", "-q", "late.html")
    assert get(f"{served}/reports/{md5(named)}.html")[0] == 200
    assert get(f"{served}/reports/{md5(named)}/report/weak-001.html")[0] == 404


def test_a_taken_port_is_said_by_the_command_and_gone_round_where_runs_are_served(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        monkeypatch.delenv(VARIABLE, raising=False)
        with reports_served(toy.root, said.append, port):
            assert said[0].startswith(f"reports: {newest_address()} (port {port}: ")
            assert f":{port}/" not in report_address("a" * 32)
        process = toy.cli("reports", "--port", str(port))
        monkeypatch.setenv(VARIABLE, "https://reports.example/here")
        with reports_served(toy.root, said.append, port):
            assert report_address("a" * 32) == f"https://reports.example/here/reports/{'a' * 32}.html"
        assert os.environ[VARIABLE] == "https://reports.example/here"
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "in use" in output and "--port" in output and "Traceback" not in output
    expected = "in use; choose one with --reports-port); the newest one needs a login: it is in .prefect/reports_login"
    assert said[0].endswith(expected)
    expected = "reports: https://reports.example/here/report.html (POINTS2MODEL_REPORTS_URL), served on http://127.0.0.1:"
    assert said[1].startswith(expected) and f":{port} " not in said[1]


def test_a_folder_that_is_no_project_ends_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    with reports_served(tmp_path, said.append, port=0):
        pass
    assert said[0].startswith("reports aren't served: ")


def test_the_address_without_a_word_is_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert report_address("a" * 32) == f"http://127.0.0.1:4243/reports/{'a' * 32}.html"
