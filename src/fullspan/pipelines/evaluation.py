"""How well a language model does on held-out examples, before and after tuning."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from fullspan.checkpoints.store import find_model
from fullspan.core.config import Argument, Config, InputPath, ModelName, OutputPath
from fullspan.core.errors import ConfigError, DataError
from fullspan.core.files import replacing
from fullspan.core.progress import progress

if TYPE_CHECKING:
    from fullspan.decoding.language_model import LanguageModel
    from fullspan.text.examples import Example
    from fullspan.text.packing import Encoded
    from fullspan.text.tokenizer import Tokenizer
    from fullspan.training.data import Batches

# Tokens of one packed batch, unless an example is longer. Attention's cost grows with the square of it,
# and products are as fast as they get from here on.
_TOKENS_PER_BATCH = 512


class EvaluateConfig(Config):
    """Options of `fullspan evaluate`."""

    model: Annotated[ModelName, Argument()] = Field(
        description="a model of the store, a GGUF file, a Hugging Face folder or an adapter folder"
    )
    data: InputPath = Field(description="held-out examples: Messages, Alpaca or ShareGPT")
    adapter: InputPath | None = Field(None, description="folder of the LoRA adapter that tuning gave")
    baseline: bool = Field(True, description="measure the model without its adapter too")
    samples: int = Field(6, ge=0, description="how many examples to answer, spread over the file")
    max_examples: int | None = Field(None, ge=1, description="measure only the first so many examples")
    max_tokens: int = Field(128, ge=1, description="most tokens of a sample answer")
    out: OutputPath | None = Field(None, description="write all numbers and answers to this JSON file")


@dataclass(frozen=True)
class Measure:
    """Loss of the assistant's tokens.

    Attributes
    ----------
    loss : float
        Mean negative log-likelihood in nats.
    perplexity : float
        exp(loss).
    n_tokens, n_examples : int
        Supervised tokens and examples measured.
    """

    loss: float
    perplexity: float
    n_tokens: int
    n_examples: int


@dataclass(frozen=True)
class Sample:
    """One question with the answers to compare; None where that model was not asked."""

    question: str
    reference: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found; `before` is the model without its adapter, `after` with it."""

    model: str
    adapter: str | None
    data: str
    before: Measure | None
    after: Measure | None
    samples: list[Sample]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)


def evaluate(config: EvaluateConfig) -> Evaluation:
    """Measure a model on held-out examples and answer some of them; print a table.

    Raises
    ------
    ConfigError
        If there is nothing to measure: no baseline and no adapter.
    CheckpointError, DataError
        If the model, the adapter or an example is wrong.
    """
    find_model(config.model)  # says that there is none before torch takes its seconds to import
    from fullspan.adapters.peft_format import load_adapter
    from fullspan.checkpoints.adapter_folder import base_and_adapter
    from fullspan.decoding.loading import load
    from fullspan.text.examples import read_examples

    base, adapter = base_and_adapter(config.model, config.adapter)
    if adapter is None and not config.baseline:
        raise ConfigError("without an adapter, --no-baseline leaves nothing to measure", "give --adapter")
    examples = read_examples(config.data)[: config.max_examples]
    # Measured and answered in one precision, with an adapter that is added in place.
    model = load(base, engine="torch")
    batches = held_out_batches(model.tokenizer, examples, model.config.max_positions)
    chosen = _spread(examples, config.samples)
    before = after = None
    answers: dict[str, list[str] | None] = {"before": None, "after": None}
    if config.baseline:
        before = measure(model, batches, "measuring the model as it was")
        answers["before"] = _answers(model, chosen, config.max_tokens, "answering as it was")
    if adapter is not None:
        load_adapter(model.model, adapter, base)
        after = measure(model, batches, "measuring the tuned model")
        answers["after"] = _answers(model, chosen, config.max_tokens, "answering as tuned")
    result = Evaluation(
        model=base,
        adapter=str(adapter) if adapter else None,
        data=str(config.data),
        before=before,
        after=after,
        samples=_samples(chosen, answers["before"], answers["after"]),
    )
    print(summary(result))
    if config.out is not None:
        with replacing(config.out) as beside:
            beside.write_text(json.dumps(result.as_dict(), ensure_ascii=False, indent=2) + "\n", "utf-8")
        print(f"wrote {config.out}")
    return result


def held_out_batches(tokenizer: Tokenizer, examples: Sequence[Example], context: int) -> Batches:
    """Tokenise and pack, always in the same way.

    Raises
    ------
    DataError
        If an example has no supervised tokens or is longer than `context`; the message has its number.
    """
    from fullspan.text.chat import encode_chat
    from fullspan.text.packing import fit_lengths
    from fullspan.training.data import Batches

    encoded: list[Encoded] = []
    for number, example in enumerate(examples, start=1):
        try:
            encoded.append(encode_chat(tokenizer, example.messages))
        except DataError as error:
            raise DataError(f"example {number}: {error.message}", error.hint) from None
    fitted = fit_lengths(encoded, context, "error").examples
    longest = max(len(example.ids) for example in fitted)
    return Batches(fitted, seed=0, tokens_per_batch=max(longest, _TOKENS_PER_BATCH), shuffle=False)


def measure(model: LanguageModel, batches: Batches, description: str) -> Measure:
    """Loss and perplexity of the supervised tokens, in the precision that the model is trained in."""
    from fullspan.objectives.perplexity import perplexity
    from fullspan.training.steps import AutogradStep
    from fullspan.training.trainer import evaluate_loss

    chosen = [batches[index] for index in range(batches.per_epoch)]
    with progress(len(chosen), description, unit="batches") as advance:
        loss_sum, n_tokens = evaluate_loss(AutogradStep(model.model), chosen, advance)
    loss = loss_sum / n_tokens
    return Measure(loss, perplexity(loss), n_tokens, len(batches.examples))


def _spread(examples: Sequence[Example], n: int) -> list[Example]:
    """`n` examples at even distances."""
    n = min(n, len(examples))
    return [examples[index * len(examples) // n] for index in range(n)]


def _prompt_and_reference(example: Example) -> tuple[list[Any], str]:
    """The turns before the assistant's last one, and that one's text."""
    last = max(i for i, message in enumerate(example.messages) if message.role == "assistant")
    return example.messages[:last], example.messages[last].content


def _answers(
    model: LanguageModel, examples: Sequence[Example], max_tokens: int, description: str
) -> list[str]:
    from fullspan.decoding.options import GenerationOptions

    prompts = [model.chat_ids(_prompt_and_reference(example)[0]) for example in examples]
    with progress(len(prompts) * max_tokens, description, unit="tokens") as advance:
        results = model.answer(prompts, GenerationOptions(max_tokens=max_tokens), after_token=advance)
    return [result.text for result in results]


def _samples(examples: Sequence[Example], before: list[str] | None, after: list[str] | None) -> list[Sample]:
    samples = []
    for index, example in enumerate(examples):
        prompt, reference = _prompt_and_reference(example)
        samples.append(
            Sample(
                question=prompt[-1].content,
                reference=reference,
                before=before[index] if before else None,
                after=after[index] if after else None,
            )
        )
    return samples


def summary(result: Evaluation) -> str:
    """What a person reads in the terminal: a table, then the samples.

    Examples
    --------
    >>> before, after = Measure(2.0, 7.389, 100, 5), Measure(1.0, 2.718, 100, 5)
    >>> print(summary(Evaluation("m", "a", "d.jsonl", before, after, [])))
    5 examples of d.jsonl, 100 tokens of the assistant
                    loss  perplexity
    before         2.000       7.389
    after          1.000       2.718
    perplexity fell by 63 %
    """
    lines = []
    rows = [(name, found) for name, found in (("before", result.before), ("after", result.after)) if found]
    first = rows[0][1]
    lines.append(f"{first.n_examples} examples of {result.data}, {first.n_tokens:,} tokens of the assistant")
    lines.append(f"{'':12}{'loss':>8}  {'perplexity':>10}")
    lines += [f"{name:12}{found.loss:8.3f}  {found.perplexity:10.3f}" for name, found in rows]
    if result.before and result.after:
        change = result.after.perplexity / result.before.perplexity - 1
        lines.append(
            f"perplexity {'fell' if change <= 0 else 'rose'} by {abs(change):.0%}".replace("%", " %")
        )
    for number, sample in enumerate(result.samples, start=1):
        lines += ["", f"{number}. {sample.question.strip()}", f"   reference: {sample.reference.strip()}"]
        for name, text in (("before", sample.before), ("after", sample.after)):
            if text is not None:
                lines.append(f"   {name + ':':10} {text.strip()}")
    return "\n".join(lines)
