"""Who computes: names that loading and the command line share. Free of torch, for the sake of help."""

from __future__ import annotations

from typing import Literal

EngineName = Literal["auto", "cpu", "torch"]
Weights = Literal["q4", "q8", "bf16", "f32"]

ENGINE_HELP = (
    "cpu: fullspan's own kernels; auto takes them for GGUF files on a CPU, and where weights are given"
)
WEIGHTS_HELP = "kind of the cpu engine's weights; by default those of the file, or q8"
SPECULATE_HELP = (
    "draft several tokens a step, which never changes what is likely: ngram copies from the prompt and the "
    "answer; a datastore's file copies from its texts; a smaller model of the same vocabulary runs ahead; "
    "early-exit:N asks the model's own first N layers; auto is what `fullspan bench decode --tune` chose"
)
