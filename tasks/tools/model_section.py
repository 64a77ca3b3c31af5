"""Gives section `model` of params.yaml the network of a checkpoint, so that a training can start from it."""

from __future__ import annotations

import io
from pathlib import Path

from models.checkpoint import load_meta
from models.weights import CheckpointError
from tasks.common.config import parse_params
from tasks.common.errors import TaskError
from tasks.tools.recipes import Switch, changes, round_trip, values_of
from tasks.training.start import FREE


def with_network_of(folder: Path, current: Path) -> Switch:
    """`current`, a params file, with the network of a SOLOv2's checkpoint. Keys that no weight depends on stay, such as
    grids and those of the loss; `backbone.weights` becomes null, since the checkpoint replaces them.

    Raises:
        TaskError: one of the files is missing or damaged, or the result isn't a valid params file.
    """
    try:
        meta = load_meta(folder)
        text = current.read_text(encoding="utf-8")
    except CheckpointError as error:
        raise TaskError(str(error)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{current}: can't be read ({error}); `points2model use RECIPE` writes one") from None
    if meta["kind"] != "solov2":
        raise TaskError(f"{folder}: found a {meta['kind']}, expected a SOLOv2; name a teacher or a student")
    before = values_of(text, current)
    parse_params(text, current)
    tree = round_trip().load(text)
    network = dict(meta["config"])
    backbone = {**network.pop("backbone"), "weights": None}
    for key, value in network.items():
        if key not in FREE:
            tree["model"][key] = value
    for key, value in backbone.items():
        if f"backbone.{key}" not in FREE or key == "weights":
            tree["model"]["backbone"][key] = value
    stream = io.StringIO()
    round_trip().dump(tree, stream)
    made = stream.getvalue()
    parse_params(made, current)
    return Switch(f"the network of {folder}", made, changes(before, values_of(made, current)), [])
