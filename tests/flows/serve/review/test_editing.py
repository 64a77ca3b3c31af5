"""The routes of the editor: masks at clicks, polygons, brushes; on a project with trained networks."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from data.masks.rle import decode, encode
from data.tables import POINTS, read_parquet
from flows.serve.review.app import Project
from flows.serve.review.server import guarded
from tasks.common.config import Params
from tasks.train_student import read_pseudo
from tests.flows.serve.review.conftest import LOGIN, PORT

SIDE = 64


@pytest.fixture
def trained(line: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of the tiny line, in which the current folder is."""
    shutil.copytree(line[0], tmp_path / "line")
    monkeypatch.chdir(tmp_path / "line")
    return Project(line[1], Path(), "anna")


@pytest.fixture
def trained_client(trained: Project) -> TestClient:
    found = TestClient(guarded(trained, LOGIN, PORT), base_url=f"http://127.0.0.1:{PORT}")
    found.auth = tuple(LOGIN.split(":"))  # type: ignore[assignment]
    return found


def rows() -> dict[str, dict[str, Any]]:
    """Pseudo masks with their points."""
    points = {
        row["point_id"]: row
        for row in read_parquet(Path("workspace/points/points.parquet"), POINTS).to_pylist()
    }
    return {
        row["point_id"]: {**points[row["point_id"]], **row}
        for row in read_pseudo(Path("workspace/pseudo")).to_pylist()
    }


def drawn() -> dict[str, Any]:
    return max(rows().values(), key=lambda row: row["area"] or 0)


def post(client: TestClient, path: str, **body: Any) -> dict[str, Any]:
    response = client.post(f"/api/{path}", json=body)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def pixels(answer: dict[str, Any]) -> Any:
    assert answer["mask"]["size"] == [SIDE, SIDE]
    return decode(answer["mask"]["counts"].encode(), SIDE, SIDE)


def test_an_object_as_it_is_and_at_other_clicks(trained_client: TestClient) -> None:
    row = drawn()
    on = {"image": row["image_id"], "object": row["point_id"]}
    assert post(trained_client, "draw/ahead", **on) == {"reason": None}
    answer = post(trained_client, "draw", **on)
    assert answer["mask"]["counts"].encode() == (row["refined_rle"] or row["rough_rle"])
    assert answer["score"] == pytest.approx(row["score"], abs=1e-3) and answer["reason"] == row["reason"]
    assert answer["milliseconds"] >= 0 and len(answer["rings"]) >= 1
    y, x = np.argwhere(pixels(answer))[-1].tolist()
    outside = [{"x": x + 0.5, "y": y + 0.5, "inside": False}]
    other = post(trained_client, "draw", **on, point=[row["x"], row["y"]], further=outside)
    assert other["mask"] != answer["mask"]
    # A decision counts for objects of the image that the request doesn't name.
    image = trained_client.get(f"/api/images/{row['image_id']}").json()["image"]["name"]
    body = {
        "reviewer": "anna",
        "action": "clicks",
        "image": image,
        "object": row["point_id"],
        "further": outside,
    }
    post(trained_client, "decisions", **body, point=[row["x"], row["y"]])
    assert post(trained_client, "draw", **on)["mask"] == other["mask"]
    assert post(trained_client, "draw", **on, further=[])["mask"] == answer["mask"]
    # An object that isn't a point.
    names = [one["name"] for one in trained_client.get("/api/project").json()["classes"]]
    new = {"image": row["image_id"], "object": "new", "category": names[0], "point": [30.5, 30.5]}
    assert {"mask", "reason"} < post(trained_client, "draw", **new).keys()


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"image": 999999}, 404), ({"object": "gone"}, 404), ({"point": [64.0, 3.0]}, 422),
        ({"point": [3.0, -0.1]}, 422),
        ({"further": [{"x": 3, "y": 99, "inside": True}]}, 422), ({"category": "no class"}, 422), ({"more": 1}, 422),
        ({"further": [{"x": 3, "y": 9}]}, 422), ({"further": [{"x": 3, "y": 9, "inside": True}] * 101}, 422),
    ],
)  # fmt: skip
def test_requests_that_fit_nothing(trained_client: TestClient, change: dict[str, Any], status: int) -> None:
    row = drawn()
    body = {"image": row["image_id"], "object": row["point_id"], **change}
    for path in ("draw", "draw/ahead"):
        assert trained_client.post(f"/api/{path}", json=body).status_code == status
    body["point"] = [float("nan"), 3.0]
    raw = json.dumps(body)
    assert trained_client.post("/api/draw", content=raw).status_code == 422


def test_networks_that_cannot_draw(trained_client: TestClient) -> None:
    row = drawn()
    on = {"image": row["image_id"], "object": row["point_id"]}
    model = Path("workspace/refiner/model.safetensors")
    content = model.read_bytes()
    model.unlink()
    answer = post(trained_client, "draw", **on)
    assert answer["mask"] is None and "refiner" in answer["reason"]
    model.write_bytes(content[:1000])
    assert "refiner" in post(trained_client, "draw", **on)["reason"]
    model.write_bytes(content)
    assert post(trained_client, "draw", **on)["mask"] is not None
    name = trained_client.get(f"/api/images/{row['image_id']}").json()["image"]["name"]
    (path,) = Path().rglob(Path(name).name)
    path.unlink()
    os.utime("workspace/points/points.parquet", (1, 1))  # what a run does: all is read anew
    answer = post(trained_client, "draw", **on)
    assert answer["mask"] is None and path.name in answer["reason"]


def test_a_project_without_networks(client: TestClient) -> None:
    shown = client.post("/api/queue", json={}).json()
    one = client.get(f"/api/queue/{shown['queue']}/0").json()
    answer = post(client, "draw", image=one["image"]["id"], object=one["id"])
    assert answer["mask"] is None and "refiner" in answer["reason"]
    made = post(client, "mask/rings", image=one["image"]["id"], rings=[[[1, 1], [9, 1], [9, 9]]])
    assert made["mask"] is not None


def test_shapes(trained_client: TestClient) -> None:
    image = drawn()["image_id"]
    square, hole = [[4, 3], [14, 3], [14, 23], [4, 23]], [[6, 5], [10, 5], [10, 9], [6, 9]]
    answer = post(trained_client, "mask/rings", image=image, rings=[square, hole])
    assert pixels(answer).sum() == 200 - 16 and len(answer["rings"]) == 2
    area = [2, 2, 30, 40]
    found = post(trained_client, "mask/pixels", image=image, area=area, mask=answer["mask"], tolerance=2)
    assert found["rings"] == answer["rings"] and len(found["corners"][0]) <= 4
    again = post(
        trained_client, "mask/brush", image=image, area=area, png=found["png"], outside=answer["mask"]
    )
    assert again == answer
    inner = post(trained_client, "mask/pixels", image=image, area=[0, 0, 64, 10], mask=answer["mask"])["png"]
    cut = post(trained_client, "mask/brush", image=image, area=[0, 0, 64, 10], png=inner)
    assert pixels(cut).sum() == 70 - 16
    empty = {"size": [SIDE, SIDE], "counts": encode(np.zeros((SIDE, SIDE), np.bool_)).decode()}
    assert post(trained_client, "mask/pixels", image=image, area=area, mask=empty)["mask"] is None
    for path, body in (
        ("mask/rings", {"rings": [square[:2]]}),
        ("mask/pixels", {"area": [60, 0, 5, 5], "mask": answer["mask"]}),
        ("mask/pixels", {"area": area, "mask": {"size": [SIDE, SIDE], "counts": "?"}}),
        ("mask/pixels", {"area": area, "mask": {"size": [SIDE, 63], "counts": answer["mask"]["counts"]}}),
        ("mask/pixels", {"area": area, "mask": {"size": [SIDE, SIDE], "counts": "é"}}),
        ("mask/brush", {"area": area, "png": "no base64!"}),
        ("mask/brush", {"area": [2, 2, 31, 40], "png": found["png"]}),
    ):
        response = trained_client.post(f"/api/{path}", json={"image": image, **body})
        assert response.status_code == 422, (path, body, response.text)
    assert trained_client.post("/api/mask/rings", json={"image": 10**9, "rings": []}).status_code == 404
