"""Outputs that this checkout lacks are restored from DVC's cache, or fetched from its remote, before stages run.

Nothing damaged is used, neither from this machine nor from the remote: see flows/dvc/objects.py.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary, ref

from dvc.repo import lock_repo
from dvc_data.hashfile.hash_info import HashInfo

from flows.dvc.damage import check_cached, lost_data, note_whole, remove_damaged
from flows.dvc.missing import check_out_missing, find_missing, runs_of
from flows.dvc.objects import DamageError, Say, absent, check_objects, files_of
from flows.dvc.probe import probe
from flows.dvc.remote import Transfer, address, fetch, fetch_runs
from flows.dvc.remote_config import Remote, RemoteError, default_remote
from flows.dvc.repo import DvcRepo

RESPONSE_SECONDS = 60.0
_fetchers: WeakKeyDictionary[DvcRepo, _Fetcher] = WeakKeyDictionary()


def restore_outputs(repo: DvcRepo, names: list[str], say: Say, *, pull: bool) -> list[str]:
    """Restores or fetches missing outputs of the stages, and missing data under DVC that they read.

    Damaged outputs are removed first. A remote is used only if something is missing or damaged.

    Args:
        repo: the repository.
        names: stages, each after its upstream stages.
        say: called with lines about what is fetched.
        pull: whether to use the remote, here and in `fetch_earlier_run`; else only the cache.

    Returns:
        the paths that were restored or fetched.

    Raises:
        RemoteError: an output of dvc.lock is missing, and the remote can't be reached.
        DamageError: data under DVC are damaged, and neither the cache nor the remote has them whole.
    """
    _fetchers[repo] = _Fetcher(repo, say, pull)
    return _fetchers[repo].restore_outputs(names)


def fetch_earlier_run(repo: DvcRepo, name: str) -> None:
    """Fetches the outputs of an earlier run of this stage with the same inputs, on any machine, into the cache.

    Removes damaged ones, since `dvc repro` restores what the cache has. Call it after `restore_outputs`, when the
    stage's inputs are present. If the remote can't be reached, a line reports it and the stage runs.
    """
    if repo in _fetchers:
        _fetchers[repo].fetch_earlier_run(name)


class _Fetcher:
    """State of one run: the remote, and whether its run-cache was fetched."""

    def __init__(self, repo: DvcRepo, say: Say, pull: bool) -> None:
        # A weak reference, since the repository is the key of this object in `_fetchers`.
        self._ref, self._say = ref(repo), say
        self._remote: Remote | None = default_remote(repo.root) if pull else None
        self._has_runs = False

    @property
    def _repo(self) -> DvcRepo:
        repo = self._ref()
        assert repo is not None
        return repo

    def restore_outputs(self, names: list[str]) -> list[str]:
        repo = self._repo
        with lock_repo(repo.dvc):  # once: DVC reads all its files again each time that it takes the lock
            damaged = remove_damaged(repo, names, self._say)
            damaged += check_cached(repo, names, self._say)
            restored = repo.restore_missing(names)
            missing = find_missing(repo, names)
        if missing and self._remote is not None:
            self._check_remote()
            whole = self._fetch(missing, "what this checkout lacks")
            restored += check_out_missing(repo, whole)
        if restored:
            note_whole(repo, names, restored)
        if damaged or missing:
            self._check_data(names)
        return restored

    def _check_data(self, names: list[str]) -> None:
        used = "no remote was used"
        if self._remote is not None:
            used = f"remote {self._remote.name} ({self._remote.url}) doesn't have it whole"
        for path, pointer in lost_data(self._repo, names).items():
            raise DamageError(
                f"{path}: the data of {pointer} are damaged, in DVC's cache or here, and {used}; the damaged files are "
                f"kept in .dvc/tmp/damaged. Copy whole data to {path} (other data: then `dvc add` them), or set a "
                "remote that has them (`points2model remote URL`), and run again"
            )

    def fetch_earlier_run(self, name: str) -> None:
        try:
            if self._remote is not None and not self._has_runs:
                self._has_runs = True
                self._check_remote()
                fetch_runs(self._repo.dvc)
        except RemoteError as error:
            self._continue_without(name, error)
        made = runs_of(self._repo, name, self._say)
        for one in check_objects(self._repo.dvc, made):
            self._say(str(one))
        missing = absent(self._repo.dvc, made)
        if self._remote is None or not missing:
            return
        try:
            self._fetch({str(one.value): one for one in missing}, f"an earlier run of {name}")
        except RemoteError as error:
            self._continue_without(name, error)

    def _continue_without(self, name: str, error: RemoteError) -> None:
        self._remote = None
        self._say(f"{name} runs here, though its result may be in the remote: {error}")

    def _fetch(self, outputs: dict[str, HashInfo], what: str) -> list[str]:
        """Fetches outputs, by path, into the cache; returns the paths of those that are whole there now."""
        assert self._remote is not None
        self._say(f"fetching {what} from {self._remote.name} ({self._remote.url})")
        repo, objects = self._repo.dvc, set(outputs.values())
        try:
            lists = fetch(repo, objects, self._say)
            done = fetch(repo, files_of(repo, objects), self._say)
        except RemoteError as error:
            raise self._remote_error(str(error), error.passing) from None
        self._say(f"fetched {lists.files + done.files} files, {(lists.bytes + done.bytes) / 1e6:.1f} MB")
        parts = {path: {one, *files_of(repo, {one})} for path, one in outputs.items()}
        absent_there = set()
        for transfer in (lists, done):
            self._report_damage(transfer, parts)
            absent_there |= transfer.missing | transfer.damaged.keys()
        lost = [path for path, ones in parts.items() if any(one.value in absent_there for one in ones)]
        if lost:
            self._say(
                f"{', '.join(lost)}: not whole in {self._remote.name}; the stages that make it run here"
            )
        return [path for path in outputs if path not in lost]

    def _report_damage(self, transfer: Transfer, parts: dict[str, set[HashInfo]]) -> None:
        """Reports damaged objects of the remote. `parts`: the objects of each output, by its path."""
        assert self._remote is not None
        repo = self._repo.dvc
        for digest, fault in transfer.damaged.items():
            paths = sorted(path for path, ones in parts.items() if digest in {one.value for one in ones})
            folders = {str(one.value) for path in paths for one in parts[path] if one.isdir} - {digest}
            lists = ", ".join(address(repo, one) for one in sorted(folders))
            self._say(
                f"{address(repo, digest)} in remote {self._remote.name} is damaged: {fault}, expected hash {digest}, "
                f"as its name says; not used for {', '.join(paths)}. Delete it there"
                + f", and the list of its folder ({lists})" * bool(lists)
                + ", then run `points2model push` in a checkout that has it whole, such as this one after a good run"
            )

    def _check_remote(self) -> None:
        """Finds in a minute that a server doesn't respond; DVC itself tries for many minutes."""
        assert self._remote is not None
        result = probe(self._repo.root, self._remote.name, None, RESPONSE_SECONDS, write=False)
        if not result.readable:
            raise self._remote_error(str(result.error), result.passing)

    def _remote_error(self, why: str, passing: bool) -> RemoteError:
        assert self._remote is not None
        return RemoteError(
            f"remote {self._remote.name} ({self._remote.url}): {why}. It may have what is missing here: fix that, or "
            "compute it again with `points2model run --no-pull`",
            passing,
        )
