"""A fingerprint of a user's code that formatting, comments and docstrings don't change.

It's made from the syntax tree of a class or function, and of what that names in turn: functions and classes of the
same module or of the user's other modules, and constants: by value, or as they're written (`re.compile(...)`). So
editing a helper, or a prompt that is a module constant, is seen too. Installed libraries and this package aren't followed.
"""

import ast
import hashlib
import inspect
import sys
import sysconfig
import textwrap
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

_PACKAGE = __name__.partition(".")[0]
_NOT_CODE = frozenset(
    {"input_batch_size", "batch_size", "resources", "replicas", "use_cache", "max_concurrency"}
)
_INSTALLED = frozenset({"site-packages", "dist-packages"})
_CONSTANTS = (str, bytes, bool, int, float, complex, type(None))


def fingerprint_code(obj: Any) -> str | None:
    """Fingerprint a class or function of the user's; None for what this package or Python itself defines.

    Where no source can be read (code typed into an interpreter) the compiled code is taken instead: still equal
    between processes, but not between Python versions.
    """
    if _is_foreign(obj):
        return None
    return _cached_fingerprint(obj)


@cache
def _cached_fingerprint(obj: Any) -> str:
    parts = list(_iter_parts(obj, set()))
    return hashlib.sha1("\n".join(parts).encode(), usedforsecurity=False).hexdigest()


def _is_foreign(obj: Any) -> bool:
    root = str(getattr(obj, "__module__", "")).partition(".")[0]
    return root in (
        _PACKAGE,
        "pydantic",
        "builtins",
        "abc",
        "typing",
        "typing_extensions",
        "collections",
        "enum",
        "",
    )


@cache
def _library_dirs() -> tuple[Path, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple({Path(sysconfig.get_path(name)).resolve() for name in names})


@cache
def _is_users(module: str) -> bool:
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return module == "__main__"
    path = Path(file).resolve()
    if module.partition(".")[0] == _PACKAGE or _INSTALLED & set(path.parts):
        return False
    return not any(path.is_relative_to(directory) for directory in _library_dirs())


def _iter_parts(obj: Any, seen: set[int]) -> Iterator[str]:
    if id(obj) in seen or _is_foreign(obj):
        return
    seen.add(id(obj))
    tree = _parse(obj)
    if tree is None:
        yield from _iter_compiled(obj)
    else:
        yield _canonical(tree)
        yield from _iter_named(obj, tree, seen)
    if isinstance(obj, type):
        for base in obj.__mro__[1:]:
            yield from _iter_parts(base, seen)


def _written_as(obj: Any) -> Any:
    """The function that `@step` made a class of; for anything else the object itself."""
    function = vars(obj).get("step_function") if isinstance(obj, type) else None
    return function.__func__ if isinstance(function, staticmethod) else obj


def _parse(obj: Any) -> ast.AST | None:
    try:
        source = inspect.getsource(_written_as(obj))
        tree = ast.parse(textwrap.dedent(source))
    except (OSError, TypeError, SyntaxError):
        return None
    return tree.body[0] if tree.body else None


def _iter_named(obj: Any, tree: ast.AST, seen: set[int]) -> Iterator[str]:
    """Follow the names that `tree` reads: constants by value, the user's functions and classes by their code."""
    function = _written_as(obj)
    scope: dict[str, Any] = dict(vars(sys.modules.get(str(obj.__module__)) or object))
    scope.update(_closure_of(function))
    yield from _iter_values(tree, str(obj.__module__), scope, seen)


def _iter_values(tree: ast.AST, module: str, scope: dict[str, Any], seen: set[int]) -> Iterator[str]:
    for name, found in sorted(_iter_reads(tree, scope), key=lambda read: read[0]):
        value = (
            inspect.unwrap(found) if isinstance(getattr(found, "__wrapped__", None), FunctionType) else found
        )
        if isinstance(value, FunctionType | type):
            if not _is_foreign(value) and (value.__module__ == module or _is_users(value.__module__)):
                yield name
                yield from _iter_parts(value, seen)
            continue
        assigned = _find_assignment(name, module, scope)
        if _is_constant(value) and not _is_state(value, assigned[0] if assigned else None):
            yield f"{name}={_constant(value)}"
        elif assigned is not None and id(assigned[0]) not in seen:
            written, owner = assigned
            seen.add(id(written))
            yield f"{name}:{_canonical(written)}"
            yield from _iter_values(
                written, owner, scope if owner == module else vars(sys.modules[owner]), seen
            )


@cache
def _module_body(module: str) -> list[ast.stmt]:
    """The statements at the top of one of the user's modules; none where it's no such or can't be read."""
    try:
        return ast.parse(inspect.getsource(sys.modules[module])).body if _is_users(module) else []
    except (KeyError, OSError, TypeError, SyntaxError):
        return []


@cache
def _assignments(module: str) -> dict[str, ast.expr]:
    """What the names of one of the user's modules are assigned at its top, as written there."""
    found = _iter_assigned(_module_body(module))
    return {target.id: value for target, value in found if isinstance(target, ast.Name)}


@cache
def _possible_assignments(module: str) -> dict[str, ast.expr]:
    """All that names may be assigned outside of functions and classes, by unpacking and in blocks too: `this or that`.

    That's no literal, so that a container counts by its value, which tells of the branch that was taken.
    """
    found: dict[str, list[ast.expr]] = {}
    for target, value in _iter_assigned(_iter_statements(_module_body(module))):
        for node in ast.walk(target):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.setdefault(node.id, []).append(value)
    return {name: ast.BoolOp(ast.Or(), values) for name, values in found.items()}


def _iter_statements(body: list[Any]) -> Iterator[Any]:
    """Go through statements and those in their blocks, but not into functions and classes."""
    for each in body:
        yield each
        if not isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for block in ("body", "handlers", "orelse", "finalbody", "cases"):
                yield from _iter_statements(getattr(each, block, []))


def _iter_assigned(statements: Iterable[Any]) -> Iterator[tuple[ast.expr, ast.expr]]:
    for each in statements:
        if isinstance(each, ast.Assign):
            yield from ((target, each.value) for target in each.targets)
        elif isinstance(each, ast.AnnAssign) and each.value is not None:
            yield each.target, each.value


def _closure_of(obj: Any) -> dict[str, Any]:
    """Variables of enclosing functions that `obj`, or a method of it, reads."""
    if isinstance(obj, type):
        members = [getattr(m, "fget", None) or getattr(m, "__func__", m) for m in vars(obj).values()]
        return {
            name: value
            for m in members
            if isinstance(m, FunctionType)
            for name, value in _closure_of(m).items()
        }
    if not isinstance(obj, FunctionType):
        return {}
    cells = zip(obj.__code__.co_freevars, obj.__closure__ or (), strict=False)
    return {name: cell.cell_contents for name, cell in cells if name != "__class__" and _is_filled(cell)}


def _is_filled(cell: CellType) -> bool:
    """Tell whether the variable has been assigned yet."""
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _iter_reads(tree: ast.AST, scope: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names that a tree reads, with their values: `helper`, and `module.helper` of the user's modules."""
    found: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in scope and not node.id.startswith("__"):
            found[node.id] = scope[node.id]
        elif isinstance(node, ast.Attribute):
            path = _dotted(node)
            module = _module_at(path[:-1], scope)
            if module is not None:
                found[".".join(path)] = getattr(module, path[-1], None)
    return iter(found.items())


def _dotted(node: ast.expr) -> list[str]:
    """`a.b.c` as its parts; empty for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    return [node.id, *parts] if isinstance(node, ast.Name) else []


def _module_at(path: list[str], scope: dict[str, Any]) -> ModuleType | None:
    """The user's module that a dotted path names."""
    if not path:
        return None
    found = scope.get(path[0])
    for part in path[1:]:
        found = getattr(found, part, None) if isinstance(found, ModuleType) else None
    return found if isinstance(found, ModuleType) and _is_users(found.__name__) else None


def _find_assignment(name: str, module: str, scope: dict[str, Any]) -> tuple[ast.expr, str] | None:
    """The expression that a name was assigned at the top of the user's module that defines it, and that module."""
    path = name.split(".")
    if len(path) > 1:
        owner = _module_at(path[:-1], scope)
        return None if owner is None else _find_assignment(path[-1], owner.__name__, vars(owner))
    written = _assignments(module).get(name)
    if written is not None:
        return written, module
    source = _imports(module).get(name)
    if source is not None and source[0] != module and source[0] in sys.modules:
        found = _find_assignment(source[1], source[0], vars(sys.modules[source[0]]))
        if found is not None:
            return found
    written = _possible_assignments(module).get(name)
    return None if written is None else (written, module)


@cache
def _imports(module: str) -> dict[str, tuple[str, str]]:
    """Names that one of the user's modules imports from others: name -> module and the name there."""
    package = getattr(sys.modules.get(module), "__package__", None) or ""
    found = {}
    for node in _module_body(module):
        if isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*parents, node.module or ""]).strip(".")
            found.update({each.asname or each.name: (source, each.name) for each in node.names})
    return found


def _is_state(value: Any, written: ast.expr | None) -> bool:
    """Tell whether a container may be filled while the program runs, so that what it began as says more than its value."""
    if written is None or not isinstance(value, list | dict | set):
        return False
    if isinstance(written, ast.Call):
        return not (written.args or written.keywords)
    try:
        ast.literal_eval(written)
    except ValueError:
        return False
    return True


def _is_constant(value: Any) -> bool:
    if isinstance(value, list | tuple | set | frozenset):
        return all(_is_constant(item) for item in value)
    if isinstance(value, dict):
        return all(_is_constant(key) and _is_constant(item) for key, item in value.items())
    return type(value) in _CONSTANTS


def _constant(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}[{','.join(map(_constant, value))}]"
    if isinstance(value, set | frozenset):
        return f"set[{','.join(sorted(map(_constant, value)))}]"
    if isinstance(value, dict):
        return "dict[" + ",".join(f"{_constant(key)}:{_constant(item)}" for key, item in value.items()) + "]"
    return f"{type(value).__name__}:{value!r}"


def _canonical(node: Any) -> str:
    """Write a syntax tree without positions, docstrings, empty fields and version-dependent details."""
    if isinstance(node, list):
        return "[" + ",".join(_canonical(item) for item in node) + "]"
    if not isinstance(node, ast.AST):
        return _constant(node) if type(node) in _CONSTANTS else type(node).__name__
    written = []
    for name, value in ast.iter_fields(node):
        if name in ("ctx", "kind", "type_comment") or value is None or value == []:
            continue
        written.append(f"{name}={_canonical(_keep(node, name, value))}")
    return f"{type(node).__name__}({','.join(written)})"


def _keep(node: ast.AST, name: str, value: Any) -> Any:
    """Leave out of a field's list what changes nothing."""
    if name == "decorator_list":
        return [each for each in value if not _is_description(each)]
    if name == "body" and isinstance(value, list):
        is_class = isinstance(node, ast.ClassDef)
        return [each for each in value if not (_is_ignored(each, value) or (is_class and _is_no_code(each)))]
    if isinstance(node, ast.JoinedStr):
        # Some versions of Python put an empty text where others put nothing.
        return [each for each in value if not (isinstance(each, ast.Constant) and each.value == "")]
    return value


def _is_description(node: ast.AST) -> bool:
    """`@routing_batch_function(...)` says just what the function does, for people."""
    target = node.func if isinstance(node, ast.Call) else node
    name = target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")
    return name == "routing_batch_function"


def _is_ignored(item: ast.AST, body: list[Any]) -> bool:
    if (
        isinstance(item, ast.Expr)
        and isinstance(item.value, ast.Constant)
        and isinstance(item.value.value, str)
    ):
        return item is body[0] or len(body) > 1
    return isinstance(item, ast.Pass)


def _is_no_code(item: ast.AST) -> bool:
    """A default of a field that's no part of a signature, in the body of a class."""
    return isinstance(item, ast.AnnAssign) and getattr(item.target, "id", "") in _NOT_CODE


def _iter_compiled(obj: Any) -> Iterator[str]:
    if isinstance(obj, type):
        members = dict(vars(obj))
        for name in sorted(members):
            member = getattr(members[name], "fget", None) or getattr(members[name], "__func__", members[name])
            if isinstance(member, FunctionType) and member.__module__ == obj.__module__:
                yield f"{name}:{_compiled(member.__code__)}"
    elif isinstance(obj, FunctionType):
        yield _compiled(obj.__code__)


def _compiled(code: CodeType) -> str:
    constants = [
        _compiled(c) if isinstance(c, CodeType) else _constant(c) for c in code.co_consts if c is not Ellipsis
    ]
    return f"{code.co_code.hex()}|{','.join(code.co_names)}|{','.join(constants)}"


def reads_name(function: Any, name: str, *, beside: str | None = None) -> bool:
    """Tell whether a function's code reads the variable `name`; True where its source can't be read.

    Args:
        function: what is looked at.
        name: of the variable.
        beside: reads in what `super()`'s method of this name is called with don't count.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return True
    calls = [node for node in ast.walk(tree) if beside is not None and _calls_super(node, beside)]
    handed_on = {id(node) for call in calls for node in ast.walk(call)}
    return any(
        isinstance(node, ast.Name)
        and node.id == name
        and isinstance(node.ctx, ast.Load)
        and id(node) not in handed_on
        for node in ast.walk(tree)
    )


def _calls_super(node: ast.AST, method: str) -> bool:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == method):
        return False
    owner = node.func.value
    return isinstance(owner, ast.Call) and isinstance(owner.func, ast.Name) and owner.func.id == "super"
