"""What was computed before isn't computed again: outputs that aren't here come from DVC's cache, then its remote.

Nothing damaged is used, see flows/dvc/damage.py: neither what lies here, nor what comes.
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary, ref

from dvc.repo import lock_repo
from dvc_data.hashfile.hash_info import HashInfo

from flows.dvc.damage import (
    DamageError,
    check_cached,
    check_objects,
    lost_data,
    note_whole,
    take_away_damaged,
)
from flows.dvc.missing import absent, check_out_missing, files_of, lacking, runs_of
from flows.dvc.remote import address, fetch, fetch_runs, probe
from flows.dvc.remote_config import Remote, RemoteError, default_remote
from flows.dvc.repo import DvcRepo

Say = Callable[[str], None]
ANSWER_SECONDS = 60.0
_fetchers: WeakKeyDictionary[DvcRepo, _Fetcher] = WeakKeyDictionary()


def bring_back(repo: DvcRepo, names: list[str], say: Say, *, pull: bool) -> list[str]:
    """Brings back what stages lack: their outputs, and the data under DVC that they read.

    Without a remote, or with `pull` false, from the cache alone. A remote is asked only where something is missing, or
    was damaged: that is taken away first.

    Args:
        repo: the repository.
        names: stages, each after those that it waits for.
        say: takes lines about what is fetched.
        pull: whether a remote may be asked, now and by `recall`.

    Returns:
        the paths brought back.

    Raises:
        RemoteError: something that dvc.lock says was made is missing, and the remote doesn't answer.
        DamageError: data under DVC are damaged, and no whole ones are to be had.
    """
    _fetchers[repo] = _Fetcher(repo, say, pull)
    return _fetchers[repo].bring_back(names)


def recall(repo: DvcRepo, name: str) -> None:
    """Brings what an earlier run of this stage with the same inputs made, wherever it ran, into the cache; and takes
    what is damaged of it away, since `dvc repro` restores what is there.

    After `bring_back`, and when the inputs are there. Where the remote doesn't answer it is said, and the stage runs.
    """
    if repo in _fetchers:
        _fetchers[repo].recall(name)


class _Fetcher:
    """What `bring_back` and `recall` of one run share: the remote, and whether its run-cache was asked."""

    def __init__(self, repo: DvcRepo, say: Say, pull: bool) -> None:
        # Not the repository itself: it is the key that this hangs on.
        self._ref, self._say = ref(repo), say
        self._remote: Remote | None = default_remote(repo.root) if pull else None
        self._runs_are_here = False

    @property
    def _repo(self) -> DvcRepo:
        repo = self._ref()
        assert repo is not None
        return repo

    def bring_back(self, names: list[str]) -> list[str]:
        repo = self._repo
        with lock_repo(repo.dvc):  # once: DVC reads all its files anew each time that it is taken
            damaged = take_away_damaged(repo, names, self._say)
            damaged += check_cached(repo, names, self._say)
            back = repo.restore_missing(names)
            lack = lacking(repo, names)
        if lack.outputs and self._remote is not None:
            self._reach()
            whole = self._fetch(lack.outputs, "what this checkout lacks")
            back += check_out_missing(repo, whole)
        if back:
            note_whole(repo, names, back)
        for path, pointer in lost_data(repo, names).items() if damaged or lack.outputs else ():
            raise DamageError(
                f"{path}: what {pointer} names is damaged, in DVC's cache or here, and {self._told()}; the damaged "
                f"one lies in .dvc/tmp/damaged. Lay a whole copy at {path} (other data: then `dvc add` them), or "
                "name a remote that has it (`points2model remote URL`), and run again"
            )
        return back

    def _told(self) -> str:
        if self._remote is None:
            return "no remote was asked"
        return f"remote {self._remote.name} ({self._remote.url}) has none that is whole"

    def recall(self, name: str) -> None:
        try:
            if self._remote is not None and not self._runs_are_here:
                self._runs_are_here = True
                self._reach()
                fetch_runs(self._repo.dvc)
        except RemoteError as error:
            self._go_on_without(name, error)
        made = runs_of(self._repo, name, self._say)
        for one in check_objects(self._repo.dvc, made):
            self._say(str(one))
        wanted = absent(self._repo, made)
        if self._remote is None or not wanted:
            return
        try:
            self._fetch({str(one.value): one for one in wanted}, f"an earlier run of {name}")
        except RemoteError as error:
            self._go_on_without(name, error)

    def _go_on_without(self, name: str, error: RemoteError) -> None:
        self._remote = None
        self._say(f"{name} runs here, whether or not it ran elsewhere: {error}")

    def _fetch(self, wanted: dict[str, HashInfo], what: str) -> list[str]:
        """Brings outputs, by path, into the cache; returns those that are whole there now."""
        assert self._remote is not None
        self._say(f"fetching {what} from {self._remote.name} ({self._remote.url})")
        objects = set(wanted.values())
        try:
            lists = fetch(self._repo.dvc, objects, self._say)
            done = fetch(self._repo.dvc, files_of(self._repo, objects), self._say)
        except RemoteError as error:
            raise self._unanswered(str(error), error.passing) from None
        self._say(f"fetched {lists.files + done.files} files, {(lists.bytes + done.bytes) / 1e6:.1f} MB")
        parts = {path: {one, *files_of(self._repo, {one})} for path, one in wanted.items()}
        for digest, fault in {**lists.damaged, **done.damaged}.items():
            of = sorted(path for path, ones in parts.items() if digest in {one.value for one in ones})
            folders = {str(one.value) for path in of for one in parts[path] if one.isdir} - {digest}
            listed = ", ".join(address(self._repo.dvc, one) for one in sorted(folders))
            self._say(
                f"{address(self._repo.dvc, digest)} in remote {self._remote.name} is damaged: {fault}, expected hash "
                f"{digest}, which it is named by; not used for {', '.join(of)}. Delete it there"
                + f", and the list of its folder ({listed})" * bool(listed)
                + ", then run `points2model push` where it is whole, as it is here when this run has ended well"
            )
        gone = lists.missing | done.missing | lists.damaged.keys() | done.damaged.keys()
        lost = [path for path, ones in parts.items() if any(one.value in gone for one in ones)]
        if lost:
            self._say(f"{', '.join(lost)}: not whole in {self._remote.name}; what makes it runs here")
        return [path for path in wanted if path not in lost]

    def _reach(self) -> None:
        """A server that doesn't answer is told in a minute; DVC itself would try for many."""
        assert self._remote is not None
        result = probe(self._repo.root, self._remote.name, None, ANSWER_SECONDS, write=False)
        if not result.readable:
            raise self._unanswered(str(result.error), result.passing)

    def _unanswered(self, why: str, passing: bool) -> RemoteError:
        assert self._remote is not None
        return RemoteError(
            f"remote {self._remote.name} ({self._remote.url}): {why}. It may hold what is missing here: mend that, or "
            "compute it anew with `points2model run --no-pull`",
            passing,
        )
