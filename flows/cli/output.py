"""Standard output that is lost, because its reader is gone or its disk is full: no traceback, and no lost run."""

from __future__ import annotations

import _thread
import errno
import os
import sys
from typing import Any, TextIO


class Output:
    """A stream whose loss is no error of whoever writes to it.

    Where its reader is gone (`| head -1`) the command is interrupted, as by Ctrl-C, and says no more. Where it can't be
    written (a full disk), that is said once on the other stream, and the command goes on: what it computes is worth
    more than its lines.

    Args:
        stream: stdout or stderr.
        other: takes the message; without it the loss is silent.
    """

    def __init__(self, stream: TextIO, other: Output | None) -> None:
        self._stream, self._other = stream, other
        self.lost: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """As a stream's; what can't be written is dropped."""
        if self.lost is None:
            try:
                return self._stream.write(text)
            except OSError as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        """As a stream's."""
        if self.lost is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._lose(error)

    def _lose(self, error: OSError) -> None:
        self.lost = error
        # What the stream still holds goes nowhere, else its end would raise again.
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
                f"failed output can't be written: {error.strerror}; free space there, or name another\n"
            )


def guard() -> Output:
    """Standard output and error as `Output`; returns the former."""
    errors = Output(sys.stderr, None)
    output = Output(sys.stdout, errors)
    sys.stdout, sys.stderr = output, errors
    return output
