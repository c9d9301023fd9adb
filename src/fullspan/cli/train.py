"""Fine-tune a language model with LoRA on examples of conversations."""

from __future__ import annotations

from fullspan.training.config import TrainConfig


def command(config: TrainConfig) -> None:
    """Fine-tune a language model with LoRA on examples of conversations.

    Ctrl-C saves a checkpoint; the same run goes on with --run DIRECTORY --resume.
    """
    from fullspan.objectives.perplexity import perplexity
    from fullspan.training.interrupts import TrainingStopped
    from fullspan.training.trainer import train

    try:
        result = train(config)
    except TrainingStopped as stopped:
        print(f"stopped at step {stopped.step}; its checkpoint is {stopped.checkpoint}")
        print(f"go on with: fullspan train --run {stopped.run} --resume")
        raise SystemExit(130) from None
    print(f"adapter (PEFT format): {result.adapter}")
    print(f"metrics:               {result.run / 'metrics.jsonl'}")
    if result.export is not None:
        print(f"merged model:          {result.export}")
    if result.loss_before is not None and result.loss_after is not None:
        before, after = result.loss_before, result.loss_after
        print(
            f"held-out loss {before:.3f} -> {after:.3f}, "
            f"perplexity {perplexity(before):.2f} -> {perplexity(after):.2f}"
        )
    print(f"chat with it: fullspan chat {config.model} --adapter {result.adapter}")
    if result.export is not None:
        print(f"          or: fullspan chat {result.export}")
