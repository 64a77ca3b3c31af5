"""Safe text from untrusted text: file names, values of params.yaml, replies of a server.

Each message passes through `plain` where it becomes text (`data.errors.Fault`, `tasks.common.errors.TaskError`, log
records, the console), so code that raises or logs need not call it.
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
"""Environment variables whose values no message shows; of `LOGINS` (user:password) neither the password alone."""

_ESCAPED = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories that a terminal interprets or doesn't show: control characters (ESC), formats (bidirectional
overrides, zero width), lone surrogates, line and paragraph separators."""

# Lengths are bounded, so the time is bounded for any text. One slash is enough: pathlib turns "//" of a URL into "/".
# A password has any characters but blanks; a user name none of / ? # :. A number after the colon counts as a port only
# if the host can't be a user name, or the @ belongs to an image name (a@2x.png). In doubt, text is hidden.
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
    """Text that is safe to show: invisible characters escaped as in Python strings, secrets hidden.

    Args:
        text: any text, also with lone surrogates.
        lines: keep line breaks and tabs, for text of our own.
    """
    return _escaped(redact(text), lines)


def _escaped(text: str, lines: bool = False) -> str:
    if text.isprintable():
        return text
    return "".join(
        one.encode("unicode_escape").decode()
        if unicodedata.category(one) in _ESCAPED and not (lines and one in "\n\t")
        else one
        for one in text
    )


def redact(text: str) -> str:
    """Text with credentials hidden.

    These are: the part of a URL before its @; keys and signatures in a query or a connection string; authorization
    headers; the path of a webhook URL; values of the variables `SECRETS`.
    """
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
    """A log record whose arguments can't add lines and whose traceback shows no secret.

    Only errors whose class sets `has_lines` keep their line breaks. Tracebacks are indented.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        if self.exc_info:
            # Formatters use this text if it is set.
            self.exc_text = _indented(logging.Formatter().formatException(self.exc_info))
        if self.stack_info:
            self.stack_info = _indented(self.stack_info)

    def getMessage(self) -> str:
        """The message with its arguments, safe to show."""
        text = _line(self.msg)
        if isinstance(self.args, Mapping):
            text %= {name: _argument(one) for name, one in self.args.items()}
        elif self.args:
            text %= tuple(map(_argument, self.args))
        return plain(text, lines=True)


class _Argument:
    """An argument of a log line: formatted as text it is one line, as a number it is unchanged."""

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
        value
        if type(value) in (int, float, bool)
        else _line(value)
        if type(value) is str
        else _Argument(value)
    )


def _line(value: object) -> str:
    return _escaped(str(value), lines=getattr(type(value), "has_lines", False))


def _indented(text: str) -> str:
    return textwrap.indent(plain(text, lines=True), "  ")


def guard_logs() -> None:
    """Make all log lines of this process `plain`, those of libraries too."""
    logging.setLogRecordFactory(LogRecord)
