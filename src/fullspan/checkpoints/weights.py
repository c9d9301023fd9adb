"""Puts named tensors into a module, and says everything that does not fit at once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor, nn

from fullspan.core.errors import CheckpointError

_SHOWN = 20


def load_weights(
    module: nn.Module,
    tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]],
    *,
    tied: Collection[str] = (),
) -> None:
    """Load `tensors` into the parameters and persistent buffers of `module`.

    A parameter that has storage is filled in place (converted to its dtype and device); one on
    the meta device is replaced by the tensor itself, without a copy. Each tensor is let go of
    before the next is asked for, so a lazy iterable never doubles the memory.

    Parameters
    ----------
    module : nn.Module
    tensors : mapping, or iterable of (name, tensor)
        Names as in ``module.state_dict()``.
    tied : collection of str
        Names that are the same parameter as another one (a tied head): they may be missing, and
        are passed over when present.

    Raises
    ------
    CheckpointError
        If names are missing, unexpected or given twice, or shapes differ; the message names all
        of them. The module may then be loaded in part and should not be used.

    Examples
    --------
    >>> layer = nn.Linear(2, 1)
    >>> load_weights(layer, {"weight": torch.ones(1, 2), "bias": torch.zeros(1)})
    >>> layer(torch.tensor([1.0, 2.0])).item()
    3.0
    >>> load_weights(layer, {"weight": torch.ones(1, 3)})
    Traceback (most recent call last):
    ...
    fullspan.core.errors.CheckpointError: the weights do not fit Linear
      1 missing: bias
      1 of another shape: weight is (1, 3), expected (1, 2)
    """
    expected = module.state_dict(keep_vars=True)
    owners = _owners(module)
    loaded: set[str] = set()
    unexpected: list[str] = []
    misshapen: list[str] = []
    repeated: list[str] = []
    for name, tensor in tensors.items() if isinstance(tensors, Mapping) else tensors:
        if name in loaded:
            repeated.append(name)
        elif name not in expected:
            unexpected.append(name)
        elif tensor.shape != expected[name].shape:
            misshapen.append(f"{name} is {tuple(tensor.shape)}, expected {tuple(expected[name].shape)}")
        elif name not in tied:
            _put(expected[name], tensor, owners)
        loaded.add(name)
    missing = [name for name in expected if name not in loaded and name not in tied]
    problems = [
        _listing("missing", missing),
        _listing("unexpected", [name for name in unexpected if name not in tied]),
        _listing("of another shape", misshapen),
        _listing("given twice", repeated),
    ]
    if any(problems):
        raise CheckpointError(f"the weights do not fit {type(module).__name__}" + "".join(problems))


def _listing(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"\n  {len(names)} {what}: " + ", ".join(names[:_SHOWN]) + more


def _owners(module: nn.Module) -> dict[int, list[tuple[nn.Module, str]]]:
    """Where each meta tensor hangs; a tied one hangs in several places."""
    owners: dict[int, list[tuple[nn.Module, str]]] = {}
    for part in module.modules():
        for slots in (part._parameters, part._buffers):
            for name, tensor in slots.items():
                if tensor is not None and tensor.is_meta:
                    owners.setdefault(id(tensor), []).append((part, name))
    return owners


@torch.no_grad()
def _put(target: Tensor, tensor: Tensor, owners: Mapping[int, list[tuple[nn.Module, str]]]) -> None:
    if not target.is_meta:
        target.copy_(tensor)
        return
    value = tensor.detach()
    if isinstance(target, nn.Parameter):
        value = nn.Parameter(value, requires_grad=target.requires_grad)
    for part, name in owners[id(target)]:
        setattr(part, name, value)
