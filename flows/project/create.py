"""The folder of a project: dvc.yaml, registry, git and DVC, everything but params.yaml.

Data stay where they are. The code stays where it is installed; points2model.json has its version.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

import tasks.tools
from data import strict_yaml
from data.decisions.store import README
from data.errors import Fault
from data.storage import atomic_write
from flows.dvc.environment import environment
from tasks.budget.record import EMPTY as NO_BUDGET
from tasks.budget.record import FILE as BUDGET
from tasks.common import installed_tool
from tasks.common.errors import TaskError
from tasks.promotion.baseline import BASELINE, REGISTRY, START

TEMPLATE = Path(tasks.tools.__file__).parent / "project" / "dvc.yaml"
DECISIONS = "decisions"
"""The folder `review.decisions` of the recipes. dvc.yaml needs it, and git keeps no empty one."""
NOTHING = '{"version": null}\n'
"""Before the first promotion."""
FILES = {
    ".gitignore": "# what runs produce\n/workspace/\n/.prefect/\n# made by `dvc plots show`\n/dvc_plots/\n",
    ".dvcignore": "# What DVC needn't walk through.\n/.prefect\n/dvc_plots\n/arrivals\n",
    ".dvc/config": (
        "[core]\n    # no account, no call home, no automatic `git add`\n    analytics = false\n"
        "    check_update = false\n    autostage = false\n"
    ),
    f"{DECISIONS}/{README}": "Decisions of reviewers, a file each: see docs/review.md of points2model. Commit them.\n",
    f"{REGISTRY}/.gitignore": (
        "# Models' bytes: DVC keeps them, each version's model.dvc says which.\n/v*/model\n"
        "# left by a process that was killed as it wrote\n.*.partial\n"
    ),
    f"{REGISTRY}/{BASELINE}": NOTHING,
    f"{REGISTRY}/{BUDGET}": NO_BUDGET,
    **{
        f"{REGISTRY}/{START}/{name}.json": NOTHING
        for name in ("scratch", "teacher", "promoted", "teacher_scratch")
    },
}
MARK = (
    "# Written by points2model; `points2model plan` writes it anew after an upgrade, unless it was edited: "
)
"""The start of a project's dvc.yaml; a hash of all other lines follows."""
ANNOTATIONS = "      - ${ingest.annotations}\n"
_STAGE = re.compile(r"^  (\w+):\n(?:(?:    .*)?\n)*", re.MULTILINE)


def dvc_yaml(mask_files: Sequence[str] | None = None) -> str:
    """The pipeline for a project apart from the code: the clone's, without the demo. Stage `code` depends on the
    installed version, and no folder of the project hides our packages (`-P`).

    Args:
        mask_files: what stage ingest depends on in place of `ingest.annotations`; see `sources.mask_files`.
    """
    text = TEMPLATE.read_text(encoding="utf-8")
    for match in reversed(list(_STAGE.finditer(text))):
        if match[1] == "make_demo":
            text = text[: match.start()] + text[match.end() :]
    text = text.replace("python -m tasks.", "python -P -m tasks.")
    if mask_files is not None:
        # JSON's strings are YAML's; DVC reads ${...} as the name of a value.
        lines = [
            f"      - {json.dumps(name, ensure_ascii=False)}\n".replace("${", "\\\\${") for name in mask_files
        ]
        text = text.replace(ANNOTATIONS, "".join(lines), 1)
    text = text.replace(
        "      - data\n      - models\n      - tasks\n", f"      - {installed_tool.FILE}\n", 1
    )
    return f"{MARK}{_digest(text)}\n{text}"


def upgrade(root: Path) -> str | None:
    """Writes dvc.yaml as this version has it, unless a person edited it, and files of the registry that a new version
    needs; returns what a person should know of it, None if nothing differs. Nothing is done in a clone, whose dvc.yaml
    is the code's own.

    Raises:
        TaskError: dvc.yaml can't be read.
    """
    if not (root / installed_tool.FILE).is_file():
        return None
    added = _add_files(root)
    commit = f"commit {', '.join(added)} with it: DVC refuses a clone that lacks them" if added else None
    return "; ".join(filter(None, [_renew_pipeline(root), commit])) or None


def _add_files(root: Path) -> list[str]:
    """Those of the registry and of the decisions that aren't there; returns their names."""
    added = []
    for name, text in FILES.items():
        path = root / name
        if name.startswith((REGISTRY, DECISIONS)) and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            added.append(name)
    return added


def _renew_pipeline(root: Path) -> str | None:
    """Writes dvc.yaml, see `upgrade`."""
    path = root / "dvc.yaml"
    try:
        found = path.read_text(encoding="utf-8")
        stages = strict_yaml.read(path)["stages"]
        deps = stages["ingest"]["deps"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TaskError(f"{path}: can't be read ({error}); `git checkout dvc.yaml` brings it back") from None
    usual = yaml.safe_load(TEMPLATE.read_text(encoding="utf-8"))["stages"]["ingest"]["deps"]
    files = None if ANNOTATIONS in found else [dep.replace("\\${", "${") for dep in deps if dep not in usual]
    new = dvc_yaml(files)
    if new == found:
        return None
    lacking = ", ".join(yaml.safe_load(new)["stages"].keys() - stages.keys())
    first, _, rest = found.partition("\n")
    if first != f"{MARK}{_digest(rest)}":
        what = f"; it lacks the stages {lacking}" if lacking else ""
        return f"dvc.yaml was edited, and stays; that of this version is another{what}: compare it with {TEMPLATE}"
    with atomic_write(path) as temporary:
        Path(temporary).write_text(new, encoding="utf-8")
    return "dvc.yaml: written anew for this version" + (f", with the stages {lacking}" if lacking else "")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def new_project(root: Path, mask_files: Sequence[str] | None = None) -> Iterator[None]:
    """Makes the folder; removes what it made if the body raises.

    Args:
        mask_files: see `dvc_yaml`.

    Raises:
        TaskError: the folder has files, or git or DVC fails.
    """
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        step = "name a new folder; in a project that exists, `points2model plan` plans anew"
        found = "a folder with files" if root.is_dir() else "a file"
        raise TaskError(str(Fault(str(root), "project", found, "an empty folder, or none", step)))
    made = _first_missing(root)
    before = signal.signal(signal.SIGTERM, _end)
    try:
        root.mkdir(parents=True, exist_ok=True)
        _fill(root, mask_files)
        yield
    except BaseException:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
        else:
            for path in root.iterdir():
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(*_: object) -> None:
    sys.exit(128 + signal.SIGTERM)


def _first_missing(root: Path) -> Path | None:
    """The outermost folder of a path that doesn't exist."""
    missing = [path for path in (root, *root.parents) if not path.exists()]
    return missing[-1] if missing else None


def _fill(root: Path, mask_files: Sequence[str] | None) -> None:
    # A repository of its own also inside another one, so that nothing is staged there and a push doesn't go its way.
    _run(["git", "init", "--quiet"], root)
    _run([sys.executable, "-P", "-m", "dvc", "init", "--quiet"], root)
    for name, text in {**FILES, "dvc.yaml": dvc_yaml(mask_files)}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    installed_tool.write(root)


def stage_all(root: Path) -> None:
    """Stages the project's files for its first commit."""
    _run(["git", "add", "--all"], root)


def _run(command: list[str], root: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=root, env=environment(root), capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise TaskError(
            f"{command[0]}: not installed; install it, since DVC keeps versions with it"
        ) from None
    if done.returncode != 0:
        raise TaskError(f"`{' '.join(command)}` in {root} failed: {done.stderr.strip()[-500:]}")
