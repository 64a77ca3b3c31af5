"""Prefect's command line in a process that is gone when its command has ended; flows/serve.py starts the server so.

Prefect 3.8 keeps its queues in a library with threads of its own, for which the interpreter may wait at its end: all is
closed and written, "Server stopped!" is said, and the process stays until someone kills it. Run as a script, with -P:
the folder is no place to import from.
"""

from __future__ import annotations

import os
import sys
import traceback


def main() -> None:
    """Runs the command of our arguments, such as `server start`, and ends the process with its exit code."""
    code: object = 0
    try:
        from prefect.cli import app

        app()
    except SystemExit as end:
        code = end.code
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    main()
