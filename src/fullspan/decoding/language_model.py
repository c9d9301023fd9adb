"""A language model to hold in the hand: weights, tokenizer, and what can be asked of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeGuard, Unpack, cast, overload

from fullspan.core.errors import ConfigError, DataError
from fullspan.core.seeding import draw_seed
from fullspan.decoding.constraints import Constraint, ConstraintCompiler, grammar_of
from fullspan.decoding.decoders import Decoder, decoder_of
from fullspan.decoding.generation import Answer, generate
from fullspan.decoding.options import MOST_SAMPLES, GenerationOptions, Options, options_from
from fullspan.decoding.results import Generation, Stream, generation_of
from fullspan.decoding.sampler import Sampler, row_generator, token_bias
from fullspan.decoding.scoring import Score, score_tokens
from fullspan.decoding.stopping import AnswerText
from fullspan.text.examples import Message
from fullspan.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from fullspan.decoding.engine.decoder import EngineDecoder
    from fullspan.decoding.speculation.choice import Speculate
    from fullspan.decoding.speculation.drafters import Drafter
    from fullspan.decoding.speculation.tuned import Source
    from fullspan.models.llama import Llama, LlamaConfig

# One turn of a conversation: a mapping has "role" and "content".
Turn = Message | Mapping[str, str]
Conversation = str | Sequence[Turn]


class LanguageModel:
    """A model with its tokenizer; `fullspan.load` makes one.

    The methods that generate take the options of `fullspan.decoding.options.GenerationOptions` as
    keywords: max_tokens (256), temperature (0: greedy), top_k, top_p, min_p, typical_p, repetition_penalty,
    presence_penalty, frequency_penalty, logit_bias (by token id, or by text that is one token), stop (a
    string or several), seed, and one of json_schema, regex and grammar. `logprobs=n` records each token's
    log-probability and the n most likely tokens; 0 records the token's alone. `n=3` gives a list of three
    answers to each prompt, which differ when sampled; it is flat, a prompt's answers beside each other.

    Parameters
    ----------
    model : Llama or Decoder
        A torch model, or what else can be asked for logits, such as the CPU engine.
    tokenizer : Tokenizer
    name : str
        What it is called in messages and reports.
    source : Source, optional
        What it was loaded from; choices of `fullspan bench decode --tune` are kept there.

    Attributes
    ----------
    decoder : Decoder
        Where logits come from.

    Examples
    --------
    >>> model = load("smollm2-135m-instruct")  # doctest: +SKIP
    >>> model.generate("The capital of France is", max_tokens=2).text  # doctest: +SKIP
    ' Paris.'
    """

    def __init__(
        self, model: Llama | Decoder, tokenizer: Tokenizer, name: str, source: Source | None = None
    ) -> None:
        self.decoder = decoder_of(model)
        self.tokenizer = tokenizer
        self.name, self.source = name, source
        self._last_drafter: tuple[Speculate, Drafter | None] | None = None

    @property
    def model(self) -> Llama:
        """The torch model; beside the CPU engine it is loaded when first asked for."""
        return self.decoder.model

    @property
    def config(self) -> LlamaConfig:
        """Sizes of the model."""
        return self.decoder.config

    @overload
    def generate(  # type: ignore[overload-overlap]  # a str is a sequence of str too
        self,
        prompt: str,
        *,
        n: None = None,
        logprobs: int | None = None,
        speculate: Speculate | None = None,
        **options: Unpack[Options],
    ) -> Generation: ...

    @overload
    def generate(
        self,
        prompt: str | Sequence[str],
        *,
        n: int | None = None,
        logprobs: int | None = None,
        speculate: Speculate | None = None,
        **options: Unpack[Options],
    ) -> list[Generation]: ...

    def generate(
        self,
        prompt: str | Sequence[str],
        *,
        n: int | None = None,
        logprobs: int | None = None,
        speculate: Speculate | None = None,
        **options: Unpack[Options],
    ) -> Generation | list[Generation]:
        """Go on from a prompt, or from each of several at once.

        Raises
        ------
        ConfigError
            If an option is unknown or out of its range.
        DataError
            If a prompt is empty or longer than the model's context.
        """
        chosen = options_from(options)
        prompts = [prompt] if isinstance(prompt, str) else prompt
        found = self.answer(
            [self.prompt_ids(each) for each in prompts],
            chosen,
            logprobs,
            n=1 if n is None else n,
            speculate=speculate,
        )
        return found[0] if isinstance(prompt, str) and n is None else found

    @overload
    def chat(  # type: ignore[overload-overlap]  # as above
        self,
        messages: Conversation,
        *,
        n: None = None,
        logprobs: int | None = None,
        speculate: Speculate | None = None,
        **options: Unpack[Options],
    ) -> Generation: ...

    @overload
    def chat(
        self,
        messages: Conversation | Sequence[Conversation],
        *,
        n: int | None = None,
        logprobs: int | None = None,
        speculate: Speculate | None = None,
        **options: Unpack[Options],
    ) -> list[Generation]: ...

    def chat(
        self,
        messages: Conversation | Sequence[Conversation],
        *,
        n: int | None = None,
        logprobs: int | None = None,
        speculate: Speculate | None = None,
        **options: Unpack[Options],
    ) -> Generation | list[Generation]:
        """Answer a question or a conversation, or each of several at once.

        Parameters
        ----------
        messages : str, sequence of turns, or a sequence of either
            A turn is a `Message` or a mapping with "role" and "content"; a string is a user's turn.

        Raises
        ------
        ConfigError
            If an option is wrong, or if the model has no chat template.
        DataError
            If a conversation is empty, badly formed or longer than the model's context.
        """
        chosen = options_from(options)
        batch = messages if _is_batch(messages) else [cast(Conversation, messages)]
        found = self.answer(
            [self.chat_ids(each) for each in batch],
            chosen,
            logprobs,
            n=1 if n is None else n,
            speculate=speculate,
        )
        return found if _is_batch(messages) or n is not None else found[0]

    def stream(
        self, prompt: str, *, speculate: Speculate | None = None, **options: Unpack[Options]
    ) -> Stream:
        """As `generate`, yielding text as it comes."""
        return self.stream_answer(self.prompt_ids(prompt), options_from(options), speculate)

    def stream_chat(
        self, messages: Conversation, *, speculate: Speculate | None = None, **options: Unpack[Options]
    ) -> Stream:
        """As `chat`, yielding text as it comes."""
        return self.stream_answer(self.chat_ids(messages), options_from(options), speculate)

    @overload
    def score(self, text: str) -> Score: ...  # type: ignore[overload-overlap]

    @overload
    def score(self, text: Sequence[str]) -> list[Score]: ...

    def score(self, text: str | Sequence[str]) -> Score | list[Score]:
        """Log-probabilities of a text's tokens, or of each of several texts.

        Raises
        ------
        DataError
            If a text has fewer than two tokens or more than the model's context holds.
        """
        if isinstance(text, str):
            return score_tokens(self.decoder, self.prompt_ids(text))
        return [score_tokens(self.decoder, self.prompt_ids(each)) for each in text]

    def prompt_ids(self, prompt: str) -> list[int]:
        """Tokens of plain text, with what the tokenizer puts before a text."""
        return self.tokenizer.encode(prompt, add_special_tokens=True)

    def chat_ids(self, messages: Conversation) -> list[int]:
        """Tokens of a conversation up to where the assistant's answer begins."""
        turns: Sequence[Turn] = [Message("user", messages)] if isinstance(messages, str) else messages
        if not turns:
            raise DataError("the conversation is empty", "give at least one message of the user")
        from fullspan.text.chat import (
            encode_chat,  # its templates' language takes a tenth of a second to import
        )

        return list(encode_chat(self.tokenizer, turns, add_generation_prompt=True).ids)

    def answer(
        self,
        prompts: Sequence[list[int]],
        options: GenerationOptions,
        n_logprobs: int | None = None,
        after_token: Callable[[], None] | None = None,
        *,
        n: int = 1,
        speculate: Speculate | None = None,
    ) -> list[Generation]:
        """Answer prompts of tokens, each `n` times, as one batch; `after_token` may show progress."""
        if n_logprobs is not None and n_logprobs < 0:
            raise ConfigError(f"logprobs must be 0 or more, got {n_logprobs}")
        if not 1 <= n <= MOST_SAMPLES:
            raise ConfigError(f"n must be from 1 to {MOST_SAMPLES}, got {n}")
        answers = self.new_answers(prompts, options, n)
        if answers:
            for _ in self._generate(answers, options, speculate, n_logprobs):
                if after_token is not None:
                    after_token()
        return [generation_of(answer, logprobs=n_logprobs is not None) for answer in answers]

    def stream_answer(
        self, prompt: list[int], options: GenerationOptions, speculate: Speculate | None = None
    ) -> Stream:
        """Answer one prompt of tokens, text by text."""
        answers = self.new_answers([prompt], options, 1)
        return Stream(answers[0], self._generate(answers, options, speculate))

    def _generate(
        self,
        answers: list[Answer],
        options: GenerationOptions,
        speculate: Speculate | None,
        n_logprobs: int | None = None,
    ) -> Iterator[tuple[Answer, str]]:
        drafter = None if speculate is None else self.drafter(speculate)
        if drafter is None:
            return generate(self.decoder, answers, options, end_ids=self.end_ids, n_logprobs=n_logprobs)
        from fullspan.decoding.speculation.loop import speculate as generate_ahead

        return generate_ahead(
            self._engine_decoder, answers, options, drafter, end_ids=self.end_ids, n_logprobs=n_logprobs
        )

    @property
    def _engine_decoder(self) -> EngineDecoder:
        from fullspan.decoding.engine.decoder import EngineDecoder

        if not isinstance(self.decoder, EngineDecoder):
            raise ConfigError(
                f"{self.name} runs on torch, and speculation needs the CPU engine",
                "load it with engine='cpu'",
            )
        return self.decoder

    def drafter(self, speculate: Speculate) -> Drafter | None:
        """What `speculate` means, checked, None for plain decoding; kept, as loading it may take seconds."""
        from fullspan.decoding.speculation.choice import drafter_for
        from fullspan.decoding.speculation.drafters import Target

        engine = self._engine_decoder.engine
        if self._last_drafter is None or self._last_drafter[0] != speculate:
            drafter = drafter_for(speculate, self.source)
            if drafter is not None:
                drafter.check(Target(self.name, self.tokenizer, self.config.vocab_size, engine))
            self._last_drafter = speculate, drafter
        return self._last_drafter[1]

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return frozenset(self.tokenizer.eos_ids)

    @functools.cached_property
    def _constraints(self) -> ConstraintCompiler:
        return ConstraintCompiler(self.tokenizer, self.config.vocab_size)

    def new_answers(self, prompts: Sequence[list[int]], options: GenerationOptions, n: int) -> list[Answer]:
        """Answers that have not begun, `n` to each prompt; what `generate` and a scheduler fill."""
        # Without a seed the draw still follows the global generators: seeding everything once is enough.
        seed = draw_seed() if options.seed is None else options.seed
        vocab_size = self.config.vocab_size
        bias = token_bias(options.logit_bias, self.tokenizer, vocab_size)
        grammar = grammar_of(options)
        start: Constraint | None = None if grammar is None else self._constraints.compile(grammar)
        return [
            Answer(
                prompt_ids=prompt,
                text=AnswerText(self.tokenizer.stream(), options.stop),
                sampler=Sampler(
                    options,
                    row_generator((seed + row) % 2**63, sample),
                    prompt_ids=prompt,
                    vocab_size=vocab_size,
                    bias=bias,
                    constraint=None if start is None else start.fork(),
                ),
                token_text=self.tokenizer.token_text,
            )
            for row, prompt in enumerate(prompts)
            for sample in range(n)
        ]


def _is_batch(messages: Conversation | Sequence[Conversation]) -> TypeGuard[Sequence[Conversation]]:
    return not isinstance(messages, str) and bool(messages) and not isinstance(messages[0], Message | Mapping)
