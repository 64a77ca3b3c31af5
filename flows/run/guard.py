"""What stands around a flow run: it has the workspace alone, and says which earlier runs of it have died."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from prefect import get_client, get_run_logger
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Crashed

from flows.dvc.records import repair
from flows.processes import run_lock
from flows.processes.children import begin, stop_all
from flows.processes.run_lock import Holder
from flows.run import notices


@contextmanager
def alone(root: Path, reason: str) -> Iterator[None]:
    """The body of a flow run: waits until no other run is under way in the project at `root`; ends its children when it
    is ended itself.

    Runs that died without a word (their process was killed, and the worker too) are Crashed in Prefect from here on.
    """
    log = get_run_logger()
    with run_lock.held(root, reason, wait=True, say=log.warning) as taken:
        # Asked once: each is a question to the server.
        run_id, name = str(flow_run.id), str(flow_run.name)
        url = flow_run.ui_url  # without an address where the temporary server has no UI
        taken.name(run_id, name, url if url and url.startswith("http") else None)
        if taken.died:
            taken.keep_unreported(_tell_crashed([one for one in taken.died if one.run_id != run_id]))
        begin()
        for line in repair(root):
            log.warning("%s", line)
        try:
            yield
        except BaseException:
            stop_all()
            raise


def _tell_crashed(died: list[Holder]) -> list[Holder]:
    """Makes these runs Crashed in Prefect, unless they have ended there; returns those that couldn't be told."""
    log = get_run_logger()
    still: list[Holder] = []
    for one in died:
        try:
            if _make_crashed(UUID(str(one.run_id)), f"its process was killed: {one}"):
                log.warning("%s", f"an earlier run was killed, and is Crashed now: {one}")
                notices.tell("Crashed", "its process was killed", one.run_name, one.url)
        except ObjectNotFound:
            pass  # another server's, or deleted
        except Exception as error:  # the server is away: the next run tries again
            log.warning("%s", f"an earlier run was killed, which Prefect couldn't be told ({error}): {one}")
            still.append(one)
    return still


def _make_crashed(run_id: UUID, message: str) -> bool:
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run_id).state
        if state is None or state.is_final():
            return False
        client.set_flow_run_state(run_id, Crashed(message=message), force=True)
        mine = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
        for task in client.read_task_runs(flow_run_filter=mine):
            if task.state is not None and not task.state.is_final():
                with contextlib.suppress(ObjectNotFound):
                    client.set_task_run_state(task.id, Crashed(message=message), force=True)
    return True
