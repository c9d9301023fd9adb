"""LoRA adapters on disk in PEFT's format: `adapter_config.json` and `adapter_model.safetensors`.

What a file asks for and this package does not do is refused by name: an adapter that is read wrongly
would still give plausible text.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fullspan.adapters.lora import LoRALinear, lora_layers, lora_parameters, replace_module
from fullspan.checkpoints.adapter_folder import ADAPTER_CONFIG, base_of_adapter
from fullspan.checkpoints.store import ModelStore
from fullspan.core.errors import CheckpointError
from fullspan.core.files import replacing

WEIGHTS = "adapter_model.safetensors"
# A file's name ends in its type, as in SmolLM2-135M-Instruct.Q4_1.gguf: it is the same model.
_QUANTISATION = re.compile(r"[.-](i?q\d\w*|bf16|f16|f32)$")
_PREFIX = "base_model.model."
_SUFFIXES = {
    "lora_A": ".lora_A.weight",
    "lora_B": ".lora_B.weight",
    "magnitude": ".lora_magnitude_vector",
}
# Keys that say how the adapter was made or is kept, not what it computes.
_NEUTRAL = frozenset(
    """auto_mapping base_model_name_or_path corda_config ensure_weight_tying eva_config
    exclude_modules inference_mode init_lora_weights layers_pattern layers_to_transform loftq_config
    lora_dropout lora_ga_config megatron_config megatron_core peft_version qalora_group_size revision
    runtime_config target_modules task_type""".split()
)
# Keys that are read, with their values below.
_READ = frozenset(
    ["peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "bias"]
)


def save_adapter(model: nn.Module, folder: Path | str, base_name: str) -> None:
    """Write the adapters of `model` for PEFT and for `load_adapter`.

    Parameters
    ----------
    model : nn.Module
        Holding `LoRALinear` layers.
    folder : path
        Replaced whole when it exists.
    base_name : str
        Name or path of the base model, kept as `base_model_name_or_path`.

    Raises
    ------
    CheckpointError
        If the model has no adapters or the folder cannot be written.
    """
    layers = dict(lora_layers(model))
    if not layers:
        raise CheckpointError("the model has no LoRA layers to save")
    first = next(iter(layers.values()))
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "inference_mode": True,
        "r": first.rank,
        "lora_alpha": first.alpha,
        "rank_pattern": {name: layer.rank for name, layer in layers.items() if layer.rank != first.rank},
        "alpha_pattern": {name: layer.alpha for name, layer in layers.items() if layer.alpha != first.alpha},
        "lora_dropout": first.dropout,
        "use_rslora": first.rslora,
        "use_dora": first.magnitude is not None,
        "target_modules": _short_targets(model, list(layers)),
        "bias": "none",
        "fan_in_fan_out": False,
        "modules_to_save": None,
    }
    tensors = {}
    for name, value in lora_parameters(model).items():
        layer_name, _, kind = name.rpartition(".")
        tensors[_PREFIX + layer_name + _SUFFIXES[kind]] = value.detach().contiguous()
    try:
        with replacing(folder) as beside:
            beside.mkdir()
            (beside / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            save_file(tensors, beside / WEIGHTS, metadata={"format": "pt"})
    except SafetensorError as error:
        raise CheckpointError(f"the adapter {folder} could not be written: {error}") from error


def _short_targets(model: nn.Module, names: list[str]) -> list[str]:
    """Last parts of `names` where those mean the same layers, else the full names."""
    short = sorted({name.rpartition(".")[2] for name in names})
    meant = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | LoRALinear) and name.rpartition(".")[2] in short
    ]
    return short if set(meant) == set(names) else sorted(names)


def load_adapter(model: nn.Module, folder: Path | str, base_name: str | None = None) -> None:
    """Put a saved adapter into `model`, in place; the base is frozen.

    The layers and ranks are those of the file's tensors. Dropout is off.

    Parameters
    ----------
    model : nn.Module
    folder : path
    base_name : str, optional
        Name or path of `model`; an adapter that was made for another is told of on stderr.

    Raises
    ------
    CheckpointError
        If a file is missing or damaged, asks for something unsupported, or does not fit the model.
    """
    folder = Path(folder)
    config = read_config(folder)
    tensors = _read_tensors(folder / WEIGHTS)
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, kind = _layer_and_kind(key, folder)
        parts.setdefault(name, {})[kind] = tensor
    if not parts:
        raise CheckpointError(f"{folder / WEIGHTS} holds no adapters")
    kinds = {"lora_A", "lora_B"} | ({"magnitude"} if config["use_dora"] else set())
    made = {name: _make_layer(model, name, found, kinds, config, folder) for name, found in parts.items()}
    model.requires_grad_(False)
    for name, layer in made.items():
        replace_module(model, name, layer)
    made_for = base_of_adapter(folder)
    if base_name and made_for and _names_of(made_for).isdisjoint(_names_of(base_name)):
        print(f"warning: {folder} was made for {made_for}, but the model is {base_name}", file=sys.stderr)


def _names_of(model: str) -> set[str]:
    """What a model may be called: the ends of its name, its path and its file in the store."""
    store = ModelStore()
    paths = [Path(model), Path(model).resolve()]
    if store.has(model):
        paths.append(store.path(model))
    elif store.root.resolve() in paths[1].parents:
        paths.append(paths[1].parent)  # models of the store lie in folders of their names
    return {_QUANTISATION.sub("", path.name.lower().removesuffix(".gguf")) for path in paths}


def read_config(folder: Path) -> dict[str, Any]:
    """Read and check an `adapter_config.json`; keys with a default in PEFT are filled in.

    Raises
    ------
    CheckpointError
        If it is missing, is not JSON, or asks for something unsupported.
    """
    file = folder / ADAPTER_CONFIG
    if not file.is_file():
        raise CheckpointError(
            f"{folder} is not an adapter: it has no {ADAPTER_CONFIG}", "give PEFT's adapter folder"
        )
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{file} holds a {type(config).__name__}, expected an object")
    if config.get("peft_type") != "LORA":
        raise CheckpointError(f"{file}: peft_type is {config.get('peft_type')!r}, expected 'LORA'")
    if config.get("bias", "none") != "none":
        raise CheckpointError(f"{file}: bias is {config['bias']!r}, only 'none' is supported")
    for key, value in config.items():
        # A switch that is off, an empty list or null changes nothing, whatever its name.
        if key not in _READ | _NEUTRAL and value:
            raise CheckpointError(f"{file}: {key} is {value!r}, which is not supported")
    _check_initialisation(config.get("init_lora_weights", True), file)
    defaults = {"r": 8, "lora_alpha": 8, "use_rslora": False, "use_dora": False}
    read = {**defaults, "rank_pattern": {}, "alpha_pattern": {}} | {
        key: value for key, value in config.items() if value is not None
    }
    for key, kind in {"r": int, "lora_alpha": int | float, "use_rslora": bool, "use_dora": bool}.items():
        if not isinstance(read[key], kind) or (kind is not bool and not read[key] > 0):
            raise CheckpointError(f"{file}: {key} is {read[key]!r}, expected a positive number or a switch")
    return read


def _check_initialisation(method: object, file: Path) -> None:
    # These change the base weights when the adapter is made: it fits no other base.
    if isinstance(method, str) and method.lower().startswith(("pissa", "olora", "corda", "loftq", "lora_ga")):
        raise CheckpointError(
            f"{file}: init_lora_weights is {method!r}, which changes the base weights",
            "convert it to plain LoRA with PEFT's path_initial_model_for_weight_conversion first",
        )


def _read_tensors(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise CheckpointError(f"{file.parent} is not an adapter: it has no {file.name}")
    try:
        with safe_open(file, framework="pt") as handle:
            return {key: handle.get_tensor(key) for key in list(handle.keys())}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is damaged: {error}") from None


def _layer_and_kind(key: str, folder: Path) -> tuple[str, str]:
    for kind, suffix in _SUFFIXES.items():
        if key.startswith(_PREFIX) and key.endswith(suffix):
            return key.removeprefix(_PREFIX).removesuffix(suffix), kind
    raise CheckpointError(f"{folder / WEIGHTS}: the tensor {key!r} is not part of a plain LoRA adapter")


def _make_layer(
    model: nn.Module,
    name: str,
    found: Mapping[str, Tensor],
    kinds: set[str],
    config: Mapping[str, Any],
    folder: Path,
) -> LoRALinear:
    if found.keys() != kinds:
        raise CheckpointError(f"{folder}: {name} has {sorted(found)}, expected {sorted(kinds)}")
    try:
        base = model.get_submodule(name)
    except AttributeError:
        raise CheckpointError(
            f"{folder}: the model has no layer {name!r}", "is it for another model?"
        ) from None
    if type(base) is not nn.Linear:
        raise CheckpointError(
            f"{folder}: {name} is a {type(base).__name__} here, expected a plain linear layer"
        )
    rank = _pattern(config["rank_pattern"], name, config["r"])
    expected = {"lora_A": (rank, base.in_features), "lora_B": (base.out_features, rank)}
    for kind, shape in {**expected, "magnitude": (base.out_features,)}.items():
        if kind in found and found[kind].shape != shape:
            raise CheckpointError(
                f"{folder}: {kind} of {name} has shape {tuple(found[kind].shape)}, expected {shape}"
            )
    layer = LoRALinear(
        base,
        rank=rank,
        alpha=_pattern(config["alpha_pattern"], name, config["lora_alpha"]),
        rslora=config["use_rslora"],
        dora=config["use_dora"],
    )
    with torch.no_grad():
        for kind, tensor in found.items():
            getattr(layer, kind).copy_(tensor)
    return layer


def _pattern(patterns: Mapping[str, Any], name: str, default: Any) -> Any:
    """The value of the first pattern that is the end of a module's name, or the default.

    PEFT takes patterns as regular expressions; plain names are what it writes itself.
    """
    for pattern, value in patterns.items():
        if not re.fullmatch(r"\^?[\w.]+", pattern):
            raise CheckpointError(f"the pattern {pattern!r} of ranks or alphas is not a plain module name")
        plain = pattern.removeprefix("^")
        if name == plain or (name.endswith("." + plain) and plain == pattern):
            return value
    return default
