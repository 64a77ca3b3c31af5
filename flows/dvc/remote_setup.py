"""A remote for data and models: set up in one step, and kept only if it can be used."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from data.storage import is_s3, split_s3
from flows.dvc.remote_config import (
    LOCAL,
    Remote,
    RemoteError,
    belongs_to_one,
    checked_url,
    default_remote,
    read_remotes,
    write_remote,
)

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True)
class SetUp:
    """A remote that was set up: the files that name it, and what to know about it."""

    remote: Remote
    files: list[str]
    notes: list[str]
    seconds: float


def set_up(
    root: Path, name: str, options: dict[str, str], *, share: bool, replace: bool, seconds: float
) -> SetUp:
    """Tries a remote by writing, reading and deleting a file, then makes it the default one.

    Args:
        root: the project's folder.
        name: of the remote.
        options: `url` and others of DVC's; secrets and profiles go into .dvc/config.local.
        share: the rest goes into .dvc/config, which git has.
        replace: a remote of this name that leads elsewhere may be replaced.
        seconds: how long the try may take.

    Raises:
        RemoteError: it can't be used; nothing was written.
    """
    from flows.dvc.remote import probe  # dvc takes a second

    if not (root / ".dvc" / "config").is_file():
        raise RemoteError(f"{root}: no DVC repository; cd to the project's folder, or run `dvc init`")
    name = name.lower()
    if not _NAME.fullmatch(name):
        raise RemoteError(f"--name {name}: expected letters, digits, - and _, such as store")
    options = {**options, "url": _url(options["url"], root)}
    _check_endpoint(options.get("endpointurl"))
    before = next((one for one in read_remotes(root) if one.name == name), None)
    if before is not None and before.url != options["url"] and not replace:
        raise RemoteError(
            f"remote {name} leads to {before.url} ({before.files['url']}); give --replace to lead it to "
            f"{options['url']}, or --name for one beside it"
        )
    if any(map(belongs_to_one, options)) and not _ignored(root):
        raise RemoteError(
            f".dvc/{LOCAL}: git would commit it, and it is to hold what is yours alone; add a line /{LOCAL} to "
            ".dvc/.gitignore"
        )
    at = options["url"]
    # What stands in the file is relative to it; what is handed over is taken as it is.
    at = at if "://" in at else str((root / ".dvc" / at).resolve())
    result = probe(root, name, {**options, "url": at}, seconds)
    if result.error is not None:
        raise RemoteError(
            f"remote {name} ({options['url']}): {result.error}. Nothing was changed", result.passing
        )
    files = write_remote(root, name, options, share=share)
    notes = [result.warning] if result.warning else []
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if is_s3(options["url"]) and "endpointurl" not in options and endpoint:
        notes.append(
            f"the server's address came from your environment (AWS_ENDPOINT_URL, {endpoint}); with --endpoint-url "
            "it stands beside the URL for all who use the project"
        )
    remote = default_remote(root)
    assert remote is not None
    return SetUp(remote, files, notes, result.seconds)


def _url(url: str, root: Path) -> str:
    if is_s3(url):
        try:
            split_s3(url)
        except ValueError as error:
            raise RemoteError(str(error)) from None
    return checked_url(url, root)


def _check_endpoint(endpoint: str | None) -> None:
    if endpoint is None:
        return
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise RemoteError(f"--endpoint-url {endpoint}: expected http://HOST:PORT or https://HOST")
    if parts.username is not None or parts.password is not None:
        raise RemoteError(
            "--endpoint-url: found credentials in it; give them by the environment or --ask-credentials"
        )


def _ignored(root: Path) -> bool:
    """Whether git leaves .dvc/config.local alone; True too where there is no git."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "check-ignore", "-q", f".dvc/{LOCAL}"], check=False, capture_output=True
        )
    except OSError:
        return True
    return done.returncode != 1
