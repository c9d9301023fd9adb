"""Measure a language model on held-out examples, before and after tuning."""

from __future__ import annotations

from fullspan.pipelines.evaluation import EvaluateConfig, evaluate


def command(config: EvaluateConfig) -> None:
    """Measure a language model on held-out examples, before and after tuning.

    Prints the loss and perplexity of the assistant's tokens, and sample answers side by side.
    """
    evaluate(config)
