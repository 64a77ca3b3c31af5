"""Masks on images outside the pipeline: what a checkpoint finds in them, or draws at clicks.

`compat` keeps to the reference's conventions from the image to the mask (models/reference/compat.py), so that published
weights give the reference's results.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from data.storage import atomic_write
from data.tables import Split
from models.checkpoint import load_meta
from models.config import MAX_SIDE, InferenceConfig
from models.reference.published_config import STUDENT
from models.weights import CheckpointError
from tasks.common.config import load_params, model_input
from tasks.common.device import resolve_device
from tasks.common.errors import TaskError
from tasks.common.ordered_threads import ordered_thread_map
from tasks.common.progress import Bar
from tasks.common.stage_main import write_json
from tasks.scoring.outcomes import USUAL_MIN_SCORE
from tasks.tools.chosen_score import chosen_min_score
from tasks.tools.label_files import check, relative_names, write_label_files
from tasks.tools.pictures import Pictures, remove
from tasks.tools.predict_inputs import Given, Rows, expanded, load, points_by_image, split_of
from tasks.tools.predictor import Predicted, Predictor, Rules
from tasks.training.out_of_memory import is_out_of_memory

log = logging.getLogger(__name__)

RESULTS, FATES = "results.json", "points.json"
READ_AHEAD = 1 << 27
"""Bytes of images that are read ahead."""


def predict_images(
    images: Sequence[str],
    model: Path,
    out: Path,
    *,
    compat: bool,
    points: Path | None,
    refiner: Path | None,
    params: Path | None,
    short_side: int | None,
    max_side: int | None,
    device: str,
    min_score: float | None = None,
    pictures: bool = False,
    formats: Sequence[str] = (),
) -> dict[str, Any]:
    """Writes `out`/results.json: COCO results with compressed RLE, an image's rows together, each with file_name.

    With `pictures` also `out`/pictures and `out`/contact-sheet.jpg, for each of `formats` the folder `out`/FORMAT.

    With clicks there is one row per clicked object, or under `compat` one per mask that the reference would report, and
    `out`/points.json has the fate of each click.

    Args:
        images: files, folders of images, glob patterns, or s3://BUCKET/PREFIX; image_id is 1, 2, ... in this order.
        model: a checkpoint folder of a SOLOv2; without clicks and `compat`, also of another student.
        out: folder; its other files stay.
        compat: use the reference's conventions.
        points: clicks, in any format of import_points; None finds instances without them.
        refiner: a MaskRefineNet checkpoint folder, for the masks at clicks.
        params: a params file, for `evaluate.inference` and `prompt`; None takes the inference settings of an
            imported checkpoint, and the rest from ./params.yaml.
        short_side, max_side: the size that images are resized to; None takes the checkpoint's.
        device: as `runtime.device`.
        min_score: instances with a lower score are left out, in 0..1; None keeps all in the results, and in pictures
            and label files those from the score on that was chosen on the validation images. At clicks no row is left
            out.
        pictures: whether to draw the instances over the images.
        formats: of `label_files.FORMATS`.

    Returns:
        Counts of images, points and masks; `min_score`: the score from which on instances are in pictures and label
        files, and whether it was `chosen` on validation images; `labels`: counts by format.

    Raises:
        TaskError, DataError: images, clicks, checkpoints or params that can't be used; all of a kind are listed.
    """
    if refiner is not None and points is None:
        raise TaskError("--refiner: found no --points; masks are refined at clicks alone")
    if not images:
        raise TaskError("IMAGE: found none, expected one or more")
    if min_score is not None and not 0 <= min_score <= 1:
        raise TaskError(f"--min-score: found {min_score:g}, expected 0 to 1")
    given = expanded(images, out)
    names = relative_names([image.path for image in given])
    check(out, formats, names)
    torch.use_deterministic_algorithms(True, warn_only=True)
    rules = _rules(model, compat=compat, prompted=points is not None, params=params)
    sides = {"short_side": short_side, "max_side": max_side}
    chosen = {key: value for key, value in sides.items() if value is not None}
    for side, value in chosen.items():
        if not 2 <= value <= MAX_SIDE:
            raise TaskError(f"--{side.replace('_', '-')}: found {value}, expected 2 to {MAX_SIDE}")
    rules = rules._replace(size=rules.size.model_copy(update=chosen))
    predictor = Predictor(model, rules, refiner, resolve_device(device))
    split = split_of(given, predictor.categories)
    chosen_score = chosen_min_score(model) if min_score is None else None
    least = next(one for one in (min_score, chosen_score, USUAL_MIN_SCORE) if one is not None)
    clicks = None if points is None else points_by_image(points, split)
    further = sum(len(row["further"] or ()) for rows in (clicks or {}).values() for row in rows)
    if compat and further:
        log.warning(
            "predict: %d further clicks are left out: the reference's rules take one click an object", further
        )
    out.mkdir(parents=True, exist_ok=True)
    drawn = Pictures(out, [image.path for image in given], dict(predictor.categories)) if pictures else None
    shown = _Shown(min_score, least, drawn)
    masks, fates = _write_results(out / RESULTS, predictor, split, given, clicks, shown)
    if drawn is None:
        remove(out)  # an earlier run's
    else:
        drawn.finish()
    (out / FATES).unlink(missing_ok=True)  # an earlier run's
    if clicks is not None:
        write_json(out / FATES, fates)
    labels = write_label_files(out, formats, out / RESULTS, split, names, least)
    counts = {"images": len(given), "points": len(fates), "masks": masks}
    return {**counts, "min_score": least, "chosen": chosen_score is not None, "labels": labels}


class _Shown(NamedTuple):
    """Which rows are kept, and where they are drawn."""

    min_score: float | None
    """of the results"""
    least: float
    """of the pictures"""
    pictures: Pictures | None

    def keep(self, rows: Rows) -> Rows:
        """The rows to write; those at clicks all stay."""
        return [row for row in rows if "point" in row or row["score"] >= (self.min_score or 0)]

    def draw(self, image_id: int, original: Tensor, rows: Rows) -> None:
        """Draws an image uint8 RGB [3, H, W] with those of the kept rows that are shown."""
        assert self.pictures is not None
        shown = [row for row in rows if "point" in row or row["score"] >= self.least]
        self.pictures.add(image_id, original.permute(1, 2, 0).numpy(), shown)


def _write_results(
    path: Path,
    predictor: Predictor,
    split: Split,
    images: Sequence[Given],
    clicks: dict[int, Rows] | None,
    shown: _Shown,
) -> tuple[int, Rows]:
    """Writes a row per line, as images are done; returns the number of masks and the clicks' fates."""
    fates: Rows = []
    masks = 0
    with (
        Bar("predict", len(images), "image") as bar,
        atomic_write(path) as unfinished,
        unfinished.open("w", encoding="utf-8") as file,
    ):
        file.write("[")
        between = ""
        for ids, (rows, of_clicks) in ordered_thread_map(_jobs(predictor, split, images, clicks, shown)):
            for row in rows:
                file.write(between + json.dumps(ids | row, allow_nan=False, separators=(",", ":")))
                between = ",\n"
            fates += [ids | fate for fate in of_clicks]
            masks += sum(row.get("status") != "empty" for row in rows)
            bar.advance(1)
        file.write("]\n")
    return masks, fates


def _jobs(
    predictor: Predictor,
    split: Split,
    images: Sequence[Given],
    clicks: dict[int, Rows] | None,
    shown: _Shown,
) -> Iterator[tuple[int, Callable[[], tuple[dict[str, Any], Predicted]]]]:
    """For each image the job that makes its rows; threads read the next images."""
    rules = predictor.rules
    sizes = zip(split.images["width"].to_pylist(), split.images["height"].to_pylist(), strict=True)
    reading = (
        (2 * 3 * width * height, partial(load, path, rules.size, like_reference=rules.compat))
        for (path, _), (width, height) in zip(images, sizes, strict=True)
    )
    read = ordered_thread_map(reading, most_bytes=READ_AHEAD)
    for n, ((_, name), image) in enumerate(zip(images, read, strict=True), start=1):
        with _faults_of(name, predictor):
            size, job = predictor.find(image) if clicks is None else predictor.draw(image, clicks[n])
        ids = {"image_id": n, "file_name": name}
        if shown.pictures is None:
            yield size, partial(_finish, ids, job, shown, None)
        else:
            original = image.originals[0]
            yield size + original.nbytes, partial(_finish, ids, job, shown, original)


@contextmanager
def _faults_of(path: str, predictor: Predictor) -> Iterator[None]:
    """Raises a network's errors as TaskErrors that name the image, which may be too large for the memory."""
    try:
        yield
    except CheckpointError as error:
        raise TaskError(f"{path}: {error}") from None
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        size = predictor.rules.size
        raise TaskError(
            f"{path}: out of memory on {predictor.device} with a short side of {size.short_side} pixels and a long one "
            f"of up to {size.max_side}; give smaller ones with --short-side and --max-side"
        ) from None


def _finish(
    ids: dict[str, Any], job: Callable[[], Predicted], shown: _Shown, original: Tensor | None
) -> tuple[dict[str, Any], Predicted]:
    rows, fates = job()
    rows = shown.keep(rows)
    if original is not None:
        shown.draw(ids["image_id"], original, rows)
    return ids, (rows, fates)


def _rules(model: Path, *, compat: bool, prompted: bool, params: Path | None) -> Rules:
    try:
        meta = load_meta(model)
    except CheckpointError as error:
        raise TaskError(str(error)) from None
    size = model_input(model, meta)
    if meta["kind"] != "solov2" and (compat or prompted):
        raise TaskError(
            f"{model}: found a {meta['kind']} with {'--compat' if compat else '--points'}; expected a SOLOv2, such as "
            "the teacher: no other network draws masks at clicks or has the reference's rules"
        )
    own = None if meta.get("inference") is None else InferenceConfig.model_validate(meta["inference"])
    if compat:
        nms = (meta.get("imported") or {}).get("nms")
        return Rules(size, own or STUDENT.inference, None, True, nms == "mask")
    if not prompted and own is not None and params is None:
        return Rules(size, own, None, False, False)
    try:
        loaded = load_params(params or Path("params.yaml"))
    except TaskError as error:
        raise TaskError(
            f"{error}\npredict takes its rules from a params file: name one with --params"
        ) from None
    return Rules(size, loaded.evaluate.inference, loaded.prompt, False, False)
