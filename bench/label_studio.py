"""The round trip through a running Label Studio: pseudo masks are imported, shown in Chromium, submitted, exported
and read back.

    python -m venv /tmp/ls && /tmp/ls/bin/pip install label-studio
    python -m bench.label_studio PROJECT --label-studio /tmp/ls/bin/label-studio --out /tmp/tried

PROJECT is a project with pseudo masks and local images. It isn't changed: decisions go to a copy. Each task is opened
as a person opens it, a screenshot is taken, the first region of every second task is deleted, and Submit is pressed.
Then the export is read back, and must have one decision for each object: accepted, or rejected where it was deleted.
"""

from __future__ import annotations

import argparse
import base64
import http.cookiejar
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data.tables import SENT, Split, read_parquet
from tasks.common.config import load_params
from tasks.tools.export_labels import SENT_FILE, ExportRequest, export_labels
from tasks.tools.import_review import import_review
from tests.attacks.browser import Tab, chromium

MAIL, WORD = "me@example.com", "only-on-this-machine-1"
SUBMIT = "[...document.querySelectorAll('button')].find(one => one.innerText.trim() == 'Submit')"
REGIONS = (
    "window.Htx && Htx.annotationStore.selected && Htx.annotationStore.selected.regionStore.regions.length"
)


class Server:
    """Label Studio's API, with the session of its only user."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._cookies = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self._cookies))
        self._send("/user/login/", None)
        form = {"email": MAIL, "password": WORD, "csrfmiddlewaretoken": self._csrf()}
        self._send("/user/login/", urllib.parse.urlencode(form).encode())

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """A request; JSON out and in."""
        content = None if body is None else json.dumps(body).encode()
        text = self._send(path, content, method, {"Content-Type": "application/json"})
        return json.loads(text) if text else None

    def _csrf(self) -> str:
        return next(str(one.value) for one in self._cookies if one.name == "csrftoken")

    def _send(
        self, path: str, body: bytes | None, method: str | None = None, headers: dict[str, str] | None = None
    ) -> bytes:
        request = urllib.request.Request(self.address + path, body, headers or {}, method=method)  # noqa: S310
        request.add_header("Referer", self.address + path)
        if any(one.name == "csrftoken" for one in self._cookies):
            request.add_header("X-CSRFToken", self._csrf())
        try:
            with self._opener.open(request, timeout=300) as response:
                content: bytes = response.read()
                return content
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{path}: {error.code} {error.read()[:1000]!r}") from None


@contextmanager
def label_studio(program: Path, folder: Path, images: Path) -> Iterator[str]:
    """A server with an empty database; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(images.parent),
        "COLLECT_ANALYTICS": "False",
    }
    command: list[str | Path] = [
        program, "start", "--no-browser", "--data-dir", folder / "data", "--port", str(port),
        "--internal-host", "127.0.0.1", "--username", MAIL, "--password", WORD,
    ]  # fmt: skip
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=os.environ | settings, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 900
        while True:
            try:
                with urllib.request.urlopen(f"{address}/health", timeout=10):  # noqa: S310
                    break
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    raise SystemExit(f"Label Studio didn't start, see {folder}/server.log") from None
                time.sleep(2)
        yield address
    finally:
        process.terminate()
        process.wait(60)


def submit(tab: Tab, address: str, picture: Path, delete_first: bool) -> str | None:
    """Opens a task, takes a screenshot, maybe deletes the first region, and submits; the id of the deleted one."""
    tab.open(address)
    tab.wait_for(f"{REGIONS} && {SUBMIT} ? 1 : 0", 180)
    time.sleep(3)  # brushes are drawn after the regions are there
    picture.write_bytes(base64.b64decode(tab.call("Page.captureScreenshot")["data"]))
    deleted: str | None = None
    if delete_first:
        script = "Htx.annotationStore.selected.regionStore.regions[0]"
        deleted = tab.run(f"(one => {{const id = one.cleanId; one.deleteRegion(); return id}})({script})")
    tab.run(f"{SUBMIT}.click()")
    tab.wait_for(f"{SUBMIT} ? 0 : 1", 60)
    return deleted


def main() -> None:
    """See the module."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("project", type=Path)
    arguments.add_argument("--label-studio", type=Path, required=True)
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--tasks", type=int, default=4, help="as many are opened")
    given = arguments.parse_args()
    out, project = given.out.resolve(), given.project.resolve()
    out.mkdir(parents=True)
    params = load_params(project / "params.yaml")
    decisions = out / "decisions"
    shutil.copytree(project / params.review.decisions, decisions)
    os.chdir(project)
    weak = Split.open(project / "workspace/dataset/weak")
    images = Path(weak.image_root).resolve()
    request = ExportRequest(
        "pseudo", "label-studio", decisions=decisions, image_url=f"/data/local-files/?d={images.name}/"
    )
    export_labels(request, out / "sent", project / "workspace")
    sent = read_parquet(out / "sent" / SENT_FILE, SENT).to_pylist()
    with label_studio(given.label_studio, out, images) as address:
        server = Server(address)
        interface = (out / "sent/pseudo/label_config.xml").read_text()
        body = {"title": "points2model", "label_config": interface, "model_version": "points2model"}
        number = server.call("POST", "/api/projects/", body)["id"]
        storage = {"project": number, "path": str(images), "use_blob_urls": True, "title": "images"}
        server.call("POST", "/api/storages/localfiles/", storage)
        rows = json.loads((out / "sent/pseudo/tasks.json").read_text())
        server.call("POST", f"/api/projects/{number}/import", rows[: given.tasks])
        tasks = server.call("GET", f"/api/tasks/?project={number}&fields=all")["tasks"]
        deleted: set[str] = set()
        with chromium(out, "") as tab:
            tab.call(
                "Emulation.setDeviceMetricsOverride",
                width=1280,
                height=800,
                deviceScaleFactor=1,
                mobile=False,
            )
            tab.open(f"{address}/user/login/")
            fields = {"email": MAIL, "password": WORD}
            filled = "".join(
                f"document.querySelector('input[name={name}]').value = {json.dumps(value)};"
                for name, value in fields.items()
            )
            tab.run(f"{filled} document.querySelector('form').submit()")
            time.sleep(5)
            for n, task in enumerate(tasks):
                place = f"{address}/projects/{number}/data?task={task['id']}"
                one = submit(tab, place, out / f"task-{n}.png", delete_first=bool(n % 2))
                deleted |= set() if one is None else {one}
        exported = server.call("GET", f"/api/projects/{number}/export?exportType=JSON")
    (out / "corrected.json").write_text(json.dumps(exported))
    summary = import_review(
        out / "corrected.json", decisions, project / "workspace", "bench", sent=out / "sent"
    )
    print(json.dumps(summary, indent=1))
    shown = {task["data"]["file_name"] for task in tasks}
    objects = {row["object_id"] for row in sent if row["image"] in shown}
    lines = [json.loads(line) for line in (decisions / "bench.jsonl").read_text().splitlines()]
    found = {row["object"]: row["action"] for row in lines}
    expected = {name: "reject" if name in deleted else "accept" for name in objects}
    assert found == expected, {
        name: (found.get(name), expected.get(name)) for name in found.keys() ^ expected.keys()
    }
    print(
        f"{len(objects)} objects came back with their ids, {len(deleted)} of them deleted; screenshots in {out}"
    )


if __name__ == "__main__":
    main()
