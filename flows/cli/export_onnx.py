"""`points2model export --onnx`: a model as one ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.cli.console import Console, log_progress, print_json
from tasks.common.errors import TaskError


def export_onnx(
    model: str, out: Path, workspace: Path, *, raw: bool, opset: int, verify: bool, min_score: float | None,
    console: Console, as_json: bool,
) -> None:  # fmt: skip
    """Writes the file and reports what verification found."""
    from models.weights import CheckpointError
    from tasks.tools.export_onnx import OnnxRequest
    from tasks.tools.export_onnx import export_onnx as write
    from tasks.tools.model_source import find_model

    log_progress()
    if out.is_dir():
        raise TaskError(f"{out}: found a folder, expected the name of a file, such as {out / 'model.onnx'}")
    try:
        source = find_model(model, workspace.parent)
        val = workspace / "dataset" / "val" if verify else None
        found = write(OnnxRequest(source, raw, opset, min_score, val), out)
    except CheckpointError as error:
        raise TaskError(str(error)) from None
    except OSError as error:
        raise TaskError(f"{out}: {error}; choose another file with --out") from None
    if as_json:
        print_json({"file": str(out), "verification": found})
    console.text(f"{out}: {out.stat().st_size / 1e6:.1f} MB")
    console.text(_summary(found) if found else "not verified")


def _summary(found: dict[str, Any]) -> str:
    from tasks.reporting.figures import count

    if "instances" not in found:
        return (
            f"verified on {count(found['images'], 'image')}: outputs within {found['greatest_difference']:g}"
        )
    return (
        f"verified on {count(found['images'], 'image')} with {count(found['instances'], 'instance')}: "
        f"masks' IoU from {found['least_iou']:g}, scores within {found['greatest_score_difference']:g}"
    )
