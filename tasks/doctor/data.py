"""Checks of annotations, images, points and classes: the steps themselves read the data, into a folder of the doctor.

No output of the pipeline is written.
"""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa

from data.decisions.store import read_decisions
from data.remote.fetch import local_copy
from data.tables import Category, DataError, Fault, Split, read_parquet
from tasks import import_points, ingest
from tasks.common.config import Params
from tasks.common.stage_main import S3_CACHE, read_json
from tasks.doctor.finding import Diagnosis, Finding
from tasks.intake.decisions import unsettled
from tasks.intake.images import NEXT_STEP, OR_REPORT
from tasks.intake.labels import SPLITS
from tasks.intake.lost_points import BAD_FILE, UNTIL, Lost, folded
from tasks.intake.rejected import ANNOTATION, REJECTED_IMAGES

LOGGERS = ("data.annotations", "tasks.ingest", "tasks.intake")
CROWD_SHARE = 0.1
"""Of a class's annotations; crowds are rare where they are meant."""
RECORD_STEP = f"correct this record{OR_REPORT}"


def read_splits(params: Params, scratch: Path, diagnosis: Diagnosis) -> dict[str, Split] | None:
    """Runs the ingest step into `scratch`, always with `on_reject: report`: `check_images` reports rejected images.

    Returns:
        strong, weak, val and kept_aside; None where ingest found faults, which are errors.
    """
    lenient = params.ingest.model_copy(update={"on_reject": "report"})
    shutil.rmtree(scratch / "dataset", ignore_errors=True)
    _share_cache(scratch)
    try:
        with _quiet():
            ingest.run(params.model_copy(update={"ingest": lenient}), scratch)
    except DataError as error:
        diagnosis.error("ingest", error.faults)
        return None
    return open_splits(scratch)


def _share_cache(scratch: Path) -> None:
    """The doctor and the runs have one folder of downloads from S3."""
    link = scratch / S3_CACHE
    if not link.is_symlink():
        link.parent.mkdir(parents=True, exist_ok=True)
        shared = scratch.parent / S3_CACHE.name
        shared.mkdir(exist_ok=True)
        link.symlink_to(shared.resolve(), target_is_directory=True)


def open_splits(scratch: Path) -> dict[str, Split]:
    """The splits that `read_splits` wrote to `scratch`."""
    return {name: Split.open(scratch / "dataset" / name) for name in SPLITS}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the log lines of the step."""
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def check_images(params: Params, splits: Mapping[str, Split], diagnosis: Diagnosis) -> None:
    """Rejected images and annotations, which are errors with `ingest.on_reject: stop`; doubtful crowds and areas."""
    for name in SPLITS[:3]:  # those kept aside are weak ones too
        rows = read_parquet(splits[name].root / "rejected.parquet", REJECTED_IMAGES).to_pylist()
        steps = [RECORD_STEP if row["reason"] == ANNOTATION else NEXT_STEP for row in rows]
        faults = [
            Fault(row["file"], row["record"], row["found"], row["expected"], step)
            for row, step in zip(rows, steps, strict=True)
        ]
        if params.ingest.on_reject == "stop":
            diagnosis.error("images", faults)
            continue
        for reason, count in sorted(Counter(row["reason"] for row in rows).items()):
            chosen = [one for one, row in zip(faults, rows, strict=True) if row["reason"] == reason]
            if reason == ANNOTATION:
                what, total = f"annotations of {name}", len(splits[name].instances) + count
                examples = [f"{one.record}: {one.found}" for one in chosen]
            else:
                images = sum(row["reason"] != ANNOTATION for row in rows)
                what, total = f"images of {name} ({reason})", len(splits[name]) + images
                examples = [f"{one.file}: {one.found}" for one in chosen]
            fault = Fault(
                params.ingest.annotations if reason == ANNOTATION else params.ingest.images,
                what,
                f"{count:,} of {total:,} that can't be used",
                chosen[0].expected,
                "restore them; left out until then (ingest.on_reject: report)",
            )
            diagnosis.warn("images", fault, count, examples)
    _check_crowds(params, splits, diagnosis)
    _check_areas(splits, diagnosis)


def _check_areas(splits: Mapping[str, Split], diagnosis: Diagnosis) -> None:
    """Annotations whose `area` can't be that of their mask."""
    for name in ("strong", "val", "kept_aside"):
        wrong = read_json(splits[name].root / "manifest.json", "doctor").get("areas_replaced")
        if wrong:
            fault = Fault(
                f"ingest.{name}",
                "annotations",
                f"{wrong['annotations']:,} whose area can't be their mask's",
                "an area between half the mask's and twice its box's, in pixels; the mask's own is used",
                "correct `area`, or leave it out",
            )
            diagnosis.warn("areas", fault, wrong["annotations"], wrong["first"])


def _check_crowds(params: Params, splits: Mapping[str, Split], diagnosis: Diagnosis) -> None:
    """Classes with too many crowds, which are neither learnt nor scored."""
    if params.ingest.crowd == "objects":
        return
    for name in ("strong", "val", "kept_aside"):
        split = splits[name]
        objects, crowds = _objects(split), _objects(split, crowds=True)
        shares = {
            c.name: crowds[c.id] / (crowds[c.id] + objects[c.id]) for c in split.categories if crowds[c.id]
        }
        high = [f"{100 * share:.0f}% of {name}" for name, share in shares.items() if share > CROWD_SHARE]
        if high:
            fault = Fault(
                f"ingest.{name}",
                f"{crowds.total():,} of {len(split.instances):,} annotations",
                f"iscrowd 1: {', '.join(high)}; crowds are neither learnt nor scored",
                f"crowds in at most {100 * CROWD_SHARE:.0f}% of a class's annotations",
                ingest.CVAT_CROWDS,
            )
            diagnosis.warn("crowd_share", fault, crowds.total())


def check_points(
    params: Params, splits: Mapping[str, Split] | None, scratch: Path, diagnosis: Diagnosis
) -> pa.Table | None:
    """Reads the point files as the import_points step does; without splits only the files are checked.

    Rejected records are errors with `points.on_reject: stop`, else warnings, one for each reason.

    Returns:
        The usable points, table POINTS; None if the files can't be imported.
    """
    config = params.points
    try:
        files = str(local_copy(config.files, scratch / S3_CACHE))
        here = config.model_copy(update={"files": files})
        if splits is None:
            diagnosis.error("points", import_points.read_files(here, files, None)[0].faults)
            return None
        imported = import_points.import_files(here, files, splits["weak"])
    except DataError as error:
        diagnosis.error("points", error.faults)
        return None
    points = imported.points
    for doubt in imported.doubts:
        diagnosis.warn("click_units", doubt)
    if config.on_reject == "stop":
        diagnosis.errors += [Finding("points", one.fault, one.records) for one in folded(imported.lost)]
    else:
        _warn_of_points(config.files, imported, diagnosis)
    if not len(points):
        step = "check the rejected ones, or export the clicks again"
        fault = Fault(params.points.files, "points", "none that can be used", "clicks on weak images", step)
        diagnosis.warn("no_points", fault)
    points = _check_decisions(params, points, splits["weak"], diagnosis)
    counts = import_points.count_kinds(import_points.count_reasons(imported.rejected))
    note = f"points: {len(points):,} usable, {counts['rejected']:,} rejected"
    if counts["files_rejected"]:
        note += f"; whole files not read: {counts['files_rejected']:,}"
    diagnosis.notes.append(note)
    return points


def _check_decisions(params: Params, points: pa.Table, weak: Split, diagnosis: Diagnosis) -> pa.Table:
    """Faults of the files of decisions are errors; decisions that aren't honoured are warnings, one for each reason.

    Returns:
        The points with all decisions.
    """
    folder = params.review.decisions
    try:
        decisions = read_decisions(Path(folder))
    except DataError as error:
        diagnosis.error("decisions", error.faults)
        return points
    for fault in decisions.torn:
        diagnosis.warn("torn_decision", fault)
    reviewed = import_points.review(decisions, points, weak)
    if reviewed is None:
        return points
    for state, faults in unsettled(reviewed.decisions, folder).items():
        what = f"decisions ({state})"
        found = f"{len(faults):,} of {len(reviewed.decisions):,} that aren't honoured"
        fault = Fault(folder, what, found, faults[0].expected, faults[0].next_step)
        examples = [f"{one.file}: {one.record}: {one.found}" for one in faults]
        diagnosis.warn("decisions", fault, len(faults), examples)
    count = reviewed.summary["states"].get("honoured", 0)
    diagnosis.notes.append(f"decisions: {len(reviewed.decisions):,}, {count:,} honoured")
    return reviewed.points


def _warn_of_points(where: str, imported: import_points.Imported, diagnosis: Diagnosis) -> None:
    """A warning for each reason; for files that can't be read, for each next step."""
    files = sum(one.reason == BAD_FILE for one in imported.lost)
    records = sum(one.records for one in imported.lost if one.reason != BAD_FILE)
    read = sum(file.same_as is None for file in imported.files.files)
    kinds: dict[tuple[str, str], list[Lost]] = {}
    for one in imported.lost:
        kinds.setdefault((one.reason, one.fault.next_step if one.reason == BAD_FILE else ""), []).append(one)
    for (reason, _), some in sorted(kinds.items()):
        count, first = sum(one.records for one in some), some[0].fault
        examples = [f"{one.fault.file}: {one.fault.record}: {one.fault.found}" for one in some]
        if reason == BAD_FILE:
            found = f"{count:,} whole file{'s'[: count > 1]} of {read + files:,} that can't be read"
            step = first.next_step + UNTIL["report"]
        else:
            found = f"{count:,} of {len(imported.points) + records:,} that can't be used"
            step = first.next_step
        fault = Fault(where, f"points ({reason})", found, first.expected, step)
        diagnosis.warn("points", fault, count, examples)


def check_classes(splits: Mapping[str, Split], points: pa.Table | None, diagnosis: Diagnosis) -> None:
    """Classes without masks, clicks or validation objects."""
    categories = splits["strong"].categories
    masks, measured = _objects(splits["strong"]), _objects(splits["val"])
    clicks: Counter[int] = Counter() if points is None else Counter(points["category_id"].to_pylist())
    kinds = (
        (
            "class_without_mask",
            [c for c in categories if clicks[c.id] and not masks[c.id]],
            "clicks and no mask on a strong image: the teacher can't learn them, nor predict masks at their clicks",
            "one or more masks of each class in ingest.strong",
            "draw masks for some of their objects",
        ),
        (
            "class_never_shown",
            [c for c in categories if not clicks[c.id] and not masks[c.id]],
            "neither mask nor click: they aren't learnt",
            "masks and clicks",
            "label some, or take them out of `categories`",
        ),
        (
            "class_without_click",
            [c for c in categories if points is not None and masks[c.id] and not clicks[c.id]],
            "masks and no click: on weak images the student learns them as background",
            "clicks on the weak images that show them",
            "click them, unless no weak image shows one",
        ),
        (
            "class_not_measured",
            [c for c in categories if masks[c.id] and measured and not measured[c.id]],
            "masks to learn from and none in val: they have no AP",
            "masks in ingest.val",
            "move some images that show them to val",
        ),
    )
    for check, classes, found, expected, step in kinds:
        if classes:
            fault = Fault("classes", _named(classes), found, expected, step)
            diagnosis.warn(check, fault, len(classes), [c.name for c in classes])


def _named(classes: list[Category]) -> str:
    names = ", ".join(c.name for c in classes[:10])
    return names + (f" and {len(classes) - 10} more" if len(classes) > 10 else "")


def _objects(split: Split, crowds: bool = False) -> Counter[int]:
    """Class id -> number of objects that aren't crowds, or of crowds."""
    crowd = split.instances["iscrowd"].to_numpy(zero_copy_only=False).astype(bool)
    ids, counts = np.unique(split.instances["category_id"].to_numpy()[crowd == crowds], return_counts=True)
    return Counter(dict(zip(ids.tolist(), counts.tolist(), strict=True)))
