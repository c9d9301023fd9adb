"""Answers obey their schema, expression or grammar; its state can be advanced, forked and taken back."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

import fullspan
from fullspan.decoding.constraints import Constraint, ConstraintCompiler, grammar_of
from fullspan.decoding.language_model import LanguageModel
from fullspan.decoding.options import GenerationOptions, Sampling
from fullspan.decoding.sampler import Sampler, row_generator
from fullspan.models.tokenizers import load_tokenizer
from fullspan.text.tokenizer import Tokenizer

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["a", "b", "ç 🐍"]}, "minItems": 1, "maxItems": 3},
        "email": {
            "anyOf": [{"type": "null"}, {"type": "string", "pattern": "^[a-z]{1,8}@[a-z]{1,8}\\.org$"}]
        },
    },
    "required": ["name", "age", "tags", "email"],
    "additionalProperties": False,
}
TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "number", "multipleOf": 0.5, "minimum": -2, "exclusiveMaximum": 3},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2},
            },
            "required": ["value", "children"],
            "additionalProperties": False,
        }
    },
}
CHOICE = {"anyOf": [{"const": "yes"}, {"type": "boolean"}, {"type": "string", "format": "date"}]}
SCHEMAS = [PERSON, TREE, CHOICE]
EXPRESSIONS = [r"(yes|no), because [a-z ]{3,20}\.", r"\d{3}-\d{4}", r"[αβγ]{2,5}é?", "a/b|\"'\n"]
SUMS = """
start: sum
sum: product (("+" | "-") product){0,2}
product: number ("*" number)?
number: /[1-9][0-9]?/ | "(" sum ")"
"""
GBNF_SUMS = """
root ::= number (("+" | "-") number)?
number ::= [1-9] [0-9]?
"""


@pytest.fixture(scope="module")
def letters(tiny_chat_model: Path) -> Tokenizer:
    """Every token is one byte, so that characters come in parts and every border is one of tokens."""
    return load_tokenizer(tiny_chat_model)


@pytest.fixture(scope="module")
def compiler(letters: Tokenizer) -> ConstraintCompiler:
    return ConstraintCompiler(
        letters, letters.vocab_size + 5
    )  # wider than the tokenizer, as padded models are


def start(compiler: ConstraintCompiler, **constraint: Any) -> Constraint:
    grammar = grammar_of(GenerationOptions(**constraint))
    assert grammar is not None
    return compiler.compile(grammar)


def walk(constraint: Constraint, tokenizer: Tokenizer, seed: int, most: int = 500) -> str | None:
    """Random allowed tokens up to the end; None if the end did not come."""
    numbers, ids = np.random.default_rng(seed), []
    for _ in range(most):
        mask = constraint.mask()
        ends = [end for end in tokenizer.eos_ids if mask[end]]
        assert bool(ends) == constraint.accepting, "end tokens are for where the answer may end"
        assert not mask[1] and not mask[tokenizer.vocab_size :].any(), "neither special tokens nor padding"
        allowed = np.flatnonzero(mask)
        # Closing brackets and the end come too seldom by chance.
        closing = [i for i in allowed if i in ends or tokenizer.token(int(i)) in '"]}']
        token = int(numbers.choice(closing if closing and numbers.random() < 0.5 else allowed))
        if token in ends:
            return tokenizer.decode(ids)
        constraint.accept(token)
        ids.append(token)
        if constraint.finished:
            return tokenizer.decode(ids)
    return None


@pytest.mark.parametrize("schema", SCHEMAS)
def test_any_walk_through_a_schema_is_valid_json(compiler, letters, schema):
    state = start(compiler, json_schema=schema)
    whole = [text for seed in range(20) if (text := walk(state.fork(), letters, seed))]
    assert len(whole) > 6
    for text in whole:
        jsonschema.validate(json.loads(text), schema)
    assert len(set(whole)) > 3


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_any_walk_through_an_expression_matches(compiler, letters, expression):
    state = start(compiler, regex=expression)
    for seed in range(10):
        text = walk(state.fork(), letters, seed)
        assert text is not None and re.fullmatch(expression, text), text


@pytest.mark.parametrize("grammar", [SUMS, GBNF_SUMS])
def test_any_walk_through_a_grammar_is_a_sentence(compiler, letters, grammar):
    state = start(compiler, grammar=grammar)
    texts = [text for seed in range(20) if (text := walk(state.fork(), letters, seed))]
    assert len(texts) > 10
    for text in texts:
        assert re.fullmatch(r"[0-9+*()-]+", text)
        compile(text, "sum", "eval")  # Python reads the same language


@pytest.mark.parametrize(
    "constraint", [{"json_schema": PERSON}, {"regex": EXPRESSIONS[2]}, {"grammar": SUMS}]
)
def test_states_are_forked_and_taken_back(compiler, letters, constraint):
    text = {"json_schema": '{"name": "ç🐍", "age": 42, "tags"', "regex": "αγβ", "grammar": "(1+2)*3"}
    path = letters.encode(text[next(iter(constraint))])
    state = start(compiler, **constraint)
    one_by_one = []
    for token in path:
        one_by_one.append(state.mask())
        state.accept(token)
    one_by_one.append(state.mask())
    fresh = start(compiler, **constraint)
    assert np.array_equal(fresh.masks(path), np.stack(one_by_one))
    assert np.array_equal(fresh.mask(), one_by_one[0]), "looking ahead must change nothing"
    wrong = int(np.flatnonzero(~one_by_one[2])[0])
    assert len(fresh.masks([*path[:2], wrong, *path[2:]])) == 3
    fork = state.fork()
    for n in range(1, len(path) + 1):
        state.rollback(1)
        assert np.array_equal(state.mask(), one_by_one[-1 - n])
    assert np.array_equal(fork.mask(), one_by_one[-1]), "a fork must not follow"
    with pytest.raises(fullspan.core.errors.DataError, match="does not allow token"):
        state.accept(wrong if not state.mask()[wrong] else 1)


def test_a_finished_state_can_be_taken_back(compiler, letters):
    state = start(compiler, regex="ab?")
    a, b = letters.encode("ab")
    [end] = letters.eos_ids[:1]
    state.accept(a)
    assert state.accepting and not state.finished
    state.accept(b)
    assert state.finished and np.flatnonzero(state.mask()).tolist() == sorted(letters.eos_ids)
    state.rollback(1)
    state.accept(end)
    state.rollback(2)
    assert np.flatnonzero(state.mask()).tolist() == [a]


def test_distributions_of_proposed_tokens_obey_the_constraint(compiler, letters):
    options = Sampling(temperature=1.0, top_k=20, repetition_penalty=1.2)
    width = letters.vocab_size + 5
    path = letters.encode('{"name":"a"')
    logits = np.random.default_rng(0).standard_normal((len(path) + 1, width)).astype(np.float32)
    state = start(compiler, json_schema=PERSON)
    sampler = Sampler(options, row_generator(1), prompt_ids=[5], vocab_size=width, constraint=state)
    along = sampler.distributions(logits, path)
    for at in range(len(path) + 1):
        assert np.array_equal(along[at], sampler.distribution(logits[at]))
        assert not along[at][~state.mask()].any()
        if at < len(path):
            sampler.accept(path[at])
    sampler.rollback(len(path))
    # The second token breaks the schema: what follows it has no distribution.
    assert len(sampler.distributions(logits, [path[0], 1, *path[2:]])) == 2


def test_answers_end_with_the_constraint_or_with_max_tokens(tiny_chat_model):
    model = fullspan.load(tiny_chat_model)
    answer = model.generate("Say", regex="[ab]{4}", temperature=1.0, seed=0)
    assert re.fullmatch("[ab]{4}", answer.text)
    # Nothing could follow, so no step is spent on an end token.
    assert answer.finish_reason == "stop" and len(answer.token_ids) == 4
    cut = model.generate("Say", json_schema=PERSON, max_tokens=5, temperature=1.0, seed=0)
    assert cut.finish_reason == "length" and len(cut.token_ids) == 5 and cut.text.startswith("{")
    stopped = model.generate("Say", regex="x{9}", stop="xxx")
    assert (stopped.text, stopped.finish_reason, len(stopped.token_ids)) == ("", "stop", 3)
    together = model.generate(["Say", "Tell"], regex="[ab]{1,9}", temperature=1.0, seed=3, n=2)
    alone = model.generate("Tell", regex="[ab]{1,9}", temperature=1.0, seed=4, n=2)
    assert [each.text for each in together[2:]] == [each.text for each in alone]


# The real model -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smollm2(smollm2_path: Path) -> LanguageModel:
    return fullspan.load(smollm2_path)


@pytest.mark.slow
@pytest.mark.parametrize("schema", SCHEMAS)
def test_smollm2_answers_in_valid_json(smollm2, schema):
    question = "Describe a person (or a tree of numbers, or a date) in JSON."
    answers = smollm2.chat(question, json_schema=schema, temperature=1.0, seed=11, n=4, max_tokens=150)
    compiler = ConstraintCompiler(smollm2.tokenizer, smollm2.config.vocab_size)
    constraint = compiler.compile(grammar_of(GenerationOptions(json_schema=schema)))
    for answer in answers:
        obeys = constraint.fork()
        for token in answer.token_ids:  # cut off or not, every token is one that the schema allows there
            obeys.accept(token)
        if answer.finish_reason == "stop":
            jsonschema.validate(json.loads(answer.text), schema)
    # A tree may grow past any number of tokens.
    assert schema is TREE or "stop" in {answer.finish_reason for answer in answers}


@pytest.mark.slow
def test_smollm2_answers_match(smollm2):
    for expression in EXPRESSIONS[:3]:
        for answer in smollm2.chat("Is the sky blue?", regex=expression, temperature=1.0, seed=5, n=2):
            assert re.fullmatch(expression, answer.text), answer.text
    [answer] = smollm2.chat("Compute.", grammar=GBNF_SUMS, temperature=1.0, seed=5, n=1)
    assert re.fullmatch(r"[1-9][0-9]?([+-][1-9][0-9]?)?", answer.text)
