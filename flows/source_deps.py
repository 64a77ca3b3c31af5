"""Which of our source files a stage depends on, and dvc.yaml kept in step with it.

DVC knows nothing of imports: a stage whose list lacks a file would leave a stale model when that file changes,
one with a file too many would train anew for nothing. So each stage lists the exact closure of its imports.

    python -m flows.source_deps           # say what is wrong in dvc.yaml; exit code 1 if anything is
    python -m flows.source_deps --write   # mend it (`make deps`)
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import yaml

from tasks.source_files import PACKAGES, closure

_COMMAND = re.compile(r"^python -m (tasks\.\w+)\b")
_STAGE = re.compile(r"^  (\w+):\s*$")
_DEPS = re.compile(r"^    deps:\s*$")
_SOURCE = re.compile(rf"^      - ({'|'.join(PACKAGES)})/\S+\.\w+\s*$")


def faults(root: Path) -> dict[str, tuple[list[str], list[str]]]:
    """{stage: (files missing in dvc.yaml, files too many)} for each stage that isn't as it should be."""
    stages = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    wrong = {}
    for stage, entry in stages.items():
        expected = _expected(str(entry["cmd"]), root)
        if expected is None:
            continue
        listed = {str(dep) for dep in entry.get("deps", []) if str(dep).split("/")[0] in PACKAGES}
        missing, extra = sorted(set(expected) - listed), sorted(listed - set(expected))
        if missing or extra:
            wrong[stage] = (missing, extra)
    return wrong


def rewrite(text: str, root: Path) -> str:
    """dvc.yaml's text with each stage's source files made right; all else, comments too, stays as it is."""
    stages = yaml.safe_load(text)["stages"]
    lines: list[str] = []
    expected: list[str] | None = None
    for line in text.splitlines():
        if match := _STAGE.match(line):
            expected = _expected(str(stages.get(match[1], {}).get("cmd", "")), root)
        if expected is not None and _SOURCE.match(line):
            continue
        lines.append(line)
        if expected is not None and _DEPS.match(line):
            lines += [f"      - {file}" for file in expected]
    return "\n".join(lines) + "\n"


def _expected(command: str, root: Path) -> list[str] | None:
    match = _COMMAND.match(command)
    return closure(match[1], root) if match else None


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.source_deps", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--write", action="store_true", help="rewrite dvc.yaml")
    root = Path.cwd()
    path = root / "dvc.yaml"
    if parser.parse_args().write:
        text = path.read_text(encoding="utf-8")
        mended = rewrite(text, root)
        if mended != text:
            path.write_text(mended, encoding="utf-8")
            print("dvc.yaml: source deps rewritten")
    wrong = faults(root)
    for stage, (missing, extra) in wrong.items():
        print(f"dvc.yaml, stage {stage}: missing {missing or 'nothing'}, too many {extra or 'nothing'}")
    if wrong:
        print("run `make deps`")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
