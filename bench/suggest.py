"""What `points2model suggest` brings: AP after labelling the images that it names, against as many masks at random.

Of a data set whose masks are all known (COCO files DATA/NAME/{train,val}.json, images in DATA/NAME/images), a small
part keeps its masks; the other images have a click on each object. A model is trained on these masks. Then images are
chosen until they have as many masks again as there are, a model is trained on both, for as many steps from the same
initial weights, and measured on the val images:

    base       before the choice
    suggest    the default
    diversity, classes, doubt       one part of the value alone
    blind      the default without the clicks, as on images of a folder
    random0, random1, ...           images in random order, until they have as many masks

    python bench/suggest.py facade nuclei --data ../shared/data --work /tmp/suggest --seeds 0 1 2
    python bench/suggest.py facade --seeds 0 --arms random0 suggest --price     # only says how long it takes

A run that was stopped goes on where it was, so the same command prints the table of a finished one. Each step is a
process of one thread.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.quality import Line, changed  # noqa: E402
from data.demo.split import SplitRequest, write_split_files  # noqa: E402
from data.tables import POINTS, Split, read_parquet  # noqa: E402
from tasks.common.config import load_params  # noqa: E402
from tasks.suggestion.candidates import without_masks  # noqa: E402
from tasks.suggestion.choice import Pool, Weights, at_random, choose  # noqa: E402
from tasks.suggestion.suggest import open_model, pool_of  # noqa: E402
from tasks.tools.recipes import whole  # noqa: E402

PARTS = {
    "suggest": Weights(), "blind": Weights(), "diversity": Weights(1, 0, 0), "classes": Weights(0, 1, 0),
    "doubt": Weights(0, 0, 1),
}  # fmt: skip
STEPS = ("ingest", "train_teacher", "ap_teacher")
SMALL: dict[str, dict[str, Any]] = {
    "facade": {"input.short_side": 128, "input.max_side": 128},
    "nuclei": {"teacher.batch_size": 4},
}
"""Other values than the recipe's, so that a training takes a minute of one core."""


def split(dataset: Path, out: Path, share: float, seed: int, every: int) -> None:
    """Strong and weak images, clicks, and every `every`th image of val."""
    if (out / "split.json").exists():
        return
    val = json.loads((dataset / "val.json").read_text())
    val["images"] = val["images"][::every]
    kept = {image["id"] for image in val["images"]}
    val["annotations"] = [row for row in val["annotations"] if row["image_id"] in kept]
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.parent / "val_part.json"
    part.write_text(json.dumps(val))
    request = SplitRequest(strong=share, seed=seed, clicks="random", jitter=0.0, folder="", val_folder="")
    write_split_files(dataset / "train.json", out, request, part)


def line(
    name: str, data: Path, folder: Path, annotations: Path, seed: int, steps: int, do: tuple[str, ...]
) -> Line:
    recipe = yaml.safe_load(whole(ROOT / "recipes" / f"{name}.yaml"))
    recipe = changed(recipe, {
        "seed": seed, "runtime.device": "cpu", "threads": 1, "teacher.steps": steps, "teacher.holdout": 0.0,
        "teacher.milestones": [steps], "teacher.warmup_steps": 0.1, **SMALL[name],
    })  # fmt: skip
    recipe["ingest"] |= {
        "images": str(data / name / "images"), "annotations": str(annotations),
        "strong": "strong.json", "val": "val.json", "weak": "weak.json", "kept_aside": "kept_aside.json",
    }  # fmt: skip
    recipe["points"]["files"] = str(annotations / "points")
    return Line(folder, recipe, do)


def pool_of_base(base: Path, clicked: bool, most: int) -> tuple[Pool, list[int]]:
    """A part of the weak images as `suggest` has them, `most` at random, and their ids."""
    params = load_params(base / "params.yaml")
    workspace = base / "workspace"
    model = open_model(workspace / "teacher", params.input, params.evaluate.inference, "cpu")
    strong, weak = (Split.open(workspace / "dataset" / part) for part in ("strong", "weak"))
    points = read_parquet(workspace / "points" / "points.parquet", POINTS)
    some = np.random.default_rng(params.seed).permutation(len(weak))[:most]
    weak.images = weak.images.take(np.sort(some))
    found = without_masks(weak, points if clicked else points.slice(0, 0), [])
    made = pool_of(model, found, strong, base / "outputs")
    assert not made.faults, made.faults
    return made.pool, [found.split.images["image_id"][row].as_py() for row in made.rows]


def moved(source: Path, out: Path, image_ids: set[int]) -> None:
    """The split files with these weak images made strong."""
    parts = {
        name: json.loads((source / f"{name}.json").read_text())
        for name in ("strong", "weak", "kept_aside", "val")
    }
    out.mkdir(parents=True, exist_ok=True)
    kept = parts["kept_aside"]
    for kind, key in (("images", "id"), ("annotations", "image_id")):
        parts["strong"][kind] = parts["strong"][kind] + [row for row in kept[kind] if row[key] in image_ids]
    for name in ("weak", "kept_aside"):
        parts[name]["images"] = [row for row in parts[name]["images"] if row["id"] not in image_ids]
        parts[name]["annotations"] = [
            row for row in parts[name]["annotations"] if row["image_id"] not in image_ids
        ]
    for name, part in parts.items():
        (out / f"{name}.json").write_text(json.dumps(part))


def chosen_ids(arm: str, base: Path, seed: int, masks: int, most: int) -> list[int]:
    """Ids of the images that an arm labels, which have about so many objects."""
    true, ids = pool_of_base(base, True, most)
    if arm.startswith("random"):
        rows = at_random(true, masks, 1000 * seed + int(arm.removeprefix("random") or 0))
    else:
        pool = pool_of_base(base, False, most)[0] if arm == "blind" else true
        order = [one.row for one in choose(pool, weights=PARTS[arm])]
        expected, left, rows = true.objects.sum(1), float(masks), []
        for row in order:  # cost is counted in true masks, whatever the arm expects
            if expected[row] <= left:
                rows.append(row)
                left -= expected[row]
    return [ids[row] for row in rows]


def run(
    name: str, data: Path, work: Path, seed: int, arms: list[str], share: float, steps: int, every: int, most: int
) -> None:  # fmt: skip
    cell = work / name / f"{share:g}-{steps}-{seed}"
    split(data / name, cell / "split", share, seed, every)
    base = cell / "base"
    line(
        name,
        data,
        base,
        cell / "split",
        seed,
        steps,
        ("ingest", "import_points", "train_teacher", "ap_teacher"),
    ).run()
    masks = len(Split.open(base / "workspace" / "dataset" / "strong").instances)
    for arm in arms:
        folder = cell / arm
        if not (folder / "chosen.json").exists():
            ids = chosen_ids(arm, base, seed, masks, most)
            moved(cell / "split", folder / "split", set(ids))
            (folder / "chosen.json").write_text(json.dumps(ids))
        line(name, data, folder, folder / "split", seed, steps, STEPS).run()


def measured(
    work: Path, name: str, share: float, steps: int, seeds: list[int], arm: str
) -> list[dict[str, Any]]:
    found = []
    for seed in seeds:
        folder = work / name / f"{share:g}-{steps}-{seed}" / arm
        if (folder / "ap_teacher.json").exists():
            scores = json.loads((folder / "ap_teacher.json").read_text())
            strong = Split.open(folder / "workspace" / "dataset" / "strong")
            found.append(scores | {"seed": seed, "images": len(strong), "masks": len(strong.instances)})
    return found


def print_table(
    work: Path, names: list[str], share: float, steps: int, seeds: list[int], arms: list[str]
) -> None:
    for name in names:
        table = Table(
            "arm", "runs", "images", "masks", "AP", "sd", "AP50", "AP by seed", "over random", title=name
        )
        random: dict[int, list[float]] = {}
        for arm in arms:
            if arm.startswith("random"):
                for one in measured(work, name, share, steps, seeds, arm):
                    random.setdefault(one["seed"], []).append(one["AP"])
        rows = {arm: measured(work, name, share, steps, seeds, arm) for arm in ["base", *arms]}
        drawn = [one for arm, of_arm in rows.items() if arm.startswith("random") for one in of_arm]
        rows = {arm: of_arm for arm, of_arm in rows.items() if not arm.startswith("random")} | {
            "random": drawn
        }
        for arm, of_arm in rows.items():
            if not of_arm:
                continue
            ap = np.array([one["AP"] for one in of_arm])
            over = [one["AP"] - np.mean(random[one["seed"]]) for one in of_arm if one["seed"] in random]
            table.add_row(
                arm, str(len(of_arm)), *(f"{np.mean([one[key] for one in of_arm]):.0f}" for key in ("images", "masks")),
                f"{ap.mean():.2f}", f"{ap.std(ddof=1):.2f}" if len(ap) > 1 else "",
                f"{np.mean([one['AP50'] for one in of_arm]):.2f}", " ".join(f"{one:.1f}" for one in ap),
                f"{np.mean(over):+.2f}" if over and arm != "random" else "",
            )  # fmt: skip
        Console(width=150).print(table)


def price(work: Path, names: list[str], share: float, steps: int, seeds: list[int], arms: list[str]) -> None:
    """Prints what is left to do, by what its like has taken here so far."""
    for name in names:
        took, missing = [], 0
        for seed in seeds:
            for arm in ["base", *arms]:
                done = work / name / f"{share:g}-{steps}-{seed}" / arm / "seconds.json"
                seconds = json.loads(done.read_text()) if done.exists() else {}
                if "ap_teacher" in seconds:
                    took.append(sum(seconds.values()))
                else:
                    missing += 1
        each = (
            f"{np.mean(took):.0f} s each, {missing * np.mean(took) / 60:.0f} min" if took else "none done yet"
        )
        print(f"{name}: {missing} trainings left; {each}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("datasets", nargs="+", help="names of folders in DATA and of recipes")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--work", type=Path, default=Path("suggest"), help="kept, to go on from")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--arms", nargs="+", default=["random0", "suggest", "diversity", "classes", "doubt"])
    parser.add_argument("--share", type=float, default=0.05, help="of images with masks before the choice")
    parser.add_argument("--steps", type=int, default=200, help="of each training")
    parser.add_argument("--pool", type=int, default=150, help="images to choose from, at most")
    parser.add_argument("--every", type=int, default=3, help="measured on every so many images of val")
    parser.add_argument("--price", action="store_true", help="print how long it will take, and end")
    given = parser.parse_args()
    data, work = given.data.resolve(), given.work.resolve()
    settings = (given.share, given.steps)
    price(work, given.datasets, *settings, given.seeds, given.arms)
    if given.price:
        return
    for seed in given.seeds:
        for name in given.datasets:
            run(name, data, work, seed, given.arms, *settings, given.every, given.pool)
    print_table(work, given.datasets, *settings, given.seeds, given.arms)


if __name__ == "__main__":
    main()
