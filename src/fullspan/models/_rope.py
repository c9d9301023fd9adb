"""How Hugging Face configs and GGUF metadata spell the scaling of rotary positions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fullspan.core.errors import CheckpointError
from fullspan.nn.frequencies import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    RopeScaling,
    YarnScaling,
    inverse_frequencies,
    yarn_mscale,
)

_KINDS: dict[str, type] = {
    "linear": LinearScaling,
    "dynamic": DynamicScaling,
    "yarn": YarnScaling,
    "llama3": Llama3Scaling,
}
# The parameters behind the tensor rope_freqs.weight; other programs need only the tensor.
_LLAMA3_KEY = "fullspan.rope.llama3"
# Said by some configs, with no effect on the numbers; theta is read beside the scaling.
_WITHOUT_EFFECT = {"rope_type", "type", "rope_theta", "finetuned"}


def rope_from_hf(config: Mapping[str, Any], max_positions: int) -> tuple[float, RopeScaling | None]:
    """Theta and scaling from `rope_parameters` (transformers 5) or `rope_theta` with `rope_scaling`.

    Raises
    ------
    CheckpointError
        If the type of scaling, or one of its parameters, is not supported.
    """
    values = dict(config.get("rope_scaling") or config.get("rope_parameters") or {})
    theta = float(values.get("rope_theta") or config.get("rope_theta") or 10000.0)
    if float(values.pop("partial_rotary_factor", None) or config.get("partial_rotary_factor") or 1.0) != 1.0:
        raise CheckpointError("partial_rotary_factor is not 1, which fullspan does not support")
    kind = str(values.get("rope_type") or values.get("type") or "default")
    if kind == "default":
        return theta, None
    if kind not in _KINDS:
        raise CheckpointError(
            f"rope scaling of type {kind!r} is not supported", "supported: default, " + ", ".join(_KINDS)
        )
    if kind in ("yarn", "llama3"):
        original = config.get("original_max_position_embeddings")
        values["original_max_positions"] = (
            original or values.pop("original_max_position_embeddings", None) or max_positions
        )
        values.pop("original_max_position_embeddings", None)
    if kind == "yarn" and not values.get("factor"):
        values["factor"] = max_positions / values["original_max_positions"]
    return theta, _build(kind, values)


def _build(kind: str, values: Mapping[str, Any]) -> RopeScaling:
    fields = {field.name: field for field in dataclasses.fields(_KINDS[kind])}
    given = {key: value for key, value in values.items() if value is not None and key not in _WITHOUT_EFFECT}
    for key in given:
        if key not in fields:
            raise CheckpointError(
                f"rope scaling of type {kind!r} has a parameter {key!r} that is not supported"
            )
    for name, field in fields.items():
        if field.default is dataclasses.MISSING and name not in given:
            raise CheckpointError(f"rope scaling of type {kind!r} lacks its parameter {name!r}")
        if name in given and (isinstance(given[name], str) or not np.isscalar(given[name])):
            raise CheckpointError(f"rope scaling: {name} is {given[name]!r}, expected a number")
    scaling: RopeScaling = _KINDS[kind](**given)
    if scaling.factor <= 0:
        raise CheckpointError(f"rope scaling: factor is {scaling.factor}, expected a positive number")
    return scaling


def rope_to_hf(theta: float, scaling: RopeScaling | None) -> dict[str, Any]:
    """`rope_parameters`, and for readers older than transformers 5 `rope_theta` and `rope_scaling`.

    Examples
    --------
    >>> rope_to_hf(1e4, LinearScaling(2.0))["rope_parameters"]
    {'rope_theta': 10000.0, 'rope_type': 'linear', 'factor': 2.0}
    """
    parameters: dict[str, Any] = {"rope_type": "default"}
    if scaling is not None:
        kind = next(name for name, type_ in _KINDS.items() if isinstance(scaling, type_))
        values = {key: value for key, value in dataclasses.asdict(scaling).items() if value is not None}
        if "original_max_positions" in values:
            values["original_max_position_embeddings"] = values.pop("original_max_positions")
        parameters = {"rope_type": kind, **values}
    return {
        "rope_theta": theta,
        "rope_scaling": parameters if scaling is not None else None,
        "rope_parameters": {"rope_theta": theta, **parameters},
    }


def scaling_from_gguf(
    metadata: Mapping[str, Any],
    prefix: str,
    *,
    theta: float,
    head_dim: int,
    max_positions: int,
    divisors: np.ndarray | None,
) -> RopeScaling | None:
    """Scaling from the keys `<prefix>.rope.scaling.*`, or from `divisors`, the tensor rope_freqs.weight.

    Raises
    ------
    CheckpointError
        If the scaling is of a kind that is not supported.
    """

    def get(name: str) -> Any:
        return metadata.get(f"{prefix}.rope.scaling.{name}")

    kind = get("type") or "none"
    if divisors is not None:
        if kind != "none":
            raise CheckpointError(f"the file has both rope_freqs.weight and rope scaling of type {kind!r}")
        stated = metadata.get(_LLAMA3_KEY, ())
        return _llama3_from_divisors(np.asarray(divisors, np.float64).ravel(), theta, head_dim, stated)
    if kind == "none":
        return None
    if kind not in ("linear", "yarn"):
        raise CheckpointError(
            f"rope scaling of type {kind!r} is not supported in GGUF", "supported: none, linear, yarn"
        )
    factor = get("factor") or metadata.get(f"{prefix}.rope.scale_linear")
    if not factor:
        raise CheckpointError(f"rope scaling of type {kind!r} lacks {prefix}.rope.scaling.factor")
    if kind == "linear":
        return LinearScaling(decimal(factor))
    factor, attention = decimal(factor), decimal(get("attn_factor") or 1.0)
    return YarnScaling(
        factor=factor,
        original_max_positions=int(get("original_context_length") or max_positions),
        # llama.cpp multiplies by YaRN's own temperature, so the file states only what differs from it.
        attention_factor=None if attention == 1.0 else attention * yarn_mscale(factor),
        beta_fast=decimal(get("yarn_beta_fast") or 32.0),
        beta_slow=decimal(get("yarn_beta_slow") or 1.0),
    )


def scaling_to_gguf(scaling: RopeScaling | None, prefix: str) -> dict[str, Any]:
    """The keys `<prefix>.rope.scaling.*`; Llama 3's scaling is the tensor of `llama3_divisors` instead.

    Raises
    ------
    CheckpointError
        If GGUF has no way to say it.
    """
    if scaling is None:
        return {}
    if isinstance(scaling, Llama3Scaling):
        return {_LLAMA3_KEY: list(map(float, dataclasses.astuple(scaling)))}
    key = f"{prefix}.rope.scaling."
    if isinstance(scaling, LinearScaling):
        return {key + "type": "linear", key + "factor": scaling.factor}
    if isinstance(scaling, DynamicScaling) or not scaling.truncate:
        what = "dynamic rope scaling" if isinstance(scaling, DynamicScaling) else "YaRN with truncate=false"
        raise CheckpointError(f"GGUF cannot express {what}", "save the model as a folder instead")
    written = {
        key + "type": "yarn",
        key + "factor": scaling.factor,
        key + "original_context_length": scaling.original_max_positions,
        key + "yarn_beta_fast": scaling.beta_fast,
        key + "yarn_beta_slow": scaling.beta_slow,
    }
    attention = scaling.effective_attention_factor() / yarn_mscale(scaling.factor)
    if attention != 1.0:
        written[key + "attn_factor"] = attention
    return written


def llama3_divisors(scaling: Llama3Scaling, theta: float, head_dim: int) -> np.ndarray:
    """What GGUF stores as rope_freqs.weight: plain frequencies over scaled ones, float32 [head_dim / 2]."""
    plain = inverse_frequencies(head_dim, theta).astype(np.float64)
    divisors: np.ndarray = (plain / inverse_frequencies(head_dim, theta, scaling)).astype(np.float32)
    return divisors


def _llama3_from_divisors(
    divisors: np.ndarray, theta: float, head_dim: int, stated: Sequence[float]
) -> Llama3Scaling:
    """Find the parameters behind `llama3_divisors`: those stated, Llama 3's own, or by regression.

    Of (original_max_positions, low, high) only the ratios matter, so low is 1 as in Llama 3. In the middle
    band the inverse divisor is linear in the frequency, which gives the other two.
    """
    if divisors.shape != (head_dim // 2,) or not (np.isfinite(divisors).all() and (divisors > 0.999).all()):
        raise CheckpointError(
            f"rope_freqs.weight has shape {divisors.shape}, expected {head_dim // 2} numbers of at least 1"
        )
    factor = decimal(divisors.max())
    candidates = [(factor, 8192.0, 1.0, 4.0)]
    if len(stated) == 4 and min(stated) > 0:
        candidates.insert(0, (decimal(stated[0]), stated[1], decimal(stated[2]), decimal(stated[3])))
    turns = inverse_frequencies(head_dim, theta).astype(np.float64) / (2 * np.pi)  # a position
    smooth = (1 / divisors - 1 / factor) / (1 - 1 / factor) if factor > 1 else np.zeros_like(divisors)
    middle = (smooth > 1e-4) & (smooth < 1 - 1e-4)
    if middle.sum() >= 2:
        # smooth = (original · turns - 1) / (high - 1)
        slope, offset = np.polyfit(turns[middle], smooth[middle], 1)
        candidates.append((factor, slope / -offset, 1.0, round(1 - 1 / offset, 3)))
    for factor, original, low, high in candidates:
        if high > low:
            scaling = Llama3Scaling(factor, round(original), low, high)
            if np.allclose(llama3_divisors(scaling, theta, head_dim), divisors, rtol=2e-5):
                return scaling
    raise CheckpointError(
        "rope_freqs.weight is not the scaling of Llama 3.1, the only one supported by such a tensor",
        "use the model's Hugging Face folder",
    )


def decimal(value: float) -> float:
    """The shortest decimal that rounds to the same float32, which is all that GGUF keeps of a number.

    Examples
    --------
    >>> decimal(9.999999747378752e-06)
    1e-05
    """
    return float(str(np.float32(value)))
