"""Compiles hot loops with Numba, once a machine and again whenever a source that they inline has changed."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llvmlite.binding
import numba
from numba.core import caching
from numba.core.compiler_lock import global_compiler_lock
from numba.core.runtime import _nrt_python  # type: ignore[attr-defined]

from fullspan.core.compiling import HelperCompiler, KernelCompiler

if TYPE_CHECKING:
    from filelock import FileLock

# No NaN or infinity reaches these loops, and a sum may be taken in any order: that lets LLVM vectorise.
# The order is fixed when the kernel is compiled, so results are the same in every call.
FINITE_ANY_ORDER = frozenset({"nnan", "ninf", "nsz", "arcp", "contract", "afn", "reassoc"})

_PACKAGE = __name__.partition(".")[0]
_njit: Any = numba.njit  # its types leave out some of its options
# No wrapper for C: nobody calls a kernel from there, and there is less to compile.
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
# `from fullspan.a import b, c`, the names perhaps in brackets over some lines, or `import fullspan.a`.
_IMPORT = re.compile(
    rf"^[ \t]*(?:from ({_PACKAGE}[\w.]*) import (\([^)]*\)|[^\n]*)|import ({_PACKAGE}\.[\w.]+))", re.MULTILINE
)
_COMMENT, _NAME = re.compile(r"#[^\n]*|\bas \w+"), re.compile(r"\w+")
# Seconds for which a process waits for another that compiles the same kernel; a stopped one would never end.
_PATIENCE = 120


def kernel(
    *, fastmath: frozenset[str] = frozenset(), counts_references: bool = True
) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function that Python calls: without the GIL, kept on disk for the next process.

    Numba's own cache looks at the function's file alone and misses edits in files that its helpers come from;
    this one is keyed by the sources of all modules of fullspan that the function's module imports.

    Parameters
    ----------
    fastmath : frozenset of str
        LLVM's fast-math flags; none by default, so that results follow IEEE 754.
    counts_references : bool
        Functions that make no arrays can do without counting references to those that they get. In one that
        runs for every node and feature of a tree, and takes many arrays out of tuples, counting took half of
        the time. All helpers of a kernel should say the same: then they share what Numba compiles for them.

    Examples
    --------
    >>> @kernel()
    ... def dot(x, y):
    ...     total = 0.0
    ...     for i in range(len(x)):
    ...         total += x[i] * y[i]
    ...     return total
    >>> import numpy as np
    >>> dot(np.ones(3), np.arange(3.0))
    3.0
    """

    def compile_lazily(function: Callable[..., Any]) -> Any:
        options = {**_OPTIONS, "_nrt": counts_references, "pipeline_class": KernelCompiler}
        dispatcher = _njit(**options, fastmath=set(fastmath))(function)
        if Path(function.__code__.co_filename).is_file():
            _KernelCache(function).serve(dispatcher)  # type: ignore[no-untyped-call]
        return dispatcher

    return compile_lazily


def helper(
    *, fastmath: frozenset[str] = frozenset(), counts_references: bool = True, name: str = ""
) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function that only kernels call; it is kept on disk as a part of them.

    Parameters
    ----------
    fastmath, counts_references
        As of `kernel`.
    name : str, optional
        Needed where one definition makes several functions. Kernels from the disk bring their helpers along,
        and of two that are called the same, for types that are the same, the linker keeps one.
    """
    options = {**_OPTIONS, "no_cpython_wrapper": True, "_nrt": counts_references}
    compile_into_kernels: Callable[[Callable[..., Any]], Any] = _njit(
        **options, fastmath=set(fastmath), pipeline_class=HelperCompiler
    )

    def compile_lazily(function: Callable[..., Any]) -> Any:
        if name:
            function.__qualname__ = name
        return compile_into_kernels(function)

    return compile_lazily


def was_compiled(dispatcher: Any) -> bool:
    """Whether this process had to compile the kernel, having found it on no disk."""
    return bool(sum(dispatcher.stats.cache_misses.values()))


@functools.cache
def _register_runtime() -> None:
    """Tell LLVM where the functions in C of Numba's runtime are, as its own initialisation does first."""
    for name, place in _nrt_python.c_helpers.items():
        llvmlite.binding.add_symbol(name if name.startswith("_") else f"NRT_{name}", place)


class _Locator:
    """Mixed into Numba's locators, which know the folders: when are two sources the same?"""

    _py_file: str

    def get_source_stamp(self) -> str:
        return source_fingerprint(self._py_file)

    def get_disambiguator(self) -> str:
        # In the file's name, so that a process never finds another version's code under its own name.
        return source_fingerprint(self._py_file)[:12]


_LOCATORS: list[Any] = [
    type(locator.__name__, (_Locator, locator), {})
    for locator in (
        caching.UserProvidedCacheLocator,
        caching.InTreeCacheLocator,
        caching.UserWideCacheLocator,
    )
]


class _KernelCacheImpl(caching.CompileResultCacheImpl):
    _locator_classes = _LOCATORS


class _KernelCache(caching.FunctionCache):
    """Lets one process at a time compile a kernel: those that come meanwhile wait and load what it has kept.

    That saves their time, and makes the cache safe: Numba does not lock its index. If two processes kept code
    for different types at once, one entry could be lost, or lead to the code of the other.
    """

    _impl_class = _KernelCacheImpl

    def serve(self, dispatcher: Any) -> None:
        """Become the dispatcher's cache."""
        dispatcher._cache = self
        compile_at_once = dispatcher.compile

        def compile_in_turn(signature: Any) -> Any:
            # Another thread must not meet this call's turn. A kernel may reach itself through another one.
            with global_compiler_lock, contextlib.ExitStack() as turn:
                self._turns.append(turn)
                turn.callback(self._turns.pop)
                return compile_at_once(signature)

        self._turns: list[contextlib.ExitStack] = []
        dispatcher.compile = compile_in_turn

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What the disk has for these types; nothing only after waiting for our turn to compile it."""
        found = self._load_quickly(sig, target_context)
        if found is None:
            # Where nobody can lock, or the other one never ends, compiling twice is better than not at all.
            with contextlib.suppress(OSError):
                self._turns[-1].enter_context(self._lock)
            found = super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        return found

    def _load_quickly(self, sig: Any, target_context: Any) -> Any:
        """As Numba does it, without first importing all that it can compile, SciPy's linear algebra among it.

        Code from the disk only needs to find the functions in C that it calls. Whoever compiles gets the rest
        before that.
        """
        _register_runtime()
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)  # type: ignore[no-untyped-call]

    @functools.cached_property
    def _lock(self) -> FileLock:
        from filelock import FileLock

        self._impl.locator.ensure_cache_path()
        return FileLock(Path(self.cache_path, f"{self._impl.filename_base}.lock"), timeout=_PATIENCE)


@functools.cache
def source_fingerprint(file: str) -> str:
    """Digest of a module's source and of every module of fullspan that it imports, directly or not."""
    digest = hashlib.sha256()
    for path in sorted(_with_imports(Path(file))):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _with_imports(file: Path) -> set[Path]:
    found: set[Path] = set()
    waiting = [file]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _imports(path)
    return found


@functools.cache
def _imports(file: Path) -> tuple[Path, ...]:
    """Modules of this package that a source imports; found by their lines: parsing takes ten times as long.

    A function's name may be taken for a module's, which then has no file.
    """
    names: list[str] = []
    for module, found, plain in _IMPORT.findall(file.read_text(encoding="utf-8")):
        names += [name for name in (module, plain) if name]
        names += [f"{module}.{name}" for name in _NAME.findall(_COMMENT.sub("", found))]
    return tuple(path for name in names if "." in name and (path := _module_file(name)))


def _module_file(name: str) -> Path | None:
    """The source of a module of this package; None for what is no module, such as a function's name."""
    root = Path(__file__).parent.parent
    path = root.joinpath(*name.split(".")[1:])
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None
