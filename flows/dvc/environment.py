"""The environment of DVC, imported or started.

DVC stores the hashes of files as pickles in /var/tmp/dvc, where every user of the machine may write: a pickle that is
put there first can run any code (diskcache, CVE-2025-69872, without a fixed version). So these files are kept in the
project, where only users with write access to the project can write.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from tasks.common.installed_tool import FILE

VARIABLE = "DVC_SITE_CACHE_DIR"


def notes_folder(root: Path) -> str:
    """The folder of DVC's stored hashes for the project at `root`; the environment may name another one."""
    return os.environ.get(VARIABLE) or str(root.resolve() / ".dvc" / "tmp" / "notes")


def config(root: Path) -> dict[str, Any]:
    """For `Repo(config=)`."""
    return {"core": {"site_cache_dir": notes_folder(root)}}


def environment(root: Path) -> dict[str, str]:
    """The environment of processes that run DVC for the project at `root`, with this interpreter first on the PATH:
    stages call plain `python`."""
    # Not resolved: the python of a virtual environment is a link, and its place matters.
    here = str(Path(sys.executable).parent)
    path = os.pathsep.join([here, *filter(None, [os.environ.get("PATH")])])
    own = {"PATH": path, "PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "1", VARIABLE: notes_folder(root)}
    if (root / FILE).is_file():  # apart from the code: a folder there called `data` mustn't hide ours
        own["PYTHONSAFEPATH"] = "1"
    return {**os.environ, **own}
