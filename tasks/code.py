"""Writes a file for each stage with the hashes of all code that decides its result; DVC makes the stage depend on it
(tasks/common/code_identity.py)."""

from __future__ import annotations

from pathlib import Path

from data.storage import atomic_dir, discard_partials
from tasks.common.code_identity import ROOT, Sources, identities
from tasks.common.config import Params
from tasks.common.stage_main import stage_main, write_json

FOLDER = Path("code")


def run(params: Params, workspace: Path) -> None:
    """Writes workspace/code/STAGE.json for every stage: a hash of each definition that decides its result."""
    discard_partials(workspace, FOLDER.name)
    with atomic_dir(workspace / FOLDER) as folder:
        for stage, parts in identities(stages(), Sources(ROOT)).items():
            write_json(folder / f"{stage}.json", parts)


def stages() -> list[str]:
    """The modules in tasks/ that are stages, without this one."""
    files = sorted((ROOT / "tasks").glob("*.py"))
    return [
        path.stem for path in files
        if f'    stage_main("{path.stem}", run' in path.read_text(encoding="utf-8") and path.stem != "code"
    ]  # fmt: skip


if __name__ == "__main__":
    stage_main("code", run)
