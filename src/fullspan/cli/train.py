"""Fine-tune a language model with LoRA, or train a drafter for it, on examples of conversations."""

from __future__ import annotations

from fullspan.training.config import TrainConfig


def command(config: TrainConfig) -> None:
    """Fine-tune a language model with LoRA, or train a drafter for it, on examples of conversations.

    Ctrl-C saves a checkpoint; the same run goes on with --run DIRECTORY --resume.
    """
    if config.objective != "sft":
        _train_drafter(config)
        return
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


def _train_drafter(config: TrainConfig) -> None:
    from fullspan.training.drafters.fitting import train_drafter

    result = train_drafter(config)
    print(f"metrics: {result.run / 'metrics.jsonl'}")
    print("the model's choice was the best guess, by token ahead:")
    for name, shares in (("before", result.before), ("after", result.after)):
        print(f"  {name:7}" + " ".join(f"{share:6.1%}" for share in shares))
    adapter = "" if config.adapter is None else f" --adapter {config.adapter}"
    weights = "" if config.weights is None else f" --weights {config.weights}"
    print(f"decode with it: fullspan chat {config.model}{adapter}{weights} --speculate {result.drafter}")
