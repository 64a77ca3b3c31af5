from __future__ import annotations

import io
import json

import pytest
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from flows.cli.console import Console, print_json

NAME = "a\x1b[2J[red]b[/red]:smile:\u202e\ud800 https://me:pw@host/x"
SHOWN = r"a\x1b[2J[red]b[/red]:smile:\u202e\ud800 https://*****@host/x"


@pytest.mark.parametrize("terminal", [True, False])
def test_names_stay_names(terminal: bool) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, color_system=None, soft_wrap=True, width=200)
    console.print(f"[bold]x[/] {escape(NAME)}")
    console.print(Text(NAME))
    console.print(escape(f"{NAME}\nsecond"))
    table = Table("c", escape(NAME))
    table.add_row("d", escape(NAME))
    console.print(table)
    text = file.getvalue()
    assert text.count(SHOWN) == 5 and f"x {SHOWN}\n" in text and f"{SHOWN}\nsecond\n" in text
    text.encode()  # as a file would


def test_json_is_ascii_and_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({NAME: [NAME, 1], "quoted": 'https://h/x?token=a"b'})
    text = capsys.readouterr().out
    shown = NAME.replace("me:pw", "*****")
    assert text.isascii() and json.loads(text) == {shown: [shown, 1], "quoted": 'https://h/x?token=*****"b'}
