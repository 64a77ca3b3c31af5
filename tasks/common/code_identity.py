"""Finds and hashes the code of this project that decides a stage's result.

It starts at the stage's function `run` and follows all definitions in `data`, `models` and `tasks` that are used. They
are read as syntax trees and never executed. Each is hashed without docstrings, comments, layout, log lines and the
sentences of raised errors. Definitions that aren't reached don't count: another function in the same file, or a section
of `Params` that the stage doesn't read. How params.yaml is read and checked doesn't count: DVC compares its values.

In every module that is reached, or imported by a reached one, these are hashed even if nothing refers to them:
statements that bind no name (`x.y = 1`, a call), since Python executes them, and definitions with a decorator of this
project, which may register them. A name that is made at run time (`getattr(module, "f" + "g")`) isn't followed.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tasks.common.startup import gc_off

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("data", "models", "tasks")
PARAMS = ("tasks.common.config.params", "Params")
"""The class with a field for each section of params.yaml."""
NO_RESULTS = (__name__, "tasks.common.startup")
"""Modules that don't affect results."""
SHARED = (("tasks.common.processes", "start"), (PARAMS[0], ""))
"""Run by every stage before its `run`; it sets the number of threads."""
IGNORED_SECTIONS = ("runtime", "operate")
"""Sections that don't affect results: no stage depends on them."""

Place = tuple[str, str]
"""(module, name). The name "" stands for the module's statements that bind no name, "*" for the whole module."""

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_LOGS = {"log", "logger", "logging", "tracking", "warnings"}
"""Names whose methods log; `tracking.log` shows losses in trackers (tasks/common/tracking)."""
_LOG_METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log", "warn"}
_EFFECTS = (ast.NamedExpr, ast.Await, ast.Yield, ast.YieldFrom)
_ERROR = re.compile(r"\w*(Error|Exception)$")
_FILE = re.compile(r"(?!/)[\w./-]+\.(?!py$)\w+")


def identities(stages: Iterable[str], sources: Sources) -> dict[str, dict[str, str]]:
    """By stage, {"models.solov2.losses:dice_loss": 16 hex digits, ...}: every definition that decides the result of
    `run` in tasks/STAGE.py.

    Raises:
        SyntaxError: a source file that is reached can't be parsed, or imports `*`.
    """
    found: dict[str, dict[str, str]] = {}
    with gc_off():  # else a third of the time: syntax trees are millions of objects
        for stage in stages:
            reached = _Reached(sources)
            reached.follow([(f"tasks.{stage}", "run"), *SHARED])
            found[stage] = {
                f"{place[0]}:{place[1]}": value for place, value in sorted(reached.hashes.items()) if value
            }
    return found


@cache
def code_digest(stage: str) -> str:
    """One hash, 64 hex digits, of the code of this project that decides the stage's result."""
    parts = identities([stage], Sources(ROOT))[stage]
    return hashlib.sha256(repr(sorted(parts.items())).encode()).hexdigest()


class _Content(NamedTuple):
    """Some statements' hash, the names that they read, and the sections of params.yaml that they read."""

    digest: str
    used: tuple[str, ...]
    sections: frozenset[str]


class _Module:
    """A source file: its top-level statements by the names that they bind, and its imports of our modules."""

    def __init__(self, name: str, path: Path, text: str) -> None:
        self.name, self.path = name, path
        self.bound: dict[str, list[ast.stmt]] = {"": []}
        self.names: dict[str, str] = {}
        """local name -> what it was imported as, dotted: a module, or a name in one"""
        self.imported: set[str] = set()
        tree = ast.parse(text, str(path))
        for node in _executed(tree):
            if isinstance(node, ast.Import):
                self._import(node)
            elif isinstance(node, ast.ImportFrom):
                self._import_from(node)
        for statement in tree.body:
            self._bind(statement)

    def _import(self, node: ast.Import) -> None:
        for alias in node.names:
            top = alias.name.split(".", maxsplit=1)[0]
            if top not in PACKAGES:
                continue
            self.imported.add(alias.name)
            self.names[alias.asname or top] = alias.name if alias.asname else top

    def _import_from(self, node: ast.ImportFrom) -> None:
        parts = self.name.split(".")
        if self.path.name != "__init__.py":
            parts = parts[:-1]
        above = parts[: len(parts) - node.level + 1] if node.level else []
        base = ".".join([*above, *filter(None, [node.module])])
        if base.split(".", maxsplit=1)[0] not in PACKAGES:
            return
        for alias in node.names:
            if alias.name == "*":
                raise SyntaxError(
                    f"{self.path}:{node.lineno}: import *: name what is imported, so that it can be followed"
                )
            self.names[alias.asname or alias.name] = f"{base}.{alias.name}"
            self.imported.add(f"{base}.{alias.name}")

    def _bind(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            return
        if isinstance(statement, ast.If):
            test = ast.unparse(statement.test)
            if test == "__name__ == '__main__'":
                return  # the command line, which isn't part of `run`
            if test in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
                for other in statement.orelse:
                    self._bind(other)
                return
        names = set(_binds(statement))
        if any(name in self.names or name in self.bound for name in _decorators(statement)):
            names.add("")
        for name in names or {""}:
            self.bound.setdefault(name, []).append(statement)

    @cache  # noqa: B019  (lives as long as the module)
    def content(self, name: str) -> _Content | None:
        """The statements that bind a name; None if only docstrings and log lines bind it."""
        statements = self.bound.get(name, [])
        if name.startswith(f"{PARAMS[1]}."):
            members = [
                part for node in self.bound[PARAMS[1]] if isinstance(node, ast.ClassDef) for part in node.body
            ]
            statements = [part for part in members if name.partition(".")[2] in _binds(part)]
        content, sections = hashlib.sha256(), set[str]()
        used: list[str] = []
        stripped = [found for found in map(_stripped, statements) if found is not None]
        for statement in stripped:
            content.update(_dump(statement).encode())
            used += _used(statement)
            for node in ast.walk(statement):
                if isinstance(node, ast.Attribute) and _is_params(node.value, within=name):
                    sections.add(node.attr)
                elif (
                    isinstance(node, ast.Constant)
                    and isinstance(node.value, str)
                    and _FILE.fullmatch(node.value)
                ):
                    template = self.path.parent / node.value
                    if template.is_file():
                        content.update(template.read_bytes())
        digest = content.hexdigest()[:16]
        return _Content(digest, tuple(dict.fromkeys(used)), frozenset(sections)) if stripped else None


class Sources:
    """Our modules in the folder `root`; each is read once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._modules: dict[str, _Module | None] = {}

    def module(self, name: str) -> _Module | None:
        """None for modules of other projects, and for those of ours that don't affect results."""
        if name.split(".", maxsplit=1)[0] not in PACKAGES or name in NO_RESULTS:
            return None
        if name not in self._modules:
            base = self.root.joinpath(*name.split("."))
            files = [path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file()]
            self._modules[name] = _Module(name, files[0], self.text(files[0])) if files else None
        return self._modules[name]

    def text(self, path: Path) -> str:
        """The text of a source file."""
        return path.read_text(encoding="utf-8")


class _Reached:
    """The places that are reached, each with its hash, or "" if it has no code of its own (an imported name)."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.hashes: dict[Place, str] = {}
        self.sections: set[str] = set()

    def follow(self, places: Iterable[Place]) -> None:
        pending = list(places)
        while pending:
            place = pending.pop()
            if place not in self.hashes:
                self.hashes[place] = ""
                pending += self._visit(place)

    def _visit(self, place: Place) -> Iterator[Place]:
        name, binding = place
        module = self.sources.module(name)
        if module is None:
            return
        yield name, ""
        if place == PARAMS:
            return  # its members count one by one, as they are read
        if binding == "*":
            yield from ((name, other) for other in module.bound)
        elif binding == "":
            yield from self._run_by_import(module)
        content = module.content(binding)
        if content is None:
            if binding in module.names:
                yield from self._resolve(module.names[binding])
            return
        self.hashes[place] = content.digest
        for dotted in content.used:
            first, _, rest = dotted.partition(".")
            if first in module.bound:
                yield name, first
            elif first in module.names:
                yield from self._resolve(".".join(filter(None, [module.names[first], rest])))
        yield from (
            (PARAMS[0], f"{PARAMS[1]}.{section}")
            for section in content.sections
            if section not in IGNORED_SECTIONS
        )

    def _run_by_import(self, module: _Module) -> Iterator[Place]:
        """The modules that Python runs when it imports this one: its imports, and the packages around them."""
        for dotted in {module.name, *module.imported}:
            parts = dotted.split(".")
            yield from ((".".join(parts[:end]), "") for end in range(1, len(parts) + 1))

    def _resolve(self, dotted: str) -> Iterator[Place]:
        """The place of a dotted name: its longest part that is a module, and the next name in it."""
        parts = dotted.split(".")
        for end in range(len(parts), 0, -1):
            name = ".".join(parts[:end])
            if self.sources.module(name) is not None:
                yield name, parts[end] if end < len(parts) else "*"
                return


def _executed(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes except those under `if TYPE_CHECKING:`."""
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            pending += node.orelse
        else:
            pending += ast.iter_child_nodes(node)


def _binds(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement binds in its namespace."""
    if isinstance(statement, _Function | ast.ClassDef):
        yield statement.name
        return
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, _Function | ast.ClassDef):
            yield node.name


def _is_params(node: ast.expr, within: str) -> bool:
    """Whether this is the params: `params`, `job.params`, or `self` in one of their methods."""
    if isinstance(node, ast.Attribute):
        return node.attr == "params"
    return isinstance(node, ast.Name) and (
        node.id == "params" or (node.id == "self" and within.startswith(f"{PARAMS[1]}."))
    )


def _decorators(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, _Function | ast.ClassDef):
        for decorator in statement.decorator_list:
            yield from (node.id for node in ast.walk(decorator) if isinstance(node, ast.Name))


def _used(node: ast.AST) -> Iterator[str]:
    """Names that are read, with their attributes: `processes.gather`. Annotations of functions don't count, as nothing
    reads them; those of classes do, as pydantic makes fields of them."""
    if isinstance(node, ast.Attribute | ast.Name):
        attributes: list[str] = []
        inner: ast.AST = node
        while isinstance(inner, ast.Attribute):
            attributes.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            yield ".".join([inner.id, *reversed(attributes)])
        else:
            yield from _used(inner)
        return
    for field, value in ast.iter_fields(node):
        if field == "returns" or (field == "annotation" and isinstance(node, ast.arg)):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _used(child)


def _stripped(statement: ast.stmt) -> ast.stmt | None:
    """The statement without docstrings, log lines and the texts of errors and asserts; None if nothing is left."""
    found: ast.stmt | None = _Strip().visit(statement)
    return found


class _Strip(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> ast.stmt | None:
        return None if isinstance(node.value, ast.Constant) or _is_log_line(node.value) else node

    def visit_Raise(self, node: ast.Raise) -> ast.stmt:
        for arguments in _error_arguments(node):
            arguments[:] = [_Prose().visit(one) for one in arguments]
        return node

    def visit_Assert(self, node: ast.Assert) -> ast.stmt:
        return ast.Assert(test=node.test)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.stmt:
        # `expected = "a number"`: a variable that only errors and log lines read has its text removed too.
        parts = [*ast.walk(node)]
        shown = {id(name) for part in parts for name in _names_of(part)}
        names = [part for part in parts if isinstance(part, ast.Name)]
        read = {part.id for part in names if isinstance(part.ctx, ast.Load) and id(part) not in shown}
        read |= {name for part in parts if isinstance(part, ast.Global | ast.Nonlocal) for name in part.names}
        for part in parts:
            if isinstance(part, ast.Assign):
                targets = [name for target in part.targets for name in ast.walk(target)]
                if all(
                    isinstance(name, ast.Name) and name.id not in read
                    for name in targets
                    if not _is_tuple(name)
                ):
                    part.value = _Prose().visit(part.value)
        self.generic_visit(node)
        return node


class _Prose(ast.NodeTransformer):
    """Replaces each string that contains a space between words by "". A single word stays, since it may be a code
    that a caller compares."""

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        return ast.Constant("") if isinstance(node.value, str) and " " in node.value.strip() else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.expr:
        texts = [part.value for part in node.values if isinstance(part, ast.Constant)]
        return ast.Constant("") if any(" " in str(text) for text in texts) else node


def _is_tuple(node: ast.AST) -> bool:
    return isinstance(node, ast.Tuple | ast.expr_context)


def _error_arguments(node: ast.AST) -> list[list[ast.expr]]:
    """The arguments of an error that is raised."""
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        called = node.exc.func
        if _ERROR.match(called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")):
            return [node.exc.args]
    return []


def _is_log_line(node: ast.AST) -> bool:
    """Whether a statement that is this expression does nothing but log or print."""
    if not isinstance(node, ast.Call) or any(isinstance(part, _EFFECTS) for part in ast.walk(node)):
        return False
    called = node.func
    if isinstance(called, ast.Name):
        to = [ast.unparse(one.value) for one in node.keywords if one.arg == "file"]
        return called.id == "print" and all(place in ("sys.stdout", "sys.stderr") for place in to)
    if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
        return called.value.id in _LOGS and called.attr in _LOG_METHODS
    return False


def _names_of(node: ast.AST) -> Iterator[ast.Name]:
    """The names in the arguments of an error, or in a log line."""
    parts: list[ast.AST] = [one for arguments in _error_arguments(node) for one in arguments]
    if isinstance(node, ast.Expr) and _is_log_line(node.value):
        parts.append(node)
    for part in parts:
        yield from (name for name in ast.walk(part) if isinstance(name, ast.Name))


def _dump(value: object) -> str:
    """A syntax tree as text, equal in all versions of Python: without empty fields, as later versions have more."""
    if isinstance(value, ast.AST):
        fields = [
            f"{name}={_dump(part)}"
            for name, part in ast.iter_fields(value)
            if part not in (None, []) and name not in ("ctx", "kind", "type_comment", "type_params")
        ]
        return f"{type(value).__name__}({','.join(fields)})"
    if isinstance(value, list):
        return f"[{','.join(_dump(part) for part in value)}]"
    return repr(value)
