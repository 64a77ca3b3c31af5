"""When a round begins and how it ends: the baseline moves, a candidate is promoted or refused, another one comes back.

A round is one training of the student and its comparison with the model that was promoted when it began. Everything
here may be done twice: what was done already isn't done again, and what a kill left half-done is completed. The callers
see to it that no other run is under way (flows/processes/run_lock.py).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flows.dvc.lock import read_manifest
from flows.dvc.repo import DvcRepo
from flows.registry import git, versions
from flows.registry.provenance import code_of, inputs_of, who
from tasks.common.config import Params, load_params
from tasks.common.errors import TaskError
from tasks.common.stage_main import WORKSPACE, read_json
from tasks.promotion.baseline import BASELINE, REGISTRY, folder_hash
from tasks.promotion.registry import Action, Decision, Entry, Event, Promoted, Registry, now
from tasks.promotion.rule import PROMOTABLE, WORDS, Comparison, read_comparison

TRAINS, COMPARES = "train_student", "compare"
"""The stages that a round is about."""
STUDENT = "student"


@dataclass(frozen=True)
class Outcome:
    """What became of a candidate: `decision` is promoted, refused, rolled back, or none where nothing was decided anew;
    the version that it is about, None where it has none; all of it in words."""

    decision: str
    version: str | None
    text: str


def begin_round(repo: DvcRepo, names: Collection[str], force: Collection[str]) -> str | None:
    """Before the stages `names` run: moves the baseline to the promoted model if a new round begins.

    It does where the student will be trained anew, and not to make again one that was lost. And where there is a
    student that nobody has decided on, trained by a plain `dvc repro`: it is to be compared with what is promoted now;
    but not if it started from the baseline, since that would train it anew. Sees to it that the baseline's model is
    here where a stage will need it.

    Returns:
        What was done, in words; None for nothing.

    Raises:
        TaskError: a file of the registry is damaged, or the model can't be had.
    """
    registry = Registry(repo.root / REGISTRY)
    if TRAINS not in names or COMPARES not in repo.stages() or not registry.root.is_dir():
        return None
    baseline, promoted = registry.baseline(), registry.promoted().version
    said = None
    if promoted not in (None, baseline.version):
        above = repo.graph(TRAINS)
        if (
            not set(above).isdisjoint(force)
            or not repo.makes_the_same(list(above))
            or _undecided(repo, registry)
        ):
            assert promoted is not None
            registry.write_baseline(promoted)
            said = f"a new round begins: the student will be compared with {promoted}"
            baseline = registry.baseline()
    if baseline.version is not None and baseline.model is not None and not repo.all_done(list(names)):
        try:
            versions.fetch(repo.root, baseline.version, baseline.model)
        except TaskError as error:
            raise TaskError(
                f'{error}. To go on without it, write {{"version": null}} into {registry.root / BASELINE}'
            ) from None
    return said


def is_settled(repo: DvcRepo, names: Collection[str]) -> bool:
    """Whether a run of the stages `names`, all up to date, would neither begin a round nor decide on a student.

    Raises:
        TaskError: the registry or the comparison is damaged.
    """
    registry = Registry(repo.root / REGISTRY)
    if TRAINS not in names or COMPARES not in names:
        return True
    promoted = registry.promoted()
    if promoted.version not in (None, registry.baseline().version) and _undecided(repo, registry):
        return False
    comparison = _comparison(repo.root)
    entry = registry.entry_of(comparison.model)
    manual = load_params(repo.root / "params.yaml").operate.promote == "manual"
    return _due(comparison, entry, promoted, manual) not in ("promote", "refuse", "finish")


def _undecided(repo: DvcRepo, registry: Registry) -> bool:
    manifest = read_manifest(repo.root, TRAINS)
    if manifest is None or load_params(repo.root / "params.yaml").student.start == "promoted":
        return False
    return registry.entry_of(str(manifest["outs"].get(f"{WORKSPACE}/{STUDENT}"))) is None


def decide(root: Path, reason: str) -> Outcome:
    """At a round's end: promotes the student or notes its refusal, as section `operate` and the comparison say.

    Args:
        root: the project's folder, whose report is up to date.
        reason: why the run was made.

    Raises:
        TaskError: the registry is damaged, DVC can't take the model.
    """
    params = load_params(root / "params.yaml")
    registry = Registry(root / REGISTRY)
    comparison = _comparison(root)
    entry = registry.entry_of(comparison.model)
    promoted = registry.promoted()
    due = _due(comparison, entry, promoted, params.operate.promote == "manual")
    version = entry.version if entry is not None else None
    if due == "refuse":
        return _refuse(root, params, comparison, reason)
    if due == "promote":
        entry = _enter(root, comparison, "promoted", version or registry.next_version(), reason)
        return _promote(root, params, entry, "promoted", reason)
    if due == "finish":
        assert entry is not None
        return _promote(root, params, entry, "promoted", entry.reason)
    if due == "outdated":
        text = (
            f"not decided: the student was compared with {comparison.baseline.version or 'nothing'}, and "
            f"{promoted.version} is promoted now; `points2model run --force {TRAINS}` begins a new round"
        )
        return Outcome("none", None, text)
    told = _verdict(comparison)
    if due == "wait":
        text = f"waits for `points2model promote` (operate.promote: manual): {told}"
    elif entry is not None and entry.decision == "promoted":
        text = f"nothing new: the student is {version}, {_place(entry, promoted)}"
    else:
        text = f"nothing new: {version} stays refused: {told}"
    return Outcome("none", version, text)


Due = Literal["nothing", "finish", "outdated", "refuse", "wait", "promote"]


def _due(comparison: Comparison, entry: Entry | None, promoted: Promoted, manual: bool) -> Due:
    """What is to be done with the present student: `finish` what a kill left half-done; `wait` for a person; nothing
    either where it is `outdated`, compared with another model than the one that is promoted."""
    if entry is not None and entry.decision == "promoted":
        return "nothing" if entry.version in {event.version for event in promoted.history} else "finish"
    if comparison.baseline.version != promoted.version:
        return "outdated"
    if comparison.verdict not in PROMOTABLE:
        return "refuse" if entry is None else "nothing"
    return "wait" if manual else "promote"


def _refuse(root: Path, params: Params, comparison: Comparison, reason: str) -> Outcome:
    told = _verdict(comparison)
    entry = _enter(root, comparison, "refused", Registry(root / REGISTRY).next_version(), reason)
    noted = _commit(root, params, f"Refuse {entry.version}: {told}", None)
    return Outcome("refused", entry.version, f"{entry.version} is refused: {told}{noted}")


def _place(entry: Entry, promoted: Promoted) -> str:
    if promoted.version == entry.version:
        return "which is promoted"
    return (
        f"which was promoted before, as {promoted.version} is now (`points2model rollback --to {entry.version}` "
        "brings it back)"
    )


def promote(root: Path, *, force: bool, reason: str) -> Outcome:
    """Promotes the present student by hand.

    Args:
        root: the project's folder.
        force: whatever the comparison says; recorded as such.
        reason: why, for the record.

    Raises:
        TaskError: it is refused (the text has the reasons), there is no comparison, the registry is damaged.
    """
    params = load_params(root / "params.yaml")
    registry = Registry(root / REGISTRY)
    comparison = _comparison(root)
    entry, promoted = registry.entry_of(comparison.model), registry.promoted().version
    if entry is not None and entry.version == promoted:
        return Outcome("none", promoted, f"the student is {promoted}, which is promoted already")
    against = comparison.baseline.version
    if not force and against != promoted and comparison.verdict in PROMOTABLE:
        raise TaskError(
            f"the student was compared with {against or 'nothing'}, but {promoted} is promoted now: compare it anew by "
            "`points2model run`, or promote it all the same with --force --reason TEXT"
        )
    good = comparison.verdict in PROMOTABLE and against == promoted
    if not good and not force:
        listed = "\n".join(f"  - {one}" for one in comparison.reasons)
        raise TaskError(
            f"refused, the student is {WORDS[comparison.verdict]}:\n{listed}\nPromote it all the same with --force "
            "--reason TEXT"
        )
    version = registry.next_version() if entry is None else entry.version
    entry = _enter(root, comparison, "promoted", version, reason)
    return _promote(root, params, entry, "promoted" if good else "forced", reason)


def roll_back(root: Path, to: str | None, reason: str) -> Outcome:
    """Makes a former promoted version the promoted one again; its model is checked out, byte for byte.

    Args:
        root: the project's folder.
        to: the version; None: the one before the present.
        reason: why, for the record.

    Raises:
        TaskError: there is no such version, it was never promoted, or its bytes are nowhere to be had.
    """
    registry = Registry(root / REGISTRY)
    promoted = registry.promoted()
    version = to or registry.former()
    if version is None:
        known = promoted.version and f"{promoted.version} is promoted, and none before it"
        raise TaskError(f"no version to go back to: {known or 'nothing is promoted'} (`points2model models`)")
    entry = registry.entry(version)
    if version == promoted.version:
        return Outcome("none", version, f"{version} is promoted already")
    if version not in {event.version for event in promoted.history}:
        raise TaskError(
            f"{version} was never promoted ({entry.decision}: {_verdict(entry.comparison)}), so its model wasn't kept; "
            "promote it with `points2model promote --force --reason TEXT` while it is the present student"
        )
    versions.fetch(root, version, entry.model)  # first: what can't be had isn't promoted
    registry.write_promotion(_event(root, version, "rolled back", reason))
    _keep_needed(root)
    noted = _commit(root, load_params(root / "params.yaml"), f"Roll back to {version}: {reason}", None)
    return Outcome(
        "rolled back", version, f"{version} is promoted again, instead of {promoted.version}{noted}"
    )


def _comparison(root: Path) -> Comparison:
    """That of the present student."""
    comparison = read_comparison(root / WORKSPACE)
    if folder_hash(root / WORKSPACE / STUDENT) != comparison.model:
        raise TaskError(
            f"{root / WORKSPACE}: the student isn't the one that was compared; bring both up to date by "
            "`points2model run`"
        )
    return comparison


def _enter(root: Path, comparison: Comparison, decision: Decision, version: str, reason: str) -> Entry:
    """Writes a version's entry; a promoted one's bytes go to DVC first, so that no entry is without."""
    inputs = inputs_of(root, DvcRepo(root).graph(COMPARES))
    entry = Entry(
        version=version,
        decision=decision,
        model=comparison.model,
        comparison=comparison,
        metrics=read_json(root / WORKSPACE / "evaluation" / "metrics.json", "evaluate"),
        data=inputs.data,
        params=inputs.params,
        code=code_of(root, inputs.sources),
        who=who(root),
        when=now(),
        reason=reason,
    )
    if decision == "promoted":
        versions.store(root, version, root / WORKSPACE / STUDENT, comparison.model)
    Registry(root / REGISTRY).write_entry(entry)
    return entry


def _promote(root: Path, params: Params, entry: Entry, action: Action, reason: str) -> Outcome:
    registry = Registry(root / REGISTRY)
    registry.write_promotion(_event(root, entry.version, action, reason))
    _keep_needed(root)
    told = _verdict(entry.comparison)
    by_force = " by force" * (action == "forced")
    noted = _commit(root, params, f"Promote {entry.version}{by_force}: {told}", entry.version)
    return Outcome("promoted", entry.version, f"{entry.version} is promoted{by_force}: {told}{noted}")


def _event(root: Path, version: str, action: Action, reason: str) -> Event:
    return Event(version=version, action=action, who=who(root), when=now(), reason=reason)


def _keep_needed(root: Path) -> None:
    registry = Registry(root / REGISTRY)
    versions.keep_only(root, {registry.promoted().version, registry.baseline().version})


def _commit(root: Path, params: Params, message: str, version: str | None) -> str:
    """What is to be added to an outcome's text."""
    if not params.operate.git:
        return ""
    try:
        done = git.commit(root, message, version, params.points.files)
    except git.GitError as error:
        return f" (not committed: {error}; commit {', '.join(git.PATHS)} yourself)"
    return f" ({done})" if done else ""


def _verdict(comparison: Comparison) -> str:
    """Verdict and reasons in one line."""
    return " ".join([f"{WORDS[comparison.verdict]}.", *comparison.reasons])
