"""Docstrings of Python packages as a nested table: one row a module, with an array of its members.

The columns are

======= ================================================== ==============================================
module  string                                             dotted name, such as ``json.decoder``
path    string, NULL for a module written in C             source file, relative to the library's folder
doc     string or NULL                                     the module's own docstring
members array<struct<kind, name, signature, doc: string>>  public classes, functions, methods, properties
======= ================================================== ==============================================

A member's ``kind`` is ``class``, ``function``, ``method`` or ``property``; its ``name`` is qualified inside
the module (``JSONDecoder.decode``); its ``signature`` reads ``(s, *, strict=True)``, without ``self``, and is
NULL where there is none; its ``doc`` is NULL where nobody wrote one. Source files are parsed, never imported.
"""

from __future__ import annotations

import ast
import importlib
import importlib.machinery
import importlib.util
import inspect
import re
import sys
import sysconfig
import types
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

import pyarrow as pa

from fullspan.core.errors import DataError, did_you_mean

_SKIPPED_FOLDERS = {
    "test", "tests", "idlelib", "idle_test", "lib2to3", "turtledemo", "ensurepip", "pydoc_data",
    "site-packages", "dist-packages", "lib-dynload", "__pycache__", "__phello__",
}  # fmt: skip

SCHEMA = pa.schema(
    [
        pa.field("module", pa.string(), nullable=False),
        pa.field("path", pa.string()),
        pa.field("doc", pa.string()),
        pa.field(
            "members",
            pa.list_(pa.struct([(name, pa.string()) for name in ("kind", "name", "signature", "doc")])),
        ),
    ]
)


class Member(TypedDict):
    """A public class, function, method or property of a module."""

    kind: str
    name: str
    signature: str | None
    doc: str | None


class Module(TypedDict):
    """One row of the table."""

    module: str
    path: str | None
    doc: str | None
    members: list[Member]


def read_docstrings(packages: Sequence[str] | Literal["stdlib"] = "stdlib") -> pa.Table:
    """Read the docstrings of installed packages, or of the running Python's standard library.

    Parameters
    ----------
    packages : sequence of str, or "stdlib"
        Names of top-level packages or modules. Their sources are parsed, never imported. Only the
        standard library's own C modules, which have no source, are imported and inspected.

    Returns
    -------
    pyarrow.Table
        One row a module, sorted by name, with the columns of `SCHEMA`.

    Raises
    ------
    DataError
        If a package is not installed or has no Python source.

    Warns
    -----
    UserWarning
        If files were skipped because they could not be read or parsed.

    Examples
    --------
    >>> table = read_docstrings(["json"])
    >>> table["module"].to_pylist()[:2]
    ['json', 'json.decoder']
    >>> table["members"][0].as_py()[0]["name"]
    'dump'
    """
    if isinstance(packages, str):
        root = Path(sysconfig.get_paths()["stdlib"])
        files = {name: (file, root) for name, file in _sources(root, prefix="")}
        rows = [_inspect_module(name) for name in _compiled_modules() if name not in files]
        if not files:
            raise DataError(
                f"the standard library at {root} has no source files", "name an installed package"
            )
    else:
        files, rows = {}, []
        for package in packages:
            files |= _package_sources(package)
    skipped: list[Path] = []
    for name, (file, root) in files.items():
        try:
            rows.append(_parse_module(name, file, root))
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            skipped.append(file)
    if skipped:
        warnings.warn(f"skipped {len(skipped)} unreadable files, the first is {skipped[0]}", stacklevel=2)
    rows.sort(key=lambda row: row["module"])
    return pa.Table.from_pylist(rows, SCHEMA)


def _package_sources(package: str) -> dict[str, tuple[Path, Path]]:
    # A dotted name would import its parents.
    spec = None if "." in package else importlib.util.find_spec(package)
    if spec is None:
        hint = "" if "." in package else did_you_mean(package, sys.stdlib_module_names)
        hint = "give the name of the top-level package" if "." in package else hint
        raise DataError(f"no package named {package!r} is installed", hint)
    if spec.submodule_search_locations:
        folders = [Path(folder) for folder in spec.submodule_search_locations]
        found = {
            name: (file, folder.parent)
            for folder in folders
            for name, file in _sources(folder, f"{package}.")
        }
    elif spec.origin and spec.origin.endswith(".py"):
        found = {package: (Path(spec.origin), Path(spec.origin).parent)}
    else:
        found = {}
    if not found:
        raise DataError(
            f"package {package!r} has no Python source", "only Python files are read, C modules are not"
        )
    return found


def _sources(folder: Path, prefix: str) -> Iterator[tuple[str, Path]]:
    """Public modules under a folder, as dotted names and files."""
    for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
        if entry.name == "__init__.py" and prefix:
            yield prefix.removesuffix("."), entry
        elif entry.name.startswith("_") or entry.name in _SKIPPED_FOLDERS:
            continue
        elif entry.suffix == ".py" and entry.stem.isidentifier():
            yield prefix + entry.stem, entry
        elif entry.is_dir() and (entry / "__init__.py").is_file():
            yield from _sources(entry, f"{prefix}{entry.name}.")


def _parse_module(name: str, file: Path, root: Path) -> Module:
    with warnings.catch_warnings():
        # Old sources hold invalid escapes; they are not ours to complain about.
        warnings.simplefilter("ignore")
        tree = ast.parse(file.read_bytes(), str(file))
    members: dict[str, Member] = {}
    for member in _members(tree.body, owner=None):
        known = members.get(member["name"])
        # A name defined twice (for two platforms, or a property and its setter) keeps the first docstring.
        if known is None or (known["doc"] is None and member["doc"] is not None):
            members[member["name"]] = member
    path = file.relative_to(root).as_posix()
    return Module(module=name, path=path, doc=_clean(ast.get_docstring(tree)), members=list(members.values()))


def _members(body: Sequence[ast.stmt], owner: str | None) -> Iterator[Member]:
    for node in body:
        if isinstance(node, ast.If | ast.Try):
            handlers = [handler.body for handler in node.handlers] if isinstance(node, ast.Try) else []
            for block in (node.body, *handlers, node.orelse):
                yield from _members(block, owner)
        elif not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        elif not node.name.startswith("_"):
            name = f"{owner}.{node.name}" if owner else node.name
            doc = _clean(ast.get_docstring(node))
            if isinstance(node, ast.ClassDef):
                yield Member(kind="class", name=name, signature=_class_signature(node), doc=doc)
                yield from _members(node.body, owner=name)
            else:
                kind = "function" if owner is None else "method"
                kind = "property" if _decorators(node) & {"property", "cached_property"} else kind
                signature = None if kind == "property" else _signature(node, bound=owner is not None)
                yield Member(kind=kind, name=name, signature=signature, doc=doc)


def _decorators(node: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    return {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}


def _class_signature(node: ast.ClassDef) -> str | None:
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return _signature(item, bound=True).partition(" -> ")[0]
    return None


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef, bound: bool) -> str:
    arguments = node.args
    if bound and "staticmethod" not in _decorators(node):
        first = arguments.posonlyargs or arguments.args
        arguments = ast.arguments(**{field: getattr(arguments, field) for field in arguments._fields})
        if first is arguments.posonlyargs:
            arguments.posonlyargs = first[1:]
        else:
            arguments.args = first[1:]
        # `self` never has a default, so the defaults of the others still fit.
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"({ast.unparse(arguments)}){returns}"


def _compiled_modules() -> list[str]:
    """The standard library's public modules without source on this machine."""
    found = ["builtins"]
    for name in sorted(sys.stdlib_module_names):
        if not name.startswith("_") and name not in _SKIPPED_FOLDERS:
            spec = importlib.machinery.BuiltinImporter.find_spec(name) or _extension_spec(name)
            if spec is not None:
                found.append(name)
    return sorted(set(found))


def _extension_spec(name: str) -> importlib.machinery.ModuleSpec | None:
    folders = [sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib")]
    folders += [str(Path(folder, "lib-dynload")) for folder in folders]
    spec = importlib.machinery.PathFinder.find_spec(name, folders)
    loader = spec.loader if spec else None
    return spec if isinstance(loader, importlib.machinery.ExtensionFileLoader) else None


def _inspect_module(name: str) -> Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            module = importlib.import_module(name)
    except ImportError:  # built, but a shared library that it needs is not installed
        return Module(module=name, path=None, doc=None, members=[])
    members = list(_inspect_members(module, owner=None, home=name))
    return Module(module=name, path=None, doc=_clean(module.__doc__), members=members)


def _inspect_members(scope: Any, owner: str | None, home: str) -> Iterator[Member]:
    for key, value in sorted(vars(scope).items()):
        name = f"{owner}.{key}" if owner else key
        if key.startswith("_") or (isinstance(value, type) and value.__name__ != key):
            continue  # private, or an alias such as IOError for OSError
        kind = _kind(value, owner)
        if kind is None or (isinstance(value, type) and value.__module__ != home):
            continue
        doc, signature = _split_signature(_clean(getattr(value, "__doc__", None)), key)
        text = getattr(value, "__text_signature__", None)
        if text and kind != "property":
            # $module and $self stand for the bound first argument.
            signature = re.sub(r"\(\$?\w*(self|module|type|cls|mod)\b(, /(?=[,)]))?(, )?", "(", text, count=1)
        yield Member(kind=kind, name=name, signature=signature, doc=doc)
        if isinstance(value, type) and owner is None:
            yield from _inspect_members(value, owner=name, home=home)


def _kind(value: object, owner: str | None) -> str | None:
    if isinstance(value, type):
        return "class"
    if inspect.isdatadescriptor(value):
        return "property"
    callables = (
        types.BuiltinFunctionType, types.MethodDescriptorType, types.ClassMethodDescriptorType,
        types.FunctionType, staticmethod, classmethod,
    )  # fmt: skip
    if isinstance(value, callables):
        return "function" if owner is None else "method"
    return None


def _split_signature(doc: str | None, name: str) -> tuple[str | None, str | None]:
    """C docstrings often begin with the call itself; take it off as the signature.

    Examples
    --------
    >>> _split_signature("vars([object]) -> dictionary\\n\\nWithout arguments, like locals().", "vars")
    ('Without arguments, like locals().', '([object])')
    """
    if doc is None:
        return None, None
    signature, lines = None, doc.splitlines()
    while lines and (match := re.match(rf"(?:\w+\.)*{re.escape(name)}(\([^)]*\))(?: ?-+>.*)?:?$", lines[0])):
        signature = signature or match[1]
        lines.pop(0)
    return _clean("\n".join(lines)), signature


def _clean(doc: object) -> str | None:
    text = inspect.cleandoc(doc).strip() if isinstance(doc, str) else ""
    # Lone surrogates cannot be written as UTF-8.
    return text.encode("utf-8", "replace").decode("utf-8") or None
