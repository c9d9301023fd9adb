"""LoRA and its variants rsLoRA and DoRA, put into a model by module name.

Sources
-------
LoRA: Hu et al. 2021, arXiv:2106.09685, eq. 3: ``h = W x + s B A x`` with ``s = alpha / r``.
rsLoRA: Kalajdzievski 2023, arXiv:2312.03732: ``s = alpha / sqrt(r)``.
DoRA: Liu et al. 2024, arXiv:2402.09353, eq. 5: ``W' = m (W + s B A) / ||W + s B A||`` with the norm of
each output row, taken as a constant in the backward pass (section 4.3).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fullspan.core.errors import ConfigError, did_you_mean

ALL_LINEAR = "all-linear"
HEAD = "lm_head"


@dataclass(frozen=True)
class LoRAConfig:
    """What is adapted and how.

    Parameters
    ----------
    rank : int
        r, the rank of the update.
    alpha : float
        Numerator of the scale.
    dropout : float
        Probability of dropping an input of A, in training only.
    targets : sequence of str
        Last parts of module names, such as ``("q_proj", "v_proj")``; ``"all-linear"`` stands for every
        ``nn.Linear`` but the head.
    rslora : bool
        Scale by ``alpha / sqrt(r)`` instead of ``alpha / r``.
    dora : bool
        Train a magnitude for each output row beside the direction.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: Sequence[str] = (ALL_LINEAR,)
    rslora: bool = False
    dora: bool = False


class LoRALinear(nn.Module):
    """A frozen linear layer with a trainable update of low rank.

    Parameters
    ----------
    base : nn.Linear
        The layer to adapt; its parameters are frozen. Any floating dtype.
    rank, alpha, dropout, rslora, dora
        See `LoRAConfig`.

    Attributes
    ----------
    lora_A : nn.Parameter, float32, [r, in]
    lora_B : nn.Parameter, float32, [out, r]
        Zero at first, so that the layer starts as its base.
    magnitude : nn.Parameter, float32, [out], or None
        DoRA's m; the row norms of the base weight at first.
    scale : float
    dropout : float
    enabled : bool
        False makes the layer its base; see `disabled`.
    """

    def __init__(
        self,
        base: nn.Linear,
        *,
        rank: int,
        alpha: float,
        dropout: float = 0.0,
        rslora: bool = False,
        dora: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if rank < 1:
            raise ConfigError(f"LoRA rank is {rank}, expected at least 1")
        if not 0.0 <= dropout < 1.0:
            raise ConfigError(f"LoRA dropout is {dropout}, expected at least 0 and less than 1")
        self.base = base.requires_grad_(False)
        self.rank = rank
        self.alpha = alpha
        self.rslora = rslora
        self.scale = alpha / math.sqrt(rank) if rslora else alpha / rank
        self.dropout = dropout
        self.enabled = True
        device = base.weight.device
        a = torch.empty(rank, base.in_features)
        nn.init.kaiming_uniform_(a, a=math.sqrt(5), generator=generator)
        self.lora_A = nn.Parameter(a.to(device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, device=device))
        self.magnitude = nn.Parameter(_row_norms(base.weight.detach().float())) if dora else None

    def forward(self, x: Tensor) -> Tensor:  # [..., in] -> [..., out]
        base = self.base(x)
        if not self.enabled:
            return base  # type: ignore[no-any-return]
        dropped = F.dropout(x, self.dropout, self.training)
        # The update is taken in float32 like A and B, or in autocast's dtype.
        wide = dropped if torch.is_autocast_enabled(x.device.type) else dropped.to(self.lora_A.dtype)
        update = F.linear(F.linear(wide, self.lora_A) * self.scale, self.lora_B)
        if self.magnitude is None:
            return base + update.to(base.dtype)  # type: ignore[no-any-return]
        # m / ||W + sBA||, applied to everything but the bias.
        ratio = self.magnitude / _row_norms(self._direction().detach())  # [out]
        unbiased = F.linear(dropped, self.base.weight) if self.dropout and self.training else base
        if self.base.bias is not None and unbiased is base:
            unbiased = base - self.base.bias
        return base + ((ratio - 1) * unbiased + ratio * update).to(base.dtype)  # type: ignore[no-any-return]

    def _direction(self) -> Tensor:
        return self.base.weight.float() + self.scale * (self.lora_B @ self.lora_A)

    @torch.no_grad()
    def merged_weight(self) -> Tensor:
        """The adapted weight in float32, whatever the base's dtype: [out, in]."""
        with torch.autocast(self.lora_A.device.type, enabled=False):
            direction = self._direction()
            if self.magnitude is None:
                return direction
            merged: Tensor = direction * (self.magnitude / _row_norms(direction))[:, None]
            return merged

    def extra_repr(self) -> str:
        return f"rank={self.rank}, scale={self.scale:g}, dropout={self.dropout:g}"


def _row_norms(weight: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(weight, dim=1)
    return norms


def target_names(model: nn.Module, targets: Sequence[str]) -> list[str]:
    """Full names of the linear layers that `targets` name, in the model's order.

    Raises
    ------
    ConfigError
        If a target names no linear layer, or names the head, whose weight the loss reads directly.
    """
    linear = [name for name, module in model.named_modules() if type(module) is nn.Linear]
    adaptable = [name for name in linear if name.rpartition(".")[2] != HEAD]
    if not targets:
        raise ConfigError("no LoRA targets given", f"name modules such as q_proj, or {ALL_LINEAR}")
    chosen: set[str] = set()
    for target in targets:
        if target == ALL_LINEAR:
            chosen.update(adaptable)
            continue
        if target.rpartition(".")[2] == HEAD:
            raise ConfigError(
                f"the head {target!r} cannot be a LoRA target: the loss reads its weight directly"
            )
        found = [name for name in adaptable if name == target or name.endswith("." + target)]
        if not found:
            known = {name.rpartition(".")[2] for name in adaptable} | {ALL_LINEAR}
            raise ConfigError(f"the model has no linear layer named {target!r}", did_you_mean(target, known))
        chosen.update(found)
    return [name for name in adaptable if name in chosen]


def add_lora(model: nn.Module, config: LoRAConfig, seed: int = 0) -> list[str]:
    """Freeze `model` and replace its target layers by `LoRALinear`, in place.

    Returns
    -------
    list of str
        The names of the adapted layers.

    Raises
    ------
    ConfigError
        If a target names no linear layer or the model already has adapters.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    >>> add_lora(model, LoRAConfig(rank=2, targets=["1"]))
    ['1']
    >>> list(lora_parameters(model))
    ['1.lora_A', '1.lora_B']
    """
    if any(True for _ in lora_layers(model)):
        raise ConfigError("the model already has LoRA layers", "merge them first")
    names = target_names(model, config.targets)
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(False)
    for name in names:
        layer = LoRALinear(
            _linear(model, name),
            rank=config.rank,
            alpha=config.alpha,
            dropout=config.dropout,
            rslora=config.rslora,
            dora=config.dora,
            generator=generator,
        )
        replace_module(model, name, layer)
    return names


def _linear(model: nn.Module, name: str) -> nn.Linear:
    module = model.get_submodule(name)
    assert isinstance(module, nn.Linear)
    return module


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` where the one called `name` stands, in the same training mode."""
    parent, _, child = name.rpartition(".")
    module.train(model.get_submodule(name).training)
    setattr(model.get_submodule(parent), child, module)


def lora_layers(model: nn.Module) -> Iterator[tuple[str, LoRALinear]]:
    """Names and adapted layers in the model's order."""
    for name, module in model.named_modules():
        if isinstance(module, LoRALinear):
            yield name, module


def lora_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trainable parameters by name: ``<layer>.lora_A``, ``.lora_B`` and, with DoRA, ``.magnitude``."""
    found = {}
    for name, layer in lora_layers(model):
        found[f"{name}.lora_A"] = layer.lora_A
        found[f"{name}.lora_B"] = layer.lora_B
        if layer.magnitude is not None:
            found[f"{name}.magnitude"] = layer.magnitude
    return found


def merge_lora(model: nn.Module) -> None:
    """Add each update to its base weight and put the plain layer back, in place.

    The sum is taken in float32 and rounded once, to the base's dtype. To merge without that rounding,
    load the base in float32.
    """
    for name, layer in list(lora_layers(model)):
        layer.base.weight.data = layer.merged_weight().to(layer.base.weight.dtype)
        replace_module(model, name, layer.base)


@contextlib.contextmanager
def disabled(model: nn.Module) -> Iterator[None]:
    """Within the block the model is its base."""
    layers = [(layer, layer.enabled) for _, layer in lora_layers(model)]
    try:
        for layer, _ in layers:
            layer.enabled = False
        yield
    finally:
        for layer, before in layers:
            layer.enabled = before
