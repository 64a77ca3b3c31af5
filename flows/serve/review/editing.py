"""Routes of the review page's editor: masks at clicks by the project's networks, and masks drawn by hand."""

from __future__ import annotations

import base64
import binascii
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from data.decisions.record import Click
from data.decisions.words import Word
from data.errors import DataError
from data.masks.rle import area as pixels_of
from data.masks.rle import check_rle
from tasks.common.config import Params
from tasks.common.errors import TaskError
from tasks.review.clicked import Clicked, ClickTable, clicks_of, decided
from tasks.review.shapes import Area, from_png, from_rings, rings_of, to_png

if TYPE_CHECKING:
    from tasks.labelling.types import Clicks
    from tasks.review.drawing import Drawer

MOST_FURTHER = 100
"""Further clicks of an object."""
FILES = (
    "points/points.parquet", "dataset/weak/images.arrow", "teacher/model.safetensors", "refiner/model.safetensors",
    "refiner/gate.json", "rounds/student/model.safetensors", "pseudo/judge.json",
)  # fmt: skip
"""Below the workspace: what the networks draw depends on these."""

Words = Callable[[int], Mapping[str, Word]]
"""What reviewers decided on an image's objects, by the image's row."""
Place = tuple[FiniteFloat, FiniteFloat]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")

    image: int
    """its id"""


class FurtherClick(BaseModel):
    """As in a decision."""

    model_config = ConfigDict(extra="forbid")

    x: FiniteFloat
    y: FiniteFloat
    inside: bool


class ObjectRequest(_Request):
    """An object; what isn't given is as it stands."""

    object: str
    category: str | None = None
    point: Place | None = None
    further: Annotated[list[FurtherClick], Field(max_length=MOST_FURTHER)] | None = None


class RleMask(BaseModel):
    """COCO's compressed RLE of the whole image."""

    model_config = ConfigDict(extra="forbid")

    size: tuple[int, int]
    counts: str


class PixelsRequest(_Request):
    """A mask, to be drawn on in an area, and by how many pixels rings with few corners may deviate from it."""

    mask: RleMask
    area: Area
    tolerance: Annotated[FiniteFloat, Field(ge=0, le=1000)] = 1.0


class RingsRequest(_Request):
    """A mask as a polygon; a ring within another is a hole."""

    rings: list[Annotated[list[Place], Field(max_length=100_000)]]


class BrushRequest(_Request):
    """A mask whose pixels in an area a PNG has (base64), and a mask that holds outside of it."""

    area: Area
    png: Annotated[str, Field(max_length=1 << 27)]
    outside: RleMask | None = None


class Networks(NamedTuple):
    """The networks, and the clicks that they draw at."""

    drawer: Drawer
    table: ClickTable


class MaskEditor:
    """The networks of a project: read when they are first needed, and anew after a run made others."""

    def __init__(self, params: Params, root: Path, words: Words) -> None:
        """
        Args:
            params: of the project.
            root: its folder.
            words: see `Words`.
        """
        self._params, self._workspace, self._words = params, root / "workspace", words
        self._lock = threading.Lock()
        self._networks: Networks | None = None
        self._facts: object = None

    def networks(self) -> Networks:
        """
        Raises:
            TaskError, CheckpointError, DataError: there are none that can be used, or not at the moment.
        """
        with self._lock:
            facts = self._stamp()
            if self._networks is None or facts != self._facts:
                from tasks.review.drawing import Drawer  # torch takes seconds

                old, self._networks = self._networks, None
                if old is not None:
                    old.drawer.close()
                drawer = Drawer(self._params, self._workspace)
                self._networks, self._facts = Networks(drawer, ClickTable(self._workspace)), facts
            return self._networks

    def _stamp(self) -> object:
        found = []
        for name in FILES:
            try:
                facts = (self._workspace / name).stat()
            except OSError:
                continue
            found.append((name, facts.st_mtime_ns, facts.st_size))
        return found

    def draw(self, request: ObjectRequest) -> dict[str, Any]:
        """The networks' mask at an object's clicks, or why there is none.

        Raises:
            HTTPException: 404 or 422.
            TaskError, CheckpointError, DataError: nothing can be drawn here.
        """
        networks = self.networks()
        image, clicks, row = self._clicks(networks.table, request)
        drawing = networks.drawer.draw(image, clicks, row)
        score = None if drawing.score is None else round(drawing.score, 3)
        shown = _shown(drawing.counts, *networks.table.image_size(image))
        return {**shown, "reason": drawing.reason, "proposer": drawing.drawn_by, "score": score}

    def ahead(self, request: ObjectRequest) -> Future[None]:
        """Prepares a mask in the background; raises as `draw` does."""
        networks = self.networks()
        return networks.drawer.ahead(*self._clicks(networks.table, request))

    def _clicks(self, table: ClickTable, request: ObjectRequest) -> tuple[int, Clicks, int]:
        """The image's row, all its clicks with what was decided and the request, and the object's row among them."""
        image = table.row_of(request.image)
        if image is None:
            raise HTTPException(404, f"there is no image {request.image}")
        numbers = {one.name: one.id for one in table.weak.categories}
        if request.category is not None and request.category not in numbers:
            raise HTTPException(422, f"there is no class {request.category!r:.300}")
        objects = decided(table.of_image(image), self._words(image), table.weak.categories)
        by_name = {one.object: one for one in objects}
        one = by_name.get(request.object)
        if one is None and request.point is not None and request.category is not None:
            one = Clicked(request.object, numbers[request.category], request.point)
        if one is None:
            raise HTTPException(404, f"image {request.image} has no object {request.object:.100}")
        if request.category is not None:
            one = one._replace(category_id=numbers[request.category])
        if request.point is not None:
            one = one._replace(point=request.point)
        if request.further is not None:
            one = one._replace(
                further=tuple(Click(click.x, click.y, click.inside) for click in request.further)
            )
        height, width = table.image_size(image)
        for x, y in (one.point, *((click.x, click.y) for click in one.further)):
            if not (0 <= x < width and 0 <= y < height):
                text = f"a click at {x}, {y} is outside of the image's {width} x {height} pixels"
                raise HTTPException(422, text)
        by_name[one.object] = one
        clicks = clicks_of(list(by_name.values()), request.image)
        return image, clicks, clicks.point_ids.index(one.object)


def editing_router(editor: MaskEditor, size_of: Callable[[int], tuple[int, int]]) -> APIRouter:
    """The routes, to be included under /api.

    Args:
        editor: of the project.
        size_of: an image's height and width, by its id; raises HTTPException if there is none.
    """
    router = APIRouter()

    @router.post("/draw")
    def draw(request: ObjectRequest) -> dict[str, Any]:
        """`mask` and its `rings`, null and none with a `reason` if there is none."""
        start = time.perf_counter()
        found = _or_reason(lambda: editor.draw(request))
        return found | {"milliseconds": round(1000 * (time.perf_counter() - start))}

    @router.post("/draw/ahead")
    def ahead(request: ObjectRequest) -> dict[str, Any]:
        """Encodes the image; the response doesn't wait for it."""
        return _or_reason(lambda: {"reason": editor.ahead(request) and None})

    @router.post("/mask/rings")
    def rings(request: RingsRequest) -> dict[str, Any]:
        """The mask of a polygon."""
        height, width = size_of(request.image)
        return _shown(_valid(lambda: from_rings(request.rings, height, width)), height, width)

    @router.post("/mask/brush")
    def brush(request: BrushRequest) -> dict[str, Any]:
        """The mask of a brush."""
        height, width = size_of(request.image)
        _check_area(request.area, height, width)
        outside = None if request.outside is None else _counts(request.outside, height, width)

        def made() -> bytes:
            png = base64.b64decode(request.png, validate=True)
            return from_png(png, request.area, height, width, outside)

        return _shown(_valid(made), height, width)

    @router.post("/mask/pixels")
    def pixels(request: PixelsRequest) -> dict[str, Any]:
        """A mask as rings, as rings with few corners, and as the pixels of an area."""
        height, width = size_of(request.image)
        _check_area(request.area, height, width)
        counts = _counts(request.mask, height, width)
        png = base64.b64encode(to_png(counts, height, width, request.area)).decode("ascii")
        corners = rings_of(counts, height, width, request.tolerance)
        return {**_shown(counts, height, width), "corners": corners, "png": png}

    return router


def _or_reason(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What it returns; where the networks can't draw, why."""
    try:
        return work()
    except HTTPException:
        raise
    except (TaskError, DataError) as error:
        reason = str(error)
    except Exception as error:
        from models.weights import CheckpointError  # torch takes seconds; it is loaded if this is one

        if not isinstance(error, CheckpointError):
            raise
        reason = str(error)
    return {"mask": None, "rings": [], "reason": reason, "proposer": None, "score": None}


def _valid(make: Callable[[], bytes]) -> bytes:
    try:
        return make()
    except (ValueError, binascii.Error) as error:
        raise HTTPException(422, str(error)) from None


def _counts(mask: RleMask, height: int, width: int) -> bytes:
    """Of a mask of the image."""
    if mask.size != (height, width):
        raise HTTPException(422, f"found a mask of size {list(mask.size)}, expected {[height, width]}")

    def made() -> bytes:
        code = mask.counts.encode("ascii")
        check_rle(code, height, width)
        return code

    return _valid(made)


def _check_area(area: Area, height: int, width: int) -> None:
    x, y, w, h = area
    if not (w > 0 and h > 0 and x >= 0 and y >= 0 and x + w <= width and y + h <= height):
        raise HTTPException(422, f"area {list(area)} isn't in the image of {width} x {height} pixels")


def _shown(counts: bytes | None, height: int, width: int) -> dict[str, Any]:
    """A mask as the page has it; an empty one is none."""
    if counts is None or pixels_of(counts, height, width) == 0:
        return {"mask": None, "rings": []}
    mask = {"size": [height, width], "counts": counts.decode("ascii")}
    return {"mask": mask, "rings": rings_of(counts, height, width)}
