"""Drafters that are trained on a model: they learn, they change no answer, and they know their model."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch.nn.functional import scaled_dot_product_attention, silu

import fullspan
from fullspan.cli import main
from fullspan.core.errors import CheckpointError, ConfigError
from fullspan.core.runs import read_metrics
from fullspan.decoding.engine.decoder import EngineDecoder
from fullspan.decoding.engine.engine import Engine
from fullspan.decoding.engine.loading import pack_model
from fullspan.decoding.engine.packing import KINDS, floats_of, quantise
from fullspan.decoding.engine.unpacking import embeddings, fingerprint, unpack_rows
from fullspan.decoding.language_model import LanguageModel
from fullspan.decoding.options import GenerationOptions
from fullspan.decoding.speculation import layer as layer_file
from fullspan.decoding.speculation.drafters import DraftRow, Target
from fullspan.decoding.speculation.eagle import EagleDrafter
from fullspan.decoding.speculation.learned import trained_drafter
from fullspan.decoding.speculation.medusa import MedusaDrafter
from fullspan.decoding.speculation.mtp import ParallelMtpDrafter, SequentialMtpDrafter
from fullspan.decoding.speculation.trained import About, DrafterFiles, rms_norm
from fullspan.decoding.speculation.tree import Tree
from fullspan.decoding.speculation.typical import TypicalAcceptance
from fullspan.models.llama import Llama
from fullspan.models.loading import load_model, save_model
from fullspan.text.tokenizer import Tokenizer
from fullspan.training.config import TrainConfig
from fullspan.training.drafters.fitting import DrafterResult, train_drafter
from fullspan.training.drafters.modules import EagleLayer, MedusaHeads, ParallelModules, SequentialModules

PROMPTS = ["abcabcabcab", "One, two, three, four", "a"]
N_STEPS = 40
KIND: dict[str, dict[str, Any]] = {
    "medusa": {"objective": "medusa"},
    "eagle": {"objective": "eagle"},
    "sequential": {"objective": "mtp"},
    "parallel": {"objective": "mtp", "mtp": "parallel"},
}


@pytest.fixture(scope="module")
def folder(tiny_chat_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that mostly says token 7 t + 3 behind token t: more than one thing, and there is a rule."""
    config = load_model(tiny_chat_model).config
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = Llama(replace(config, tied_head=False, n_layers=3))
        for name, weights in model.named_parameters():
            if weights.ndim > 1:
                torch.nn.init.normal_(weights, std=0.1 if "layers" in name else 0.5)
        after = (7 * torch.arange(config.vocab_size) + 3) % config.vocab_size
        model.lm_head.weight.data[after] = model.model.embed_tokens.weight.data
    path = tmp_path_factory.mktemp("models") / "babbler"
    save_model(model, path, tokenizer=Tokenizer.from_folder(tiny_chat_model))
    return path


@pytest.fixture(scope="module")
def target(folder: Path) -> LanguageModel:
    return fullspan.load(folder, weights="q8")


@pytest.fixture(scope="module")
def engine(target: LanguageModel) -> Engine:
    assert isinstance(target.decoder, EngineDecoder)
    return target.decoder.engine


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "examples.jsonl"
    words = [f"{a}{b}{a}" for a in "abcdef" for b in "xyzu"]
    turns = [[{"role": "user", "content": w}, {"role": "assistant", "content": w[::-1] * 3}] for w in words]
    file.write_text("".join(json.dumps({"messages": each}) + "\n" for each in turns))
    return file


def options_of(folder: Path, data: Path, run: Path, **changes: Any) -> TrainConfig:
    common: dict[str, Any] = dict(
        model=str(folder),
        weights="q8",
        data=data,
        eval_fraction=0.2,
        max_steps=N_STEPS,
        answer_tokens=12,
        learning_rate=1e-2,
        threads=1,
        run=run,
    )
    return TrainConfig.build(common | changes)


@pytest.fixture(scope="module")
def trained(folder: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, DrafterResult]:
    """A drafter of each kind, from the model's own answers."""
    runs = tmp_path_factory.mktemp("drafters")
    return {
        name: train_drafter(options_of(folder, data, runs / name, draft_vocab=150, **kind))
        for name, kind in KIND.items()
    }


def drafter(result: DrafterResult) -> Any:
    found = trained_drafter(result.drafter)
    assert found is not None
    return found


@pytest.mark.parametrize("name", KIND)
def test_training_teaches(trained: dict[str, DrafterResult], name: str) -> None:
    result = trained[name]
    losses = [line["loss"] for line in read_metrics(result.run / "metrics.jsonl") if "loss" in line]
    assert len(losses) == N_STEPS and np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    assert len(result.after) == 3
    assert sum(result.after) > sum(result.before) + 0.2  # of guesses that are the model's choice


def test_what_was_not_trained_guesses_less(target: LanguageModel, trained: dict[str, DrafterResult]) -> None:
    """Acceptance rises: with the same tree, trained heads against heads that are the model's own head."""
    files = DrafterFiles.load(trained["medusa"].drafter)
    blank = {name: value * 0 if name.startswith("heads") else value for name, value in files.tensors.items()}
    asked = [f"<|im_start|>user\n{a}z{a}<|im_end|>\n<|im_start|>assistant\n" for a in "abcdef"]
    accepted = []
    for each in (files, DrafterFiles(files.about, blank)):
        found = target.generate(asked, max_tokens=24, speculate=MedusaDrafter(each))
        accepted.append(sum(sum(answer.speculation.accepted) for answer in found if answer.speculation))
    assert accepted[0] > 1.2 * accepted[1]


@pytest.mark.parametrize("name", KIND)
@pytest.mark.parametrize(
    "options",
    [{}, {"repetition_penalty": 1.4, "presence_penalty": 0.5}, {"regex": "(ab|ba|c){4,9}!"}],
    ids=["greedy", "penalties", "grammar"],
)
def test_greedy_answers_stay_the_same(
    target: LanguageModel, trained: dict[str, DrafterResult], name: str, options: dict[str, Any]
) -> None:
    plain = target.generate(PROMPTS, n=2, max_tokens=24, logprobs=1, **options)
    found = target.generate(
        PROMPTS, n=2, max_tokens=24, logprobs=1, speculate=drafter(trained[name]), **options
    )
    for one, other in zip(found, plain, strict=True):
        assert (one.token_ids, one.text, one.logprobs) == (other.token_ids, other.text, other.logprobs)
        assert one.speculation is not None and one.speculation.lossless
    counts = [answer.speculation for answer in found if answer.speculation]
    assert options or sum(count.n_proposed for count in counts) > 50


# Drafts are what the torch modules say ---------------------------------------------------------------


class Watched:
    """Compares each chain with the torch module's on the whole text, read anew."""

    def __init__(self, drafter: Any, body: Any, engine: Engine, head: torch.Tensor) -> None:
        self.drafter, self.body, self.engine, self.head = drafter, body, engine, head
        self.layers, self.acceptance, self.compared = drafter.layers, None, 0
        self.hidden: list[list[np.ndarray]] = []

    def check(self, target: Target) -> None:
        self.drafter.check(target)

    def begin(self, n_rows: int) -> Watched:
        self.drafting, self.hidden = self.drafter.begin(n_rows), [[] for _ in range(n_rows)]
        return self

    def keep(self, places: Sequence[int]) -> None:
        self.drafting.keep(places)
        self.hidden = [self.hidden[place] for place in places]

    def propose(self, rows: Sequence[DraftRow]) -> list[Tree]:
        trees = self.drafting.propose(rows)
        for row, tree, seen in zip(rows, trees, self.hidden, strict=True):
            seen.append(row.hidden)
            self.compare(row.ids, np.concatenate(seen), tree.tokens[1:])
        return trees

    @torch.no_grad()
    def compare(self, ids: list[int], hidden: np.ndarray, drafts: list[int]) -> None:
        text = np.array(ids + drafts)
        padded = np.zeros((len(text), *hidden.shape[1:]), np.float32)
        padded[: len(hidden)] = hidden  # what stands behind is not looked at
        norm = self.engine.packed.norms[-1, : hidden.shape[-1]]
        normed = rms_norm(padded[:, -1], norm, self.engine.config.rms_norm_eps)
        given = (normed, padded, embeddings(self.engine.packed, text))
        states = self.body(*(torch.from_numpy(np.ascontiguousarray(each))[None] for each in given))
        for state, token in zip(states, drafts, strict=False):
            logits = (state[0, len(ids) - 2] @ self.head.T).numpy()
            assert logits[token] > logits.max() - 3e-2 * abs(logits).max()  # a cache of int8
            self.compared += 1


@pytest.mark.parametrize("name", KIND)
def test_drafts_are_those_of_the_module(
    target: LanguageModel, engine: Engine, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From caches, rollbacks and hidden states as they come; random weights, in float32 on both sides."""
    assert isinstance(target.decoder, EngineDecoder)
    config, layers, parallel = target.config, [0, 2] if name == "eagle" else [2], name == "parallel"
    with torch.random.fork_rng():
        torch.manual_seed(1)
        body: Any = {
            "medusa": lambda: MedusaHeads(config, 3),
            "eagle": lambda: EagleLayer(config, 2, 3),
            "sequential": lambda: SequentialModules(config, 3),
            "parallel": lambda: ParallelModules(config, 3),
        }[name]()
        for weights in body.parameters():
            torch.nn.init.normal_(weights, 1.0 if weights.ndim == 1 else 0.0, 0.3)
        body.half().float()
        head = torch.randn(config.vocab_size, config.d_model).half().float()
    kind = "mtp" if name in ("sequential", "parallel") else name
    about = About(kind, "babbler", "q8", fingerprint(engine.packed), layers, 3, parallel, [[0.5]] * 3)
    tensors = body.tensors() | {"tokens": np.arange(config.vocab_size), "head.weight": head.numpy()}
    if name != "eagle":
        tensors["norm.weight"] = engine.packed.norms[-1, : config.d_model].copy()
    monkeypatch.setattr(layer_file, "_KIND", "f32")
    files = DrafterFiles(about, tensors)
    if name == "eagle":
        drafts: Any = EagleDrafter(files, depth=3, width=1, least=0)
    elif name == "sequential":
        drafts = SequentialMtpDrafter(files, least=0)
    else:
        which = MedusaDrafter if name == "medusa" else ParallelMtpDrafter
        drafts = which(files, paths=[(0,), (0, 0), (0, 0, 0)])
    watched = Watched(drafts, body, engine, head)
    plain = target.generate(PROMPTS, max_tokens=20)
    target.decoder._last = [], engine.new_cache()  # else nothing would be seen of what is known
    found = target.generate(PROMPTS, max_tokens=20, speculate=watched)
    assert [each.token_ids for each in found] == [each.token_ids for each in plain]
    assert watched.compared > 100
    # And where every second proposal is right, so that caches keep some of what they read.
    texts = [target.prompt_ids(p) + list(a.token_ids) for p, a in zip(PROMPTS, plain, strict=True)]
    right = SometimesRight(watched, texts)
    target.decoder._last = [], engine.new_cache()
    target.generate(PROMPTS, max_tokens=20, speculate=right)
    assert right.accepted > 10


class SometimesRight:
    """Puts what is known to come in place of a watched drafter's proposals, with its own behind."""

    def __init__(self, watched: Watched, texts: list[list[int]]) -> None:
        self.watched, self.texts, self.accepted = watched, texts, 0
        self.layers, self.acceptance = watched.layers, None

    def check(self, target: Target) -> None:
        self.watched.check(target)

    def begin(self, n_rows: int) -> SometimesRight:
        self.watched.begin(n_rows)
        return self

    def keep(self, places: Sequence[int]) -> None:
        self.watched.keep(places)

    def propose(self, rows: Sequence[DraftRow]) -> list[Tree]:
        self.watched.propose(rows)
        trees = []
        for row in rows:
            tree, node = Tree(row.ids[-1]), 0
            [text, *_] = [text for text in self.texts if text[: len(row.ids)] == row.ids]
            for token in text[len(row.ids) :][: min(len(row.ids) % 4, row.room)]:
                node = tree.add(node, token)
                self.accepted += 1
            trees.append(tree)
        return trees


def test_deepseeks_formula(target: LanguageModel) -> None:
    """Equations 21 to 23 of the report, written out for one place after the other."""
    config = target.config
    torch.manual_seed(2)
    body = SequentialModules(config, 2).double()
    for weights in body.parameters():
        torch.nn.init.normal_(weights, 1.0 if weights.ndim == 1 else 0.0, 0.3)
    n, d = 7, config.d_model
    h, e = torch.randn(n, d).double(), torch.randn(n + 2, d).double()
    with torch.no_grad():
        found = body(h[None], h[None, :, None], e[None, :n])

    def rms(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x / (x.pow(2).mean(-1, keepdim=True) + config.rms_norm_eps).sqrt() * weight

    def rotated(x: torch.Tensor) -> torch.Tensor:  # [heads, n, head_dim]
        half = config.head_dim // 2
        angles = torch.arange(x.shape[1])[:, None] * config.rope_theta ** (-torch.arange(half) / half)
        a, b = x[..., :half], x[..., half:]
        return torch.cat((a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()), -1)

    state = h
    for k, expected in enumerate(found, start=1):
        p = {name: value.detach() for name, value in body.layers[k - 1].named_parameters()}
        m = n - k  # places whose token is there
        joined = torch.cat((rms(e[k : k + m], p["enorm.weight"]), rms(state[:m], p["hnorm.weight"])), -1)
        x = joined @ p["eh_proj.weight"].T
        y = rms(x, p["block.input_layernorm.weight"])
        q, key, v = (
            (y @ p[f"block.self_attn.{part}_proj.weight"].T).view(m, -1, config.head_dim).transpose(0, 1)
            for part in "qkv"
        )
        group = config.n_heads // config.n_kv_heads
        key, v = rotated(key).repeat_interleave(group, 0), v.repeat_interleave(group, 0)
        seen = scaled_dot_product_attention(rotated(q), key, v, is_causal=True).transpose(0, 1).reshape(m, -1)
        x = x + seen @ p["block.self_attn.o_proj.weight"].T
        y = rms(x, p["block.post_attention_layernorm.weight"])
        gate, up, down = (p[f"block.mlp.{part}_proj.weight"] for part in ("gate", "up", "down"))
        state = x + (silu(y @ gate.T) * (y @ up.T)) @ down.T
        # Rotations are computed in float32.
        torch.testing.assert_close(expected[0, :m], rms(state, p["norm.weight"]), rtol=1e-4, atol=1e-4)


# Sampling --------------------------------------------------------------------------------------------


def exact(model: LanguageModel, engine: Engine, prompt: str, options: GenerationOptions) -> dict[Any, float]:
    """The probability of every answer, token by token from the engine's logits."""
    ids = model.prompt_ids(prompt)
    [answer] = model.new_answers([ids], options, 1)
    found: dict[Any, float] = {}
    prompt_cache = engine.new_cache()
    first = engine.read(ids, prompt_cache, n_logits=1)[0]

    def go(path: tuple[int, ...], weight: float) -> None:
        if len(path) == options.max_tokens or (path and path[-1] in model.tokenizer.eos_ids):
            found[path] = weight
            return
        cache = prompt_cache.copy()
        p = answer.sampler.distribution(engine.step(path, cache)[-1] if path else first)
        for token in np.flatnonzero(p).tolist():
            go((*path, token), weight * p[token])

    go((), 1.0)
    return found


@pytest.mark.parametrize("name", ["eagle", "sequential"])
def test_sampled_answers_have_the_targets_distribution(
    target: LanguageModel, engine: Engine, trained: dict[str, DrafterResult], name: str
) -> None:
    """With q as it was drawn from, over a part of the vocabulary: otherwise the shares would be others."""
    options: dict[str, Any] = {"temperature": 4.0, "top_k": 4, "max_tokens": 3}
    expected = exact(target, engine, "ab", GenerationOptions(**options))
    n, speculate = 1000, drafter(trained[name])
    speculate.least = 0.0
    found = target.generate(["ab"] * (n // 100), n=100, seed=11, speculate=speculate, **options)
    counts = Counter(answer.token_ids for answer in found)
    assert set(counts) <= set(expected)
    often = [answer for answer, weight in expected.items() if weight * n >= 8]
    table = [(counts[answer], expected[answer] * n) for answer in often]
    table.append((n - sum(count for count, _ in table), max(1e-9, n - sum(mean for _, mean in table))))
    observed, means = np.array([row for row in table if row[1] >= 8]).T
    assert len(observed) > 5
    # The seed is fixed, so this passes always or never; of all seeds it would fail for one in 10,000.
    assert chisquare(observed, means * observed.sum() / means.sum()).pvalue > 1e-4
    accepted = sum(sum(answer.speculation.accepted) for answer in found if answer.speculation)
    proposed = sum(sum(answer.speculation.proposed) for answer in found if answer.speculation)
    assert 0.05 * n < accepted < proposed - 0.05 * n


def test_typical_acceptance_is_labelled(target: LanguageModel, trained: dict[str, DrafterResult]) -> None:
    """Greedy answers stay; sampled ones may become others, which is said."""
    typical = f"typical:{trained['medusa'].drafter}"
    plain = target.generate(PROMPTS, max_tokens=20)
    found = target.generate(PROMPTS, max_tokens=20, speculate=typical)
    assert [each.token_ids for each in found] == [each.token_ids for each in plain]
    assert all(each.speculation and each.speculation.lossless for each in found)
    options: dict[str, Any] = {"temperature": 1.0, "seed": 3, "max_tokens": 30}
    sampled = [
        target.generate(PROMPTS, n=4, speculate=speculate, **options)
        for speculate in (typical, trained["medusa"].drafter)
    ]
    flags = [{each.speculation.lossless for each in part if each.speculation} for part in sampled]
    assert flags == [{False}, {True}]
    with pytest.raises(ConfigError, match="kind eagle, and typical acceptance is Medusa's"):
        target.generate("a", speculate=f"typical:{trained['eagle'].drafter}")


def test_typical_acceptance_takes_the_longest_path(target: LanguageModel) -> None:
    [answer] = target.new_answers([[5]], GenerationOptions(temperature=1.0), 1)
    tree = Tree(5)
    first, second = tree.add(0, 10), tree.add(0, 11)
    tree.add(first, 12)
    third = tree.add(second, 13)
    logits = np.full((5, target.config.vocab_size), -20.0, np.float32)
    logits[0, [10, 11]] = 3.0, 2.0  # both likely
    logits[first, [12, 20]] = -5.0, 3.0  # 12 is not typical
    logits[second, [13, 21]] = 1.0, 1.5
    walked = list(TypicalAcceptance().walk(tree, logits, answer.sampler, lambda node: 99))
    assert walked == [(0, 11), (second, 13), (third, 99)]
    rule, p = TypicalAcceptance(epsilon=0.3, delta=0.5), np.array([0.5, 0.3, 0.2])
    limit = min(0.3, 0.5 * np.exp((p * np.log(p)).sum()))
    assert [rule.accepts(p, token) for token in range(3)] == (p > limit).tolist() == [True, True, True]
    with pytest.raises(ConfigError, match="epsilon 0"):
        TypicalAcceptance(epsilon=0)


# Files and models that do not fit ----------------------------------------------------------------------


@pytest.mark.parametrize("weights", list(KINDS))
def test_rows_come_back_and_models_differ(folder: Path, weights: str) -> None:
    model = load_model(folder)
    packed = pack_model(model, weights)
    rows, kind = np.array([0, 17, 258]), "q8" if weights == "q4" else weights
    for matrix, weight in ((-1, model.model.embed_tokens.weight), (-2, model.lm_head.weight)):
        floats = floats_of(quantise(weight.detach().numpy(), KINDS[kind]))
        np.testing.assert_array_equal(unpack_rows(packed, matrix, rows), floats[rows])
    down = model.model.layers[1].mlp.down_proj.weight.detach().numpy()
    expected = floats_of(quantise(down, KINDS[weights]))[rows % 32]
    np.testing.assert_array_equal(unpack_rows(packed, 7, rows % 32), expected)
    before = fingerprint(packed)
    assert before == fingerprint(pack_model(model, weights))
    with torch.no_grad():
        model.model.layers[2].self_attn.o_proj.weight *= 1.01
    assert before != fingerprint(pack_model(model, weights))


def test_another_model_is_refused_by_name(folder: Path, trained: dict[str, DrafterResult]) -> None:
    other = fullspan.load(folder, weights="q4")
    for name in KIND:
        with pytest.raises(
            ConfigError, match=r"was trained for .*babbler with weights of kind q8, not for .*q4"
        ):
            other.generate("a", max_tokens=2, speculate=trained[name].drafter)


def test_the_server_refuses_them(target: LanguageModel, trained: dict[str, DrafterResult]) -> None:
    pytest.importorskip("fastapi")
    from fullspan.serving.service import Service
    from fullspan.serving.settings import ServerSettings

    settings = ServerSettings(speculate=str(trained["medusa"].drafter))
    with pytest.raises(ConfigError, match="hidden states, which the server does not keep"):
        Service(target, settings)


def test_broken_drafters(target: LanguageModel, trained: dict[str, DrafterResult], tmp_path: Path) -> None:
    files = DrafterFiles.load(trained["sequential"].drafter)
    lacking = {name: value for name, value in files.tensors.items() if "layers.2.blk.0.ffn_up" not in name}
    for tensors, problem in (
        (lacking, "layers.2.blk.0.ffn_up.weight"),
        (dict(files.tensors) | {"more": np.zeros(1)}, "more"),
        (dict(files.tensors) | {"tokens": np.array([0, 999])}, "vocabulary"),
    ):
        DrafterFiles(files.about, tensors).save(tmp_path / "broken")
        with pytest.raises(CheckpointError, match=problem):
            target.generate("a", max_tokens=3, speculate=tmp_path / "broken")
    (tmp_path / "broken" / "drafter.json").write_text('{"format": 2}')
    with pytest.raises(CheckpointError, match="is not of format 1"):
        target.generate("a", max_tokens=3, speculate=tmp_path / "broken")
    with pytest.raises(ConfigError, match="4 tokens of 3 modules"):
        SequentialMtpDrafter(files, 4)
    eagle, medusa = (DrafterFiles.load(trained[name].drafter) for name in ("eagle", "medusa"))
    with pytest.raises(ConfigError, match="a tree of depth 0"):
        EagleDrafter(eagle, depth=0)
    with pytest.raises(ConfigError, match="is there already, or comes before"):
        MedusaDrafter(medusa, paths=[(0, 1)])


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[str, str]:
    """What a command says, and its error."""
    monkeypatch.setattr(sys, "argv", ["fullspan", *words])
    try:
        main()
    except SystemExit as end:
        assert end.code in (0, None, 2)
    said = capsys.readouterr()
    return said.out, said.err


def test_the_command_line(
    folder: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A smaller model, from the data as they are; and options of other objectives."""
    words = ["train", "--objective", "draft", "--model", str(folder), "--data", str(data), "--texts", "data"]
    words += ["--max-steps", "3", "--weights", "q8", "--threads", "1"]
    said, _ = run(capsys, monkeypatch, *words, "--run", str(tmp_path / "run"))
    assert f"--weights q8 --speculate {tmp_path / 'run' / 'drafter'}" in said
    generate = ["generate", str(folder), "ab", "--weights", "q8", "--max-tokens", "4"]
    plain, _ = run(capsys, monkeypatch, *generate)
    speculate = ["--speculate", str(tmp_path / "run" / "drafter")]
    assert plain and run(capsys, monkeypatch, *generate, *speculate)[0] == plain
    for more, problem in (
        (["--rank", "8"], "--rank is no option of --objective draft"),
        (["--depth", "2"], "--depth is no option of --objective draft"),
        (["--draft-layers", "3"], "the model itself has 3 layers"),
        (["--answer-tokens", "9"], "--answer-tokens is no option of --objective draft with --texts data"),
    ):
        assert problem in run(capsys, monkeypatch, *words, "--run", str(tmp_path / "other"), *more)[1]
    sft = ["train", "--model", str(folder), "--data", str(data), "--mtp", "parallel"]
    assert "--mtp is no option of --objective sft" in run(capsys, monkeypatch, *sft)[1]
