"""A trained model as one ONNX file, which is kept only if it finds what the model finds."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from data.images.content import sha256
from data.storage import atomic_write
from data.tables import Split
from models.config import InferenceConfig, SOLOv2Config
from models.weights import CheckpointError
from tasks.common.errors import TaskError
from tasks.scoring.outcomes import USUAL_MIN_SCORE
from tasks.tools.chosen_score import chosen_min_score
from tasks.tools.model_source import Source

NEEDED = ("onnx", "onnx_ir", "onnxruntime")
OPSETS = (18, 20)
"""Of the standard ONNX: from the first with all operators that are used, to the last that torch's exporter has."""
MOST_CELLS = 2000
"""Cells above the score threshold of an image, or of a tile, that are drawn. Crowded images of nuclei have 500."""


class OnnxRequest(NamedTuple):
    """What to export.

    Attributes:
        source: the model.
        raw: the network alone, without what is before and after it.
        opset: version of the standard's operators.
        min_score: instances of lower scores are left out of the graph; None: none but those the rules leave out.
        val: the split whose images the file is verified on; None: it isn't verified.
    """

    source: Source
    raw: bool
    opset: int
    min_score: float | None
    val: Path | None


def check_request(request: OnnxRequest) -> None:
    """Refuses what can't be exported, before the slow imports.

    Raises:
        TaskError, CheckpointError: packages are missing, the opset can't be, there are no images to verify the file on
            (all are listed); or it is another network's folder.
    """
    faults = onnx_faults(request.opset)
    if request.min_score is not None and not 0 <= request.min_score <= 1:
        faults.append(f"--min-score: found {request.min_score:g}, expected 0 to 1")
    refuse([*faults, *val_faults(request.val)])
    check_kind(request.source)


def refuse(faults: Sequence[str]) -> None:
    """Raises TaskError with all faults, if there are any."""
    if faults:
        raise TaskError("\n".join(faults))


def onnx_faults(opset: int) -> list[str]:
    """Packages that are missing, and an opset that can't be."""
    faults = []
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        faults.append(f"{', '.join(missing)}: not installed; pip install 'points2model[onnx]'")
    if not OPSETS[0] <= opset <= OPSETS[1]:
        faults.append(f"--opset: found {opset}, expected {OPSETS[0]} to {OPSETS[1]}")
    return faults


def val_faults(val: Path | None) -> list[str]:
    """No images to verify a file on."""
    if val is None or (val / "split.json").is_file():
        return []
    return [
        f"{val}: not found, so there are no images to verify the file on; run `points2model run`, name another "
        "project's workspace with --workspace, or leave verification out with --no-verify"
    ]


def check_kind(source: Source) -> None:
    """Raises CheckpointError for another network's folder."""
    if source.meta["kind"] != "solov2":
        raise CheckpointError(
            f"{source.folder}: found a network of kind {source.meta['kind']}, which can't be exported; expected "
            "solov2: a teacher or a student of this pipeline"
        )


def export_onnx(request: OnnxRequest, out: Path) -> dict[str, Any]:
    """Writes the file, verified unless `val` is None; an earlier one stays as it was if that fails.

    Returns:
        What verification found; empty without it.

    Raises:
        TaskError, CheckpointError: see `check_request`; torch can't export the network; or the file finds something
            else than the model.
    """
    check_request(request)
    import onnx
    import onnx_ir as ir
    import torch

    from models.checkpoint import load_teacher
    from models.export.graph import instance_graph, raw_graph
    from models.export.image import InputRule
    from models.export.plain import ExportError
    from tasks.tools.verify_onnx import verify_instances, verify_raw

    source = request.source
    network = load_teacher(source.folder, torch.device("cpu"))
    size = source.size
    rule = InputRule(size.short_side, size.max_side, size.enlarge, size.tile)
    inference = source.inference(None)
    if request.min_score is not None:
        least = max(inference.nms_threshold, request.min_score)
        inference = inference.model_copy(update={"nms_threshold": least})
    try:
        if request.raw:
            model = raw_graph(network, rule, request.opset)
        else:
            model = instance_graph(network, rule, inference, MOST_CELLS, request.opset)
    except ExportError as error:
        raise TaskError(
            f"{source.folder}: {error}; other networks, such as resnet50, can be exported"
        ) from None
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    with atomic_write(out) as partial:
        onnx.helper.set_model_props(
            proto, metadata(source, "network" if request.raw else "instances", network.config, inference)
        )
        onnx.save(proto, partial)
        found: dict[str, Any] = {}
        if request.val is not None:
            split = Split.open(request.val)
            if request.raw:
                found = verify_raw(partial, network, split, size)
            else:
                found = verify_instances(partial, network, split, size, inference)
            entry = proto.metadata_props.add()
            entry.key, entry.value = "verification", json.dumps(found)
            onnx.save(proto, partial)
    return found


def metadata(source: Source, kind: str, config: SOLOv2Config, inference: InferenceConfig) -> dict[str, str]:
    """A file's metadata; all values but `points2model`, `kind` and `weights_sha256` are JSON."""
    from models.checkpoint import WEIGHTS

    chosen = chosen_min_score(source.folder)
    size = source.size
    facts: dict[str, Any] = {
        "classes": [{"id": row["id"], "name": row["name"]} for row in source.meta["categories"]],
        "min_score": USUAL_MIN_SCORE if chosen is None else chosen,
        "min_score_is_chosen": chosen is not None,
        "inference": inference.model_dump(mode="json"),
        "input": {
            "short_side": size.short_side,
            "max_side": size.max_side,
            "enlarge": size.enlarge,
            "multiple_of": 32,
            "tile": size.tile and size.tile.model_dump(mode="json"),
        },
        "normalisation": {
            "mean": config.pixel_mean,
            "std": config.pixel_std,
            "channels": "BGR" if config.bgr else "RGB",
        },
        "strides": config.strides,
        "backbone": config.backbone.name,
    }
    licence = source.meta.get("licence") or _licence(config)
    if licence:
        facts["licence"] = licence
    return {
        "points2model": version("points2model"),
        "kind": kind,
        "weights_sha256": sha256(source.folder / WEIGHTS),
        **{key: json.dumps(value) for key, value in facts.items()},
    }


def _licence(config: SOLOv2Config) -> str | None:
    """That of the backbone's published weights, where timm has it."""
    from models.backbones.registry import PREFIX, is_timm

    if not is_timm(config.backbone.name):
        return None
    from timm import get_pretrained_cfg

    settings = get_pretrained_cfg(config.backbone.name.removeprefix(PREFIX))
    return getattr(settings, "license", None)
