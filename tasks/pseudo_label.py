"""Makes a pseudo mask at every point of the weak images: the mask of a proposer, such as the teacher, refined.

Each point gets one row, with one of these statuses, and a reason unless `ok` (with several proposers the reason of each
mask, also if `ok`, ends with whose it is):

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

import torch

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
from tasks.labelling.gate import read_gate
from tasks.labelling.judge import FILE as JUDGE
from tasks.labelling.judge import write_judge
from tasks.labelling.labeller import Plan, load_labeller, load_proposers, load_refiner
from tasks.labelling.measure_judge import decide
from tasks.labelling.on_ray import RayComputation
from tasks.labelling.parts import PointParts
from tasks.labelling.proposer import proposer_files
from tasks.labelling.schedule import Compute, Maker
from tasks.train_rounds import STUDENT
from tasks.training.holdout import read_held_out

log = logging.getLogger(__name__)

TABLES = ("images.arrow", "instances.arrow", "categories.json")
STATUSES = ("ok", "rough", "empty", "failed")
FILES_ONLY = {"part_images", "part_points", "on_failed"}
"""Keys of `pseudo` that don't affect an image's rows."""


def run(params: Params, workspace: Path) -> None:
    """Writes workspace/pseudo; see `label`."""
    student = STUDENT if params.rounds > 1 else None
    label(params, workspace, workspace / "pseudo", run_folder(workspace, "pseudo_label"), student)


def label(
    params: Params, workspace: Path, out: Path, runs: Path, student: Path | None, stage: str = "pseudo_label"
) -> None:
    """Writes `out`: part-*.parquet sorted by image_id and point_id, summary.json, manifest.json; judge.json too, if
    the teacher isn't the only proposer.

    A killed run continues after its last finished part. The files are the same, byte for byte, whatever is reused from
    earlier runs, and for any number of processes.

    Args:
        runs: the folder of what an interrupted run resumes from.
        student: the checkpoint of the last round's student, a path in the workspace; None in the first round.
        stage: the one that calls.

    Raises:
        TaskError: with `pseudo.on_failed: stop`, images can't be read. All are listed and nothing is written, so that
            a disk that was missing doesn't leave a result that DVC caches.
    """
    device = set_up(params.runtime, params.threads)
    config = params.pseudo
    weak = Split.open(workspace / "dataset" / "weak")
    parts = PointParts(workspace / "points" / "points.parquet", weak, config.part_images, config.part_points)
    compute: Compute
    plan = decided(params, workspace, runs, Plan(student), stage, device)
    if params.runtime.ray is None:
        machine = hardware(device)
        compute = Computation(params, load_labeller(params, workspace, device, plan), weak).run
    else:
        machine = worker_hardware(stage, params)
        compute = RayComputation(stage, params, workspace, plan, weak).run
    folder = runs / f"ledger-{ledger_key(params, weak, workspace, machine, plan, stage)}"
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
            summary = assemble(
                out, ledger, names, parts, None if plan.decided is None else workspace / plan.decided
            )
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


def decided(
    params: Params, workspace: Path, runs: Path, plan: Plan, stage: str, device: torch.device
) -> Plan:
    """The plan with judge.json in `runs`, which is measured once; with the teacher alone, the plan as it is."""
    if plan.names(params) == ["teacher"]:
        return plan
    strong = Split.open(workspace / "dataset" / "strong")
    files = [
        *plan.files(params),
        Path("teacher/held_out.json"),
        *(Path("dataset/strong") / name for name in TABLES),
    ]
    key = fingerprint(
        stage,
        [*(workspace / file for file in files), *proposer_files(params)],
        params.seed, params.threads, params.input.model_dump(), params.prompt.model_dump(), params.refiner.model_dump(),
        params.proposers.settings,
        machine=hardware(device),
    )  # fmt: skip
    folder = runs / f"judge-{key}"
    with processes.first_alone() as first:
        if first and not (folder / JUDGE).is_file():
            named = load_proposers(params, workspace, device, plan, None)
            held_out = read_held_out(workspace / "teacher", strong)
            refiner = load_refiner(workspace / "refiner", device).eval()
            step = read_gate(workspace / "refiner").step
            judge = decide(params, strong, held_out, named, refiner, step, device, stage)
            folder.mkdir(exist_ok=True)
            write_judge(folder, judge)
        for old in runs.glob("judge-*"):
            if first and old != folder:
                shutil.rmtree(old)
    return plan._replace(decided=folder.relative_to(workspace))


def ledger_key(params: Params, weak: Split, workspace: Path, machine: str, plan: Plan, stage: str) -> str:
    """A hash of everything that the rows of all images depend on."""
    return fingerprint(
        stage,
        [*(workspace / file for file in plan.files(params)), *proposer_files(params)],
        params.input.model_dump(), params.prompt.model_dump(), params.proposers.settings,
        params.pseudo.model_dump(exclude=FILES_ONLY),
        params.threads, [list(category) for category in weak.categories],
        machine=machine,
    )  # fmt: skip


def assemble(
    target: Path, ledger: Ledger, names: dict[int, str], parts: PointParts, decided: Path | None
) -> dict[str, Any]:
    """Writes the folder `target` from the ledger's parts, one file at a time; returns the summary.

    Args:
        decided: the folder of judge.json, if there is one.
    """
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
        if decided is not None:
            shutil.copyfile(decided / JUDGE, folder / JUDGE)
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
