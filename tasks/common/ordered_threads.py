"""Work on CPU threads beside the main one: one image's masks become run lengths while the network sees the next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

THREADS = 2
MOST_BYTES = 1 << 29
"""That jobs may hold while they wait; a single one may hold more."""


def beside(
    jobs: Iterable[tuple[int, Callable[[], Result]]], threads: int = THREADS, most_bytes: int = MOST_BYTES
) -> Iterator[Result]:
    """Results of jobs, in their order, each done by a thread while the next job is prepared.

    Args:
        jobs: the bytes that a job holds until it is done, and the job. It is asked for the next one only while those
            that wait hold `most_bytes` or less, so that memory doesn't grow where threads are slower.
        threads: that work beside this one.
        most_bytes: see `jobs`.

    Raises:
        Whatever a job, or the iterable, raises; no job is begun after that.
    """
    waiting: deque[tuple[int, Future[Result]]] = deque()
    held = 0
    pool = ThreadPoolExecutor(threads, thread_name_prefix="beside")
    try:
        for size, job in jobs:
            waiting.append((size, pool.submit(job)))
            held += size
            del job  # else the last one's masks would stay until the next is there
            while waiting and (held > most_bytes or waiting[0][1].done()):
                size, done = waiting.popleft()
                held -= size
                yield done.result()
        while waiting:
            yield waiting.popleft()[1].result()
    finally:
        pool.shutdown(cancel_futures=True)
