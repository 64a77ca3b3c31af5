"""What points add on real images: AP of teacher, student and their controls, and how good the pseudo masks are.

Of a data set whose masks are all known (COCO files DATA/NAME/{train,val}.json, images in DATA/NAME/images), some
images keep their masks and the others one click per object (`points2model split`). Then, with recipes/NAME.yaml:

    teacher     the recipe's, on the strong images: what the masks are made with
    control     the student's training on the strong images alone: as many steps, the same initial weights
    rough       student on strong images and the teacher's masks at the clicks
    student     student on strong images and the refined masks
    full        the student's training on the true masks of all images: as many steps
    rounds      student of a second round: the first one proposes masks too, and training goes on from it
    again       the same training going on with the first round's masks: the control of `rounds`
    sam         student on the masks of a Segment Anything model at the clicks (--sam FOLDER), refined where that helps

and with the same networks, on a tenth of the weak images: masks at mass centres and at random pixels of the objects, by
our prompting and by the paper's rule.

    python bench/quality.py nuclei facade --data ../shared/data --work /tmp/quality --jobs 2
    python bench/quality.py nuclei --shares 0.1 --seeds 0 1 2 --variants control student full
    python bench/quality.py facade --seeds 0 1 --variants student rounds again --price  # only says how long it takes

A run that was stopped goes on where it was: steps that are done in the work folder aren't done again, so the same
command prints the table of a finished one. Every step is a process of one thread; `--jobs` chains of steps run beside
each other.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.quality_table import print_tables  # noqa: E402
from data.demo.split import SplitRequest, write_split_files  # noqa: E402
from data.tables import Split  # noqa: E402
from tasks.tools.recipes import whole  # noqa: E402

VARIANTS = ("student", "control", "rough", "full", "rounds", "again", "sam")


@dataclass(frozen=True)
class Line:
    """Steps run in one folder, on what other lines left in theirs."""

    folder: Path
    recipe: dict[str, Any]
    steps: tuple[str, ...]
    """Names of tasks, or `ap_student`, `ap_teacher`, `pseudo`, `rules` and `judge`: measurements of ours."""
    after: Path | None = None
    borrowed: tuple[str, ...] = ()
    """Outputs that are taken from the workspace of `after`."""

    def run(self) -> None:
        """Runs what isn't done yet; `seconds.json` has what each step took.

        Raises:
            RuntimeError: a step failed, or the folder is of other params.
        """
        workspace = self.folder / "workspace"
        workspace.mkdir(parents=True, exist_ok=True)
        for name in self.borrowed:
            source, link = self.after / "workspace" / name, workspace / Path(name).name  # type: ignore[operator]
            if not link.is_symlink():
                link.symlink_to(os.path.relpath(source, workspace))
        written = self.folder / "params.yaml"
        if written.exists() and (other := _unlike(yaml.safe_load(written.read_text()), self.recipe)):
            raise RuntimeError(
                f"{self.folder}: what is done there was made with other {', '.join(other)}; name another folder with "
                "--work, or delete this one"
            )
        written.write_text(yaml.safe_dump(self.recipe), encoding="utf-8")
        done = self.folder / "seconds.json"
        seconds = json.loads(done.read_text()) if done.exists() else {}
        for step in self.steps:
            if step in seconds:
                continue
            started = time.monotonic()
            module = f"tasks.{step}" if (ROOT / "tasks" / f"{step}.py").exists() else None
            command = ["-m", module] if module else [str(ROOT / "bench" / "quality_measure.py"), step]
            paths = os.pathsep.join([str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
            environment = os.environ | {"PYTHONPATH": paths.strip(os.pathsep), "OMP_NUM_THREADS": "1"}
            with (self.folder / f"{step}.log").open("wb") as log:
                failed = subprocess.run(
                    [sys.executable, *command],
                    cwd=self.folder,
                    env=environment,
                    stderr=log,
                    stdout=log,
                    check=False,
                ).returncode
            if failed:
                tail = (self.folder / f"{step}.log").read_text(errors="replace")[-1500:]
                raise RuntimeError(f"{self.folder}: {step} failed:\n{tail}")
            seconds[step] = round(time.monotonic() - started, 1)
            done.write_text(json.dumps(seconds))
            where = "/".join(self.folder.parts[-3:])
            print(f"{where}: {step} {seconds[step]:.0f} s", flush=True)


def _unlike(one: dict[str, Any], other: dict[str, Any], before: str = "") -> list[str]:
    """Names, as `section.key`, of values that differ."""
    names = []
    for key in sorted(one.keys() | other.keys()):
        a, b = one.get(key), other.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            names += _unlike(a, b, f"{before}{key}.")
        elif a != b:
            names.append(before + key)
    return names


def changed(recipe: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy of a recipe with some values replaced, named as `section.key`."""
    recipe = copy.deepcopy(recipe)
    for name, value in changes.items():
        *sections, key = name.split(".")
        place = recipe
        for section in sections:
            place = place[section]
        if key not in place:
            raise KeyError(f"{name}: not in the recipe")
        place[key] = value
    return recipe


def prepare(dataset: Path, out: Path, share: float, seed: int) -> None:
    """Splits a data set, with clicks at mass centres."""
    if not (out / "split.json").exists():
        request = SplitRequest(strong=share, seed=seed, clicks="centre", jitter=0.0, folder="", val_folder="")
        write_split_files(dataset / "train.json", out, request, dataset / "val.json")


def lines(
    name: str,
    data: Path,
    work: Path,
    share: float,
    seed: int,
    overrides: dict[str, Any],
    sam: Path | None = None,
) -> dict[str, Line]:
    """The lines of one data set, share of strong images and seed, by variant; `sam`: a folder of weights."""
    recipe = yaml.safe_load(whole(ROOT / "recipes" / f"{name}.yaml"))
    folder = work / name / f"{share:g}-{seed}"
    recipe = changed(recipe, {"seed": seed, "runtime.device": "cpu", "threads": 1, **overrides})
    recipe["ingest"] |= {
        "images": str(data / name / "images"), "annotations": str(folder / "split"),
        "strong": "strong.json", "val": "val.json", "weak": "weak.json", "kept_aside": "kept_aside.json",
    }  # fmt: skip
    recipe["points"]["files"] = str(folder / "split" / "points")
    ours = folder / "student"
    first = (
        "ingest",
        "import_points",
        "train_teacher",
        "train_refiner",
        "rules",
        "pseudo_label",
        "pseudo",
        "train_student",
    )
    # All masks are strong here, and the weak images none: what the student's training makes of every true mask.
    full = changed(recipe, {"student.masks": "none", "ingest.weak": None, "ingest.kept_aside": None})
    full["ingest"] |= {"annotations": str(data / name), "strong": "train.json"}
    full["points"]["files"] = str(data / name)  # not read; one folder for all shares
    return {
        "student": Line(ours, recipe, (*first, "ap_student", "ap_teacher")),
        "control": Line(
            folder / "control", changed(recipe, {"student.masks": "none"}), ("train_student", "ap_student"),
            ours, ("dataset", "teacher"),
        ),
        "rough": Line(
            folder / "rough", changed(recipe, {"student.masks": "rough"}), ("train_student", "ap_student"),
            ours, ("dataset", "points", "pseudo", "teacher"),
        ),
        "full": Line(work / name / f"full-{seed}" / "full", full, ("ingest", "train_student", "ap_student")),
        "rounds": Line(
            folder / "rounds", changed(recipe, {"rounds": 2}),
            ("train_rounds", "pseudo_label", "pseudo", "judge", "train_student", "ap_student"),
            ours, ("dataset", "points", "teacher", "refiner"),
        ),
        "again": Line(
            folder / "again", changed(recipe, {"rounds": 2}), ("train_student", "ap_student"),
            ours, ("dataset", "points", "pseudo", "teacher", "../../rounds/workspace/rounds"),
        ),
        "sam": Line(
            folder / "sam", changed(recipe, _sam(sam)),
            ("pseudo_label", "pseudo", "judge", "train_student", "ap_student"),
            ours, ("dataset", "points", "teacher", "refiner"),
        ),
    }  # fmt: skip


def _sam(folder: Path | None) -> dict[str, Any]:
    settings = {
        "weights": str(folder),
        "revision": None,
        "precision": "fp32",
        "click_batch": 64,
        "negatives": 0,
    }
    return {} if folder is None else {"proposers.use": ["sam"], "proposers.sam": settings}


def phases(cells: list[dict[str, Line]], variants: list[str]) -> list[list[Line]]:
    """Lines that may run beside each other, phase after phase; the longest first."""
    ours = [cell["student"] for cell in cells]
    full = list({cell["full"].folder: cell["full"] for cell in cells}.values())
    control = [cell["control"] for cell in cells]
    control *= "control" in variants
    # The control takes the teacher's weights too where students start from them.
    waits = any(line.recipe["student"]["start"] == "teacher" for line in control)
    return [
        [Line(line.folder, line.recipe, ("ingest",)) for line in ours],
        ours + full * ("full" in variants) + control * (not waits),
        [cell[name] for name in ("rounds", "sam", "rough") if name in variants for cell in cells]
        + control * waits,
        [cell["again"] for cell in cells] * ("again" in variants),
    ]


def price(phases: list[list[Line]], jobs: int) -> None:
    """Prints how long all will take, by timing some steps of each data set; what is done already isn't left out."""
    from tasks.common.config import parse_params
    from tasks.common.progress import format_seconds
    from tasks.planning.facts import data_facts
    from tasks.planning.probe import forecast

    total, known = 0.0, {}
    for line in (line for phase in phases[1:] for line in phase):
        name = line.folder.parent.parent.name
        if name not in known:
            # The first line is a student's, whose images are read; others' trainings are as long.
            folder = line.folder / "workspace" / "dataset"
            splits = {split: Split.open(folder / split) for split in ("strong", "weak", "val")}
            params = parse_params(yaml.safe_dump(line.recipe), line.folder / "params.yaml")
            seconds = forecast(params, splits, data_facts(splits, None, colours=False))._asdict()
            each = seconds["evaluate"] / 2  # of student and teacher
            known[name] = seconds | {"ap_student": each, "ap_teacher": each}
        steps = [*line.steps, *["pseudo_label", "train_student"] * ("train_rounds" in line.steps)]
        total += sum(known[name].get(step, 0.0) for step in steps)
    print(f"about {format_seconds(total)} of one core each, {format_seconds(total / jobs)} by {jobs} jobs")


def run_all(phases: list[list[Line]], jobs: int) -> None:
    """Runs them; a line that fails doesn't stop the others of its phase, then all failures are raised."""
    for lines in phases:
        failures = []
        with ThreadPoolExecutor(jobs) as pool:
            for future in [pool.submit(line.run) for line in lines]:
                if (error := future.exception()) is not None:
                    failures.append(str(error))
        if failures:
            raise SystemExit("\n".join(failures))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("datasets", nargs="+", help="names of folders in DATA and of recipes")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--work", type=Path, default=Path("quality"), help="kept, to go on from")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1], help="of strong images")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--until", metavar="STEP", help="the last step of the student's lines")
    parser.add_argument("--sam", type=Path, metavar="FOLDER", help="weights for the variant sam")
    parser.add_argument("--price", action="store_true", help="print how long it will take, and end")
    parser.add_argument("--jobs", type=int, default=2, help="processes of one thread at a time")
    parser.add_argument(
        "--json", action="store_true", help="print a line of JSON for each row of the table too"
    )
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="other params, in YAML")
    arguments = parser.parse_args()
    data, work = arguments.data.resolve(), arguments.work.resolve()
    missing = [name for name in arguments.datasets if not (data / name / "train.json").exists()]
    if missing:
        raise SystemExit(
            f"{data}: no {', '.join(missing)} with train.json there; name their folder with --data"
        )
    overrides = {
        key: yaml.safe_load(value) for key, _, value in (one.partition("=") for one in arguments.set)
    }
    if overrides.get("student.start", "scratch") != "scratch" and "full" in arguments.variants:
        raise SystemExit(
            "student.start: `full` has no teacher to start from; leave it out with --variants student control rough"
        )
    cells = []
    for name in arguments.datasets:
        for share in arguments.shares:
            for seed in arguments.seeds:
                prepare(data / name, work / name / f"{share:g}-{seed}" / "split", share, seed)
                cell = lines(name, data, work, share, seed, overrides, arguments.sam)
                if arguments.until is not None:
                    steps = cell["student"].steps
                    if arguments.until not in steps:
                        raise SystemExit(
                            f"--until: found {arguments.until}, expected one of {', '.join(steps)}"
                        )
                    cell["student"] = replace(
                        cell["student"], steps=steps[: steps.index(arguments.until) + 1]
                    )
                cells.append(cell)
    if "again" in arguments.variants and "rounds" not in arguments.variants:
        raise SystemExit("again: goes on from the first student of the variant rounds; name that too")
    if "sam" in arguments.variants and arguments.sam is None:
        raise SystemExit("sam: needs weights: --sam FOLDER (docs/proposers.md)")
    started = time.monotonic()
    planned = phases(cells, arguments.variants)
    run_all(planned[:1], arguments.jobs)
    price(planned, arguments.jobs)
    if arguments.price:
        return
    run_all(planned[1:], arguments.jobs)
    print(f"{time.monotonic() - started:.0f} s in all")
    print_tables(work, as_json=arguments.json)


if __name__ == "__main__":
    main()
