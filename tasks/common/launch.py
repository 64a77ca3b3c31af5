"""torchrun, with the same options, but with exit codes that are kept and without the long report of a failed process,
which has printed its own error. A step starts its processes with it (tasks/common/processes.py), and so may
`runtime.launcher`: `python -m tasks.common.launch`."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main


def launch(arguments: list[str]) -> None:
    """Runs torchrun with these arguments; exits with the code of the process that failed first, or 128 + N where
    signal N ended it or this process."""
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    try:
        main(arguments)
    except SignalException as error:
        print("stopped; run the step again to go on", file=sys.stderr)
        sys.exit(128 + error.sigval)
    except ChildFailedError as error:
        index, failure = error.get_first_failure()
        if failure.exitcode < 0:  # killed: it printed nothing itself
            text = (
                f"process {index} was ended by {signal.Signals(-failure.exitcode).name}; SIGKILL often means too "
                "little memory. Run the step again to go on"
            )
            print(text, file=sys.stderr)
            if stage := os.environ.get("POINTS2MODEL_LAUNCHED"):
                # Not at the top: a step runs this file by its path, where `tasks` may not be found.
                from tasks.common import launcher

                launcher.record(Path("workspace/runs") / stage, text, 128 - failure.exitcode)
            sys.exit(128 - failure.exitcode)
        sys.exit(failure.exitcode or 1)


if __name__ == "__main__":
    launch(sys.argv[1:])
