"""Loading of language models: who computes, and with which weights.

Nothing here imports torch before it is needed: where the CPU engine computes, an answer is there before torch
would be.
"""

from __future__ import annotations

import importlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from fullspan.checkpoints.adapter_folder import base_and_adapter
from fullspan.checkpoints.store import find_model
from fullspan.core.device import default_device, default_device_type, default_dtype
from fullspan.core.errors import ConfigError
from fullspan.decoding.engines import EngineName, Weights
from fullspan.decoding.language_model import LanguageModel
from fullspan.decoding.speculation.tuned import Source
from fullspan.models.formats import is_gguf
from fullspan.models.tokenizers import load_tokenizer

if TYPE_CHECKING:
    import torch

    from fullspan.checkpoints.gguf_file import GGUFFile
    from fullspan.decoding.decoders import Decoder
    from fullspan.models.llama import Llama


def load(
    name_or_path: str | Path,
    *,
    adapter: str | Path | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    engine: EngineName = "auto",
    weights: Weights | None = None,
) -> LanguageModel:
    """Load a language model.

    On a CPU, models from GGUF files answer through fullspan's own engine, which computes with their quantised
    weights; others do where `weights` are asked for. Elsewhere torch computes, with dequantised weights.

    Parameters
    ----------
    name_or_path : str or Path
        A model of the store, a GGUF file, a Hugging Face folder, or a folder with an adapter, whose
        configuration names the model it belongs to.
    adapter : str or Path, optional
        Folder of an adapter in PEFT's format; it is merged into the weights in float32.
    dtype : torch.dtype, optional
        Of torch: bfloat16 where the device is fast at it, otherwise float32. Giving one chooses torch.
    device : torch.device or str, optional
        A CUDA device where there is one, otherwise the CPU.
    engine : {"auto", "cpu", "torch"}
        What computes.
    weights : {"q4", "q8", "bf16", "f32"}, optional
        Kind of the CPU engine's weights. By default those of a GGUF file stay as they are if the engine has
        kernels for them (Q4_0, Q4_1, Q4_K, Q8_0), and all else is q8, also after an adapter was merged.

    Raises
    ------
    CheckpointError
        If there is no such model, or it is broken.
    ConfigError
        If the options contradict each other.

    Examples
    --------
    >>> load("smollm2-135m-instruct").chat("What is 2 + 2?").text  # doctest: +SKIP
    '2 + 2 = 4.'
    """
    base, adapter = base_and_adapter(name_or_path, adapter)
    path = find_model(base)
    on_cpu = _uses_cpu_engine(engine, weights, path, dtype, _device_type(device))

    def load_torch(dtype: torch.dtype | None = None) -> Llama:
        import torch

        where = torch.device(device) if device is not None else default_device()
        return _load_torch(path, base, adapter, dtype or torch.float32, where)

    source: Path | GGUFFile = path
    if is_gguf(path):
        from fullspan.checkpoints.gguf_file import GGUFFile

        source = GGUFFile(path)  # once, as its header has the whole vocabulary
    with ThreadPoolExecutor(2) as pool:
        decoder: Llama | Decoder
        tokenizer = pool.submit(load_tokenizer, source)
        if on_cpu:
            # Numba and its kernels come in beside the weights.
            pool.submit(importlib.import_module, "fullspan.decoding.engine.decoder")
            from fullspan.decoding.engine.loading import load_packed

            packed = load_packed(source, weights, adapter, load_torch)
            from fullspan.decoding.engine.decoder import EngineDecoder
            from fullspan.decoding.engine.engine import Engine

            decoder = EngineDecoder(Engine(packed), load_torch)
        else:
            import torch

            where = torch.device(device) if device is not None else default_device()
            decoder = load_torch(dtype or default_dtype(where))
        name = base if adapter is None else f"{base} + {adapter}"
        return LanguageModel(decoder, tokenizer.result(), name, Source(path, adapter, weights))


def _device_type(device: torch.device | str | None) -> str:
    if device is None:
        return default_device_type()
    return device.partition(":")[0] if isinstance(device, str) else device.type


def _uses_cpu_engine(
    engine: str, weights: str | None, path: Path, dtype: torch.dtype | None, device: str
) -> bool:
    """Whether the CPU engine computes; contradictions are refused by name."""
    if engine not in ("auto", "cpu", "torch"):
        raise ConfigError(f"engine cannot be {engine!r}", "choose from: auto, cpu, torch")
    if engine == "torch" and weights is not None:
        raise ConfigError(f"weights={weights!r} are of the CPU engine, and engine='torch' was chosen")
    asked = "engine='cpu'" if engine == "cpu" else f"weights={weights!r}" if weights is not None else ""
    if asked and dtype is not None:
        raise ConfigError(f"dtype is of torch models, and {asked} chooses the CPU engine", "leave one out")
    if asked and device != "cpu":
        raise ConfigError(f"{asked} chooses the CPU engine, but the device is {device}", "give device='cpu'")
    if asked:
        return True
    return engine == "auto" and dtype is None and device == "cpu" and is_gguf(path)


def _load_torch(
    path: Path, base: str, adapter: Path | None, dtype: torch.dtype, device: torch.device
) -> Llama:
    """The torch model; an adapter is merged in float32, so that rounding to the dtype happens once."""
    import torch

    from fullspan.models.loading import load_model

    if adapter is None:
        return load_model(path, dtype=dtype, device=device)
    from fullspan.adapters.lora import merge_lora
    from fullspan.adapters.peft_format import load_adapter

    model = load_model(path, dtype=torch.float32, device=device)
    load_adapter(model, adapter, base)
    merge_lora(model)
    return model.to(dtype)
