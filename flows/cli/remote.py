"""The commands `points2model remote`, which sets up DVC's remote or shows it, and `push`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from flows.cli.console import Console, JsonOption, command_console, print_json

EXAMPLE = (
    "Example: points2model remote s3://bucket/points2model --profile work   |   "
    "points2model remote s3://store/line --endpoint-url https://minio.example:9000 --ask-credentials   |   "
    "points2model remote /mnt/share/line   |   points2model remote"
)
PUSH_EXAMPLE = "Example: points2model push   |   points2model push --json"


def remote(
    url: Annotated[
        str | None,
        typer.Argument(help="s3://BUCKET/PREFIX, another URL of DVC (gs://, azure://, ssh://), or a folder."),
    ] = None,
    name: Annotated[str, typer.Option(help="DVC's name for it.")] = "store",
    endpoint_url: Annotated[
        str | None, typer.Option(help="The address of an S3 server other than Amazon's.")
    ] = None,
    region: Annotated[str | None, typer.Option(help="The bucket's region.")] = None,
    profile: Annotated[
        str | None, typer.Option(help="A profile of ~/.aws; kept in .dvc/config.local.")
    ] = None,
    ask_credentials: Annotated[
        bool,
        typer.Option(
            "--ask-credentials",
            help="Prompt for access key and secret (or read them from stdin, a line each); kept in .dvc/config.local. "
            "Without it they come from the environment, ~/.aws or roles, and aren't kept.",
        ),
    ] = False,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Another setting of DVC's, such as ssl_verify=ca.pem."),
    ] = None,
    local: Annotated[
        bool,
        typer.Option("--local", help="For this checkout alone: everything is kept in .dvc/config.local."),
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Change the address of an existing remote.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for the remote.")] = 60,
    as_json: JsonOption = False,
) -> None:
    """Set up the remote for data, models and the run-cache; without a URL, show the remotes and test them.

    It is kept only if a file can be written there, read and deleted. Shared settings go into .dvc/config, to be
    committed; secrets and profiles go into .dvc/config.local, which git ignores.
    """
    from flows.dvc.remote_config import RemoteError

    console = command_console(as_json)
    try:
        if url is None:
            _show(console, timeout, as_json)
            return
        options = {"url": url, **_settings(option or [])}
        given = {"endpointurl": endpoint_url, "region": region, "profile": profile}
        options |= {key: value for key, value in given.items() if value is not None}
        if ask_credentials:
            options |= _credentials()
        _set_up(console, name, options, not local, replace, timeout, as_json)
    except RemoteError as error:
        if as_json:
            print_json({"state": "Failed", "error": str(error)})
        raise


def _settings(pairs: list[str]) -> dict[str, str]:
    from flows.dvc.remote_config import RemoteError, is_secret

    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise RemoteError(f"--option {key}: expected KEY=VALUE, such as --option ssl_verify=ca.pem")
        if is_secret(key) and sys.stdin.isatty():
            Console(stderr=True).note(f"{key} is in your shell's history now")
        settings[key.strip()] = value
    return settings


def _credentials() -> dict[str, str]:
    """Access key and secret, from a prompt or stdin; never from the command line, which others can read."""
    from flows.dvc.remote_config import RemoteError

    if sys.stdin.isatty():
        key = typer.prompt("access key", err=True)
        secret = typer.prompt("secret (not shown)", hide_input=True, err=True)
    else:
        key, _, secret = sys.stdin.read().strip().partition("\n")
    if not key.strip() or not secret.strip():
        raise RemoteError("--ask-credentials: expected two lines on stdin, the access key and the secret")
    return {"access_key_id": key.strip(), "secret_access_key": secret.strip()}


def _set_up(
    console: Console,
    name: str,
    options: dict[str, str],
    share: bool,
    replace: bool,
    timeout: float,
    as_json: bool,
) -> None:
    from flows.dvc.remote_setup import set_up

    done = set_up(Path.cwd(), name, options, share=share, replace=replace, seconds=timeout)
    if as_json:
        result = {
            "state": "Completed", "name": done.remote.name, "url": done.remote.url, "options": done.remote.shown(),
            "files": done.files, "notes": done.notes, "seconds": done.seconds,
        }  # fmt: skip
        print_json(result)
        return
    where = escape(f"{done.remote.name} ({done.remote.url})")
    kept = " and ".join(done.files) or "no file changed"
    console.print(
        f"[green]{where}[/] is the default remote: a file was written, read and deleted there; kept in {kept}"
    )
    for note in done.notes:
        console.note(note)
    console.print("next:")
    if ".dvc/config" in done.files:
        console.print('  git add .dvc/config && git commit -m "A remote for data and models"', markup=False)
    console.print(
        "  points2model push   (or `operate.push: true` in params.yaml: each run sends what it made)"
    )
    console.print(
        "  elsewhere: git clone, then `points2model run` or `dvc repro --pull`, which fetch instead of computing"
    )


def _show(console: Console, timeout: float, as_json: bool) -> None:
    from flows.dvc.probe import probe
    from flows.dvc.remote_config import RemoteError, read_remotes

    root = Path.cwd()
    if not (root / ".dvc").is_dir():
        raise RemoteError(f"{root}: no DVC repository; cd to the project's folder")
    remotes = read_remotes(root)
    if not any(one.default for one in remotes):
        others = "; there are " + ", ".join(one.name for one in remotes) if remotes else ""
        raise RemoteError(
            f"no default remote is set{others}; set one up with `points2model remote s3://BUCKET/PREFIX`, or a folder"
        )
    rows: list[dict[str, Any]] = []
    for one in remotes:
        result = probe(root, one.name, None, timeout)
        settings = {"name": one.name, "url": one.url, "default": one.default, "options": one.shown()}
        rows.append({**settings, "file": one.files.get("url", ""), **asdict(result)})
    if as_json:
        print_json({"remotes": rows})
    else:
        _print(console, rows)
    bad = rows[0]["error"]
    if bad is not None and not rows[0]["readable"]:
        raise typer.Exit(1)


def _print(console: Console, rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(title="remotes", title_justify="left")
    for column in ("name", "url", "set in", "settings", "state"):
        table.add_column(column, overflow="fold")
    for row in rows:
        settings = "\n".join(f"{key} = {value}" for key, value in row["options"].items())
        if row["error"] is None:
            state = f"[green]can be read and written[/] ({row['seconds']:.1f} s)"
        elif row["readable"]:
            state = f"[yellow]can be read only[/]: {escape(row['error'])}"
        else:
            state = f"[red]can't be used[/]: {escape(row['error'])}"
        state += f"\n{escape(row['warning'])}" if row["warning"] else ""
        name = escape(row["name"]) + (" (default)" if row["default"] else "")
        table.add_row(name, escape(row["url"]), escape(row["file"]), escape(settings), state)
    console.print(table, soft_wrap=False)


def push(as_json: JsonOption = False) -> None:
    """Send data, models and the run-cache to the default remote: all that dvc.lock, .dvc files and earlier runs name.

    Like `dvc push --run-cache`, but with the results of all earlier runs, not only of the last one; temporary errors
    are retried. `operate.push: true` in params.yaml does it at the end of each run.
    """
    from flows.dvc.remote_config import RemoteError
    from flows.dvc.send import send_all

    console = command_console(as_json)
    try:
        sent = send_all(Path.cwd(), console.text)
    except RemoteError as error:
        if as_json:
            print_json({"state": "Failed", "error": str(error)})
        raise
    if as_json:
        print_json({"state": "Completed", "sent": sent})
    else:
        console.text(sent)
