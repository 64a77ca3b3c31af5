"""`points2model export --onnx` and `--torch`: a model as a file for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.cli.console import Console, log_progress, print_json
from tasks.common.errors import TaskError


def export_model(
    model: str | None, out: Path, workspace: Path, *, torch: str | None, clicks: bool, refiner: Path | None, raw: bool,
    opset: int | None, verify: bool, min_score: float | None, console: Console, as_json: bool,
) -> None:  # fmt: skip
    """What `--onnx` writes: instances, the network alone, or masks at clicks; or what `--torch` writes. Reports what
    verification found."""
    from models.weights import CheckpointError
    from tasks.tools.model_source import find_model

    name = torch or model
    assert name is not None  # one of both is asked for
    if (refiner is not None and not clicks) or (clicks and (raw or min_score is not None)):
        raise TaskError("--refiner goes with --clicks; neither with --raw or --min-score")
    version = 18 if opset is None else opset
    log_progress()
    _check_out(out, torch is not None, clicks)
    val = workspace / "dataset" / "val" if verify else None
    try:
        source = find_model(name, workspace.parent)
        if torch is not None:
            from tasks.tools.export_program import export_program

            found = export_program(source, out, val)
        elif clicks:
            from tasks.tools.export_clicks import ClicksRequest, export_clicks

            found = export_clicks(ClicksRequest(source, refiner, source.prompt(None), version, val), out)
        else:
            from tasks.tools.export_onnx import OnnxRequest, export_onnx

            found = export_onnx(OnnxRequest(source, raw, version, min_score, val), out)
    except CheckpointError as error:
        raise TaskError(str(error)) from None
    except OSError as error:
        raise TaskError(
            f"{out}: {error}; choose another {'folder' if clicks else 'file'} with --out"
        ) from None
    if as_json:
        print_json({"folder" if clicks else "file": str(out), "verification": found})
    for file in [out / "image.onnx", out / "clicks.onnx"] if clicks else [out]:
        console.text(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
    console.text(_summary(found) if found else "not verified")


def _check_out(out: Path, torch: bool, clicks: bool) -> None:
    if torch and (out.suffix != ".pt2" or out.is_dir()):
        raise TaskError(f"{out}: expected the name of a file, such as model.pt2; torch asks for that ending")
    if not clicks and out.is_dir():
        raise TaskError(f"{out}: found a folder, expected the name of a file, such as {out / 'model.onnx'}")


def _summary(found: dict[str, Any]) -> str:
    from tasks.reporting.figures import count

    verified = f"verified on {count(found['images'], 'image')}"
    if "greatest_difference" in found:
        return f"{verified}: outputs within {found['greatest_difference']:g}"
    what = "click" if "clicks" in found else "instance"
    return (
        f"{verified} with {count(found[f'{what}s'], what)}: masks' IoU from {found['least_iou']:g}, scores within "
        f"{found['greatest_score_difference']:g}"
    )
