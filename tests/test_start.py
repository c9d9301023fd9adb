"""What a process that answers through the CPU engine may wait for: no torch, and nothing else of its size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from fullspan.decoding.loading import load

# Numba looks at SciPy's version, for which it imports the package alone.
HEAVY = (
    "torch transformers pandas sklearn matplotlib pyarrow duckdb onnx scipy.linalg scipy.sparse scipy.special"
).split()

# Each verb in turn, in one process, as a person calls it; then what is there.
CODE = """
import json, sys
from fullspan.cli import main
import fullspan.serving.server

for words in json.loads(sys.argv[1]):
    sys.argv = ["fullspan", *words]
    try:
        main()
    except SystemExit as end:
        assert not end.code, words
print(json.dumps(sorted(sys.modules)))
"""


def test_the_engine_answers_without_torch(smollm2_path: Path, tiny_chat_model: Path) -> None:
    """From a GGUF file, and from a folder whose packed weights are there already."""
    smollm2 = load(smollm2_path, engine="cpu")
    expected = [
        smollm2.generate("One two", max_tokens=8).text,
        smollm2.chat("Hello", max_tokens=8, temperature=1.0, seed=3).text,
        load(tiny_chat_model, engine="cpu").generate("One two", max_tokens=8).text,
    ]
    sampled = ["--max-tokens", "8", "--temperature", "1", "--seed", "3"]
    calls = [
        ["generate", str(smollm2_path), "One two", "--max-tokens", "8"],
        ["chat", str(smollm2_path), "--message", "Hello", *sampled],
        ["generate", str(tiny_chat_model), "One two", "--engine", "cpu", "--max-tokens", "8"],
    ]
    words = [sys.executable, "-c", CODE, json.dumps(calls)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    shown, _, modules = done.stdout.rstrip().rpartition("\n")
    assert shown == "\n".join(expected)
    assert not [name for name in json.loads(modules) if name in HEAVY]
