"""A trained network as a program of torch (.pt2), which is kept only if it returns what the network returns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from data.storage import atomic_write
from data.tables import Split
from tasks.common.errors import TaskError
from tasks.tools.export_onnx import check_kind, metadata, refuse, val_faults
from tasks.tools.model_source import Source

FACTS = "facts.json"
"""In the file: its metadata, for `torch.export.load(..., extra_files={"facts.json": ""})`."""


def export_program(source: Source, out: Path, val: Path | None) -> dict[str, Any]:
    """Writes the network alone, without what is before and after it; an earlier file stays as it was if that fails.

    Args:
        val: the split on whose images it is verified; None: it isn't.

    Returns:
        What verification found; empty without it.

    Raises:
        TaskError, CheckpointError: there are no images to verify it on; it is another network's folder; torch can't
            export the network; or outputs differ.
    """
    refuse(val_faults(val))
    check_kind(source)
    import torch

    from models.checkpoint import load_teacher
    from models.export.plain import LEAST_SIDE, ExportError, output_names
    from models.export.plain import export_program as program_of
    from tasks.tools.verify_network import Arrays, verify_network

    network, tile = load_teacher(source.folder, torch.device("cpu")), source.size.tile
    try:
        program = program_of(network, tile.side if tile else None)
    except ExportError as error:
        raise TaskError(f"{source.folder}: {error}") from None
    names = output_names(len(network.config.grids))
    facts = metadata(source, "network", network.config, source.inference(None))
    facts["outputs"] = json.dumps(names)
    with atomic_write(out) as partial:
        # By an open file: torch wants a name to end with .pt2, and a partial file's doesn't.
        with partial.open("wb") as file:
            torch.export.save(program, file, extra_files={FACTS: json.dumps(facts)})
        found: dict[str, Any] = {}
        if val is not None:
            with partial.open("rb") as written:
                loaded = torch.export.load(written).module()
            inputs = program.graph_signature.user_inputs

            def run(given: Arrays) -> list[np.ndarray]:
                side = min(given["images"].shape[2:])
                if tile is None and side < LEAST_SIDE:
                    raise TaskError(
                        f"{source.folder}: its images have {side} px at the network's input (input.short_side), but a "
                        f"program takes {LEAST_SIDE} px and more; use --onnx --raw. Nothing was written"
                    )
                try:
                    made = loaded(*(torch.from_numpy(given[name]) for name in inputs))
                except AssertionError as error:  # a condition on sizes that torch saw in the network
                    shape = list(given["images"].shape)
                    raise TaskError(
                        f"{source.folder}: torch's program of this network doesn't take images {shape}: {error}; use "
                        "--onnx --raw. Nothing was written"
                    ) from None
                return [one.numpy() for one in made]

            found = verify_network(run, names, network, Split.open(val), source.size)
    return found
