"""What surrounds a flow run: takes the run lock, stops its child processes, and marks earlier runs that were killed."""

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
def exclusive_run(root: Path, reason: str) -> Iterator[None]:
    """Holds the run lock of the project at `root` while the block runs, so that no other run is under way.

    Stops the child processes if the block raises. Marks earlier runs whose process and worker were killed as Crashed in
    Prefect.
    """
    log = get_run_logger()
    with run_lock.held(root, reason, wait=True, say=log.warning) as taken:
        # Once: each is a request to the server.
        run_id, name = str(flow_run.id), str(flow_run.name)
        url = flow_run.ui_url  # no address where the temporary server has no UI
        taken.name(run_id, name, url if url and url.startswith("http") else None)
        if taken.died:
            taken.keep_unreported(_mark_crashed([one for one in taken.died if one.run_id != run_id]))
        begin()
        for line in repair(root):
            log.warning("%s", line)
        try:
            yield
        except BaseException:
            stop_all()
            raise


def _mark_crashed(died: list[Holder]) -> list[Holder]:
    """Marks these runs as Crashed in Prefect, unless they have ended there; returns those for which that failed."""
    log = get_run_logger()
    failed: list[Holder] = []
    for one in died:
        try:
            if _make_crashed(UUID(str(one.run_id)), f"its process was killed: {one}"):
                log.warning("%s", f"an earlier run was killed, and is marked as Crashed: {one}")
                notices.send("Crashed", "its process was killed", one.run_name, one.url)
        except ObjectNotFound:
            pass  # another server's, or deleted
        except Exception as error:  # no connection to the server: the next run retries
            log.warning(
                "%s", f"an earlier run was killed, which can't be recorded in Prefect ({error}): {one}"
            )
            failed.append(one)
    return failed


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
