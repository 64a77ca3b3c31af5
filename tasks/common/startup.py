"""Work whose objects stay, such as the import of torch, with garbage collection off: a quarter of a step's start.

Python searches all objects for garbage each time that there are a quarter more of them, and imports make hundreds of
thousands, hardly any of them garbage. `tasks/__init__.py` imports this module, so it is the first of ours that a step's
process, `python -m tasks.STAGE`, executes.
"""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock


class _Off:
    """How many threads have turned collection off, and whether it was on before the first of them."""

    lock = Lock()
    count = 0
    was_on = False
    starting = False


@contextmanager
def gc_off() -> Iterator[None]:
    """Garbage collection is off in the body; afterwards it is as it was. Several threads may do so at once."""
    with _Off.lock:
        if _Off.count == 0:
            _Off.was_on = gc.isenabled()
            gc.disable()
        _Off.count += 1
    try:
        yield
    finally:
        with _Off.lock:
            _Off.count -= 1
            if _Off.count == 0 and _Off.was_on:
                gc.enable()


def end() -> None:
    """The step begins: collection is on again, without the objects that there are, which stay to the end. Nothing in a
    process that is no step's."""
    if _Off.starting:
        _Off.starting = False
        gc.freeze()
        gc.enable()


# While Python looks for the module of `-m`, sys.argv begins with "-m", and has the module's arguments.
if sys.argv[:1] == ["-m"] and re.fullmatch(r"tasks\.\w+", sys.orig_argv[-len(sys.argv)]):
    _Off.starting = True
    gc.disable()
