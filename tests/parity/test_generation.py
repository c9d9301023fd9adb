"""Generation gives what transformers' generate gives, on the same weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from transformers import LogitsProcessorList
from transformers.generation import logits_process as theirs

import fullspan
from fullspan.decoding.generation import Answer, generate
from fullspan.decoding.options import GenerationOptions, Sampling
from fullspan.decoding.sampler import Sampler, row_generator
from fullspan.decoding.sampling import Row, add_bias, distribution, draw, penalise_counts
from fullspan.decoding.stopping import AnswerText
from fullspan.models.llama import Llama, LlamaConfig

# Sampling -----------------------------------------------------------------------------------------


@pytest.fixture(params=[0, 1, 2])
def logits(request) -> torch.Tensor:
    generator = torch.Generator().manual_seed(request.param)
    return torch.randn(5, 3000, generator=generator) * 4


IDS = torch.randint(0, 3000, (5, 40), generator=torch.Generator().manual_seed(3))


def check(
    logits: torch.Tensor, options: Sampling, processors: list, counts: np.ndarray | None = None
) -> None:
    """Their processors one after the other, against our distribution of each row."""
    expected = LogitsProcessorList(processors)(IDS, logits.clone()).softmax(-1)
    for row, seen, theirs_ in zip(logits.numpy(), IDS.numpy(), expected.double().numpy(), strict=True):
        ours_ = distribution(row, options, Row(seen=np.unique(seen), counts=counts))
        assert np.array_equal(ours_ > 0, theirs_ > 0)
        # both are sums of 3,000 exponentials in float32
        np.testing.assert_allclose(ours_, theirs_, rtol=2e-5, atol=0)


@pytest.mark.parametrize("k", [1, 2, 50, 2999, 3000, 5000])
def test_top_k(logits, k):
    check(logits, Sampling(temperature=1, top_k=k), [theirs.TopKLogitsWarper(k)])


@pytest.mark.parametrize("p", [1e-6, 0.1, 0.5, 0.9, 0.999, 1.0])
def test_top_p(logits, p):
    check(logits, Sampling(temperature=1, top_p=p), [theirs.TopPLogitsWarper(p)])


@pytest.mark.parametrize("p", [0.0, 0.01, 0.3, 1.0])
def test_min_p(logits, p):
    check(logits, Sampling(temperature=1, min_p=p), [theirs.MinPLogitsWarper(p)])


@pytest.mark.parametrize("p", [0.01, 0.2, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("scale", [0.05, 1.0, 3.0])  # nearly flat to nearly certain
def test_typical(logits, p, scale):
    check(logits * scale, Sampling(temperature=1, typical_p=p), [theirs.TypicalLogitsWarper(p)])


@pytest.mark.parametrize("penalty", [0.5, 1.2, 3.0])
def test_repetition_penalty(logits, penalty):
    options = Sampling(temperature=1, repetition_penalty=penalty)
    check(logits, options, [theirs.RepetitionPenaltyLogitsProcessor(penalty)])


def test_logit_bias(logits):
    """Theirs biases sequences, of one token here."""
    bias = {7: -5.0, 123: 4.5, 2999: -100.0}
    named = {(token,): value for token, value in bias.items()}
    expected = theirs.SequenceBiasLogitsProcessor(named)(IDS, logits.clone())
    for row, theirs_ in zip(logits.numpy(), expected.numpy(), strict=True):
        assert np.array_equal(add_bias(row, np.array(list(bias)), np.float32(list(bias.values()))), theirs_)


def test_presence_and_frequency_penalty(logits):
    """OpenAI's formula: mu[j] -> mu[j] - c[j] * alpha_frequency - float(c[j] > 0) * alpha_presence."""
    counts = np.bincount(IDS[0].numpy() % 30, minlength=3000).astype(np.int32)
    mu = logits[0].numpy()
    expected = mu - counts * np.float32(0.7) - (counts > 0) * np.float32(-1.5)
    # one float32 rounding apart
    np.testing.assert_allclose(penalise_counts(mu, counts, -1.5, 0.7), expected, rtol=0, atol=2e-6)
    assert counts.max() > 1


def test_all_processors_in_their_order(logits):
    """A repetition penalty, temperature and all truncations; each changes what the next one sees."""
    check(
        logits,
        Sampling(temperature=0.7, top_k=20, top_p=0.8, min_p=0.02, typical_p=0.7, repetition_penalty=1.3),
        [
            theirs.RepetitionPenaltyLogitsProcessor(1.3),
            theirs.TemperatureLogitsWarper(0.7),
            theirs.TopKLogitsWarper(20),
            theirs.TopPLogitsWarper(0.8),
            theirs.MinPLogitsWarper(0.02),
            theirs.TypicalLogitsWarper(0.7),
        ],
    )


# The loop, on a tiny random model -----------------------------------------------------------------


class Ids:
    """Tokens shown as their numbers: a tiny random model has no text."""

    def push(self, token_id: int) -> str:
        return f"{token_id} "

    def finish(self) -> str:
        return ""


@pytest.fixture(scope="module")
def tiny() -> tuple[Llama, transformers.LlamaForCausalLM]:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        config = transformers.LlamaConfig(
            vocab_size=97,
            hidden_size=48,
            intermediate_size=80,
            num_hidden_layers=3,
            num_attention_heads=6,
            num_key_value_heads=2,
            max_position_embeddings=128,
            initializer_range=0.3,  # far from uniform, so that answers differ between prompts
            bos_token_id=None,
            eos_token_id=[5, 6],
            pad_token_id=0,
        )
        reference = transformers.LlamaForCausalLM(config).eval()
    ours = Llama(LlamaConfig.from_hf(config.to_dict())).eval()
    ours.load_state_dict(reference.state_dict())
    return ours, reference


PROMPTS = [[1, 2, 3], [40, 41, 42, 43, 44, 45, 46, 47], [9], [20, 30, 20, 30, 20], [77, 88]]
END = frozenset({5, 6})


def sampler(seed: int, prompt: list[int], options: GenerationOptions) -> Sampler:
    return Sampler(options, row_generator(seed), prompt_ids=prompt, vocab_size=97)


def ours(model: Llama, prompts, n_logprobs=None, **options) -> list[Answer]:
    chosen = GenerationOptions(**options)
    answers = [
        Answer(prompt, AnswerText(Ids()), sampler((chosen.seed or 0) + row, prompt, chosen))
        for row, prompt in enumerate(prompts)
    ]
    list(generate(model, answers, chosen, end_ids=END, n_logprobs=n_logprobs))
    return answers


def reference_ids(model, prompt: list[int], **options) -> list[int]:
    ids = torch.tensor([prompt])
    output = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
    return output[0, len(prompt) :].tolist()


@pytest.mark.parametrize("penalty", [1.0, 1.7, 0.6])
def test_greedy_one_by_one_and_in_a_batch(tiny, penalty):
    model, reference = tiny
    expected = [
        reference_ids(reference, prompt, do_sample=False, max_new_tokens=30, repetition_penalty=penalty)
        for prompt in PROMPTS
    ]
    together = ours(model, PROMPTS, max_tokens=30, repetition_penalty=penalty)
    alone = [ours(model, [p], max_tokens=30, repetition_penalty=penalty)[0] for p in PROMPTS]
    assert [answer.token_ids for answer in alone] == expected
    assert [answer.token_ids for answer in together] == expected
    reasons = ["stop" if ids[-1] in END else "length" for ids in expected]
    assert [answer.finish_reason for answer in together] == reasons
    assert len({len(ids) for ids in expected}) > 1 or penalty != 1.0, "some rows must leave the batch early"


class Draw(transformers.LogitsProcessor):
    """Our draw for theirs: leaves the drawn token alone, from the logits that their processors made."""

    def __init__(self, seed: int) -> None:
        self.generator = row_generator(seed)

    def __call__(self, input_ids, scores):
        token = draw(scores[0].double().softmax(-1).numpy(), self.generator.random())
        return torch.full_like(scores, -torch.inf).index_fill_(1, torch.tensor([token]), 0.0)


@pytest.mark.parametrize(
    ("options", "theirs_"),
    [
        ({"temperature": 1.0}, {"top_k": 0}),
        ({"temperature": 0.7, "top_k": 10}, {"temperature": 0.7, "top_k": 10}),
        (
            {"temperature": 1.3, "top_p": 0.9, "min_p": 0.01, "typical_p": 0.8, "repetition_penalty": 1.2},
            {
                "temperature": 1.3,
                "top_k": 0,
                "top_p": 0.9,
                "min_p": 0.01,
                "typical_p": 0.8,
                "repetition_penalty": 1.2,
            },
        ),
    ],
)
def test_the_same_uniforms_draw_the_same_tokens(tiny, options, theirs_, monkeypatch):
    """Their loop and processors with our draw put last, prompt by prompt, against our batch."""
    model, reference = tiny
    together = ours(model, PROMPTS, max_tokens=15, seed=100, **options)
    list_of = reference._get_logits_processor
    for row, prompt in enumerate(PROMPTS):
        last = Draw(100 + row)
        monkeypatch.setattr(
            reference,
            "_get_logits_processor",
            lambda *args, last=last, **kwargs: LogitsProcessorList([*list_of(*args, **kwargs), last]),
        )
        expected = reference_ids(reference, prompt, do_sample=True, max_new_tokens=15, **theirs_)
        assert ours(model, [prompt], max_tokens=15, seed=100 + row, **options)[0].token_ids == expected
        assert together[row].token_ids == expected


def test_logprobs(tiny):
    model, reference = tiny
    for prompt, answer in zip(
        PROMPTS, ours(model, PROMPTS, n_logprobs=3, max_tokens=12, repetition_penalty=1.5), strict=True
    ):
        output = reference.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            max_new_tokens=12,
            repetition_penalty=1.5,
            return_dict_in_generate=True,
            output_logits=True,
        )
        for step, (recorded, logits) in enumerate(zip(answer.logprobs, output.logits, strict=True)):
            expected = logits[0].log_softmax(-1)
            assert recorded.token_id == answer.token_ids[step] == output.sequences[0, len(prompt) + step]
            # float32 sums in another order
            assert recorded.logprob == pytest.approx(expected[recorded.token_id].item(), abs=1e-4)
            top = expected.topk(3)
            assert [each.token_id for each in recorded.top] == top.indices.tolist()
            assert [each.logprob for each in recorded.top] == pytest.approx(top.values.tolist(), abs=1e-4)


def test_long_prompts_are_read_in_chunks(tiny, monkeypatch):
    model, _ = tiny
    prompts = [list(range(7, 90)), [8, 9], list(range(60, 7, -1))]
    whole = [answer.token_ids for answer in ours(model, prompts, max_tokens=20)]
    monkeypatch.setattr("fullspan.decoding.torch_decoder._PREFILL_TOKENS", 21)  # 7 columns of 3 rows
    assert [answer.token_ids for answer in ours(model, prompts, max_tokens=20)] == whole


def test_generation_ends_at_the_context(tiny):
    model, _ = tiny
    prompt = [11 + step % 60 for step in range(120)]
    [answer] = ours(model, [prompt], max_tokens=50, repetition_penalty=1.0)
    assert len(answer.token_ids) == 8 or answer.token_ids[-1] in END
    assert answer.finish_reason == ("length" if len(answer.token_ids) == 8 else "stop")


# The real model -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smollm2(smollm2_path, smollm2_reference, smollm2_reference_tokenizer):
    return fullspan.load(smollm2_path, dtype=torch.float32), smollm2_reference, smollm2_reference_tokenizer


QUESTIONS = ["What is the capital of France?", "Write a haiku about naïve 🐍 code.", "1+1=?"]


@pytest.mark.slow
def test_smollm2_chat(smollm2):
    model, reference, tokenizer = smollm2
    options = {"max_tokens": 16, "repetition_penalty": 1.1, "logprobs": 2}
    together = model.chat(QUESTIONS, **options)
    for question, answer in zip(QUESTIONS, together, strict=True):
        conversation = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(conversation, add_generation_prompt=True, return_tensors="pt")
        output = reference.generate(
            **prompt,
            do_sample=False,
            max_new_tokens=16,
            repetition_penalty=1.1,
            return_dict_in_generate=True,
            output_logits=True,
        )
        assert answer.n_prompt_tokens == prompt["input_ids"].shape[1]
        expected = output.sequences[0, answer.n_prompt_tokens :].tolist()
        assert list(answer.token_ids) == expected
        assert answer.text == tokenizer.decode(expected, skip_special_tokens=True)
        logits = torch.stack(output.logits)[:, 0].log_softmax(-1)  # [T, V]
        ours_ = [recorded.logprob for recorded in answer.logprobs]
        # float32 sums in another order, through 30 layers
        assert ours_ == pytest.approx(logits[range(len(expected)), expected].tolist(), abs=2e-3)
        assert model.chat(question, **options).token_ids == answer.token_ids


@pytest.mark.slow
def test_smollm2_score(smollm2):
    model, reference, tokenizer = smollm2
    texts = ["The quick brown fox jumps over the lazy dog.", "dog lazy the over jumps fox brown quick The."]
    scores = model.score(texts)
    for text, score in zip(texts, scores, strict=True):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            output = reference(ids, labels=ids)
        assert list(score.token_ids) == ids[0].tolist()
        logprobs = output.logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        assert list(score.logprobs) == pytest.approx(logprobs.tolist(), abs=2e-3)
        assert score.perplexity == pytest.approx(output.loss.exp().item(), rel=1e-3)
    assert scores[0].total > scores[1].total


@pytest.mark.slow
def test_smollm2_stop_string_across_tokens(smollm2):
    model, _, tokenizer = smollm2
    whole = model.chat(QUESTIONS[0], max_tokens=24)
    words = [tokenizer.decode(token) for token in whole.token_ids]
    # from the middle of one token into the middle of the third: the stop string is no token's text
    at = next(i for i in range(1, len(words) - 2) if all(len(word) > 2 for word in words[i : i + 3]))
    stop = "".join(words[at : at + 3])[1:-1]
    cut = model.chat(QUESTIONS[0], max_tokens=24, stop=["never said", stop])
    assert cut.finish_reason == "stop"
    assert cut.text == whole.text.partition(stop)[0]
    assert cut.token_ids == whole.token_ids[: at + 3]
    assert "".join(model.stream_chat(QUESTIONS[0], max_tokens=24, stop=stop)) == cut.text
