"""DVC's remotes as its configuration names them: read with where each key stands, written so that all else stays.

`.dvc/config` is in git and shared; `.dvc/config.local` is this checkout's own and ignored by git. Secrets and names of
profiles go into the latter alone.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from configobj import ConfigObj, ConfigObjError

from data.messages import HIDDEN
from data.storage import atomic_write
from tasks.common.errors import TaskError

SHARED, LOCAL = "config", "config.local"
SECRETS = re.compile(r"secret|password|token|_key$|key_id$|connection_string|credential", re.IGNORECASE)
"""Options that a remote's line in git must not hold. Paths to credentials are this machine's own too."""
PERSONAL = ("profile", "configpath", "user", "keyfile")


class RemoteError(TaskError):
    """A remote can't be set up, reached or used; the text says what was found and what to do next.

    `passing`: whether the same may work later with nothing mended, as where a network is down.
    """

    def __init__(self, message: str, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


@dataclass(frozen=True)
class Remote:
    """One remote: options by name, from all of DVC's files, and in which file each stands."""

    name: str
    url: str
    default: bool
    options: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    def shown(self) -> dict[str, str]:
        """The options beside `url`, secrets hidden."""
        return {
            key: HIDDEN if is_secret(key) else value
            for key, value in sorted(self.options.items())
            if key != "url"
        }


def is_secret(option: str) -> bool:
    """Whether an option must not be committed nor shown."""
    return bool(SECRETS.search(option))


def belongs_to_one(option: str) -> bool:
    """Whether an option goes into config.local: a secret, or something of this machine's or user's."""
    return is_secret(option) or option in PERSONAL


def read_remotes(root: Path) -> list[Remote]:
    """All remotes of the project at `root`, the default one first.

    Raises:
        RemoteError: a file of DVC's configuration can't be read.
    """
    found: dict[str, dict[str, str]] = {}
    files: dict[str, dict[str, str]] = {}
    default = None
    for path in _config_files(root):
        content = _read(path)
        told = f".dvc/{path.name}" if path.parent == root / ".dvc" else str(path)
        default = dict(content.get("core", {})).get("remote", default)
        for section, options in content.items():
            if (name := _name_of(section)) is not None:
                found.setdefault(name, {}).update({key: str(value) for key, value in options.items()})
                files.setdefault(name, {}).update(dict.fromkeys(options, told))
    remotes = [
        Remote(name, options.get("url", ""), name == default, options, files[name])
        for name, options in found.items()
    ]
    return sorted(remotes, key=lambda one: (not one.default, one.name))


def _config_files(root: Path) -> list[Path]:
    """DVC's files of configuration; later ones count more.

    Raises:
        RemoteError: one of them can't be read.
    """
    from dvc.config import Config, ConfigError  # dvc takes a second

    try:
        files = Config(str(root / ".dvc"), validate=False).files
    except ConfigError as error:
        raise RemoteError(f"DVC's configuration can't be read: {error}; mend {root}/.dvc/config") from None
    return [Path(files[level]) for level in Config.LEVELS if level in files]


def default_remote(root: Path) -> Remote | None:
    """The remote that `dvc push` and `pull` take; None where none is set."""
    return next((one for one in read_remotes(root) if one.default), None)


def write_remote(root: Path, name: str, options: dict[str, str], *, share: bool) -> list[str]:
    """Makes a remote the default one; what the files hold beside it stays, comments too.

    Args:
        options: `url` and the rest; those that belong to one user go into config.local.
        share: whether the others go into .dvc/config, which git has; else all go into config.local.

    Returns:
        the files that were written, relative to `root`.
    """
    own = {key: value for key, value in options.items() if not share or belongs_to_one(key)}
    parts = {LOCAL: own, SHARED: {key: value for key, value in options.items() if key not in own}}
    written = []
    for file, mine in parts.items():  # secrets first: a name in git without them would be of no use
        path = root / ".dvc" / file
        content = _read(path)
        # What an earlier set-up left in the other file would shadow what is written now.
        old = [section for section in content if _name_of(section) == name]
        core = dict(content.get("core", {}))
        if not (mine or old or "remote" in core):
            continue
        for section in old:
            del content[section]
        if mine:
            content[f'remote "{name}"'] = mine
        if file == (SHARED if share else LOCAL):
            core["remote"] = name
        elif file == LOCAL and "remote" in core:
            del core["remote"]
        _set_core(content, core)
        lines = _lines(content)
        if path.is_file() and path.read_text(encoding="utf-8").splitlines() == lines:
            continue
        _write(path, lines, private=file == LOCAL)
        written.append(f".dvc/{file}")
    return sorted(written)


def _set_core(content: ConfigObj, core: dict[str, str]) -> None:
    if not core:
        content.pop("core", None)
        return
    if "core" not in content:
        content["core"] = {}
    for key in [key for key in content["core"] if key not in core]:
        del content["core"][key]
    for key, value in core.items():
        if content["core"].get(key) != value:
            content["core"][key] = value


def _name_of(section: str) -> str | None:
    matched = re.fullmatch(r"remote\s+\"?([^\"]+)\"?", section.strip("'"))
    return None if matched is None else matched[1].lower()


def _read(path: Path) -> ConfigObj:
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        return ConfigObj(lines, interpolation=False)
    except (ConfigObjError, UnicodeDecodeError, OSError) as error:
        raise RemoteError(
            f"{path}: can't be read ({error}); mend it, or `git checkout {path.name}`"
        ) from None


def _write(path: Path, lines: list[str], private: bool) -> None:
    with atomic_write(path) as partial:
        partial.touch(0o600 if private else 0o644)
        if not private and path.exists():
            partial.chmod(path.stat().st_mode & 0o777)
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _lines(content: ConfigObj) -> list[str]:
    content.filename = None
    lines: Any = content.write()
    # ConfigObj writes a section's name bare where it may; DVC and git know remotes in quotes.
    return [
        re.sub(r"^\[(?:')?(remote \"[^\"]+\")(?:')?\]", r"['\1']", line)
        for line in (one.decode() if isinstance(one, bytes) else one for one in lines)
    ]


def checked_url(url: str, root: Path) -> str:
    """The URL as it is kept: a path that isn't absolute is relative to .dvc, as DVC reads it.

    Raises:
        RemoteError: it is none, or holds a password.
    """
    if "://" not in url:
        if not url.strip():
            raise RemoteError(
                "found an empty URL; expected s3://BUCKET/PREFIX, another URL that DVC knows, or a folder"
            )
        path = Path(url).expanduser()
        if path.resolve() == root.resolve() or root.resolve() in path.resolve().parents:
            inside = path.resolve().relative_to(root.resolve())
            raise RemoteError(
                f"{url}: found a folder inside the project ({inside}); expected one elsewhere, since a remote is what "
                "is left when the project is lost"
            )
        return str(path) if path.is_absolute() else os.path.relpath(path.absolute(), root.absolute() / ".dvc")
    parts = urlsplit(url)
    if parts.password is not None or parts.query:
        raise RemoteError(
            f"{parts.scheme}://{parts.hostname or ''}{parts.path}: found a password or query in the URL, which would "
            "stand in git; leave it out, and give secrets by the environment or with --ask-credentials"
        )
    if not parts.netloc:
        raise RemoteError(f"{url}: found no bucket or host; expected {parts.scheme}://BUCKET/PREFIX")
    return url.rstrip("/")
