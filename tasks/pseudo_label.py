"""Makes a pseudo mask at every point of the weak images: the teacher's mask there, refined.

One row a point, whatever happens: `ok`; `rough` where refinement left nothing, or is refused by the gate since it
hurts masks of that size, and the rough mask stands; `empty` where
the teacher draws nothing at the point, or only what is likelier another point's; `failed` where the image could not be
read. All but `ok` come with the reason.
"""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from data.masks import area, bbox_xywh, encode, iou_matrix
from data.storage import atomic_dir
from data.tables import POINTS, PSEUDO, Split, class_indices, read_parquet, write_parquet
from models.checkpoint import build_model
from models.prompting import Prompted
from models.refined import Final, refined_masks
from models.refinenet import MaskRefineNet
from models.rough import Rough, rough_masks
from models.solov2 import SOLOv2
from models.tiles import look
from tasks.config import Params
from tasks.device import set_up
from tasks.errors import TaskError
from tasks.gate import REFUSAL, read_gate
from tasks.images import ImageBatch, load_batches
from tasks.progress import Bar
from tasks.step import fingerprint, run_folder, stage_main, write_json, write_manifest
from tasks.train_refiner import load_teacher

log = logging.getLogger(__name__)

STATUSES = ("ok", "rough", "empty", "failed")
TAKEN = "all pixels of its mask are likelier another point's"
Rows = list[dict[str, Any]]


def run(params: Params, workspace: Path) -> None:
    """Writes workspace/pseudo: part-*.parquet sorted by image_id and point_id, summary.json, manifest.json.

    A killed run goes on after the last part that it finished.

    Raises:
        TaskError: where `pseudo.on_failed` is `stop`, images that can't be read; all are listed and nothing is
            written, so that a disk that was away doesn't leave a result that DVC takes for good.
    """
    device = set_up(params.runtime, params.threads)
    weak = Split.open(workspace / "dataset" / "weak")
    points = read_parquet(workspace / "points" / "points.parquet", POINTS)
    by_image = _points_by_image(points, weak)
    labeller = Labeller(params, weak, workspace, device)
    rows = [row for row, image_id in enumerate(weak.images["image_id"].to_pylist()) if image_id in by_image]
    size = params.pseudo.part_images
    parts = [rows[at : at + size] for at in range(0, len(rows), size)] or [[]]

    inputs = [weak.root / "images.arrow", workspace / "points" / "points.parquet"]
    # model.json too: grids and ranges lie there alone.
    for name in ("teacher", "refiner"):
        inputs += [workspace / name / file for file in ("model.safetensors", "model.json")]
    inputs.append(workspace / "refiner" / "gate.json")
    key = fingerprint(
        inputs, params.input.model_dump(), params.prompt.model_dump(), params.pseudo.model_dump(),
        params.threads, str(device),
    )  # fmt: skip
    scratch = run_folder(workspace, "pseudo_label") / f"parts-{key}"
    scratch.mkdir(exist_ok=True)
    counts: Counter[str] = Counter(dict.fromkeys(STATUSES, 0))
    refused = 0
    done = sum(len(part) for n, part in enumerate(parts) if (scratch / part_name(n)).exists())
    with Bar("pseudo_label", len(rows), "image", done=done) as bar:
        for n, part in enumerate(parts):
            path = scratch / part_name(n)
            if not path.exists():
                before = len(labeller.faults)
                table = labeller.label(part, by_image, bar)
                if len(labeller.faults) > before and params.pseudo.on_failed == "stop":
                    continue  # the others are made all the same: this lists all faults, and the next run has them
                write_parquet(table, path)
            made = read_parquet(path, PSEUDO)
            counts.update(made["status"].to_pylist())
            refused += sum((reason or "").startswith(REFUSAL) for reason in made["reason"].to_pylist())
    if labeller.faults and params.pseudo.on_failed == "stop":
        listed = "\n".join(f"  - {fault}" for fault in labeller.faults)
        raise TaskError(
            f"{len(labeller.faults)} weak images can't be read:\n{listed}\nBring them back and run again, or set "
            "pseudo.on_failed: report to go on without their points"
        )
    summary = {"points": len(points), "images": len(rows), **counts, "refused": refused}
    if sum(counts.values()) != len(points):
        raise AssertionError(
            f"{sum(counts.values())} rows for {len(points)} points"
        )  # a bug of ours, never data
    with atomic_dir(workspace / "pseudo") as folder:
        for n in range(len(parts)):
            shutil.copyfile(scratch / part_name(n), folder / part_name(n))
        write_json(folder / "summary.json", summary)
        write_manifest(folder, "pseudo_label", summary)
    for old in run_folder(workspace, "pseudo_label").glob("parts-*"):
        shutil.rmtree(old)
    shown = ", ".join(f"{counts[status]} {status}" for status in STATUSES)
    log.info("pseudo_label: %d points on %d images: %s", len(points), len(rows), shown)


def part_name(n: int) -> str:
    """`part-00000.parquet` and so on."""
    return f"part-{n:05d}.parquet"


def _points_by_image(points: pa.Table, weak: Split) -> dict[int, Rows]:
    """The points of each image, in the order of their ids."""
    by_image: dict[int, Rows] = {}
    for point in points.sort_by("point_id").to_pylist():
        by_image.setdefault(point["image_id"], []).append(point)
    unknown = by_image.keys() - set(weak.images["image_id"].to_pylist())
    if unknown:
        raise TaskError(
            f"points.parquet: points on images {sorted(unknown)[:10]}, which dataset/weak doesn't have; "
            "run `dvc repro import_points`"
        )
    return by_image


class Labeller:
    """Teacher and refiner, loaded once, and what turns an image and its points into rows."""

    def __init__(self, params: Params, weak: Split, workspace: Path, device: torch.device) -> None:
        self.params, self.weak, self.device = params, weak, device
        self.teacher: SOLOv2 = load_teacher(workspace / "teacher", device)
        refiner = build_model(workspace / "refiner")
        if not isinstance(refiner, MaskRefineNet):
            raise TaskError(
                f"{workspace}/refiner: found a {type(refiner).__name__}, expected a MaskRefineNet"
            )
        self.refiner = refiner.to(device)
        self.gate = read_gate(workspace / "refiner")
        self.class_of = class_indices(weak.categories)
        self.faults: list[str] = []
        """Why images could not be read."""

    def label(self, images: Sequence[int], by_image: dict[int, Rows], bar: Bar) -> pa.Table:
        """PSEUDO rows of all points of the weak images `images` (rows of its table), by image_id and point_id."""
        rows: Rows = []
        config = self.params.pseudo
        ids = self.weak.images["image_id"]
        for batch, failed in load_batches(
            self.weak, images, self.params.input, config.batch_size, self.params.runtime.workers
        ):
            self.faults += [str(one.fault) for one in failed]
            for one in failed:
                for point in by_image[ids[one.row].as_py()]:
                    rows.append(_row(point, status="failed", reason=one.fault))
            if batch is not None:
                rows += self._label_batch(batch, [by_image[ids[row].as_py()] for row in batch.rows])
            bar.advance((len(batch.rows) if batch else 0) + len(failed))
        rows.sort(key=lambda row: (row["image_id"], row["point_id"]))
        return pa.Table.from_pylist(rows, schema=PSEUDO)

    @torch.no_grad()
    def _label_batch(self, batch: ImageBatch, points: Sequence[Rows]) -> Rows:
        images = batch.images.to(self.device)
        outputs = look(self.teacher, images, batch.content_sizes, self.params.input.tile)
        input_size = (images.shape[2], images.shape[3])
        rows: Rows = []
        for n, (original, mine) in enumerate(zip(batch.originals, points, strict=True)):
            xy = torch.tensor([[point["x"], point["y"]] for point in mine], device=self.device)
            labels = torch.tensor([self.class_of[point["category_id"]] for point in mine], device=self.device)
            content, size = batch.content_sizes[n], (original.shape[1], original.shape[2])
            prompt = self.params.prompt
            rough = rough_masks(outputs, n, xy, labels, input_size, content, size, prompt)
            areas = rough.masks.flatten(1).sum(1) * (content[0] * content[1] / (size[0] * size[1]))
            refusals = self.gate.refusals(areas.tolist())
            final = refined_masks(
                self.refiner, original.to(self.device), rough, xy, labels, prompt,
                self.params.pseudo.crop_batch_size,
                enlarge=self.gate.enlarge, rounds=self.gate.rounds,
                wanted=torch.tensor([refusal is None for refusal in refusals], device=self.device),
            )  # fmt: skip
            rows += _rows(mine, rough, final, refusals)
        return rows


def _rows(points: Rows, rough: Rough, final: Final, refusals: Sequence[str | None]) -> Rows:
    """PSEUDO rows of an image's points; `refusals` say why a mask was not to be refined."""
    prompted: Prompted = rough.prompted
    rough_arrays, final_arrays = rough.masks.cpu().numpy(), final.masks.cpu().numpy()
    height, width = rough_arrays.shape[1:]
    rows = []
    for k, point in enumerate(points):
        facts: dict[str, Any] = {
            "level": int(prompted.level[k]),
            "class_score": float(prompted.class_score[k]),
            "maskness": float(prompted.maskness[k]),
            "score": float(prompted.score[k]),
        }
        if not rough_arrays[k].any():
            reason = TAKEN if bool(rough.drawn[k]) else "the teacher draws no mask at this point"
            rows.append(_row(point, status="empty", reason=reason, **facts))
            continue
        rough_rle = encode(rough_arrays[k])
        mask, rle = final_arrays[k], rough_rle
        if bool(final.taken[k]):
            facts |= {"status": "rough", "reason": f"refined, {TAKEN}"}
        elif bool(final.kept_rough[k]):
            facts |= {"status": "rough", "reason": refusals[k] or "refinement came out empty"}
        else:
            rle = encode(mask)
            iou = iou_matrix([rough_rle], [rle], height, width)[0, 0]
            facts |= {"status": "ok", "refined_rle": rle, "iou_rough_refined": float(iou)}
        x = int(np.clip(point["x"], 0, width - 1))
        y = int(np.clip(point["y"], 0, height - 1))
        facts |= {
            "rough_rle": rough_rle,
            "bbox_xywh": list(bbox_xywh(rle, height, width)),
            "area": float(area(rle, height, width)),
            "contains_point": bool(mask[y, x]),
        }
        rows.append(_row(point, **facts))
    return rows


def _row(point: dict[str, Any], **facts: Any) -> dict[str, Any]:
    """A PSEUDO row: the point's ids and what is known; all else null."""
    ids = {name: point[name] for name in ("point_id", "image_id", "category_id")}
    return {**dict.fromkeys(PSEUDO.names), **ids, **facts}


if __name__ == "__main__":
    stage_main("pseudo_label", run)
