"""The start of a step's process, `python -m tasks.STAGE`, without looking for garbage.

Importing torch makes a million objects, of which none is garbage; Python looks through them again and again, for a
quarter of the time until the step begins. This module is the first of ours that runs: `tasks/__init__.py` imports it.
"""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """For work whose objects stay: nobody looks for garbage meanwhile."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def end() -> None:
    """The step begins. What was made until now stays to the end of the process."""
    gc.freeze()
    gc.enable()


# While Python looks for the module that it shall run, sys.argv has no path yet. Another program that imports this
# package has its own idea of its garbage.
if sys.argv[:1] == ["-m"] and re.search(r" -m tasks\.\w+( |$)", " ".join(sys.orig_argv)):
    gc.disable()
