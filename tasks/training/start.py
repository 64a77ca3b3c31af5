"""Starts a detector from the weights of another one: all but the class layer, whose rows are matched by class name."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.checkpoint import kind_of, load_checkpoint, load_meta
from models.config import SOLOv2Config
from models.inference.detector import Detector
from models.queries.config import QueryConfig
from models.queries.pretrained import CLASS_LAYER as QUERY_CLASS_LAYER
from models.solov2.network import SOLOv2
from models.weights import CheckpointError, listed, misfits
from tasks.common.errors import TaskError

log = logging.getLogger(__name__)

CLASS_LAYER = "instance_head.category_predictor."
"""Of the names of tensors with a row for each class."""
FREE = frozenset({
    "grids", "grid_reference", "level_sources", "ranges", "centre_shrink", "prior_prob", "dice_weight", "focal_weight",
    "focal_alpha", "focal_gamma", "backbone.weights", "backbone.frozen_stages",
})  # fmt: skip
"""Keys of a network's config that may differ from the checkpoint's: they place cells or say how it learns; no weight
depends on them."""
SHOWN = 10
"""New classes in the log."""


def start_from(stage: str, model: Detector, folder: Path, names: Sequence[str]) -> None:
    """Loads a checkpoint's weights into `model`, whose class i is names[i].

    The class layer's rows are copied for classes of equal name; the others keep their values.

    Raises:
        TaskError: it is missing, damaged, or of another network.
    """
    try:
        keys = network_faults(load_meta(folder), model.config)
        if keys:
            section = _section(model)
            faults = [f"{key}: found {one}, expected {own}" for key, one, own in keys]
            raise _another_network(folder, section, faults)
        state, meta = load_checkpoint(folder)
    except CheckpointError as error:
        raise TaskError(str(error)) from None
    rows = {row["name"]: i for i, row in enumerate(meta["categories"])}
    pairs = [(i, rows[name]) for i, name in enumerate(names) if name in rows]
    own = model.state_dict()
    of_queries = not isinstance(model, SOLOv2)
    for key in [key for key in own if key.startswith(QUERY_CLASS_LAYER if of_queries else CLASS_LAYER)]:
        if state[key].shape[1:] != own[key].shape[1:]:
            continue  # another network: a misfit
        merged = own[key].clone()
        if of_queries:
            merged[-1] = state[key][-1].to(merged)  # no object
        if pairs:
            ours, theirs = zip(*pairs, strict=True)
            merged[list(ours)] = state[key][list(theirs)].to(merged)
        state[key] = merged
    if faults := misfits(state, {key: value.shape for key, value in own.items()}):
        raise _another_network(folder, _section(model), faults)
    model.load_state_dict(state)
    log.info("%s: starts from %s: %s", stage, folder, _classes(names, rows))


def network_faults(meta: Mapping[str, Any], config: SOLOv2Config | QueryConfig) -> list[tuple[str, str, str]]:
    """The keys of params.yaml in which the network of a checked model.json isn't that of `config`: (key, the
    checkpoint's value, the value of `config`). Of a network with queries `kind` alone: its tensors show the rest."""
    if meta["kind"] != kind_of(config):
        return [("kind", meta["kind"], kind_of(config))]
    if isinstance(config, QueryConfig):
        return []
    found, expected = _flat(meta["config"]), _flat(config.model_dump(mode="json"))
    compared = expected.keys() - FREE
    if config.backbone.norm != "group_norm":
        compared -= {"backbone.norm_groups"}
    return [
        (f"model.{key}", _yaml(found.get(key)), _yaml(expected[key]))
        for key in sorted(compared)
        if found.get(key) != expected[key]
    ]


def _yaml(value: Any) -> str:
    return json.dumps(value).strip('"')


def _section(model: Detector) -> str:
    return "`model` section" if isinstance(model, SOLOv2) else "`student.network`"


def _another_network(folder: Path, section: str, faults: list[str]) -> TaskError:
    return TaskError(
        f"{folder}: another network than in params.yaml's {section}:\n{listed(faults)}\nSet these keys to what "
        "was found, name another checkpoint, or start from scratch"
    )


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a config as in params.yaml: `backbone.name`."""
    backbone = {f"backbone.{key}": value for key, value in config["backbone"].items()}
    return {**{key: value for key, value in config.items() if key != "backbone"}, **backbone}


def _classes(names: Sequence[str], known: Mapping[str, int]) -> str:
    new = [name for name in names if name not in known]
    if not new:
        return f"all {len(names)} classes by name"
    shown = ", ".join(new[:SHOWN]) + (f" and {len(new) - SHOWN} more" if len(new) > SHOWN else "")
    if len(new) == len(names):
        return f"all but the class layer, since none of its classes has the name of one here ({shown})"
    return f"{len(names) - len(new)} of {len(names)} classes by name, {len(new)} new: {shown}"
