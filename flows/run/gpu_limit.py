"""The server's limit on GPU stages across all runs.

`python -m flows.run.gpu_limit` is `prefect concurrency-limit create gpu 1`, but doesn't change an existing limit.
"""

from __future__ import annotations

import sys

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound

from flows.run.server import check_server
from tasks.common.errors import TaskError

GPU_TAG = "gpu"
"""The tag of stages with `meta: {gpu: true}` in dvc.yaml."""


def ensure_gpu_limit(slots: int = 1) -> int:
    """Limits stages with the tag `gpu` to `slots` at once, unless the server has a limit for them already.

    Without a limit Prefect runs any number at once. A killed worker's slot is free again after a minute, when its lease
    ends.

    Returns:
        The server's limit.

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
        check_server()
        print(f"stages with the tag {GPU_TAG!r}: {ensure_gpu_limit()} at once")
    except TaskError as error:
        sys.exit(str(error))
