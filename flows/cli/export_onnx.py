"""`points2model export --onnx` and `--torch`: a model as a file for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.cli.console import Console, log_progress, print_json
from tasks.common.errors import TaskError


def export_model(
    model: str | None, out: Path, workspace: Path, *, torch: str | None, clicks: bool, refiner: Path | None, raw: bool,
    opset: int, verify: bool, min_score: float | None, console: Console, as_json: bool,
) -> None:  # fmt: skip
    """What `--onnx` writes: instances, the network alone, or masks at clicks; or what `--torch` writes."""
    if torch is not None:
        if model is not None or clicks or refiner or raw or min_score is not None:
            raise TaskError(
                "--torch writes the network alone: it goes with none of --onnx, --raw, --clicks and --min-score"
            )
        export_torch(torch, out, workspace, verify=verify, console=console, as_json=as_json)
        return
    if model is None or (refiner is not None and not clicks) or (clicks and (raw or min_score is not None)):
        raise TaskError("--clicks goes with --onnx, --refiner with both; neither with --raw or --min-score")
    if clicks:
        export_clicks(
            model,
            out,
            workspace,
            refiner=refiner,
            opset=opset,
            verify=verify,
            console=console,
            as_json=as_json,
        )
    else:
        export_onnx(
            model, out, workspace, raw=raw, opset=opset, verify=verify, min_score=min_score, console=console,
            as_json=as_json,
        )  # fmt: skip


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


def export_torch(
    model: str, out: Path, workspace: Path, *, verify: bool, console: Console, as_json: bool
) -> None:
    """Writes the network alone as a program of torch, and reports what verification found."""
    from models.weights import CheckpointError
    from tasks.tools.export_program import export_program
    from tasks.tools.model_source import find_model

    log_progress()
    if out.suffix != ".pt2" or out.is_dir():
        raise TaskError(f"{out}: expected the name of a file, such as model.pt2; torch asks for that ending")
    try:
        found = export_program(
            find_model(model, workspace.parent), out, workspace / "dataset" / "val" if verify else None
        )
    except CheckpointError as error:
        raise TaskError(str(error)) from None
    except OSError as error:
        raise TaskError(f"{out}: {error}; choose another file with --out") from None
    if as_json:
        print_json({"file": str(out), "verification": found})
    console.text(f"{out}: {out.stat().st_size / 1e6:.1f} MB")
    console.text(_summary(found) if found else "not verified")


def export_clicks(
    model: str, out: Path, workspace: Path, *, refiner: Path | None, opset: int, verify: bool, console: Console,
    as_json: bool,
) -> None:  # fmt: skip
    """Writes the two files of a model that draws masks at clicks, and reports what verification found."""
    from models.weights import CheckpointError
    from tasks.reporting.figures import count
    from tasks.tools.export_clicks import ClicksRequest
    from tasks.tools.export_clicks import export_clicks as write
    from tasks.tools.model_source import find_model

    log_progress()
    try:
        source = find_model(model, workspace.parent)
        val = workspace / "dataset" / "val" if verify else None
        found = write(ClicksRequest(source, refiner, source.prompt(None), opset, val), out)
    except CheckpointError as error:
        raise TaskError(str(error)) from None
    except OSError as error:
        raise TaskError(f"{out}: {error}; choose another folder with --out") from None
    if as_json:
        print_json({"folder": str(out), "verification": found})
    for name in ("image.onnx", "clicks.onnx"):
        console.text(f"{out / name}: {(out / name).stat().st_size / 1e6:.1f} MB")
    console.text(
        f"verified on {count(found['images'], 'image')} with {count(found['clicks'], 'click')}: masks' IoU from "
        f"{found['least_iou']:g}, scores within {found['greatest_score_difference']:g}"
        if found
        else "not verified"
    )


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
