from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from data.messages import redact
from flows.cli.console import Console
from flows.cli.operate import _login
from flows.processes.login import API, CLIENT, SERVER


def test_a_new_login_is_shown_once_and_in_no_message_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (API, CLIENT, SERVER):
        monkeypatch.setenv(name, "")  # so that what is set here is taken back
        monkeypatch.delenv(name)
    stream = io.StringIO()
    console = Console(soft_wrap=True, force_terminal=True, file=stream)
    login = _login(console, 4200)
    assert f"shown this once: {login}" in stream.getvalue() and os.environ[CLIENT] == login
    assert redact(f"at {login}") == "at *****"
    stream.truncate(0)
    assert _login(console, 4200) == login and login not in stream.getvalue()
