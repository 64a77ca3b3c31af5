"""Jobs on CPU threads while the main one goes on: an image's masks are encoded while the network runs on the next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

THREADS = 2
MOST_BYTES = 1 << 29
"""Memory of all pending jobs; a single one may use more."""


def ordered_thread_map(
    jobs: Iterable[tuple[int, Callable[[], Result]]], threads: int = THREADS, most_bytes: int = MOST_BYTES
) -> Iterator[Result]:
    """Results of jobs, in their order; threads run them while the next job is prepared.

    Args:
        jobs: (bytes, job): the memory that the job uses until it is done. The next one is taken only while pending jobs
            use at most `most_bytes`, so that memory doesn't grow if the threads are slower.
        threads: how many run jobs.
        most_bytes: see `jobs`.

    Raises:
        Any error of a job or of the iterable; no job is started after that.
    """
    waiting: deque[tuple[int, Future[Result]]] = deque()
    held = 0
    pool = ThreadPoolExecutor(threads, thread_name_prefix="ordered")
    try:
        for size, job in jobs:
            waiting.append((size, pool.submit(job)))
            held += size
            del job  # else its masks would be kept until the next job is there
            while waiting and (held > most_bytes or waiting[0][1].done()):
                size, done = waiting.popleft()
                held -= size
                yield done.result()
        while waiting:
            yield waiting.popleft()[1].result()
    finally:
        pool.shutdown(cancel_futures=True)
