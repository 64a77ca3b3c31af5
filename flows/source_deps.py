"""Which of our source files a stage depends on, and dvc.yaml kept in step with it.

DVC knows nothing of imports: a stage whose list lacks a file would leave a stale model when that file changes,
one with a file too many would train anew for nothing. So each stage lists the exact closure of its imports.

    python -m flows.source_deps           # say what is wrong in dvc.yaml; exit code 1 if anything is
    python -m flows.source_deps --write   # mend it (`make deps`)
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

PACKAGES = ("data", "models", "tasks")
_COMMAND = re.compile(r"^python -m (tasks\.\w+)\b")
_STAGE = re.compile(r"^  (\w+):\s*$")
_DEPS = re.compile(r"^    deps:\s*$")
_SOURCE = re.compile(rf"^      - ({'|'.join(PACKAGES)})/\S+\.\w+\s*$")


def closure(module: str, root: Path) -> list[str]:
    """The files that decide what `module` does: itself, what it imports of ours, and so on; sorted.

    Read from the syntax tree, so nothing is executed. Imports inside functions count; those under
    `TYPE_CHECKING` don't. A package's `__init__.py` counts for all its modules, since Python runs it. A file
    beside a module that the module names in a string (a template) counts too. Paths are relative to `root`.
    """
    found: set[Path] = set()
    waiting = [module]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen or name.split(".")[0] not in PACKAGES:
            continue
        seen.add(name)
        if "." in name:
            waiting.append(name.rpartition(".")[0])
        path = _file(name, root)
        if path is None:
            continue  # a name inside a module, not a module
        found.add(path)
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        waiting += _imports(tree, name, is_package=path.name == "__init__.py")
        found |= set(_named_files(tree, path.parent))
    return sorted(path.relative_to(root).as_posix() for path in found)


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


def _file(module: str, root: Path) -> Path | None:
    base = root.joinpath(*module.split("."))
    for path in (base / "__init__.py", base.with_suffix(".py")):
        if path.is_file():
            return path
    return None


def _imports(tree: ast.AST, module: str, *, is_package: bool) -> Iterator[str]:
    """Absolute names of what a module imports; `from a import b` gives a and a.b, since b may be a module."""
    for node in _executed(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".") if is_package else module.split(".")[:-1]
            above = parts[: len(parts) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _executed(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING:`."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
        else:
            waiting += ast.iter_child_nodes(node)


def _named_files(tree: ast.AST, folder: Path) -> Iterator[Path]:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and re.fullmatch(r"[\w.-]+\.\w+", node.value)
        ):
            path = folder / node.value
            if path.is_file():
                yield path


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
