"""Rounds: when one begins, the baseline moves; when it ends, the candidate is promoted or refused. And roll-backs.

A round is one training of the student and its comparison with the model that was promoted when it began. Every function
can be repeated: finished steps are skipped, and what a kill interrupted is completed. The caller holds the run lock
(flows/processes/run_lock.py).
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
from tasks.common import tracking
from tasks.common.config import Params, load_params
from tasks.common.errors import TaskError
from tasks.common.stage_main import WORKSPACE, read_json
from tasks.promotion.baseline import BASELINE, REGISTRY, folder_hash, model_folder
from tasks.promotion.registry import Action, Decision, Entry, Event, Promoted, Registry, now
from tasks.promotion.rule import PROMOTABLE, WORDS, Comparison, read_comparison

TRAINS, COMPARES = "train_student", "compare"
"""The stages of a round."""
STUDENT = "student"


@dataclass(frozen=True)
class Outcome:
    """A decision: promoted, refused, rolled back, or none if there is no new one; the version, if there is one;
    a text that says why."""

    decision: str
    version: str | None
    text: str


def begin_round(repo: DvcRepo, names: Collection[str], force: Collection[str]) -> str | None:
    """Before the stages `names` run: moves the baseline to the promoted model if a new round begins.

    One begins if the student will be trained with other inputs, not if a lost student is only made again. One
    also begins if a plain `dvc repro` trained a student that isn't decided on, so that it is compared with the
    model promoted now; unless it started from the baseline, since moving that would train it again. Fetches the
    baseline's model if a stage needs it.

    Returns:
        What was done, in words; None for nothing.

    Raises:
        TaskError: a file of the registry is damaged, or the model can't be fetched.
    """
    registry, message = Registry(repo.root / REGISTRY), None
    if TRAINS not in names or not registry.root.is_dir():
        return None
    with repo.locked():
        if COMPARES not in repo.stages():
            return None
        baseline, promoted = registry.baseline(), registry.promoted().version
        if promoted not in (None, baseline.version) and _begins(repo, registry, force):
            assert promoted is not None
            registry.write_baseline(promoted)
            message = f"a new round begins: the student will be compared with {promoted}"
            baseline = registry.baseline()
        is_needed = baseline.version is not None and not repo.all_done(list(names))
    if is_needed and baseline.version is not None and baseline.model is not None:
        try:
            versions.fetch(repo.root, baseline.version, baseline.model)
        except TaskError as error:
            raise TaskError(
                f'{error}. To go on without it, write {{"version": null}} into {registry.root / BASELINE}'
            ) from None
    return message


def _begins(repo: DvcRepo, registry: Registry, force: Collection[str]) -> bool:
    above = repo.graph(TRAINS)
    return (
        not set(above).isdisjoint(force)
        or not repo.makes_the_same(list(above))
        or _undecided(repo, registry, load_params(repo.root / "params.yaml"))
    )


def is_decided(repo: DvcRepo, names: Collection[str], params: Params) -> bool:
    """Whether a run of the stages `names`, all up to date, would begin no round and decide on no student.

    Raises:
        TaskError: the registry or the comparison is damaged.
    """
    registry = Registry(repo.root / REGISTRY)
    if TRAINS not in names or COMPARES not in names:
        return True
    promoted = registry.promoted()
    if promoted.version not in (None, registry.baseline().version) and _undecided(repo, registry, params):
        return False
    comparison = _comparison(repo.root)
    entry = registry.entry_of(comparison.model)
    due = _due(comparison, entry, promoted, params.operate.promote == "manual")
    return due not in ("promote", "refuse", "finish")


def _undecided(repo: DvcRepo, registry: Registry, params: Params) -> bool:
    """Whether there is a student without a decision, which a new baseline wouldn't train again."""
    manifest = read_manifest(repo.root, TRAINS)
    if manifest is None or params.student.start == "promoted":
        return False
    return registry.entry_of(str(manifest["outs"].get(f"{WORKSPACE}/{STUDENT}"))) is None


def decide(root: Path, reason: str) -> Outcome:
    """At a round's end: promotes or refuses the student, by section `operate` and the comparison.

    Args:
        root: the project's folder, whose report is up to date.
        reason: why it ran.

    Raises:
        TaskError: the registry is damaged, or DVC can't add the model.
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
    verdict = _verdict(comparison)
    if due == "wait":
        text = f"waits for `points2model promote` (operate.promote: manual): {verdict}"
    elif entry is not None and entry.decision == "promoted":
        text = f"nothing new: the student is {version}, {_place(entry, promoted)}"
    else:
        text = f"nothing new: {version} stays refused: {verdict}"
    return Outcome("none", version, text)


Due = Literal["nothing", "finish", "outdated", "refuse", "wait", "promote"]


def _due(comparison: Comparison, entry: Entry | None, promoted: Promoted, manual: bool) -> Due:
    """What to do with the current student: `finish` a promotion that a kill interrupted; `wait` for one by hand;
    nothing if it is `outdated`, compared with another model than the promoted one."""
    if entry is not None and entry.decision == "promoted":
        return "nothing" if entry.version in {event.version for event in promoted.history} else "finish"
    if comparison.baseline.version != promoted.version:
        return "outdated"
    if comparison.verdict not in PROMOTABLE:
        return "refuse" if entry is None else "nothing"
    return "wait" if manual else "promote"


def _refuse(root: Path, params: Params, comparison: Comparison, reason: str) -> Outcome:
    verdict = _verdict(comparison)
    entry = _enter(root, comparison, "refused", Registry(root / REGISTRY).next_version(), reason)
    committed = _commit(root, params, f"Refuse {entry.version}: {verdict}", None)
    return Outcome("refused", entry.version, f"{entry.version} is refused: {verdict}{committed}")


def _place(entry: Entry, promoted: Promoted) -> str:
    if promoted.version == entry.version:
        return "which is promoted"
    return (
        f"which was promoted before, as {promoted.version} is now (`points2model rollback --to {entry.version}` "
        "brings it back)"
    )


def promote(root: Path, *, force: bool, reason: str) -> Outcome:
    """Promotes the current student by hand.

    Args:
        root: the project's folder.
        force: promote it whatever the verdict is; recorded as such.
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
            f"the student was compared with {against or 'nothing'}, but {promoted} is promoted now: compare them with "
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
        to: the version; None: the one before the current one.
        reason: why, for the record.

    Raises:
        TaskError: there is no such version, it was never promoted, or its model can't be fetched.
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
            "promote it with `points2model promote --force --reason TEXT` while it is the current student"
        )
    versions.fetch(root, version, entry.model)  # first: if it fails, nothing is promoted
    registry.write_promotion(_event(root, version, "rolled back", reason))
    _keep_needed(root)
    params = load_params(root / "params.yaml")
    committed = _commit(root, params, f"Roll back to {version}: {reason}", None)
    tracking.promoted(params, root, version, entry.model, _folder(version))
    return Outcome(
        "rolled back", version, f"{version} is promoted again, instead of {promoted.version}{committed}"
    )


def _comparison(root: Path) -> Comparison:
    """The current student's comparison."""
    comparison = read_comparison(root / WORKSPACE)
    if folder_hash(root / WORKSPACE / STUDENT) != comparison.model:
        raise TaskError(
            f"{root / WORKSPACE}: the student isn't the one that was compared; bring both up to date with "
            "`points2model run`"
        )
    return comparison


def _enter(root: Path, comparison: Comparison, decision: Decision, version: str, reason: str) -> Entry:
    """Writes a version's entry; a promoted model is added to DVC before, so that no entry lacks its model."""
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
    verdict = _verdict(entry.comparison)
    by_force = " by force" * (action == "forced")
    committed = _commit(root, params, f"Promote {entry.version}{by_force}: {verdict}", entry.version)
    tracking.promoted(params, root, entry.version, entry.model, _folder(entry.version))
    return Outcome("promoted", entry.version, f"{entry.version} is promoted{by_force}: {verdict}{committed}")


def _event(root: Path, version: str, action: Action, reason: str) -> Event:
    return Event(version=version, action=action, who=who(root), when=now(), reason=reason)


def _folder(version: str) -> Path:
    return model_folder(Path(REGISTRY), version)


def _keep_needed(root: Path) -> None:
    registry = Registry(root / REGISTRY)
    versions.keep_only(root, {registry.promoted().version, registry.baseline().version})


def _commit(root: Path, params: Params, message: str, version: str | None) -> str:
    """Commits, where operate.git is true; returns an addition to the outcome's text."""
    if not params.operate.git:
        return ""
    try:
        done = git.commit(root, message, version, params.points.files, params.review.decisions)
    except git.GitError as error:
        return f" (not committed: {error}; commit {', '.join(git.PATHS)} yourself)"
    return f" ({done})" if done else ""


def _verdict(comparison: Comparison) -> str:
    """Verdict and reasons in one line."""
    return " ".join([f"{WORDS[comparison.verdict]}.", *comparison.reasons])
