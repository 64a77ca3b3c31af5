"""Text for people out of text that isn't trusted: names of files, values of params.yaml, what a server said.

Every message of ours goes through `plain` where it becomes text (`data.errors.Fault`,
`tasks.common.errors.TaskError`, log records, the console), so that whoever writes one needn't think of it.
"""

from __future__ import annotations

import logging
import os
import re
import unicodedata

HIDDEN = "*****"
SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID", "POINTS2MODEL_NOTIFY")
"""Variables of the environment whose values are in no message."""

_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's classes of what a terminal or log does something with, or shows nothing of: control characters (ESC),
formats (bidirectional overrides, zero width), lone surrogates, separators of lines and paragraphs."""

# Lengths are bounded, so that no text takes long. One slash is enough: a path that was an address has lost the other.
# What follows the colon is a port, not a password, if it is a number that ends there.
_USER = re.compile(
    r"\b([a-z][a-z0-9+.-]{1,20}:/{1,3})"
    r"(?:[^\s\"'<>/?#@:]{1,256}:(?!\d{1,5}(?:[/?#\s\"']|$))[^\s\"'<>]{0,512}|[^\s\"'<>/?#]{0,512})@",
    re.I,
)
_QUERY = re.compile(
    r"([?&;][^\s\"'<>=&;]{0,64}(?:sig|signature|token|key|keyid|password|passwd|pwd|secret|credential|auth|sas|code)=)"
    r"[^\s\"'<>&;]+",
    re.I,
)
_WEBHOOK = re.compile(r"\b(https?://[^\s\"'<>]{0,256}?hook[^\s\"'<>/]{0,64}/)[^\s\"'<>]+", re.I)


def plain(text: str, *, lines: bool = False) -> str:
    """Text as it may be shown: characters that aren't seen are escaped as in Python's strings, secrets are hidden.

    Args:
        text: any text, lone surrogates among it.
        lines: line breaks and tabs stay, where the text is ours and may have several lines.
    """
    text = redact(text)
    if text.isprintable():
        return text
    return "".join(
        one.encode("unicode_escape").decode()
        if unicodedata.category(one) in _UNSEEN and not (lines and one in "\n\t")
        else one
        for one in text
    )


def redact(text: str) -> str:
    """Text without credentials: what stands before the @ of an address of whatever scheme, whatever characters a
    password has; values of a query that sign or authorise; what follows the host of a webhook; `SECRETS`."""
    for name in SECRETS:
        if len(value := os.environ.get(name, "")) >= 8:
            text = text.replace(value, HIDDEN)
    if ":/" not in text:
        return text
    text = _USER.sub(rf"\1{HIDDEN}@", text)
    text = _WEBHOOK.sub(rf"\1{HIDDEN}", text)
    return _QUERY.sub(rf"\1{HIDDEN}", text)


class LogRecord(logging.LogRecord):
    """A log line that no name can break."""

    def getMessage(self) -> str:
        """The line. A break in a text that is a part of it is escaped; an error's own breaks, and those of a text that
        is all of it, stay."""
        if isinstance(self.args, tuple) and self.msg != "%s":
            self.args = tuple(plain(one) if isinstance(one, str) else one for one in self.args)
        return plain(super().getMessage(), lines=True)


def guard_logs() -> None:
    """All log lines of this process, of whatever library, are `plain` from now on."""
    logging.setLogRecordFactory(LogRecord)
