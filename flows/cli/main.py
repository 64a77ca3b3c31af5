"""The command `points2model`: its subcommands, and how it ends where its output can't be written."""

from __future__ import annotations

import _thread
import errno
import os
import signal
import sys
from pathlib import Path
from typing import Any, TextIO

import typer

from data.messages import guard_logs, plain
from flows.cli import (
    budget,
    doctor,
    evaluate,
    experiments,
    export,
    init,
    operate,
    points,
    predict,
    registry,
    remote,
    reports,
    review,
    run,
    split,
    use,
)
from flows.cli.console import Command
from flows.cli.labels import suggest
from tasks.common import disk
from tasks.common.installed_tool import FILE

app = typer.Typer(
    name="points2model",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


@app.callback()
def _begin() -> None:
    """Point labels in, a trained instance-segmentation model out."""
    guard_logs()


# In the order of --help. Their modules import only what --help needs; the rest is imported by their bodies.
for function, example in (
    (init.init, init.INIT_EXAMPLE),
    (init.plan, init.PLAN_EXAMPLE),
    (run.run, run.EXAMPLE),
    (run.demo, run.DEMO_EXAMPLE),
    (doctor.doctor, doctor.EXAMPLE),
    (use.use, use.EXAMPLE),
    (split.split, split.EXAMPLE),
    (points.import_points, points.EXAMPLE),
    (registry.models, registry.MODELS_EXAMPLE),
    (registry.promote, registry.PROMOTE_EXAMPLE),
    (registry.rollback, registry.ROLLBACK_EXAMPLE),
    (predict.predict, predict.EXAMPLE),
    (evaluate.evaluate, evaluate.EXAMPLE),
    (export.export, export.EXAMPLE),
    (review.review, review.EXAMPLE),
    (suggest.suggest, suggest.EXAMPLE),
    (budget.budget, budget.EXAMPLE),
    (experiments.experiments, experiments.EXAMPLE),
    (remote.remote, remote.EXAMPLE),
    (remote.push, remote.PUSH_EXAMPLE),
    (reports.reports, reports.EXAMPLE),
    (operate.serve, operate.SERVE_EXAMPLE),
    (operate.watch, operate.WATCH_EXAMPLE),
    (predict.import_checkpoint, predict.IMPORT_EXAMPLE),
):
    app.command(cls=Command, epilog=example)(function)


def main() -> None:
    """Runs the command. Where its output can't be written, or a disk is full, it ends with code 1 and a message."""
    errors = Output(sys.stderr, None)
    output = Output(sys.stdout, errors)
    sys.stdout, sys.stderr = output, errors
    code: Any = 1
    try:
        if (Path.cwd() / FILE).is_file():  # a folder of the project called `data` mustn't hide ours
            os.environ["PYTHONSAFEPATH"] = "1"
        app()
    except SystemExit as ended:
        code = ended.code
    except Exception as error:
        message = disk.explain(error, Path("workspace")) or _lost_folder()
        if message is None:
            raise
        print(plain(f"failed {message}"), file=sys.stderr)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the interrupt of a closed pipe has no effect from here on
    output.flush()
    sys.exit(1 if output.lost is not None else code)


def _lost_folder() -> str | None:
    try:
        Path.cwd()
    except FileNotFoundError:
        return "the current folder is gone: it was removed or replaced; cd to the project's folder"
    return None


class Output:
    """A stream that raises no error if it can't be written.

    A closed pipe (`| head -1`) interrupts the command, as Ctrl-C does. After any other error, such as a full disk, a
    message is written to the other stream, and the command goes on without this one.

    Args:
        stream: stdout or stderr.
        other: takes the message; without it there is none.
    """

    def __init__(self, stream: TextIO, other: Output | None) -> None:
        self._stream, self._other = stream, other
        self.lost: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes; what can't be written is dropped."""
        if self.lost is None:
            try:
                return self._stream.write(text)
            except OSError as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Flushes."""
        if self.lost is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._lose(error)

    def _lose(self, error: OSError) -> None:
        self.lost = error
        # What is buffered is discarded, else closing the stream would raise again.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        if self._other is None:
            return
        if error.errno == errno.EPIPE:
            self._other.lost = error
            _thread.interrupt_main()
        else:
            self._other.write(
                f"failed output can't be written: {error.strerror}; free space there, or choose another place\n"
            )


if __name__ == "__main__":
    main()
