"""What DVC runs in, whether imported or started.

DVC keeps what it knows of files' hashes as pickles in /var/tmp/dvc, where every user of the machine may write: who puts
a file there first decides what a run of ours executes (diskcache, CVE-2025-69872, which has no fixed version). So its
notes lie in the project, where only those write who may write the project.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

VARIABLE = "DVC_SITE_CACHE_DIR"


def notes_folder(root: Path) -> str:
    """Where DVC keeps its notes of the project at `root`; the environment may name another place."""
    return os.environ.get(VARIABLE) or str(root.resolve() / ".dvc" / "tmp" / "notes")


def config(root: Path) -> dict[str, Any]:
    """For `Repo(config=)`, where DVC is imported."""
    return {"core": {"site_cache_dir": notes_folder(root)}}


def environment(root: Path) -> dict[str, str]:
    """For processes that run DVC for the project at `root`, with our interpreter first on the PATH: stages say plain
    `python`."""
    # Not resolved: a virtual environment's python is a link whose place matters.
    here = str(Path(sys.executable).parent)
    path = os.pathsep.join([here, *filter(None, [os.environ.get("PATH")])])
    own = {"PATH": path, "PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "1", VARIABLE: notes_folder(root)}
    return {**os.environ, **own}
