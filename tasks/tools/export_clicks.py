"""A teacher that draws masks at clicks, with its refiner, as two ONNX files, kept only if they draw what it draws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from data.images.content import sha256
from data.images.read import read_ingested
from data.masks.rle import decode
from data.storage import atomic_dir
from data.tables import Split
from models.config import PromptConfig
from tasks.common.errors import TaskError
from tasks.common.progress import Bar
from tasks.tools.export_onnx import check_kind, metadata, onnx_faults, refuse, val_faults
from tasks.tools.label_files import foreign_files
from tasks.tools.model_source import Source
from tasks.tools.verify_network import chosen_rows
from tasks.tools.verify_onnx import MIN_IOU, ROUNDED_PIXELS, SCORE_TOLERANCE, open_session

if TYPE_CHECKING:
    from tasks.inference.batches import ImageBatch
    from tasks.labelling.labeller import GatedRefiner
    from tasks.labelling.solov2_proposer import SOLOv2Proposer

IMAGE_FILE, CLICKS_FILE = "image.onnx", "clicks.onnx"
SUMMARY = "export.json"
CLICKS_AN_IMAGE = 3
"""On true objects; there is one more, anywhere."""


class ClicksRequest(NamedTuple):
    """What to export.

    Attributes:
        source: the model.
        refiner: its folder; None: masks aren't refined.
        prompt: the rules.
        opset: version of the standard's operators.
        val: the split on whose images and objects the files are verified; None: they aren't.
    """

    source: Source
    refiner: Path | None
    prompt: PromptConfig
    opset: int
    val: Path | None


class _Drawer(NamedTuple):
    """What draws masks in torch."""

    proposer: SOLOv2Proposer
    refiner: GatedRefiner | None


def check_request(request: ClicksRequest, out: Path) -> None:
    """Refuses what can't be exported, before the slow imports.

    Raises:
        TaskError: packages are missing, rules or the opset can't be, or the folder has other files.
    """
    faults = onnx_faults(request.opset)
    if request.prompt.mirror != "none":
        faults.append(
            f"prompt.mirror: found {request.prompt.mirror}, expected none: masks of mirror images can't be exported"
        )
    faults += val_faults(request.val)
    if fault := foreign_files(out):
        faults.append(fault)
    refuse(faults)
    check_kind(request.source)


def export_clicks(request: ClicksRequest, out: Path) -> dict[str, Any]:
    """Writes `out`/image.onnx and clicks.onnx, verified unless `val` is None; an earlier folder stays if that fails.

    Returns:
        What verification found; empty without it.

    Raises:
        TaskError, CheckpointError: see `check_request`; torch can't export it; or the files draw something else.
    """
    check_request(request, out)
    import onnx
    import onnx_ir as ir
    import torch

    from models.checkpoint import WEIGHTS, load_teacher
    from models.export.clicks import ClickMasks, RefineRule
    from models.export.image import InputRule
    from models.export.plain import ExportError
    from models.export.prompting import click_graph, encoder_graph
    from tasks.labelling.gate import read_gate
    from tasks.labelling.labeller import CROP_BATCH, GatedRefiner, load_refiner
    from tasks.labelling.solov2_proposer import SOLOv2Proposer

    source, size, device = request.source, request.source.size, torch.device("cpu")
    network = load_teacher(source.folder, device)
    refiner, rule = None, None
    if request.refiner is not None:
        gate = read_gate(request.refiner)
        drawing = load_refiner(request.refiner, device)
        drawing.config = drawing.config.model_copy(update={"infer_precision": "fp32"})
        refiner = GatedRefiner(drawing, gate, CROP_BATCH)
        ends = tuple(float(one.area_to) for one in gate.bins[:-1] if one.area_to is not None)
        rule = RefineRule(ends, tuple(one.use for one in gate.bins) or (True,), gate.enlarge, gate.rounds)
    proposer = SOLOv2Proposer(network, request.prompt, size.tile, device)
    masks = ClickMasks(
        network.config, request.prompt, size.tile.side if size.tile else None,
        None if refiner is None else refiner.network, rule,
    )  # fmt: skip
    try:
        before = ir.to_proto(
            encoder_graph(
                network, InputRule(size.short_side, size.max_side, size.enlarge, size.tile), request.opset
            )
        )
        picture = np.random.default_rng(0).integers(0, 256, (1, 90, 120, 3), np.uint8)
        with atomic_dir(out) as folder:
            onnx.save(before, folder / IMAGE_FILE)
            session, names = open_session(folder / IMAGE_FILE)
            found = session.run(names, {"images": picture})
            encoding = [torch.from_numpy(one) for one in found]
            after = click_graph(masks, picture, encoding, network.num_classes, request.opset)
            onnx.checker.check_model(after)
            onnx.save(after, folder / CLICKS_FILE)
            verified: dict[str, Any] = {}
            if request.val is not None:
                verified = _verify(folder, _Drawer(proposer, refiner), Split.open(request.val), request)
            facts = metadata(source, "clicks", network.config, source.inference(None)) | {
                "prompt": request.prompt.model_dump_json(),
                "verification": json.dumps(verified),
            }
            del facts["inference"], facts["min_score"], facts["min_score_is_chosen"]
            if request.refiner is not None:
                facts |= {
                    "refiner_sha256": sha256(request.refiner / WEIGHTS),
                    "refine": json.dumps(rule._asdict() if rule else None),
                }
            for name, kind, proto in ((IMAGE_FILE, "encoding", before), (CLICKS_FILE, "clicks", after)):
                onnx.helper.set_model_props(proto, facts | {"kind": kind})
                onnx.save(proto, folder / name)
            (folder / SUMMARY).write_text(json.dumps({"what": "clicks", **verified}, indent=2) + "\n")
    except ExportError as error:
        raise TaskError(f"{source.folder}: {error}") from None
    return verified


def _verify(folder: Path, drawer: _Drawer, split: Split, request: ClicksRequest) -> dict[str, Any]:
    """Compares the masks at clicks, each alone in torch and all together in the files.

    Raises:
        TaskError: a mask or score differs.
    """
    import onnxruntime
    import torch

    from tasks.inference.batches import prepare, stack

    image_session, names = open_session(folder / IMAGE_FILE)
    clicks_session, _ = open_session(folder / CLICKS_FILE)
    rows, rng = chosen_rows(split), np.random.default_rng(0)
    class_of = {row["id"]: n for n, row in enumerate(drawer.proposer.network.categories)}
    count, worst, furthest = 0, 1.0, 0.0
    with Bar("verifying", len(rows), "image") as bar:
        for row in rows:
            pixels, name = read_ingested(split, row), str(split.image(row)["file_name"])
            points, labels = _clicks(split, row, class_of, rng)
            encoding = dict(zip(names, image_session.run(names, {"images": pixels[None]}), strict=True))
            given = {"images": pixels[None], **encoding, "points_xy": points, "labels": labels}
            given = {one.name: given[one.name] for one in clicks_session.get_inputs()}
            masks, scores = clicks_session.run(["masks", "scores"], given)
            batch = stack([0], [prepare(pixels, request.source.size)])
            expected = _drawn(
                drawer, batch, torch.from_numpy(points), torch.from_numpy(labels), request.prompt
            )
            for k, (mask, score) in enumerate(expected):
                both, either = int((mask & masks[k]).sum()), int((mask | masks[k]).sum())
                iou = both / either if either else 1.0
                apart = abs(score - float(scores[k]))
                if (iou <= MIN_IOU and either - both > ROUNDED_PIXELS) or not apart <= SCORE_TOLERANCE:
                    raise TaskError(
                        f"{name}: at the click {points[k].tolist()} of class {labels[k]} the files draw "
                        f"{masks[k].sum()} pixels of score {scores[k]:.4f}, torch {mask.sum()} of {score:.4f} "
                        f"(IoU {iou:.4f}); expected an IoU above {MIN_IOU} and a score within {SCORE_TOLERANCE}. "
                        "Nothing was written"
                    )
                count, worst, furthest = count + 1, min(worst, iou), max(furthest, apart)
            bar.advance()
    return {
        "onnxruntime": onnxruntime.__version__,
        "torch": torch.__version__,
        "images": len(rows),
        "clicks": count,
        "least_iou": round(worst, 6),
        "greatest_score_difference": float(f"{furthest:.2g}"),
    }


def _clicks(
    split: Split, row: int, class_of: dict[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Clicks on some objects, and one anywhere."""
    image = split.image(row)
    objects = [one for one in split.instances_of(row).to_pylist() if not one["iscrowd"]]
    points = [(rng.random() * image["width"], rng.random() * image["height"])]
    labels = [int(rng.integers(len(class_of)))]
    for at in rng.permutation(len(objects))[:CLICKS_AN_IMAGE]:
        y, x = decode(objects[at]["rle_counts"], image["height"], image["width"]).nonzero()
        if len(y):
            inner = rng.integers(len(y))
            points.append((x[inner] + 0.5, y[inner] + 0.5))
            labels.append(class_of[objects[at]["category_id"]])
    return np.array(points, np.float32), np.array(labels, np.int64)


def _drawn(
    drawer: _Drawer, batch: ImageBatch, points: Any, labels: Any, prompt: PromptConfig
) -> list[tuple[np.ndarray, float]]:
    """Mask [H, W] and score of each click alone."""
    import torch

    from tasks.labelling.proposer import draw

    made = []
    with torch.inference_mode():
        (context,) = drawer.proposer.encode(batch)
        for k in range(len(points)):
            point, label = points[k : k + 1], labels[k : k + 1]
            drawn = draw(drawer.proposer, context, point, label, prompt)
            masks = drawn.rough.masks
            if drawer.refiner is not None:
                masks = drawer.refiner.refine(context, drawn, point, label, prompt).final
            made.append((masks[0].numpy(), float(drawn.best.score[0])))
    return made
