"""Masks at clicks as two ONNX graphs: an image's encoding, computed once, and the masks at clicks on it.

Legend: K clicks, T tiles, C classes, M cells, E kernel channels, h x w a tile's mask map, H x W pixels.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch

from models.export.clicks import ClickMasks
from models.export.graph import network_on_images, set_outputs
from models.export.image import InputRule
from models.export.ops import FLOAT, Ops
from models.export.plain import ExportError
from models.solov2.network import SOLOv2

ENCODING: dict[str, tuple[str, list[int | str]]] = {
    "class_logits": ("FLOAT", ["tiles", "classes", "cells"]),
    "kernels": ("FLOAT", ["tiles", "cells", "channels"]),
    "features": ("FLOAT", ["tiles", "channels", "map_height", "map_width"]),
    "tiles": ("INT64", ["tiles", 2]),
    "cores": ("FLOAT", ["tiles", 4]),
    "input_size": ("INT64", [2]),
    "content_size": ("INT64", [2]),
}
"""Outputs of the first graph and inputs of the second; see `models.export.clicks.Encoding`."""


def encoder_graph(network: SOLOv2, rule: InputRule, opset: int) -> ir.Model:
    """`images` uint8 RGB [1, H, W, 3] to ENCODING."""
    made = network_on_images(network, rule, opset)
    op, plan = Ops("encoding"), made.plan
    logits = [op.Reshape(one, op.shape(0, 0, -1)) for one in made.raw.category_logits]
    kernels = [op.Reshape(one, op.shape(0, 0, -1)) for one in made.raw.kernels]
    if plan:
        tiles = op.Concat(op.Unsqueeze(plan.left, [1]), op.Unsqueeze(plan.top, [1]), axis=1)
        cores = op.Identity(plan.core_xyxy)
    else:
        far = np.float32(np.inf)
        tiles = op.Identity(np.zeros((1, 2), np.int64))
        cores = op.Identity(np.array([[-far, -far, far, far]]))
    found = {
        "class_logits": op.Concat(*logits, axis=2),
        "kernels": op.Transpose(op.Concat(*kernels, axis=2), perm=[0, 2, 1]),
        "features": op.Cast(made.raw.mask_features, to=FLOAT),
        "tiles": tiles,
        "cores": cores,
        "input_size": op.Concat(made.rows.padded, made.columns.padded, axis=0),
        "content_size": op.Concat(made.rows.content, made.columns.content, axis=0),
    }
    made.images.shape = ir.Shape([1, "height", "width", 3])
    set_outputs(made.model.graph, op, found, ENCODING)
    return made.model


def click_graph(
    masks: ClickMasks, images: np.ndarray, encoding: Sequence[torch.Tensor], classes: int, opset: int
) -> onnx.ModelProto:
    """`images`, ENCODING, `points_xy` float32 [K, 2] and `labels` int64 [K] to `masks` bool [K, H, W] and `scores`
    float32 [K].

    Args:
        images: an image [1, H, W, 3] and its encoding, on which the function is traced.

    Raises:
        ExportError: torch can't export it.
    """
    height, width = images.shape[1:3]
    points = torch.tensor(
        [[0.3 * width, 0.4 * height], [0.7 * width, 0.6 * height], [0.5 * width, 0.2 * height]]
    )
    given = (torch.from_numpy(images), *encoding, points, torch.arange(3) % classes)
    names = ["images", *ENCODING, "points_xy", "labels"]
    axes = {
        name: {
            axis: one
            for axis, one in enumerate(shape)
            if isinstance(one, str) and one not in ("classes", "channels")
        }
        for name, (_, shape) in ENCODING.items()
    }
    axes |= {
        "images": {1: "height", 2: "width"}, "points_xy": {0: "clicks"}, "labels": {0: "clicks"},
        "masks": {0: "clicks", 1: "height", 2: "width"}, "scores": {0: "clicks"},
    }  # fmt: skip
    file: Any = io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                masks.eval(), given, file, dynamo=False, opset_version=opset, input_names=names,
                output_names=["masks", "scores"], dynamic_axes=axes,
            )  # fmt: skip
    except Exception as error:  # torch's exporter raises anything
        reason = str(error).strip().partition("\n")[0]
        raise ExportError(f"torch can't export masks at clicks: {type(error).__name__}: {reason}") from error
    return onnx.load_from_string(file.getvalue())
