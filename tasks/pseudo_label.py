"""Makes a pseudo mask at every point of the weak images: the mask of a proposer, such as the teacher, refined.

Each point gets one row, with one of these statuses, and a reason unless `ok`:

- `ok`: a refined mask;
- `rough`: the rough mask alone, since the refined mask is empty or the gate rejects masks of this size;
- `empty`: no mask, since the proposer draws none, or all its pixels are assigned to other points;
- `failed`: the image can't be read.

If networks, settings and code are unchanged, only images whose pixels or points changed since the last run are
computed. The work can be split across processes (`runtime.processes`, or torchrun) or workers of a Ray cluster
(`runtime.ray`). See docs/pseudo.md.
"""

from __future__ import annotations

import logging
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from data.storage import atomic_dir, discard_partials
from data.tables import Split
from tasks.common import processes
from tasks.common.config import Params
from tasks.common.device import hardware, set_up
from tasks.common.errors import TaskError
from tasks.common.progress import Bar
from tasks.common.ray_parts import worker_hardware
from tasks.common.stage_main import fingerprint, run_folder, stage_main, write_json, write_manifest
from tasks.labelling.cache import Ledger
from tasks.labelling.compute import Computation
from tasks.labelling.labeller import load_labeller
from tasks.labelling.on_ray import RayComputation
from tasks.labelling.parts import PointParts
from tasks.labelling.proposer import proposer_files
from tasks.labelling.schedule import Compute, Maker

log = logging.getLogger(__name__)

STATUSES = ("ok", "rough", "empty", "failed")
FILES_ONLY = {"part_images", "part_points", "on_failed"}
"""Keys of `pseudo` that don't affect an image's rows."""


def run(params: Params, workspace: Path) -> None:
    """Writes workspace/pseudo: part-*.parquet sorted by image_id and point_id, summary.json, manifest.json.

    A killed run continues after its last finished part. The files are the same, byte for byte, whatever is reused from
    earlier runs, and for any number of processes.

    Raises:
        TaskError: with `pseudo.on_failed: stop`, images can't be read. All are listed and nothing is written, so that
            a disk that was missing doesn't leave a result that DVC caches.
    """
    device = set_up(params.runtime, params.threads)
    config = params.pseudo
    weak = Split.open(workspace / "dataset" / "weak")
    parts = PointParts(workspace / "points" / "points.parquet", weak, config.part_images, config.part_points)
    compute: Compute
    if params.runtime.ray is None:
        machine = hardware(device)
        compute = Computation(params, load_labeller(params, workspace, device), weak).run
    else:
        machine = worker_hardware("pseudo_label", params)
        compute = RayComputation(params, workspace, networks(workspace), weak).run
    runs = run_folder(workspace, "pseudo_label")
    folder = runs / f"ledger-{ledger_key(params, weak, workspace, machine)}"
    with processes.first_alone() as first:
        if first:
            folder.mkdir(exist_ok=True)
            discard_partials(folder)
    ledger = Ledger(folder)
    maker = Maker(params, weak, parts, ledger)
    mine = range(processes.index(), len(parts), processes.count())
    with Bar("pseudo_label", sum(map(parts.images, mine)), "image") as bar:
        maker.make(compute, mine, bar)

    names: dict[int, str] = {}
    images: Counter[str] = Counter()
    faults: list[str] = []
    for part_names, counts, part_faults in processes.gather((maker.names, maker.images, maker.faults)):
        names |= part_names
        images.update(counts)
        faults += part_faults
    if faults and config.on_failed == "stop":
        if not processes.is_first():
            sys.exit(0)  # the first process reports the error
        listed = "\n".join(f"  - {fault}" for fault in sorted(faults))
        raise TaskError(
            f"{len(faults)} weak images can't be read:\n{listed}\nBring them back and run again, or set "
            "pseudo.on_failed: report to go on without their points"
        )
    with processes.first_alone() as first:
        if first:
            summary = assemble(workspace / "pseudo", ledger, names, parts)
            ledger.keep(set(names.values()))
            for old in [*runs.glob("parts-*"), *runs.glob("ledger-*")]:
                if old != folder:
                    shutil.rmtree(old)
            write_json(runs / "images.json", dict(images))
            shown = ", ".join(f"{summary[status]} {status}" for status in STATUSES)
            log.info("pseudo_label: %d points on %d images: %s", summary["points"], summary["images"], shown)
            log.info(
                "pseudo_label: %d images computed, %d carried over from earlier runs",
                images["computed"] + images["failed"], images["carried"],
            )  # fmt: skip


def networks(workspace: Path) -> list[Path]:
    """The files of teacher and refiner. model.json too: only there are the network's grids and ranges."""
    files = ("model.safetensors", "model.json")
    inputs = [workspace / name / file for name in ("teacher", "refiner") for file in files]
    return [*inputs, workspace / "refiner" / "gate.json"]


def ledger_key(params: Params, weak: Split, workspace: Path, machine: str) -> str:
    """A hash of everything that the rows of all images depend on."""
    return fingerprint(
        "pseudo_label",
        [*networks(workspace), *proposer_files(params)],
        params.input.model_dump(), params.prompt.model_dump(), params.proposers.settings,
        params.pseudo.model_dump(exclude=FILES_ONLY),
        params.threads, [list(category) for category in weak.categories],
        machine=machine,
    )  # fmt: skip


def assemble(target: Path, ledger: Ledger, names: dict[int, str], parts: PointParts) -> dict[str, Any]:
    """Writes the folder `target` from the ledger's parts, one file at a time; returns the summary."""
    counts: Counter[str] = Counter(dict.fromkeys([*STATUSES, "refused"], 0))
    discard_partials(target.parent, target.name)
    with atomic_dir(target) as folder:
        for number in range(len(parts)):
            entry = ledger.entry(names[number])
            if entry is None:
                raise AssertionError(f"part {number} isn't in the ledger")
            counts.update(entry["counts"])
            counts["refused"] += entry["refused"]
            shutil.copyfile(ledger.folder / f"{names[number]}.parquet", folder / part_name(number))
        made = sum(counts[status] for status in STATUSES)
        if made != parts.points:
            raise AssertionError(f"{made} rows for {parts.points} points")
        summary = {"points": parts.points, "images": len(parts.rows), **counts}
        write_json(folder / "summary.json", summary)
        write_manifest(folder, "pseudo_label", summary)
    return summary


def part_name(n: int) -> str:
    """`part-00000.parquet` and so on."""
    return f"part-{n:05d}.parquet"


if __name__ == "__main__":
    stage_main("pseudo_label", run, parallel=True, on_ray=True)
