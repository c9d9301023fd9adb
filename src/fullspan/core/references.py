# mypy: allow-untyped-defs, allow-untyped-decorators, allow-untyped-calls
"""Named tuples of arrays by reference: helpers get one pointer instead of some hundred numbers.

Numba passes a tuple to a function as one argument for every number in it, seven or more for each array, and
copies all of them whenever one member is read. That took most of the time of compiling kernels whose helpers
share such tuples.
"""

from __future__ import annotations

import hashlib
from typing import Any

from numba.core import cgutils, types
from numba.core.imputils import impl_ret_borrowed, lower_getattr_generic
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import intrinsic, models, register_model

_intrinsic: Any = intrinsic


class Reference(types.Type):
    """Where a named tuple stands on the kernel's stack; its members are read as from the tuple."""

    def __init__(self, record: Any) -> None:
        self.record = record
        # The tuple's own name, with the types of all members, would be in the name of every function.
        digest = hashlib.sha256(str(record).encode()).hexdigest()[:12]
        super().__init__(f"Reference({record.instance_class.__name__}-{digest})")


@register_model(Reference)
class _ReferenceModel(models.PrimitiveModel):
    def __init__(self, manager, reference):
        pointer = manager.lookup(reference.record).get_value_type().as_pointer()
        super().__init__(manager, reference, pointer)


@infer_getattr
class _Members(AttributeTemplate):
    key = Reference

    def generic_resolve(self, reference: Any, name: str) -> Any:  # type: ignore[override]
        record = reference.record
        return record[record.fields.index(name)] if name in record.fields else None


@lower_getattr_generic(Reference)
def _read_member(context, builder, reference, pointer, name):
    index = reference.record.fields.index(name)
    member = builder.load(cgutils.gep_inbounds(builder, pointer, 0, index))
    return impl_ret_borrowed(context, builder, reference.record[index], member)


@_intrinsic
def by_reference(typing_context, record):
    """Put a named tuple on the calling kernel's stack; the reference is good until that returns."""

    def codegen(context, builder, signature, args):
        place = cgutils.alloca_once(builder, args[0].type)
        builder.store(args[0], place)
        return place

    return Reference(record)(record), codegen
