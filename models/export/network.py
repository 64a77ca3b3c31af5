"""The network alone as an ONNX graph, traced by torch.

Legend: N images, H x W pixels of the padded input.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

import onnx
import onnx_ir as ir
import torch

from models.config import SIZE_DIVISOR
from models.export.plain import ExportError, Plain, has_origins, output_names
from models.solov2.network import SOLOv2


def export_network(network: SOLOv2, side: int | None, opset: int) -> ir.Model:
    """The network as a graph of inputs `images`, normalised float32 [N, 3, H, W], and `origins` if `has_origins`.

    N is free; H and W are multiples of 32, or `side`, for networks that predict in tiles.

    Raises:
        ExportError: torch can't export it.
    """
    # A size whose sides differ, and batch of more than one: nothing may become a constant by chance.
    height, width = (side, side) if side else (7 * SIZE_DIVISOR, 8 * SIZE_DIVISOR)
    given, names = [torch.zeros(2, 3, height, width)], ["images"]
    if has_origins(network, side):
        given.append(torch.zeros(2, 2))
        names.append("origins")
    made = output_names(len(network.config.grids))
    axes = {name: {0: "batch"} for name in (*names, *made)}
    if side is None:
        axes["images"] |= {2: "height", 3: "width"}
        for name in made:
            axes[name] |= {2: f"{name}_height", 3: f"{name}_width"}
    file: Any = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # By tracing: the newer exporter takes ten times as long for inputs of any size.
            torch.onnx.export(
                Plain(network).eval(), tuple(given), file, dynamo=False, opset_version=opset, input_names=names,
                output_names=made, dynamic_axes=axes,
            )  # fmt: skip
    except Exception as error:  # torch's exporter raises anything
        reason = str(error).strip().partition("\n")[0]
        raise ExportError(f"torch can't export this network: {type(error).__name__}: {reason}") from error
    model = ir.from_proto(onnx.load_from_string(file.getvalue()))
    # The tracer's names of lengths that it can't derive aren't unique, and onnxruntime shares memory by them.
    for node in model.graph:
        for value in node.outputs:
            value.shape = None
    for value, name in zip(model.graph.outputs, made, strict=True):
        value.shape = ir.Shape(["batch", None, f"{name}_height", f"{name}_width"])
    return model
