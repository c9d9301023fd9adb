"""Generation gives what transformers' generate gives, on the same weights."""

from __future__ import annotations

import pytest
import torch
import transformers
from transformers import LogitsProcessorList
from transformers.generation import logits_process as theirs

import fullspan
from fullspan.decoding.generation import Answer, generate
from fullspan.decoding.options import GenerationOptions, Sampling
from fullspan.decoding.sampling import keep_min_p, keep_top_k, keep_top_p, penalise_repetition, process
from fullspan.decoding.stopping import AnswerText
from fullspan.models.llama import Llama, LlamaConfig

# Sampling -----------------------------------------------------------------------------------------


@pytest.fixture(params=[0, 1, 2])
def logits(request) -> torch.Tensor:
    generator = torch.Generator().manual_seed(request.param)
    return torch.randn(5, 300, generator=generator) * 4


@pytest.mark.parametrize("k", [1, 2, 50, 299, 300, 1000])
def test_top_k(logits, k):
    assert torch.equal(keep_top_k(logits, k), theirs.TopKLogitsWarper(k)(None, logits))


@pytest.mark.parametrize("p", [1e-6, 0.1, 0.5, 0.9, 0.999, 1.0])
def test_top_p(logits, p):
    assert torch.equal(keep_top_p(logits, p), theirs.TopPLogitsWarper(p)(None, logits))


@pytest.mark.parametrize("p", [0.0, 0.01, 0.3, 1.0])
def test_min_p(logits, p):
    assert torch.equal(keep_min_p(logits, p), theirs.MinPLogitsWarper(p)(None, logits))


@pytest.mark.parametrize("penalty", [0.5, 1.2, 3.0])
def test_repetition_penalty(logits, penalty):
    ids = torch.randint(0, 300, (5, 40), generator=torch.Generator().manual_seed(3))
    seen = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, ids, True)
    expected = theirs.RepetitionPenaltyLogitsProcessor(penalty)(ids, logits)
    assert torch.equal(penalise_repetition(logits, seen, penalty), expected)


def test_all_processors_in_their_order(logits):
    ids = torch.randint(0, 300, (5, 40), generator=torch.Generator().manual_seed(4))
    seen = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, ids, True)
    options = Sampling(temperature=0.7, top_k=20, top_p=0.8, min_p=0.02, repetition_penalty=1.3)
    expected = LogitsProcessorList(
        [
            theirs.RepetitionPenaltyLogitsProcessor(1.3),
            theirs.TemperatureLogitsWarper(0.7),
            theirs.TopKLogitsWarper(20),
            theirs.TopPLogitsWarper(0.8),
            theirs.MinPLogitsWarper(0.02),
        ]
    )(ids, logits)
    assert torch.equal(process(logits, options, seen), expected)


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


def ours(model: Llama, prompts, n_logprobs=None, **options) -> list[Answer]:
    chosen = GenerationOptions(**options)
    answers = [
        Answer(prompt, AnswerText(Ids()), torch.Generator().manual_seed((chosen.seed or 0) + row))
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


@pytest.mark.parametrize(
    ("options", "theirs_"),
    [
        ({"temperature": 1.0}, {"top_k": 0}),
        ({"temperature": 0.7, "top_k": 10}, {"temperature": 0.7, "top_k": 10}),
        (
            {"temperature": 1.3, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.2},
            {"temperature": 1.3, "top_k": 0, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.2},
        ),
    ],
)
def test_the_same_seed_draws_the_same_tokens(tiny, options, theirs_):
    model, reference = tiny
    together = ours(model, PROMPTS, max_tokens=15, seed=100, **options)
    for row, prompt in enumerate(PROMPTS):
        with torch.random.fork_rng():
            torch.manual_seed(100 + row)
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
            assert [token for token, _ in recorded.top] == top.indices.tolist()
            assert [value for _, value in recorded.top] == pytest.approx(top.values.tolist(), abs=1e-4)


def test_long_prompts_are_read_in_chunks(tiny, monkeypatch):
    model, _ = tiny
    prompts = [list(range(7, 90)), [8, 9], list(range(60, 7, -1))]
    whole = [answer.token_ids for answer in ours(model, prompts, max_tokens=20)]
    monkeypatch.setattr("fullspan.decoding.generation._PREFILL_TOKENS", 21)  # 7 columns of 3 rows
    assert [answer.token_ids for answer in ours(model, prompts, max_tokens=20)] == whole


def test_generation_ends_at_the_context(tiny):
    model, _ = tiny
    prompt = [11 + step % 60 for step in range(120)]
    [answer] = ours(model, [prompt], max_tokens=50, repetition_penalty=1.0)
    assert len(answer.token_ids) == 8 or answer.token_ids[-1] in END
    assert answer.finish_reason == ("length" if len(answer.token_ids) == 8 else "stop")


# The real model -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smollm2(smollm2_path, smollm2_reference):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2_path.parent, gguf_file=smollm2_path.name)
    return fullspan.load(smollm2_path, dtype=torch.float32), smollm2_reference, tokenizer


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
