"""compare on the tiny line: what evaluate says of the same models, and registries that lack something."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data.tables import PREDICTIONS, Split, write_parquet
from models.checkpoint import META
from tasks import compare
from tasks.common.config import Params
from tasks.common.errors import TaskError
from tasks.promotion.baseline import Trainings, folder_hash
from tasks.promotion.classes import common_classes
from tasks.promotion.rule import PROMOTABLE, Comparison, read_comparison
from tasks.reporting.promotion import promotion_view
from tasks.scoring.predictions import matches_of
from tests.tasks.conftest import run_step

WORKSPACE = Path("workspace")
BASELINE = Path("registry/baseline.json")


@pytest.fixture(scope="module")
def evaluated(line: tuple[Path, Params], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Params]:
    folder = tmp_path_factory.mktemp("compared") / "line"
    shutil.copytree(line[0], folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for step in ("train_student", "evaluate"):
            run_step(step, line[1], WORKSPACE)
    return folder, line[1]


@pytest.fixture
def params(evaluated: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """Inside a copy of the evaluated line."""
    shutil.copytree(evaluated[0], tmp_path / "line")
    monkeypatch.chdir(tmp_path / "line")
    return with_promotion(evaluated[1], ap_tolerance=0.5)


def with_promotion(params: Params, **changed: Any) -> Params:
    return params.model_copy(update={"promotion": params.promotion.model_copy(update=changed)})


def promote(source: str, version: str = "v1", **changed: Any) -> None:
    """Makes a model of the workspace the baseline; `changed` in its model.json."""
    folder = Path("registry", version, "model")
    shutil.copytree(WORKSPACE / source, folder)
    if changed:
        meta = json.loads((folder / META).read_text())
        (folder / META).write_text(json.dumps(meta | changed))
    BASELINE.write_text(json.dumps({"version": version, "model": folder_hash(folder)}))


def compared(params: Params) -> Comparison:
    compare.run(params, WORKSPACE)
    return read_comparison(WORKSPACE)


def details(model: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((WORKSPACE / "evaluation/details.json").read_text())[model]
    return found


def test_a_first_model_has_its_own_figures(params: Params) -> None:
    found = compared(with_promotion(params, ap_tolerance=100.0))
    assert found.verdict == "first"
    assert found.baseline.version is None
    assert found.overall.candidate == details("student")["scores"]["AP"]
    assert [row.candidate for row in found.classes] == [row["AP"] for row in details("student")["per_class"]]
    assert found.overall.difference is None and not found.overall.broken
    assert sorted(path.name for path in (WORKSPACE / "comparison").iterdir()) == [
        "comparison.json", "manifest.json",
    ]  # fmt: skip


def test_a_first_model_worse_than_its_teacher_may_not_be_promoted(params: Params) -> None:
    path = WORKSPACE / "evaluation/details.json"
    found = json.loads(path.read_text())
    own = found["student"]["scores"]["AP"]
    found["teacher"]["scores"]["AP"] = own + params.promotion.ap_tolerance
    path.write_text(json.dumps(found))
    assert compared(params).verdict == "first"
    found["teacher"]["scores"]["AP"] += 0.01
    path.write_text(json.dumps(found))
    result = compared(params)
    assert result.verdict == "behind_teacher" and result.verdict not in PROMOTABLE
    assert result.overall.candidate == own
    view = promotion_view(result, WORKSPACE.parent / "registry")
    assert (view["style"], view["reasons"]) == ("bad", result.reasons)
    assert "worse than its own teacher" in view["headline"]


def test_the_same_model_again_needs_no_comparison(params: Params) -> None:
    promote("student")
    found = compared(params)
    assert (found.verdict, found.overall.difference, found.baseline.version) == ("same", 0, "v1")


def test_figures_are_those_of_evaluate(params: Params) -> None:
    """The teacher as promoted model: evaluate has its AP, over all classes and of each."""
    promote("teacher")
    found = compared(with_promotion(params, bootstrap=40))
    for key, model in (("baseline", "teacher"), ("candidate", "student")):
        assert getattr(found.overall, key) == details(model)["scores"]["AP"]
        rows = [(row["name"], row["instances"], row["AP"]) for row in details(model)["per_class"]]
        assert [(row.name, row.objects, getattr(row, key)) for row in found.classes] == rows
    assert found.draws == 40 and found.images == 6
    predicted = json.loads((WORKSPACE / "comparison/predictions/baseline.json").read_text())
    assert predicted == json.loads((WORKSPACE / "evaluation/predictions/teacher.json").read_text())


def every_object(val: Split) -> pa.Table:
    """Predictions that are the true objects themselves."""
    sizes = {row["image_id"]: row for row in val.images.to_pylist()}
    rows = [
        {key: row[key] for key in ("image_id", "category_id", "rle_counts", "bbox_xywh", "area")}
        | {"score": 0.9, **{key: sizes[row["image_id"]][key] for key in ("height", "width")}}
        for row in val.instances.to_pylist()
    ]
    return pa.Table.from_pylist(rows, schema=PREDICTIONS)


def student_finds(table: pa.Table) -> None:
    write_parquet(table, WORKSPACE / "evaluation/predictions/student.parquet")


def test_a_student_that_finds_every_object_is_better(params: Params) -> None:
    student_finds(every_object(Split.open(WORKSPACE / "dataset/val")))
    promote("teacher")
    found = compared(with_promotion(params, bootstrap=40))
    assert found.verdict == "better"
    assert found.overall.candidate == 100
    for row in (found.overall, *found.classes):
        if row.difference is not None:
            assert row.baseline is not None and row.candidate == 100
            assert row.difference == pytest.approx(100 - row.baseline)
            assert row.low is not None and row.high is not None and row.low <= row.high <= 100
            assert not row.broken


def worsened(params: Params, folder: Path) -> Callable[..., compare.Found]:
    """The comparison of a model that finds every object with one that overlooks those of class `banana` on every second
    image, and of class `strawberry` on its last: a function of section `promotion`'s values. With `repeats`, so many
    trainings of a model that finds every object, of which the second and all later ones overlook these."""
    val = Split.open(WORKSPACE / "dataset/val")
    ids, classes = val.images["image_id"].to_pylist(), {one.name: one.id for one in val.categories}
    whole = every_object(val)
    places = [(row["image_id"], row["category_id"]) for row in whole.to_pylist()]
    last_strawberry = max(place for place in places if place[1] == classes["strawberry"])
    gone = {(image, classes["banana"]) for image in ids[::2]} | {last_strawberry}
    kept = [place not in gone for place in places]
    sides = []
    for name, table in (("before", whole), ("after", whole.filter(kept))):
        (folder / name).mkdir()
        stored = compare.StoredPredictions(folder / name, [[0, 1], [2, 3], [4, 5]], table, ids)
        matches = matches_of(stored, val, params.evaluate)
        assert matches is not None
        sides.append(matches)
    known = common_classes(val.categories, val.categories)

    def found(older: Trainings | None = None, **promotion: Any) -> compare.Found:
        count = promotion.get("repeats", 1)
        before, after, repeats = (
            (*sides, []) if count == 1 else (sides[0], sides[0], [sides[1]] * (count - 1))
        )
        changed = with_promotion(params, bootstrap=60, **promotion)
        return compare.compared(before, after, val, known, "v1", changed, repeats, older)

    return found


def test_a_student_may_lose_what_is_tolerated_and_no_more(params: Params, tmp_path: Path) -> None:
    """The product's own verdict at the very edge of both tolerances."""
    found = worsened(params, tmp_path)
    loose = found(ap_tolerance=100, class_tolerance=100)
    falls = {row.name: -row.difference for row in loose.classes if row.difference is not None}
    overall = -(loose.overall.difference or 0.0)
    most = max(falls, key=lambda name: falls[name])
    assert 0 < overall < falls[most] and sum(fall > 0 for fall in falls.values()) == 2
    assert all(fall == round(fall, 3) != round(fall) for fall in (overall, falls[most]))  # no round figures
    for ap, one_class, verdict, broken in (
        (overall, falls[most], "within_tolerance", set()),
        (overall - 0.001, falls[most], "worse", {"AP"}),
        (overall, falls[most] - 0.001, "worse", {most}),
        (0, 0, "worse", {"AP", *(name for name, fall in falls.items() if fall > 0)}),
    ):
        judged = found(ap_tolerance=ap, class_tolerance=one_class)
        names = {row.name for row in judged.classes if row.broken} | (
            {"AP"} if judged.overall.broken else set()
        )
        assert (judged.verdict, names) == (verdict, broken)


def test_each_figure_has_the_interval_of_its_own_draws(params: Params, tmp_path: Path) -> None:
    found = worsened(params, tmp_path)(ap_tolerance=100, class_tolerance=100)
    for row in (found.overall, *found.classes):
        if row.difference is None:
            assert row.low is None and row.high is None
        elif row.difference == 0:
            assert (row.low, row.high) == (0, 0)
        else:
            assert row.low is not None and row.high is not None
            assert row.low < row.difference < row.high <= 0


def test_means_over_trainings_are_compared(params: Params, tmp_path: Path) -> None:
    """The student finds every object, as v1 does; with two other seeds it overlooks some."""
    found = worsened(params, tmp_path)
    single = found(ap_tolerance=100, class_tolerance=100)
    low, name = single.overall.candidate, "banana"
    banana = next(row for row in single.classes if row.name == name)
    assert low is not None and banana.candidate is not None and low < 100
    mean, one_class = round((100 + 2 * low) / 3, 3), round((100 + 2 * banana.candidate) / 3, 3)
    at = {"repeats": 3, "class_tolerance": 100}
    judged = found(**at, ap_tolerance=round(100 - mean, 3))
    assert judged.overall.candidate == pytest.approx(mean) and judged.verdict == "within_tolerance"
    assert found(**at, ap_tolerance=round(100 - mean - 0.001, 3)).verdict == "worse"
    row = next(row for row in judged.classes if row.name == name)
    assert row.candidate == pytest.approx(one_class) and row.baseline == 100
    assert judged.trainings is not None
    assert [100, low, low] == judged.trainings.AP
    assert judged.trainings.classes[banana.category_id] == [100, banana.candidate, banana.candidate]
    # The two models are the same here, so over all draws of the images they don't differ.
    assert judged.overall.low == judged.overall.high == judged.overall.difference
    assert judged.reasons[-1].startswith(f"AP over 3 trainings (seeds 0 to 2): {mean:.2f} ± ")
    assert judged.reasons[-1].endswith("The mean is compared with the AP of v1, which was trained once.")


def test_the_promoted_models_own_mean_counts_if_it_was_measured_alike(params: Params, tmp_path: Path) -> None:
    found = worsened(params, tmp_path)
    older = found(repeats=3).trainings  # of a model that finds every object, as v1 does
    assert older is not None
    judged = found(older, repeats=2)
    assert judged.overall.baseline == older.mean() and judged.trainings is not None
    assert judged.overall.candidate == judged.trainings.mean()
    assert judged.verdict == "better" and (judged.overall.difference or 0) > 0
    assert "compared with that of the 3 trainings of v1." in judged.reasons[-1]
    other = older.model_copy(update={"AP": [99.999, *older.AP[1:]]})
    judged = found(other, repeats=2)
    assert judged.overall.baseline == 100 and "of v1 alone: its 3 trainings" in judged.reasons[-1]
    # A student that is trained once is compared as ever.
    assert found(older) == found()


def test_each_training_has_the_ap_that_evaluate_gives_it(params: Params) -> None:
    # Of a handful of steps from random weights nothing is found.
    trained = params.student.model_copy(update={"start": "teacher", "steps": 60})
    params = params.model_copy(update={"student": trained})
    for step in ("train_student", "evaluate"):
        run_step(step, params, WORKSPACE)
    expected = [details("student")["scores"]["AP"]]
    several = with_promotion(params, repeats=3, bootstrap=20)
    run_step("train_repeats", several, WORKSPACE)
    alone = compared(several)
    promote("teacher")
    found = compared(several)
    content = json.loads((WORKSPACE / "comparison/comparison.json").read_text())
    compare.run(params, WORKSPACE)
    single = json.loads((WORKSPACE / "comparison/comparison.json").read_text())
    assert content.keys() - single.keys() == {"trainings"}
    for seed in (1, 2):
        shutil.rmtree(WORKSPACE / "student")
        shutil.copytree(WORKSPACE / f"repeats/seed-{seed}", WORKSPACE / "student")
        run_step("evaluate", params, WORKSPACE)
        expected.append(details("student")["scores"]["AP"])
    assert len(set(expected)) == 3 and min(expected) > 0  # else it would show nothing
    for one in (alone, found):
        assert one.trainings is not None and [*expected] == one.trainings.AP
        assert one.overall.candidate == round(sum(expected) / 3, 3)
        assert "AP over 3 trainings (seeds 0 to 2): " in one.reasons[-1]
    assert (alone.verdict, alone.overall.baseline) == ("first", None)
    assert found.overall.baseline == details("teacher")["scores"]["AP"]


def test_the_same_inputs_give_the_same_bytes_and_a_killed_run_goes_on(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote("teacher")
    few = with_promotion(params, bootstrap=10)
    with monkeypatch.context() as patch:
        patch.setattr(compare, "matches_of", _stop)
        with pytest.raises(KeyboardInterrupt):
            compare.run(few, WORKSPACE)
    parts = sorted(WORKSPACE.glob("runs/compare/predictions-*/part-*.parquet"))
    assert len(parts) == 3
    assert not (WORKSPACE / "comparison").exists()
    with monkeypatch.context() as patch:
        patch.setattr(compare.KnownFinder, "_batch", _stop)  # nothing is predicted again
        compare.run(few, WORKSPACE)
    first = folder_hash(WORKSPACE / "comparison")
    assert not list(WORKSPACE.glob("runs/compare/*/"))
    compare.run(few, WORKSPACE)
    assert folder_hash(WORKSPACE / "comparison") == first


def _stop(*_: Any) -> None:
    raise KeyboardInterrupt


def test_without_draws_there_are_no_intervals(params: Params) -> None:
    promote("teacher")
    found = compared(with_promotion(params, bootstrap=0))
    assert found.draws == 0 and found.overall.difference is not None
    assert {found.overall.low, *(row.high for row in found.classes)} == {None}


def test_classes_that_one_model_lacks_are_left_out_and_told(params: Params) -> None:
    """The older model knew `blob`, not `banana`, and had other ids."""
    teacher = json.loads((WORKSPACE / "teacher" / META).read_text())
    older = [
        {"name": "blob" if row["name"] == "banana" else row["name"], "id": row["id"] + 50}
        for row in teacher["categories"]
    ]
    promote("teacher", categories=older)
    found = compared(with_promotion(params, bootstrap=5))
    assert [row.name for row in found.classes] == ["apple", "pear", "strawberry"]
    assert (found.only_baseline, found.only_candidate) == (["blob"], ["banana"])
    assert (
        "Compared over the classes that both know, 3: v1 doesn't know banana; the new model doesn't know blob."
        in (found.reasons)
    )
    for key, model in (("baseline", "teacher"), ("candidate", "student")):
        true = {row["name"]: row["AP"] for row in details(model)["per_class"] if row["name"] != "banana"}
        assert {row.name: getattr(row, key) for row in found.classes} == true
        known = [ap for ap in true.values() if ap is not None]
        assert getattr(found.overall, key) == pytest.approx(sum(known) / len(known), abs=2e-3)


def test_models_without_a_common_class_cannot_be_told_apart(params: Params) -> None:
    teacher = json.loads((WORKSPACE / "teacher" / META).read_text())
    promote("teacher", categories=[row | {"name": row["name"] * 2} for row in teacher["categories"]])
    found = compared(params)
    assert found.verdict == "unknown"
    assert "no class is known to both" in found.reasons[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "damaged, or edited by hand"),
        ('{"version": "v1"}', "version and model go together"),
        ('{"version": "3", "model": null}', "version: String should match pattern"),
        ('{"version": null, "modell": null}', "modell: Extra inputs are not permitted"),
    ],
)
def test_a_damaged_baseline_is_named(params: Params, text: str, said: str) -> None:
    BASELINE.write_text(text)
    with pytest.raises(TaskError, match=said) as error:
        compare.run(params, WORKSPACE)
    assert "registry/baseline.json" in str(error.value) and "git checkout" in str(error.value)


def test_a_missing_baseline_says_what_it_holds(params: Params) -> None:
    BASELINE.unlink()
    with pytest.raises(TaskError, match=r'before the first promotion it holds \{"version": null\}'):
        compare.run(params, WORKSPACE)


def test_a_model_that_is_not_here_or_changed_is_not_used(params: Params) -> None:
    promote("teacher")
    (Path("registry/v1/model") / META).write_text("{}")
    with pytest.raises(TaskError, match=r"expected .*remove the folder.*points2model run"):
        compare.run(params, WORKSPACE)
    shutil.rmtree("registry/v1/model")
    with pytest.raises(TaskError, match=r"the model of v1 isn't here.*dvc pull registry/v1/model.dvc"):
        compare.run(params, WORKSPACE)
    assert not (WORKSPACE / "comparison").exists()
