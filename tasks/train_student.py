"""Trains the student, a SOLOv2, on strong images with their masks and weak images with their pseudo masks."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa

from data.masks import area, bbox_xywh
from data.tables import INSTANCES, PSEUDO, Split, read_parquet, write_split
from tasks.config import Params, StudentConfig
from tasks.detector import train_detector
from tasks.errors import TaskError
from tasks.step import run_folder, stage_main

log = logging.getLogger(__name__)


def run(params: Params, workspace: Path) -> None:
    """Writes workspace/student: model.safetensors, model.json, log.jsonl, manifest.json.

    With `student.masks: none` the student sees the strong images alone: the control that shows what the pseudo
    masks add to as many steps of training.
    """
    strong = Split.open(workspace / "dataset" / "strong")
    splits = [strong]
    if params.student.masks != "none":
        weak = Split.open(workspace / "dataset" / "weak")
        pseudo = read_pseudo(workspace / "pseudo")
        folder = run_folder(workspace, "train_student") / "weak"
        labelled = with_pseudo_masks(weak, pseudo, params.student, folder)
        log.info(
            "train_student: %d of %d points give a mask, on %d of %d weak images",
            len(labelled.instances), len(pseudo), len(labelled), len(weak),
        )  # fmt: skip
        if len(labelled):
            splits.append(labelled)
    train_detector("train_student", params, params.student, splits, workspace, workspace / "student")


def read_pseudo(folder: Path) -> pa.Table:
    """All parts of the pseudo labels, in order.

    Raises:
        TaskError: there are none.
    """
    parts = sorted(folder.glob("part-*.parquet"))
    if not parts:
        raise TaskError(f"{folder}: no part-*.parquet; they are made by `dvc repro pseudo_label`")
    return pa.concat_tables([read_parquet(part, PSEUDO) for part in parts])


def with_pseudo_masks(weak: Split, pseudo: pa.Table, config: StudentConfig, folder: Path) -> Split:
    """The weak images that have a usable pseudo mask, with these as their instances; a split of its own in `folder`.

    A refined mask stands for the rough one where `masks` is `refined` and refinement gave one. Weak images without
    any usable mask are left out: to learn from them would teach that they show nothing.
    """
    sizes = {row["image_id"]: row for row in weak.images.select(["image_id", "height", "width"]).to_pylist()}
    columns: dict[str, list[object]] = {name: [] for name in INSTANCES.names}
    for row in pseudo.to_pylist():
        rle = row["refined_rle"] if config.masks == "refined" and row["refined_rle"] else row["rough_rle"]
        if row["status"] not in ("ok", "rough") or rle is None or row["score"] < config.min_score:
            continue
        height, width = sizes[row["image_id"]]["height"], sizes[row["image_id"]]["width"]
        columns["instance_id"].append(len(columns["instance_id"]))
        columns["image_id"].append(row["image_id"])
        columns["category_id"].append(row["category_id"])
        columns["bbox_xywh"].append(bbox_xywh(rle, height, width))
        columns["area"].append(area(rle, height, width))
        columns["iscrowd"].append(False)
        columns["rle_counts"].append(rle)
        columns["source"].append("pseudo")
        columns["score"].append(row["score"] if config.weight_by_score else 1.0)
    instances = pa.table(columns, schema=INSTANCES)
    held = pa.compute.is_in(weak.images["image_id"], instances["image_id"].unique())
    write_split(folder, weak.images.filter(held), instances, weak.categories, weak.image_root)
    return Split.open(folder)


if __name__ == "__main__":
    stage_main("train_student", run)
