"""A fine-tuned model as one file or folder, the adapter merged in."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from fullspan.adapters.lora import merge_lora
from fullspan.adapters.peft_format import load_adapter
from fullspan.checkpoints.store import find_model
from fullspan.models.loading import load_model, save_model
from fullspan.models.tokenizers import load_tokenizer

ExportType = Literal["f32", "f16", "bf16", "q8_0"]


def export_merged(model: str, adapter: Path, target: Path, ggml_type: ExportType = "f16") -> None:
    """Load the base in float32, merge the adapter into it and write a .gguf file or a folder.

    Parameters
    ----------
    model : str
        Name or path of the base.
    adapter : pathlib.Path
        Folder in PEFT's format.
    target : pathlib.Path
        What to write.
    ggml_type : {"f32", "f16", "bf16", "q8_0"}
        Number format of the written weights.
    """
    path = find_model(model)
    # A base that was rounded to bfloat16 for training is not what should be merged into.
    merged = load_model(path, dtype=torch.float32)
    load_adapter(merged, adapter)
    merge_lora(merged)
    save_model(merged, target, tokenizer=load_tokenizer(path), ggml_type=ggml_type)
