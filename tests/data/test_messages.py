from __future__ import annotations

import io
import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from data.errors import DataError, Fault
from data.messages import SECRETS, LogRecord, guard_logs, plain, redact
from tasks.common.errors import TaskError


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
@pytest.mark.parametrize("password", ["pw", "se@cret", "pa/ss", "a@b/c@", "wJalr/K7MDENG+bPx", "123456/7",
                                      "1234/abc", "12#x", "1234", "9000?a", 'p"w', "p'w", "<p>", "p/w@2x"])  # fmt: skip
def test_a_password_in_an_address_is_hidden(scheme: str, password: str) -> None:
    assert (
        redact(f"at '{scheme}://me:{password}@host:9/b', or not") == f"at '{scheme}://*****@host:9/b', or not"
    )
    assert (
        redact(f"{scheme}:/me:{password}@host/b") == f"{scheme}:/*****@host/b"
    )  # as a path that was normalised
    assert redact(f"{scheme}://t0ken@host/b") == f"{scheme}://*****@host/b"
    assert redact(f"{scheme}://:{password}@host/b") == f"{scheme}://*****@host/b"
    assert redact(f"{scheme}://me@mail.example:{password}@host/b") == f"{scheme}://*****@host/b"


@pytest.mark.parametrize(
    "text",
    ["s3://bucket/icons/a@2x.png", "http://minio:9000/b/a@2x.png", "http://localhost:4200/runs?page=2&sort=name",
     "http://127.0.0.1:4200/me@x", "https://[::1]:4200/me@x", "at http://minio:9000, mail me@host", "a key=3; code=4",
     "a basic understanding of it", "authorization: found none", "basic input/output",
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
        ("/c?sv=2020&sig=s%3D", "/c?sv=2020&sig=*****"), ("?sig=ab", "?sig=*****"),
        ("AccountKey=ab+/c==;EndpointSuffix=x", "AccountKey=*****;EndpointSuffix=x"),
        ("Endpoint=sb;SharedAccessKey=ab", "Endpoint=sb;SharedAccessKey=*****"),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: *****"), ("Bearer a1.b2-c3_d4", "Bearer *****"),
        ("{'authorization': 'Bearer abc'}", "{'authorization': '*****'}"),
        ("[(b'Authorization', b'Basic dXNlcjpwYXNz')]", "[(b'Authorization', b'*****')]"),
        ("Authorization: AWS4-HMAC-SHA256 Credential=A/b, Signature=0af", "Authorization: *****"),
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
    for name in ("PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING", "POINTS2MODEL_AUTH",
                 "POINTS2MODEL_REPORTS_AUTH"):  # fmt: skip
        monkeypatch.setenv(name, f"me:of-{name}")
        assert redact(f"at me:of-{name}, of-{name}") == "at *****, *****"
    monkeypatch.setenv("PREFECT_API_KEY", "pnu_123456")
    assert redact("at pnu_123456") == "at *****"
    compose = (Path(__file__).parents[2] / "docker" / "compose.yaml").read_text()
    assert set(re.findall(r"\w+_AUTH\b", compose)) <= set(SECRETS)


@pytest.mark.parametrize(
    "piece",
    ["aa:/", "aa://b:c", "a.", "?key=", "http://hook", "@", "&a", "aa://b:1/c", ":", "authorization: ", "basic a",
     ";a=", "authorization: aws4-a b=c", '"http://h:9', "AccountKey="],
)  # fmt: skip
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

    name = "a\nfailed\x1b"
    for found in (
        line("read %s", name), line(f"read {name}"), line(f"read {name}%s", ""), line("%s", f"read {name}"),
        line("read %(n)s", {"n": name}), line("read %s", Error(name)), str(line("%s", Error(f"read {name}"))),
    ):  # fmt: skip
        assert found == r"read a\nfailed\x1b"
    assert (
        line("%r", Named()) == r"a\nfailed" == line("%s", Named()) and line("%s", [Named()]) == r"[a\nfailed]"
    )
    assert line("%s", DataError("2 faults:\n  c\x1b")) == "2 faults:\n  c\\x1b"
    assert line("nothing: %s", TaskError("2 faults:\n  c")) == "nothing: 2 faults:\n  c"
    found = LogRecord("a", logging.INFO, "p", 1, DataError("2 faults:\n  c"), (), None).getMessage()  # type: ignore[arg-type]
    assert found == "2 faults:\n  c"
    assert line("%d of %d, %s", 1, np.int64(2), None) == "1 of 2, None" and line("%(a)s", {"a": 1}) == "1"
    assert line("%.1f %x %5.2f%% %c", np.float32(1.25), True, np.array(3), "x") == "1.2 1  3.00% x"
    assert line("https://%s:%s@host", "me", "pw") == "https://*****@host"


class Error(Exception):
    pass


class Named:
    def __str__(self) -> str:
        return "a\nfailed"

    __repr__ = __str__


def test_a_traceback_shows_no_secret_and_begins_no_line(restored_factory: None) -> None:
    guard_logs()
    stream = io.StringIO()
    log = logging.Logger("a")
    log.addHandler(logging.StreamHandler(stream))
    try:
        try:
            raise ValueError("https://KEY:SECRET@host\x1b")
        except ValueError as error:
            raise RuntimeError("a\nERROR forged") from error
    except RuntimeError:
        log.exception("it failed", stack_info=True)
    shown = stream.getvalue()
    assert "https://*****@host\\x1b" in shown and "SECRET" not in shown.replace("KEY:SECRET@host\\\\x1b", "")
    assert [one for one in shown.splitlines() if one and not one.startswith("  ")] == ["it failed"]
    assert "RuntimeError: a" in shown and "Stack (most recent call last)" in shown


@pytest.fixture
def restored_factory() -> Iterator[None]:
    before = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(before)
