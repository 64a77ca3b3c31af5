from __future__ import annotations

import logging
import time

import pytest

from data.errors import DataError, Fault
from data.messages import LogRecord, plain, redact


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ordinary, with ünïcode, 画像　1.png and 🦉", "ordinary, with ünïcode, 画像　1.png and 🦉"),
        ("a\nfailed b", r"a\nfailed b"),
        ("\x1b[2Ja\x07\r\t\x7f\x9b", r"\x1b[2Ja\x07\r\t\x7f\x9b"),
        ("gpj\u202e.exe\u2066", r"gpj\u202e.exe\u2066"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        ("lone \ud800", r"lone \ud800"),
        ("line\u2028paragraph\u2029", r"line\u2028paragraph\u2029"),
    ],
)
def test_what_is_not_seen_is_escaped(text: str, shown: str) -> None:
    assert plain(text) == shown
    assert plain(f"one\n\t{text}", lines=True).replace("\n", r"\n").replace("\t", r"\t") == rf"one\n\t{shown}"
    shown.encode()  # can be printed


@pytest.mark.parametrize("scheme", ["https", "HTTP", "s3", "ssh", "webdavs", "azure", "postgresql+asyncpg"])
@pytest.mark.parametrize("password", ["pw", "se@cret", "pa/ss", "a@b/c@", "wJalr/K7MDENG+bPx", "123456/7"])
def test_a_password_in_an_address_is_hidden(scheme: str, password: str) -> None:
    assert (
        redact(f"at '{scheme}://me:{password}@host:9/b', or not") == f"at '{scheme}://*****@host:9/b', or not"
    )
    assert (
        redact(f"{scheme}:/me:{password}@host/b") == f"{scheme}:/*****@host/b"
    )  # as a path that was normalised
    assert redact(f"{scheme}://t0ken@host/b") == f"{scheme}://*****@host/b"


@pytest.mark.parametrize(
    "text",
    ["s3://bucket/icons/a@2x.png", "http://minio:9000/b/a@2x.png", "http://localhost:4200/runs?page=2&sort=name",
     "C:/me:a@b", "mail me@host.org about a:/b", "~/a:b@c"],
)  # fmt: skip
def test_what_is_no_credential_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://b.s3.amazonaws.com/k?X-Amz-Credential=AK%2F1&X-Amz-Signature=0af&X-Amz-Expires=60",
         "https://b.s3.amazonaws.com/k?X-Amz-Credential=*****&X-Amz-Signature=*****&X-Amz-Expires=60"),
        ("https://a.blob.core.windows.net/c?sv=2020&sig=s%3D", "https://a.blob.core.windows.net/c?sv=2020&sig=*****"),
        ("http://h/p?access_token=1&API_KEY=2;password=3", "http://h/p?access_token=*****&API_KEY=*****;password=*****"),
        ("https://hooks.slack.com/services/T0/B0/xyz", "https://hooks.slack.com/*****"),
        ("https://discord.com/api/webhooks/12/abc", "https://discord.com/api/webhooks/*****"),
        ("https://x.webhook.office.com/webhookb2/1@2/z", "https://x.webhook.office.com/*****"),
    ],
)  # fmt: skip
def test_queries_that_sign_and_webhooks_are_hidden(text: str, shown: str) -> None:
    assert redact(f"({text} )") == f"({shown} )"


def test_values_of_secret_variables_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    monkeypatch.setenv("POINTS2MODEL_NOTIFY", "https://chat.example/T0/xyz")
    assert redact("at wJalrXUtnFEMI and https://chat.example/T0/xyz") == "at ***** and *****"


@pytest.mark.parametrize("piece", ["aa:/", "aa://b:c", "a.", "?key=", "http://hook", "@", "&a"])
def test_no_text_takes_long(piece: str) -> None:
    began = time.monotonic()
    redact(piece * (200_000 // len(piece)) + ":/")
    assert time.monotonic() - began < 3


def test_faults_and_errors_are_plain() -> None:
    fault = Fault("a\x1b[31m.json", "x\nfailed", "https://k:s@h/b", "a\u202eb", "c")
    for text in (str(fault), str(DataError(fault)), str(DataError(f"in a loader:\n{fault}"))):
        assert "\x1b" not in text and "k:s" not in text and "\nfailed" not in text and "\u202e" not in text


def test_log_lines_are_plain_and_an_errors_own_lines_stay() -> None:
    def line(text: str, *arguments: object) -> str:
        return LogRecord("a", logging.INFO, "p", 1, text, arguments, None).getMessage()

    assert line("read %s", "a\nfailed\x1b") == r"read a\nfailed\x1b"
    assert line("%s", "1 fault:\n  b\x1b") == "1 fault:\n  b\\x1b"
    assert line("nothing: %s", DataError("2 faults:\n  c")) == "nothing: 2 faults:\n  c"
    assert line("%d of %d", 1, 2) == "1 of 2" and line("%(a)s", {"a": 1}) == "1"
