"""Fixtures that several parts share."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The real SmolLM2-135M-Instruct, fetched into the model store on first use."""
    from fullspan.checkpoints.store import ModelStore

    store = ModelStore()
    store.pull("smollm2-135m-instruct")
    return store.path("smollm2-135m-instruct")


@pytest.fixture(scope="session")
def smollm2_reference(smollm2_path: Path) -> Any:
    """transformers' model of the same file, its weights dequantised by transformers."""
    import gguf
    import torch
    import transformers

    with pytest.MonkeyPatch.context() as patch:
        # transformers reads the file once for its config and again for its tensors, and makes the map of
        # their names again for each module: half of the time.
        for name in ("GGUFReader", "get_tensor_name_map"):
            patch.setattr(gguf, name, functools.cache(getattr(gguf, name)))
        return transformers.AutoModelForCausalLM.from_pretrained(
            smollm2_path.parent,
            gguf_file=smollm2_path.name,
            quantization_config=transformers.GgufConfig(dequantize=True),
            dtype=torch.float32,
        ).eval()


@pytest.fixture(scope="session")
def smollm2_reference_tokenizer(smollm2_path: Path) -> Any:
    """transformers' own reading of the GGUF file, which takes it many seconds."""
    import transformers

    return transformers.AutoTokenizer.from_pretrained(smollm2_path.parent, gguf_file=smollm2_path.name)


@pytest.fixture(scope="session")
def tiny_chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama of two layers, a byte tokenizer and a chat template."""
    import tokenizers
    import torch
    from tokenizers import decoders, models, pre_tokenizers

    from fullspan.models.llama import Llama, LlamaConfig
    from fullspan.models.loading import save_model
    from fullspan.text.tokenizer import Tokenizer

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*special, *alphabet])}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(special)
    template = (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer = Tokenizer(backend, bos_id=1, eos_ids=[2], pad_id=0, chat_template=template)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        d_model=32,
        n_layers=2,
        n_heads=4,
        n_kv_heads=2,
        head_dim=8,
        d_ff=64,
        max_positions=256,
        tied_head=True,
    )
    model = Llama(config)
    torch.nn.init.normal_(model.model.embed_tokens.weight, std=0.1)
    folder = tmp_path_factory.mktemp("models") / "tiny-chat"
    save_model(model, folder, tokenizer=tokenizer)
    return folder


@pytest.fixture(scope="session")
def tiny_examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty short conversations of differing lengths, as JSONL."""
    import json

    file = tmp_path_factory.mktemp("data") / "sums.jsonl"
    rows = (
        {"instruction": f"Add {n} and {n * n}.", "output": f"The sum is {n + n * n}{'!' * (n % 7)}"}
        for n in range(40)
    )
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(autouse=True)
def _one_thread_pool_size() -> None:
    """Tests never depend on a thread count that an earlier test left behind."""
    import sys

    if "torch" in sys.modules:
        from fullspan.core.device import set_threads

        set_threads(None)
