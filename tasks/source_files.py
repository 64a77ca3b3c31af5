"""Which of our source files decide what a module does: the closure of its imports, read and not executed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("data", "models", "tasks")


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
