"""Notices reach a real webhook, directly and by a Prefect block; errors end no run and show no secret."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from flows.run import notices
from flows.run.notices import ADDRESS, LONGEST, send
from tests.flows.conftest import Toy

SECRET = "T0KEN-nobody-may-see"  # noqa: S105  (the test's own)


@dataclass
class Webhook:
    """A server that keeps what it is sent, and responds with a given status."""

    url: str = ""
    status: int = 200
    got: list[Any] = field(default_factory=list)


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    state = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            state.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(state.status)
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        state.url = f"http://127.0.0.1:{server.server_address[1]}/hook/{SECRET}"
        yield state
        server.shutdown()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(ADDRESS, raising=False)
    return tmp_path


def test_a_webhook_gets_json(project: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ADDRESS, webhook.url)
    assert send("Promoted", "v3: AP 41.2, 1.3 more", "brisk-owl", "http://server/run")
    text = f"{project.name}: run brisk-owl: Promoted: v3: AP 41.2, 1.3 more\nhttp://server/run"
    assert webhook.got == [
        {
            "text": text,
            "project": project.name,
            "run": "brisk-owl",
            "url": "http://server/run",
            "state": "Promoted",
            "reason": "v3: AP 41.2, 1.3 more",
        }
    ]
    assert send("Failed", "x" * 9999, "brisk-owl")
    assert webhook.got[1]["reason"] == "x" * (LONGEST - 1) + "…"
    assert send("Failed", "x" * LONGEST, "brisk-owl")
    assert webhook.got[2]["reason"] == "x" * LONGEST


def test_params_say_where_to(project: Path, webhook: Webhook) -> None:
    params = (Path(__file__).parents[3] / "params.yaml").read_text()
    assert "notify: null" in params
    (project / "params.yaml").write_text(params)
    assert not send("Failed", "why", "brisk-owl") and not webhook.got
    (project / "params.yaml").write_text(params.replace("notify: null", f"notify: {webhook.url}"))
    assert send("Failed", "why", "brisk-owl") and len(webhook.got) == 1


@pytest.mark.parametrize(
    ("address", "status", "warning"),
    [
        ("{url}", 500, "the webhook on 127.0.0.1 returned status 500"),
        (f"http://127.0.0.1:9/{SECRET}", 200, "the webhook on 127.0.0.1 can't be reached (ConnectError)"),
        (f"htp:/{SECRET}?", 200, "found neither the URL of a webhook"),
        (f"http://[{SECRET}", 200, "it can't be sent (ValueError)"),
    ],
)
@pytest.mark.usefixtures("project")
def test_what_goes_wrong_is_a_warning_without_secrets(
    webhook: Webhook,
    logged: list[str],
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    status: int,
    warning: str,
) -> None:
    webhook.status = status
    monkeypatch.setenv(ADDRESS, address.format(url=webhook.url))
    assert not send("Failed", "why", "brisk-owl")
    assert warning in "\n".join(logged) and SECRET not in "\n".join(logged)


@pytest.mark.usefixtures("prefect_server", "project")
def test_a_block_of_prefects(webhook: Webhook, logged: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.blocks.notifications import CustomWebhookNotificationBlock
    from prefect.blocks.system import Secret

    name = f"mine-{uuid4().hex[:8]}"
    block = CustomWebhookNotificationBlock(
        name="mine", url=webhook.url, json_data={"said": "{{subject}} {{body}}"}
    )
    block.save(name)
    monkeypatch.setenv(ADDRESS, f"custom-webhook/{name}")
    assert send("Failed", "why", "brisk-owl"), logged
    ((said,),) = [list(one.values()) for one in webhook.got]
    assert "Failed" in said and "run brisk-owl: Failed: why" in said
    monkeypatch.setenv(ADDRESS, "custom-webhook/no-such")
    assert not send("Failed", "why", "brisk-owl")
    Secret(value="x").save(name)  # type: ignore[arg-type]
    monkeypatch.setenv(ADDRESS, f"secret/{name}")
    assert not send("Failed", "why", "brisk-owl")
    assert [line.partition(": ")[2].split(" block ")[0] for line in logged] == [
        "the Prefect server has no",
        "the",
    ]


@pytest.mark.usefixtures("prefect_server")
def test_a_run_that_fails_tells(toy: Toy, webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.run.pipeline import annotation_to_model

    monkeypatch.setenv(ADDRESS, webhook.url)
    toy.set(a="fail")
    assert annotation_to_model(target="a", return_state=True).is_failed()
    (notice,) = webhook.got
    assert notice["state"] == "Failed" and notice["reason"].startswith("a: a: 2 faults\n  - one")
    assert notice["run"] and "flow-run" in (notice["url"] or "flow-run")


@pytest.mark.usefixtures("project")
def test_what_a_user_stops_is_no_news(webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ADDRESS, webhook.url)
    monkeypatch.setattr(notices, "_muted", False)
    notices.mute()
    assert not send("Crashed", "Ctrl-C", "brisk-owl") and not webhook.got
