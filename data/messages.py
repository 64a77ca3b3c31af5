"""Text for people out of text that isn't trusted: names of files, values of params.yaml, what a server said.

Every message of ours goes through `plain` where it becomes text (`data.errors.Fault`,
`tasks.common.errors.TaskError`, log records, the console), so that whoever writes one needn't think of it.
"""

from __future__ import annotations

import logging
import os
import re
import textwrap
import unicodedata
from collections.abc import Mapping
from typing import Any

HIDDEN = "*****"
LOGINS = (
    "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING", "POINTS2MODEL_AUTH", "POINTS2MODEL_REPORTS_AUTH",
)  # fmt: skip
SECRETS = (
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID", "PREFECT_API_KEY", "POINTS2MODEL_NOTIFY",
    *LOGINS,
)  # fmt: skip
"""Variables of the environment whose values are in no message; of `LOGINS`, user:password, the password alone too."""

_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's classes of what a terminal or log does something with, or shows nothing of: control characters (ESC),
formats (bidirectional overrides, zero width), lone surrogates, separators of lines and paragraphs."""

# Lengths are bounded, so that no text takes long. One slash is enough: a path that was an address has lost the other.
# A password may have any character but blanks, a user none of / ? # :. A number after the colon is a port only where
# the host can't be a user, or where the @ belongs to a picture's name (a@2x.png): rather too much is hidden.
_USER = re.compile(
    r"\b([a-z][a-z0-9+.-]{1,20}:/{1,3})"
    r"(?!(?:localhost|\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-f:.]{2,40}\]):\d{1,5}(?:[/?#\s\"']|$))"
    r"(?:[^\s\"'<>/?#:]{0,256}:(?!\d{1,5}/[^\s:@]{0,512}@[1-9]x\.(?:png|jpe?g|webp|gif|bmp|tiff?)\b)\S{0,512}"
    r"|[^\s\"'<>/?#]{0,512})@",
    re.I,
)
_QUERY = re.compile(
    r"((?:[?&;][^\s\"'<>=&;]{0,64}(?:sig|signature|token|key|keyid|password|passwd|pwd|secret|credential|auth|sas|code)"
    r"|\b(?:Account|SharedAccess)(?:Key|Signature))=)"
    r"[^\s\"'<>&;]+",
    re.I,
)
_HEADER = re.compile(
    r"(\bauthorization[\"']?\s{0,4}[:=,]\s{0,4}(?:b?[\"'])?)"
    r"(?:(?:basic|bearer|token|digest|negotiate)\s{1,4}[^\s\"'<>]+|aws4-\S+(?:\s[a-z]{1,20}=[^\s\"']+){1,4}|[^\s\"'<>]{16,})"
    r"|(\b(?:basic|bearer)\s{1,4})(?=[A-Za-z/._~-]{0,512}[0-9=+])[A-Za-z0-9+/=._~-]{8,}",
    re.I,
)
_WEBHOOK = re.compile(r"\b(https?://[^\s\"'<>]{0,256}?hook[^\s\"'<>/]{0,64}/)[^\s\"'<>]+", re.I)


def plain(text: str, *, lines: bool = False) -> str:
    """Text as it may be shown: characters that aren't seen are escaped as in Python's strings, secrets are hidden.

    Args:
        text: any text, lone surrogates among it.
        lines: line breaks and tabs stay, where the text is ours and may have several lines.
    """
    return _escaped(redact(text), lines)


def _escaped(text: str, lines: bool = False) -> str:
    if text.isprintable():
        return text
    return "".join(
        one.encode("unicode_escape").decode()
        if unicodedata.category(one) in _UNSEEN and not (lines and one in "\n\t")
        else one
        for one in text
    )


def redact(text: str) -> str:
    """Text without credentials: what stands before the @ of an address of whatever scheme; values of a query or of a
    connection string that sign or authorise; headers that do; what follows the host of a webhook; `SECRETS`."""
    for name in SECRETS:
        value = os.environ.get(name, "")
        for secret in (value, value.partition(":")[2] if name in LOGINS else ""):
            if len(secret) >= 8:
                text = text.replace(secret, HIDDEN)
    if ":/" in text:
        text = _USER.sub(rf"\1{HIDDEN}@", text)
        text = _WEBHOOK.sub(rf"\1{HIDDEN}", text)
    if "=" in text:
        text = _QUERY.sub(rf"\1{HIDDEN}", text)
    return _HEADER.sub(rf"\1\2{HIDDEN}", text)


class LogRecord(logging.LogRecord):
    """A log line that no name can break, with a traceback that shows no secret.

    Only an error of ours keeps its lines: its class has `has_lines`. Those of a traceback are indented.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        if self.exc_info:
            # Formatters take this in place of a text of their own.
            self.exc_text = _indented(logging.Formatter().formatException(self.exc_info))
        if self.stack_info:
            self.stack_info = _indented(self.stack_info)

    def getMessage(self) -> str:
        """The line."""
        text = _line(self.msg)
        if isinstance(self.args, Mapping):
            text %= {name: _argument(one) for name, one in self.args.items()}
        elif self.args:
            text %= tuple(map(_argument, self.args))
        return plain(text, lines=True)


class _Shown:
    """What stands for an argument of a log line: as a text it is one line, as a number it is itself."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __str__(self) -> str:
        return _line(self._value)

    def __repr__(self) -> str:
        return _escaped(repr(self._value))

    def __float__(self) -> float:
        return float(self._value)

    def __int__(self) -> int:
        return int(self._value)

    def __index__(self) -> int:
        return self._value.__index__()


def _argument(value: object) -> object:
    return (
        value if type(value) in (int, float, bool) else _line(value) if type(value) is str else _Shown(value)
    )


def _line(value: object) -> str:
    return _escaped(str(value), lines=getattr(type(value), "has_lines", False))


def _indented(text: str) -> str:
    return textwrap.indent(plain(text, lines=True), "  ")


def guard_logs() -> None:
    """All log lines of this process, of whatever library, are `plain` from now on."""
    logging.setLogRecordFactory(LogRecord)
