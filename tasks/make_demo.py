"""Draws the embedded demo data set: images, masks for a few of them, one click per object for the rest."""

from __future__ import annotations

import logging
from pathlib import Path

from data.demo.synthetic import draw_dataset
from tasks.common.config import Params
from tasks.common.stage_main import stage_main

log = logging.getLogger(__name__)


def run(params: Params, workspace: Path) -> None:
    """Writes workspace/demo/dataset (images, annotations) and workspace/demo/points."""
    counts = draw_dataset(workspace / "demo", seed=params.seed, **params.demo.model_dump())
    log.info(
        "make_demo: %s", ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in counts.items())
    )


if __name__ == "__main__":
    stage_main("make_demo", run)
