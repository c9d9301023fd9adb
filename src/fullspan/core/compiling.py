# mypy: allow-untyped-calls
"""Numba's compiler, spared what kernels and their helpers have no use for: half of the time."""

from __future__ import annotations

from typing import Any

from numba import _dynfunc  # type: ignore[attr-defined]
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler, Flags


class _SteadyFlags(Flags):
    """Options that nobody changes while a function is compiled.

    They are part of the keys by which Numba looks up what is compiled already, thousands of times.
    """

    __slots__ = ("_hash",)

    def __init__(self, flags: Flags) -> None:
        super().__init__(flags)
        self._hash: int = super().__hash__()

    def __hash__(self) -> int:
        return self._hash

    def copy(self) -> Flags:
        return Flags(self)


_steady_flags: dict[_SteadyFlags, _SteadyFlags] = {}


class _KernelFlags(Flags):
    def copy(self) -> _SteadyFlags:
        # Numba asks for a copy that it only reads. The same object for equal options compares at once.
        steady = _SteadyFlags(self)
        return _steady_flags.setdefault(steady, steady)


class KernelCompiler(Compiler):
    """Compiles what Python calls."""

    def _compile_core(self) -> Any:
        self.state.flags = _KernelFlags(self.state.flags)
        return super()._compile_core()


class HelperCompiler(KernelCompiler):
    """Leaves a helper's code as it is, to be optimised as a part of the kernels that it is linked into.

    Numba would optimise it and translate it to machine code by itself first, with all that it calls.
    """

    def _compile_core(self) -> Any:
        context = self.state.targetctx  # this compilation's own
        self.state.library = _LinkedLibrary(context.codegen(), self.state.func_id.func_qualname)
        self.state.library.enable_object_caching()
        context.get_executable = _no_executable
        return super()._compile_core()


class _LinkedLibrary(JITCodeLibrary):
    """A helper's code and that of its own helpers, to be linked into kernels."""

    def finalize(self) -> None:
        self._raise_if_finalized()
        for library in dict.fromkeys(self._linking_libraries):
            self._reload_init.update(library._reload_init)
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        self._final_module.verify()
        self._finalized = True


def _no_executable(library: Any, description: Any, environment: Any) -> Any:
    """What stands for a function that Python cannot call."""
    library._ensure_finalized()
    name = description.qualname.split(".")[-1]
    return _dynfunc.make_function(description.lookup_module(), name, "", 0, environment, (library,))
