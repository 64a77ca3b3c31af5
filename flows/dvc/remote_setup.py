"""Sets up a remote for data and models, if a trial shows that it can be used."""

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
    default_remote,
    read_remotes,
    write_remote,
)

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True)
class SetUp:
    """A remote that was set up: the changed files, and notes for the user."""

    remote: Remote
    files: list[str]
    notes: list[str]
    seconds: float


def set_up(
    root: Path, name: str, options: dict[str, str], *, share: bool, replace: bool, seconds: float
) -> SetUp:
    """Tries a remote by writing, reading and deleting a file, then makes it the default remote.

    Args:
        root: the project's folder.
        name: of the remote.
        options: `url` and other options of DVC; secrets and profiles go into .dvc/config.local.
        share: whether the others go into .dvc/config, which is in git.
        replace: whether a remote of this name with another URL may be replaced.
        seconds: the time limit of the trial.

    Raises:
        RemoteError: it can't be used; nothing was written.
    """
    from flows.dvc.probe import probe  # dvc takes a second

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
            f"remote {name} has the URL {before.url} ({before.files['url']}); give --replace to change it to "
            f"{options['url']}, or --name to add another remote"
        )
    if any(map(belongs_to_one, options)) and not _ignored(root):
        raise RemoteError(
            f".dvc/{LOCAL}: git would commit it, and it gets options that are yours alone; add a line /{LOCAL} to "
            ".dvc/.gitignore"
        )
    url = options["url"]
    # In the file a path is relative to .dvc; the trial needs an absolute one.
    result = probe(
        root, name, {**options, "url": url if "://" in url else str((root / ".dvc" / url).resolve())}, seconds
    )
    if result.error is not None:
        raise RemoteError(f"remote {name} ({url}): {result.error}. Nothing was changed", result.passing)
    files = write_remote(root, name, options, share=share)
    notes = [result.warning] if result.warning else []
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if is_s3(url) and "endpointurl" not in options and endpoint:
        notes.append(
            f"the server's address comes from your environment (AWS_ENDPOINT_URL, {endpoint}); --endpoint-url stores "
            "it with the URL for all users of the project"
        )
    remote = default_remote(root)
    assert remote is not None
    return SetUp(remote, files, notes, result.seconds)


def _url(url: str, root: Path) -> str:
    """The URL as DVC stores it: a path that isn't absolute is relative to .dvc.

    Raises:
        RemoteError: it isn't a URL or path of a remote, or contains a password.
    """
    if is_s3(url):
        try:
            split_s3(url)
        except ValueError as error:
            raise RemoteError(str(error)) from None
    if "://" not in url:
        return _folder(url, root)
    parts = urlsplit(url)
    if parts.password is not None or parts.query:
        raise RemoteError(
            f"{parts.scheme}://{parts.hostname or ''}{parts.path}: found a password or query in the URL, which would "
            "be committed; leave it out, and give secrets in the environment or with --ask-credentials"
        )
    if not parts.netloc:
        raise RemoteError(f"{url}: found no bucket or host; expected {parts.scheme}://BUCKET/PREFIX")
    return url.rstrip("/")


def _folder(path: str, root: Path) -> str:
    if not path.strip():
        raise RemoteError(
            "found an empty URL; expected s3://BUCKET/PREFIX, another URL that DVC supports, or a folder"
        )
    folder = Path(path).expanduser()
    if folder.resolve().is_relative_to(root.resolve()):
        inside = folder.resolve().relative_to(root.resolve())
        raise RemoteError(
            f"{path}: found a folder inside the project ({inside}); expected one elsewhere, since the remote must be "
            "left when the project is lost"
        )
    return (
        str(folder) if folder.is_absolute() else os.path.relpath(folder.absolute(), root.absolute() / ".dvc")
    )


def _check_endpoint(endpoint: str | None) -> None:
    if endpoint is None:
        return
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise RemoteError(f"--endpoint-url {endpoint}: expected http://HOST:PORT or https://HOST")
    if parts.username is not None or parts.password is not None:
        raise RemoteError(
            "--endpoint-url: found credentials in it; give them in the environment or with --ask-credentials"
        )


def _ignored(root: Path) -> bool:
    """Whether git ignores .dvc/config.local; also True without git."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "check-ignore", "-q", f".dvc/{LOCAL}"], check=False, capture_output=True
        )
    except OSError:
        return True
    return done.returncode != 1
