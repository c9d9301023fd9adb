"""A model as one file or folder of another format, an adapter merged in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import torch

from fullspan.adapters.lora import merge_lora
from fullspan.adapters.peft_format import load_adapter
from fullspan.checkpoints.adapter_folder import base_and_adapter
from fullspan.checkpoints.safetensors_folder import refuse_other_content
from fullspan.checkpoints.store import find_model
from fullspan.core.errors import CheckpointError
from fullspan.models.loading import load_model, save_model
from fullspan.models.tokenizers import load_tokenizer

ExportType = Literal["f32", "f16", "bf16", "q8_0"]


def export_model(model: str, adapter: Path | None, target: Path, ggml_type: ExportType = "f16") -> None:
    """Load a model in float32, merge an adapter into it and write a .gguf file or a folder.

    Parameters
    ----------
    model : str
        Name or path of the base, or an adapter, whose configuration names its base.
    adapter : pathlib.Path or None
        Folder in PEFT's format; None: the model as it is.
    target : pathlib.Path
        What to write.
    ggml_type : {"f32", "f16", "bf16", "q8_0"}
        Number format of the matrices in a .gguf file; a folder is always float32.

    Raises
    ------
    CheckpointError
        If there is no such model, the adapter does not fit it, or `target` cannot be written.
    """
    check_target(target)
    base, adapter = base_and_adapter(model, adapter)
    path = find_model(base)
    # A base that was rounded to bfloat16 for training is not what should be merged into.
    merged = load_model(path, dtype=torch.float32)
    if adapter is not None:
        load_adapter(merged, adapter, base)
        merge_lora(merged)
    save_model(merged, target, tokenizer=load_tokenizer(path), ggml_type=ggml_type)


def check_target(target: Path) -> None:
    """Check that a model can be written to `target`, before the work that leads to it.

    Raises
    ------
    CheckpointError
        If it lies inside a file or a folder that cannot be written to, or would replace something
        that is no model.
    """
    if target.suffix != ".gguf":
        refuse_other_content(target)
    elif target.is_dir():
        raise CheckpointError(f"{target} is a folder, expected a file to write the model to")
    above = next(parent for parent in target.absolute().parents if os.path.lexists(parent))
    if not above.is_dir():
        raise CheckpointError(f"cannot write {target}: {above} is no folder", "choose another path")
    if not os.access(above, os.W_OK | os.X_OK):
        raise CheckpointError(f"cannot write {target}: no permission for {above}", "choose another path")
