"""The routes of the review page, and who may use them."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from starlette.testclient import TestClient

from data.decisions.store import DecisionLog, read_decisions
from flows.serve.review.app import LOOK_EVERY, STATIC, Project
from flows.serve.review.server import guarded
from tasks.common.config import Params
from tasks.review.audit import judged
from tasks.tools.random_sample import open_sample
from tests.flows.serve.review.conftest import LOGIN, PORT
from tests.tasks.conftest import ROOT

SECRETS = ["project", "now?reviewer=anna", "notices", "images/1", "pictures/1?x=0&y=0&w=9&h=9", "objects/x"]
EVIL = "http://evil.example"


def begin(client: TestClient, **filters: Any) -> tuple[str, dict[str, Any]]:
    """A queue, and its first object."""
    made = client.post("/api/queue", json={"filters": filters}).json()
    return made["queue"], client.get(f"/api/queue/{made['queue']}/0").json()


def decide(client: TestClient, action: str, shown: dict[str, Any], **more: Any) -> Any:
    body = {
        "reviewer": "anna",
        "action": action,
        "image": shown["image"]["name"],
        "object": shown["id"],
        **more,
    }
    return client.post("/api/decisions", json=body)


def test_from_the_page_to_a_decision_on_the_disk(client: TestClient, project: Path) -> None:
    page = client.get("/")
    assert page.status_code == 200 and "static/review.js" in page.text
    facts = client.get("/api/project").json()
    assert facts["reviewer"] == "anna" and [one["name"] for one in facts["classes"]] == [
        "apple",
        "banana",
        "cherry",
    ]
    queue, shown = begin(client)
    assert (shown["position"], shown["total"]) == (0, 178)
    window = dict(zip("xywh", shown["window"], strict=True))
    picture = client.get(f"/api/pictures/{shown['image']['id']}", params=window)
    pixels = cv2.imdecode(np.frombuffer(picture.content, np.uint8), cv2.IMREAD_COLOR)
    assert picture.headers["content-type"] == "image/jpeg" and picture.headers["cache-control"] == "no-store"
    assert pixels is not None and pixels.shape == (window["h"], window["w"], 3)
    made = decide(client, "accept", shown, mask=shown["mask"]).json()
    (stored,) = read_decisions(project / "decisions").decisions
    assert made["id"] == stored.id and made["now"]["last"]["object"] == stored.object == shown["id"]
    assert client.get(f"/api/queue/{queue}/0/undecided").json() == {"position": 1}
    assert client.get(f"/api/queue/{queue}/place/{shown['id']}").json() == {"position": 0}
    assert client.get(f"/api/objects/{shown['id']}").json()["verdict"] == "accept"


def test_a_picture_is_the_part_of_the_image(client: TestClient, project: Path) -> None:
    whole = cv2.imread(str(project / "images/scene_002.jpg"))
    assert whole is not None
    sent = client.get("/api/pictures/3", params={"x": 10, "y": 20, "w": 60, "h": 40}).content
    part = cv2.imdecode(np.frombuffer(sent, np.uint8), cv2.IMREAD_COLOR)
    assert part is not None
    assert np.abs(part.astype(int) - whole[20:60, 10:70]).mean() < 6  # JPEG
    small = client.get("/api/pictures/3", params={"x": 0, "y": 0, "w": 128, "h": 128, "longest": 32}).content
    assert cv2.imdecode(np.frombuffer(small, np.uint8), cv2.IMREAD_COLOR).shape == (32, 32, 3)  # type: ignore[union-attr]
    assert client.get("/api/pictures/3", params={"x": 100, "y": 0, "w": 60, "h": 40}).status_code == 404
    assert client.get("/api/pictures/99", params={"x": 0, "y": 0, "w": 6, "h": 4}).status_code == 404


def test_the_next_picture_of_a_changed_file_is_refused(client: TestClient, project: Path) -> None:
    shutil.copy(project / "images/scene_001.jpg", project / "images/scene_002.jpg")
    refused = client.get("/api/pictures/3", params={"x": 0, "y": 0, "w": 6, "h": 4})
    assert refused.status_code == 422 and "scene_002.jpg" in refused.json()["detail"]


@pytest.mark.parametrize("path", SECRETS)
def test_without_the_login_nothing_of_the_project_is_shown(served: Project, path: str) -> None:
    nobody = TestClient(guarded(served, LOGIN, PORT), base_url=f"http://127.0.0.1:{PORT}")
    for headers in (
        {},
        {"Authorization": "Basic cG9pbnRzMm1vZGVsOg=="},
        {"Authorization": f"Bearer {LOGIN}"},
    ):
        found = nobody.get(f"/api/{path}", headers=headers)
        assert found.status_code == 401 and "train" not in found.text and "day/" not in found.text
    assert nobody.get(f"//api/{path}").status_code == 404
    assert nobody.post("/api/decisions", json={}).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": f"evil.example:{PORT}"},
        {"Host": "127.0.0.1:4243"},
        {"Host": "127.0.0.1"},
        {"Origin": EVIL},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:4243"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    ],
)
def test_requests_of_other_pages_are_refused_even_with_the_login(
    client: TestClient, project: Path, headers: dict[str, str]
) -> None:
    _, shown = begin(client)
    for path in ("/", "/static/review.js", "/api/project", "/api/pictures/1?x=0&y=0&w=9&h=9"):
        assert client.get(path, headers=headers).status_code == 403
    body = {"reviewer": "anna", "action": "reject", "image": shown["image"]["name"], "object": shown["id"]}
    assert client.post("/api/decisions", json=body, headers=headers).status_code == 403
    assert list((project / "decisions").iterdir()) == []


def test_a_link_leads_to_the_page_which_no_other_page_may_frame(client: TestClient) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    for path in ("/", "/static/review.js", "/api/project", "/nothing"):
        found = client.get(path, headers=link)
        assert found.status_code == (404 if path == "/nothing" else 200)
        assert (
            found.headers["x-frame-options"] == "DENY"
            and found.headers["x-content-type-options"] == "nosniff"
        )
        policy = found.headers["content-security-policy"]
        assert (
            "default-src 'none'" in policy and "unsafe-eval" not in policy and "script-src 'self';" in policy
        )


@pytest.mark.parametrize(
    "path", ["../app.py", "..%2fapp.py", "%2e%2e/app.py", "/etc/passwd", "../../../../params.yaml"]
)
def test_only_the_files_of_the_page_are_served(client: TestClient, path: str) -> None:
    assert client.get(f"/static/{path}").status_code == 404
    assert client.get(f"/{path}").status_code == 404


def test_the_page_starts_without_torch() -> None:
    """Which takes seconds; the editor loads it when it draws."""
    code = "import sys, flows.cli.review, flows.serve.review.server; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_page_loads_nothing_from_elsewhere() -> None:
    for path in STATIC.iterdir():
        if path.suffix in (".html", ".css") or path.name == "review.js":
            text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
            assert "http:" not in text and "https:" not in text and "innerHTML" not in text, path.name


def test_a_full_disk_is_told_and_nothing_is_lost(
    client: TestClient, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, shown = begin(client)
    decide(client, "reject", shown)
    before = (project / "decisions/anna.jsonl").read_bytes()
    _, second = begin(client)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        refused = decide(client, "reject", second)
    assert refused.status_code == 507
    assert refused.json()["detail"].startswith("No space left on device. Nothing was saved")
    assert (project / "decisions/anna.jsonl").read_bytes() == before
    assert client.get(f"/api/objects/{second['id']}").json()["decided"] is False
    assert decide(client, "reject", second).status_code == 200


def test_a_file_that_cant_be_read_is_named(
    client: TestClient, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(project / "decisions"))

    queue, _ = begin(client)
    monkeypatch.setattr("tasks.review.ledger.Ledger.refresh", unreadable)
    refused = client.get(f"/api/queue/{queue}/0")
    assert refused.status_code == 500 and refused.json()["detail"].startswith(
        f"{project / 'decisions'}: Permission"
    )
    assert "saved" not in refused.text


def test_bad_requests_are_refused_with_a_reason(client: TestClient) -> None:
    _, shown = begin(client)
    refused = decide(client, "class", shown, category="pear")
    assert refused.status_code == 422 and "pear" in refused.json()["detail"]
    assert decide(client, "reject", shown, colour="red").status_code == 422
    refused = decide(client, "reject", shown, object="0123456789abcdef")
    assert refused.status_code == 422 and "object '0123456789abcdef'" in refused.json()["detail"]
    refused = client.post("/api/queue", json={"filters": {"clas": 1}})
    assert refused.status_code == 422 and refused.json()["detail"].startswith(
        "filters.clas: Extra inputs are not"
    )
    rings = '{"image": 1, "rings": [[[NaN, 1], [5, 5], [1, 9]]]}'
    refused = client.post("/api/mask/rings", content=rings, headers={"Content-Type": "application/json"})
    assert refused.status_code == 422 and "rings.0.0.0: Input should be a finite number" in refused.text
    for path in ("queue/1-2/0", "queue/1-2/0/undecided", "queue/1-2/place/x"):
        assert client.get(f"/api/{path}").status_code == 410
    queue, _ = begin(client)
    for position in (-1, 178):
        assert client.get(f"/api/queue/{queue}/{position}").status_code == 404
    assert client.get("/api/objects/0000").status_code == 404


def test_a_queue_begins_at_an_object(client: TestClient) -> None:
    queue, _ = begin(client)
    tenth = client.get(f"/api/queue/{queue}/10").json()["id"]
    made = client.post("/api/queue", json={"filters": {}, "at": tenth}).json()
    assert (made["position"], made["is_found"]) == (10, True)
    made = client.post("/api/queue", json={"filters": {}, "at": "gone"}).json()
    assert (made["position"], made["is_found"]) == (0, False)


def test_a_run_that_writes_other_masks_makes_the_queue_anew(
    client: TestClient, served: Project, project: Path
) -> None:
    queue, shown = begin(client)
    decide(client, "reject", shown)
    pseudo = project / "workspace/pseudo"
    pseudo.rename(project / "kept")
    for _ in range(2):  # while the run makes them the old ones stay
        served._looked -= LOOK_EVERY + 1
        assert client.get("/api/project").status_code == 200
        assert decide(client, "accept", shown, mask=shown["mask"]).status_code == 200
        assert client.get(f"/api/queue/{queue}/0").json()["verdict"] == "accept"
        # Masks of files that weren't read before too.
        assert all(client.get(f"/api/queue/{queue}/{n}").json()["path"] for n in range(177))
    (project / "kept").rename(pseudo)
    (pseudo / "part-00002.parquet").unlink()
    served._looked -= LOOK_EVERY + 1
    assert client.get(f"/api/queue/{queue}/0").status_code == 410
    _, again = begin(client)
    assert 0 < again["total"] < 177 and client.get(f"/api/objects/{shown['id']}").status_code in (200, 404)


def test_whole_images_lead_to_their_neighbours(client: TestClient, project: Path) -> None:
    DecisionLog(project / "decisions", "bob").append("complete", image="day/000002.jpg")
    second = client.get("/api/images/2").json()
    assert (second["previous"], second["next"], second["complete"]) == (1, 3, ["bob"])
    assert len(second["objects"]) == 9 and all(one["path"].startswith("M") for one in second["objects"])
    assert client.get("/api/images/1").json()["previous"] is None
    assert client.get("/api/images/20").json()["next"] is None
    assert client.get("/api/images/21").status_code == 404


def test_an_audit_has_its_own_order_and_its_own_decisions(
    client: TestClient, project: Path, params: Params
) -> None:
    """What was decided before doesn't count there; the mask that is shown is the sampled one."""
    opened = open_sample(project / "decisions", project / "workspace", 12, 0, redraw=False)
    listed = [one.object for one in opened.sample.objects]
    first = client.get(f"/api/objects/{listed[0]}").json()
    decide(client, "reject", first)
    served = Project(params, project, "anna", listed, opened.sample.id)
    page = TestClient(guarded(served, LOGIN, PORT), base_url=f"http://127.0.0.1:{PORT}")
    page.auth = tuple(LOGIN.split(":"))  # type: ignore[assignment]
    facts = page.get("/api/project").json()
    assert list(facts["orders"]) == ["given"] and facts["name"].endswith(", audit")
    queue, shown = begin(page, order="given")
    seen = [page.get(f"/api/queue/{queue}/{n}").json()["id"] for n in range(shown["total"])]
    assert seen == listed and not shown["decided"]
    assert shown["why"] == [] and first["why"] and "random" in facts["words"]
    assert page.get("/api/now", params={"reviewer": "anna"}).json()["objects"] == 12
    assert decide(page, "accept", shown, mask=shown["mask"]).status_code == 200
    decisions = read_decisions(project / "decisions").decisions
    assert [(one.action, one.audit) for one in decisions] == [("reject", None), ("accept", opened.sample.id)]
    assert judged(opened.sample, decisions) == {listed[0]: "right"}
