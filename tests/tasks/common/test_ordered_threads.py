"""Order, bounded memory, and errors of work beside the main thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tasks.common.ordered_threads import ordered_thread_map


def test_results_come_in_the_order_of_the_jobs() -> None:
    def late(n: int) -> int:
        time.sleep(0.02 * (n % 3 == 0))
        return n

    assert list(ordered_thread_map(((1, partial(late, n)) for n in range(20)), threads=4)) == list(range(20))
    assert list(ordered_thread_map(iter(()))) == []


@pytest.mark.parametrize("size", [1, 3, 100])
def test_jobs_that_wait_hold_no_more_than_they_may(size: int) -> None:
    held, most = 0, 0
    lock = threading.Lock()

    def jobs() -> Iterator[tuple[int, Callable[[], None]]]:
        nonlocal held, most
        for _ in range(30):
            with lock:
                held += size
                most = max(most, held)
            yield size, job

    def job() -> None:
        nonlocal held
        time.sleep(0.002)
        with lock:
            held -= size

    assert len(list(ordered_thread_map(jobs(), threads=2, most_bytes=6))) == 30
    # One is prepared beyond those that wait.
    assert most <= max(6, size) + size


def test_an_error_of_a_job_or_of_what_makes_them_comes_through() -> None:
    def broken() -> None:
        raise ValueError("the job")

    def jobs() -> Iterator[tuple[int, Callable[[], None]]]:
        yield 1, lambda: None
        raise ValueError("the maker")

    with pytest.raises(ValueError, match="the job"):
        list(ordered_thread_map([(1, broken)] * 3))
    with pytest.raises(ValueError, match="the maker"):
        list(ordered_thread_map(jobs()))


def test_jobs_run_off_the_main_thread() -> None:
    names = list(ordered_thread_map((1, lambda: threading.current_thread().name) for _ in range(4)))
    assert all(name.startswith("ordered") for name in names)
