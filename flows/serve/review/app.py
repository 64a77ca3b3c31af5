"""The web application of the review page: JSON, pictures, and the files in static/."""

from __future__ import annotations

import itertools
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict

from data.decisions.record import check_reviewer
from data.errors import DataError
from data.masks.rle import IntArray
from flows.serve.review.editing import MaskEditor, editing_router
from tasks.common.config import Params
from tasks.common.errors import TaskError
from tasks.review.desk import Desk
from tasks.review.queue import Filters
from tasks.review.rank import ORDERS, WORDS

STATIC = Path(__file__).parent / "static"
QUEUES = 32
"""Queues that are kept, the latest ones; the page makes its queue anew where it is gone."""
LOOK_EVERY = 2.0
"""Seconds between looks at whether a run has written new pseudo masks."""
LONGEST = 2048
"""Pixels a side of the largest picture."""


class Project:
    """The desk of a project, opened when it is first needed, and anew after a run wrote other pseudo masks. While a run
    makes them the old ones stay: decisions on them are as good as before."""

    def __init__(
        self,
        params: Params,
        root: Path,
        reviewer: str,
        listed: Sequence[str] | None = None,
        audit: str | None = None,
    ) -> None:
        """
        Args:
            params: of the project.
            root: its folder.
            reviewer: the name that the page starts with.
            listed: ids of the only objects to review, in this order; None: all, worst first.
            audit: the id of a random sample, see `Desk`.

        Raises:
            DataError: a reviewer's name that can't be a file's.
        """
        check_reviewer(reviewer)
        self.params, self.root, self.reviewer, self.listed = params, root, reviewer, listed
        self.audit = audit
        self._desk: Desk | None = None
        self._facts: object = None
        self._looked = 0.0
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._queues: OrderedDict[str, tuple[Desk, IntArray]] = OrderedDict()

    def desk(self) -> Desk:
        """
        Raises:
            TaskError, DataError: there are no pseudo masks, and there were none before.
        """
        with self._lock:
            if self._desk is None or time.monotonic() - self._looked > LOOK_EVERY:
                self._looked = time.monotonic()
                facts = self._stamp()
                if self._desk is None or facts != self._facts:
                    try:
                        desk = Desk(self.params, self.root, self.listed, self.audit)
                    except (TaskError, DataError):  # while a run makes others
                        if self._desk is None:
                            raise
                        return self._desk
                    self._desk, self._facts = desk, facts
                    self._queues.clear()
            return self._desk

    def _stamp(self) -> object:
        workspace = self.root / "workspace"
        files = [
            *sorted((workspace / "pseudo").glob("part-*.parquet")),
            workspace / "points" / "points.parquet",
        ]
        return [(file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.exists()]

    def keep(self, desk: Desk, rows: IntArray) -> str:
        """Keeps a queue; returns its name."""
        with self._lock:
            name = f"{next(self._numbers)}-{time.time_ns():x}"  # another server's names differ
            self._queues[name] = (desk, rows)
            while len(self._queues) > QUEUES:
                self._queues.popitem(last=False)
            return name

    def queue(self, name: str) -> tuple[Desk, IntArray]:
        """
        Raises:
            HTTPException: 410, the queue is gone.
        """
        self.desk()
        with self._lock:
            found = self._queues.get(name)
        if found is None:
            raise HTTPException(410, "this queue is gone: the server was started anew, or a run has ended")
        return found


class QueueRequest(BaseModel):
    """Filters, and the id of the object to begin at."""

    model_config = ConfigDict(extra="forbid")

    filters: Filters = Filters()
    at: str | None = None


class DecisionRequest(BaseModel):
    """A decision, with the fields that its action has (docs/decisions.md)."""

    model_config = ConfigDict(extra="forbid")

    reviewer: str
    action: str
    image: str | None = None
    object: str | None = None
    mask: dict[str, Any] | None = None
    source: str | None = None
    category: str | None = None
    point: list[float] | None = None
    further: list[dict[str, Any]] | None = None
    undoes: str | None = None


class AgreeRequest(BaseModel):
    """An object, and the reviewer with whom another one agrees."""

    model_config = ConfigDict(extra="forbid")

    reviewer: str
    object: str
    other: str


def create_app(project: Project) -> FastAPI:
    """The application; without the checks of flows/processes/request_guard.py, which are around it."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(DataError)
    def _refused(_: Request, error: DataError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 422)

    @app.exception_handler(TaskError)
    def _not_now(_: Request, error: TaskError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 503)

    @app.exception_handler(RequestValidationError)
    def _misunderstood(_: Request, error: RequestValidationError) -> JSONResponse:
        """One line for people; without the values, which may be NaN and then break FastAPI's own response."""
        lines = [f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()]
        return JSONResponse({"detail": f"{'; '.join(lines)}. Next: reload the page"}, 422)

    @app.exception_handler(OSError)
    def _not_written(request: Request, error: OSError) -> JSONResponse:
        if request.method == "GET":
            found = f"{error.filename}: {error.strerror}" if error.strerror else str(error)
            return JSONResponse({"detail": f"{found}. Correct it, then reload the page"}, 500)
        text = f"{error.strerror or error}. Nothing was saved: free the disk or correct permissions, then decide again"
        return JSONResponse({"detail": text}, 507)

    @app.middleware("http")
    async def _fresh(request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["Cache-Control"] = "no-store" if request.url.path.startswith("/api/") else "no-cache"
        return response

    _add_reading(app, project)
    _add_deciding(app, project)
    editor = MaskEditor(project.params, project.root, lambda image: project.desk().words(image))
    app.include_router(editing_router(editor, lambda image: _size(project.desk(), image)), prefix="/api")

    @app.get("/")
    def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    app.mount("/static", StaticFiles(directory=STATIC))
    return app


def _add_reading(app: FastAPI, project: Project) -> None:
    @app.get("/api/health")
    def health() -> bool:
        return True

    @app.get("/api/project")
    def facts() -> dict[str, Any]:
        desk = project.desk()
        orders, words = {**ORDERS, "latest": "decided last"}, WORDS
        orders = {"given": "as listed", **orders} if project.listed is not None else orders
        name = project.root.resolve().name
        if project.audit is not None:  # any other order would choose what is judged
            orders, name = {"given": "a random sample"}, f"{name}, audit"
            words = "A random sample: judge it in this order, and don't skip the hard ones."
        return {
            "name": name, "reviewer": project.reviewer,
            "classes": [{"id": n, "name": name} for n, name in desk.categories.items()],
            "reviewers": desk.reviewers(), "proposers": desk.objects.proposers, "orders": orders, "words": words,
            "first_image": desk.objects.weak.images["image_id"][0].as_py() if len(desk.objects.weak) else None,
        }  # fmt: skip

    @app.post("/api/queue")
    def queue(request: QueueRequest) -> dict[str, Any]:
        desk = project.desk()
        rows = desk.queue(request.filters)
        at = desk.objects.row_of.get(request.at or "")
        found = (rows == at).nonzero()[0] if at is not None else rows[:0]
        return {
            "queue": project.keep(desk, rows), "total": len(rows),
            "position": int(found[0]) if len(found) else 0, "is_found": bool(len(found)),
        }  # fmt: skip

    @app.get("/api/queue/{name}/{position}")
    def at(name: str, position: int) -> dict[str, Any]:
        desk, rows = project.queue(name)
        if not 0 <= position < len(rows):
            raise HTTPException(404, "the queue ends there")
        return {**desk.describe(int(rows[position])), "position": position, "total": len(rows)}

    @app.get("/api/queue/{name}/{position}/undecided")
    def undecided(name: str, position: int) -> dict[str, int | None]:
        """The first undecided place at or after a place, else from the beginning; None if there is none."""
        desk, rows = project.queue(name)
        return {"position": desk.first_undecided(rows, position)}

    @app.get("/api/queue/{name}/place/{id}")
    def place(name: str, id: str) -> dict[str, int | None]:
        """The place of an object in a queue; None if it isn't in it."""
        desk, rows = project.queue(name)
        row = desk.objects.row_of.get(id, -1)
        found = (rows == row).nonzero()[0]
        return {"position": int(found[0]) if len(found) else None}

    @app.get("/api/objects/{name}")
    def one(name: str) -> dict[str, Any]:
        desk = project.desk()
        row = desk.objects.row_of.get(name)
        found = desk.describe_added(name) if row is None else desk.describe(row)
        if found is None:
            raise HTTPException(404, f"there is no object {name}")
        return found

    @app.get("/api/images/{image_id}")
    def image(image_id: int) -> dict[str, Any]:
        desk = project.desk()
        row = _row(desk, image_id)
        ids = desk.objects.weak.images["image_id"]
        near = {"previous": row - 1, "next": row + 1}
        return desk.image(row) | {
            name: ids[n].as_py() if 0 <= n < len(ids) else None for name, n in near.items()
        }

    @app.get("/api/pictures/{image_id}")
    def picture(
        image_id: int,
        x: Annotated[int, Query(ge=0)],
        y: Annotated[int, Query(ge=0)],
        w: Annotated[int, Query(ge=1)],
        h: Annotated[int, Query(ge=1)],
        longest: Annotated[int, Query(ge=1, le=LONGEST)] = 1024,
    ) -> Response:
        desk = project.desk()
        row = _row(desk, image_id)
        width, height = desk.image_size(row)
        if x + w > width or y + h > height:
            raise HTTPException(404, f"image {image_id} has {width} x {height} pixels")
        return Response(desk.pictures.jpeg(row, (x, y, w, h), longest), media_type="image/jpeg")

    @app.get("/api/now")
    def now(reviewer: str) -> dict[str, Any]:
        return project.desk().now(reviewer)

    @app.get("/api/notices")
    def notices() -> list[dict[str, str]]:
        return project.desk().notices()


def _add_deciding(app: FastAPI, project: Project) -> None:
    @app.post("/api/decisions")
    def decide(request: DecisionRequest) -> dict[str, Any]:
        """The response is sent after the decision is on the disk."""
        desk = project.desk()
        fields = request.model_dump(exclude={"reviewer", "action"}, exclude_none=True)
        made = desk.decide(request.reviewer, request.action, fields)
        return {"id": made.id, "object": made.object, "now": desk.now(request.reviewer)}

    @app.post("/api/agree")
    def agree(request: AgreeRequest) -> dict[str, Any]:
        """As `decide`: it is on the disk."""
        desk = project.desk()
        made = desk.agree(request.reviewer, request.object, request.other)
        return {"made": [one.id for one in made], "now": desk.now(request.reviewer)}


def _size(desk: Desk, image_id: int) -> tuple[int, int]:
    """Height and width of an image."""
    width, height = desk.image_size(_row(desk, image_id))
    return height, width


def _row(desk: Desk, image_id: int) -> int:
    row = desk.objects.image_row.get(image_id)
    if row is None:
        raise HTTPException(404, f"there is no image {image_id}")
    return row
