"""The server's limit on stages that want a GPU: as many at once as there are GPUs, across all runs.

`python -m flows.run.gpu_limit` makes sure that the limit is there; it is the same as
`prefect concurrency-limit create gpu 1`, but leaves a limit alone that somebody has set.
"""

from __future__ import annotations

import sys

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound

from flows.run.server import lets_us_in, no_answer
from tasks.common.errors import TaskError

GPU_TAG = "gpu"
"""Stages with `meta: {gpu: true}` in dvc.yaml carry it."""


def ensure_gpu_limit(slots: int = 1) -> int:
    """Limits stages with the tag `gpu` to `slots` at once, unless the server has a limit for them already.

    Without one any number would run at once: Prefect takes a tag that no limit names as free. A killed worker's
    slot is free again after a minute, when its lease ends.

    Returns:
        The limit that holds now.

    Raises:
        httpx.HTTPError: the server can't be reached.
    """
    with get_client(sync_client=True) as client:
        try:
            return client.read_concurrency_limit_by_tag(GPU_TAG).concurrency_limit
        except ObjectNotFound:
            client.create_concurrency_limit(tag=GPU_TAG, concurrency_limit=slots)
    return slots


if __name__ == "__main__":
    try:
        if not lets_us_in():
            raise no_answer()
        print(f"stages with the tag {GPU_TAG!r}: {ensure_gpu_limit()} at once")
    except TaskError as error:
        sys.exit(str(error))
