"""Remotes in DVC's configuration: read with the file of each option, and written so that all else is unchanged.

`.dvc/config` is in git and shared; `.dvc/config.local` belongs to this checkout and is ignored by git. Only the latter
gets secrets and names of profiles.

The files are written here, not by `dvc remote add` and `modify`: those delete all comments of the file, may leave it
empty if they are killed, and make a config.local with secrets that every user of the machine can read (tested).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from configobj import ConfigObj, ConfigObjError

from data.messages import HIDDEN
from data.storage import atomic_write
from tasks.common.errors import TaskError

SHARED, LOCAL = "config", "config.local"
SECRETS = re.compile(r"secret|password|token|_key$|key_id$|connection_string|credential", re.IGNORECASE)
"""Options that a remote's line in git must not hold. Paths to credentials are this machine's own too."""
PERSONAL = ("profile", "configpath", "user", "keyfile")


class RemoteError(TaskError):
    """A remote can't be set up, reached or used; the text gives the fault and the next step.

    `passing`: whether a later attempt may succeed without a change, as after a failure of the network.
    """

    def __init__(self, message: str, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


@dataclass(frozen=True)
class Remote:
    """One remote: its options, from all of DVC's files, and the file of each option."""

    name: str
    url: str
    default: bool
    options: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    def shown(self) -> dict[str, str]:
        """The options but `url`, with secrets hidden."""
        return {
            key: HIDDEN if is_secret(key) else value
            for key, value in sorted(self.options.items())
            if key != "url"
        }


def is_secret(option: str) -> bool:
    """Whether an option must be neither committed nor shown."""
    return bool(SECRETS.search(option))


def belongs_to_one(option: str) -> bool:
    """Whether an option goes into config.local: a secret, or an option of one machine or user."""
    return is_secret(option) or option in PERSONAL


def read_remotes(root: Path) -> list[Remote]:
    """All remotes of the project at `root`, the default one first.

    Raises:
        RemoteError: a file of DVC's configuration can't be read.
    """
    from dvc.config import Config, ConfigError  # dvc takes a second

    default = None
    options: dict[str, dict[str, str]] = {}
    files: dict[str, dict[str, str]] = {}
    try:
        paths = Config(str(root / ".dvc"), validate=False).files
        for path in [
            Path(paths[level]) for level in Config.LEVELS if level in paths
        ]:  # later ones have precedence
            if not path.is_file():
                continue
            content = Config.load_file(str(path))
            default = content.get("core", {}).get("remote", default)
            shown = f".dvc/{path.name}" if path.parent == root / ".dvc" else str(path)
            for name, found in content["remote"].items():
                options.setdefault(name, {}).update({key: str(value) for key, value in found.items()})
                files.setdefault(name, {}).update(dict.fromkeys(found, shown))
    except (ConfigError, ConfigObjError, OSError) as error:
        raise RemoteError(f"DVC's configuration can't be read: {error}; correct {root}/.dvc/config") from None
    remotes = [
        Remote(name, found.get("url", ""), name == default, found, files[name])
        for name, found in options.items()
    ]
    return sorted(remotes, key=lambda one: (not one.default, one.name))


def default_remote(root: Path) -> Remote | None:
    """The remote that `dvc push` and `pull` use; None if none is set."""
    return next((one for one in read_remotes(root) if one.default), None)


def write_remote(root: Path, name: str, options: dict[str, str], *, share: bool) -> list[str]:
    """Writes a remote and makes it the default one; keeps all else in the files, comments too.

    Args:
        root: the project's folder.
        name: of the remote.
        options: `url` and others; those of one user go into config.local.
        share: whether the others go into .dvc/config, which is in git; else all go into config.local.

    Returns:
        the files that were changed, relative to `root`.
    """
    own = {key: value for key, value in options.items() if not share or belongs_to_one(key)}
    parts = {LOCAL: own, SHARED: {key: value for key, value in options.items() if key not in own}}
    written = []
    for file, part in parts.items():  # secrets first: the remote is of no use without them
        path = root / ".dvc" / file
        content = _read(path)
        before = content.write()
        # Options that an earlier set-up left in the other file would override the new ones.
        for section in [one for one in content if _is_remote(one, name)]:
            del content[section]
        if part:
            content[f'remote "{name}"'] = part
        core = content.setdefault("core", {})
        if file == (SHARED if share else LOCAL):
            core["remote"] = name
        elif file == LOCAL:
            core.pop("remote", None)
        if not core:
            del content["core"]
        lines = content.write()
        if lines == before:
            continue
        with atomic_write(path) as partial:
            partial.touch(0o600 if file == LOCAL else 0o644)
            if file == SHARED and path.exists():
                partial.chmod(path.stat().st_mode & 0o777)
            partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
        written.append(f".dvc/{file}")
    return sorted(written)


def _is_remote(section: str, name: str) -> bool:
    matched = re.fullmatch(r"remote\s+\"?([^\"]+)\"?", section.strip("'"))
    return matched is not None and matched[1].lower() == name


def _read(path: Path) -> ConfigObj:
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        return ConfigObj(lines, interpolation=False)
    except (ConfigObjError, UnicodeDecodeError, OSError) as error:
        raise RemoteError(f"{path}: can't be read ({error}); correct it") from None
