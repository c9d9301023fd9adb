"""Wrong prompts, options and models: what each is told, and that it is never a traceback."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fullspan
from fullspan.cli import main
from fullspan.core.errors import CheckpointError, ConfigError, DataError
from fullspan.decoding.language_model import LanguageModel
from fullspan.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def model(tiny_chat_model: Path) -> LanguageModel:
    return fullspan.load(tiny_chat_model)


@pytest.fixture
def fails(monkeypatch, capsys):
    """Run a command that must fail; its error message."""

    def run(*words: str, stdin: str = "") -> str:
        monkeypatch.setattr(sys, "argv", ["fullspan", *words])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 2
        message = capsys.readouterr().err
        assert message.startswith("error: ")
        return message

    return run


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"temperature": -0.1}, "temperature: .*greater than or equal to 0, got -0.1"),
        ({"temperature": float("nan")}, "temperature: .*got nan"),
        ({"top_p": 0}, "top_p: .*greater than 0, got 0"),
        ({"top_p": 1.01}, "top_p: .*less than or equal to 1, got 1.01"),
        ({"top_k": 0}, "top_k: .*greater than or equal to 1, got 0"),
        ({"top_k": 2.5}, "top_k: .*integer.*got 2.5"),
        ({"min_p": 1.5}, "min_p: .*less than or equal to 1, got 1.5"),
        ({"max_tokens": 0}, "max_tokens: .*greater than or equal to 1, got 0"),
        ({"repetition_penalty": 0}, "repetition_penalty: .*greater than 0, got 0"),
        ({"seed": -1}, "seed: .*greater than or equal to 0, got -1"),
        ({"stop": ["ok", ""]}, "stop.1: .*at least 1 character"),
        ({"typical_p": 0}, "typical_p: .*greater than 0, got 0"),
        ({"presence_penalty": 2.1}, "presence_penalty: .*less than or equal to 2, got 2.1"),
        ({"frequency_penalty": -3}, "frequency_penalty: .*greater than or equal to -2, got -3"),
        ({"logit_bias": {5: 101}}, "logit_bias.5: .*less than or equal to 100, got 101"),
        ({"logit_bias": {300: 1}}, "token id 300 is not in the vocabulary of 259"),
        ({"logit_bias": {-1: 1}}, "token id -1 is not in the vocabulary"),
        ({"logit_bias": {"two": 1}}, "'two' is 3 tokens in this vocabulary, expected one\nhint: .*'t'"),
        ({"logit_bias": {67: 1, "a": 1}}, "logit_bias names token 67 \\('a'\\) more than once"),
        ({"n": 0}, "n must be from 1 to 128, got 0"),
        ({"n": 10**9}, "n must be from 1 to 128, got 1000000000"),
        ({"regex": "a", "grammar": "start: /a/"}, "regex and grammar are given; an answer obeys one of them"),
        ({"logprobs": -1}, "logprobs must be 0 or more, got -1"),
        ({"temprature": 1.0}, "no option 'temprature'\nhint: did you mean 'temperature'"),
    ],
)
def test_options_out_of_range_are_named(model, options, named):
    with pytest.raises(ConfigError, match=named):
        model.generate("Hello", **options)


def test_none_as_stop_is_no_stop_string(model):
    with_none = model.generate("Hello", max_tokens=3, stop=None)
    assert with_none.token_ids == model.generate("Hello", max_tokens=3).token_ids


def test_empty_prompt(model):
    with pytest.raises(DataError, match="the prompt is empty"):
        model.generate("")
    with pytest.raises(DataError, match="the conversation is empty"):
        model.chat([])


def test_one_empty_prompt_of_a_batch(model):
    with pytest.raises(DataError, match="the prompt is empty"):
        model.generate(["fine", ""])


def test_no_prompts_no_answers(model):
    assert model.generate([]) == []


def test_prompt_that_fills_the_context(model):
    assert model.generate("x" * 255).finish_reason == "length"
    with pytest.raises(DataError, match="the prompt has 256 tokens, and the model's context holds 256"):
        model.generate("x" * 256)


def test_text_too_short_or_too_long_to_score(model):
    with pytest.raises(DataError, match=r"from 2 to 256 tokens .*, got 1"):
        model.score("x")
    with pytest.raises(DataError, match=r"from 2 to 256 tokens .*, got 257"):
        model.score("x" * 257)


def test_half_a_surrogate_pair(model):
    with pytest.raises(DataError, match="surrogate"):
        model.generate("broken \ud83d emoji")


def test_message_without_a_role(model):
    with pytest.raises(DataError, match="role"):
        model.chat([{"content": "Hello"}])


def test_chat_with_a_base_model(model):
    plain = LanguageModel(model.model, Tokenizer(model.tokenizer.backend), "base")
    with pytest.raises(DataError, match="has no chat template"):
        plain.chat("Hello")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(tiny_chat_model, value):
    broken = fullspan.load(tiny_chat_model)
    broken.model.model.norm.weight.data[3] = value
    with pytest.raises(CheckpointError, match="logits are not finite"):
        broken.generate("Hello")


def test_unknown_model(monkeypatch, tmp_path):
    monkeypatch.setenv("FULLSPAN_HOME", str(tmp_path))
    with pytest.raises(CheckpointError, match="no model named 'smollm3'"):
        fullspan.load("smollm3")


def test_adapter_that_names_no_base(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(CheckpointError, match="does not name the model it belongs to"):
        fullspan.load(tmp_path)


def test_adapter_folder_that_is_none(tiny_chat_model, tmp_path):
    with pytest.raises(CheckpointError, match=r"it has no adapter_config.json"):
        fullspan.load(tiny_chat_model, adapter=tmp_path)


def chain(n: int) -> dict[str, object]:
    """Definitions that each refer to the next one."""
    links = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(n)}
    return {"$ref": "#/$defs/d0", "$defs": {**links, f"d{n}": {"type": "string"}}}


@pytest.mark.parametrize(
    ("constraint", "said"),
    [
        ({"json_schema": {"enum": []}}, "json_schema: Unsatisfiable schema: anyOf is empty"),
        (
            {"json_schema": {"type": "integer", "minimum": 5, "maximum": 3}},
            r"json_schema: .*\(5\) is greater",
        ),
        ({"json_schema": {"type": "array", "uniqueItems": True}}, 'json_schema: .*"uniqueItems"'),
        ({"json_schema": {"type": "string", "format": "color"}}, "json_schema: Unknown format: color"),
        ({"json_schema": {"$ref": "#"}}, "no answer can obey the constraint"),
        ({"json_schema": {"$ref": "http://127.0.0.1/schema"}}, "json_schema: .*does not fetch resources"),
        ({"json_schema": chain(1500)}, "json_schema has 1,501 definitions .* at most 500"),
        ({"json_schema": {"enum": ["x" * 200_000]}}, "json_schema has 200,0.. characters, at most 100,000"),
        ({"json_schema": '{"a":' * 50 + "1"}, "json_schema is not JSON"),
        ({"json_schema": '{"a":' * 15_000 + "1" + "}" * 15_000}, "json_schema is nested too deeply"),
        ({"json_schema": '{"not":' * 500 + "1" + "}" * 500}, "json_schema: "),
        ({"json_schema": {"const": float("nan")}}, "json_schema is not JSON"),
        ({"json_schema": "no-such-file.json"}, "json_schema: cannot read 'no-such-file.json': No such file"),
        ({"regex": "(a"}, "regex: unclosed group"),
        ({"regex": r"(a)\1"}, "regex: backreferences are not supported"),
        ({"regex": "(?=a)a"}, "regex: look-around.* is not supported"),
        ({"regex": r"[^\s\S]"}, "no answer can obey the constraint"),
        ({"regex": "(" * 60_000 + "a" + ")" * 60_000}, "regex has 120,001 characters"),
        ({"regex": "(" * 40_000 + "a" + ")" * 40_000}, "regex: "),
        ({"grammar": "start: nothing"}, 'grammar: .*unknown name: "nothing"'),
        ({"grammar": 'first: "a"'}, "grammar: Failed to convert .* Expected ::= at line 1"),
        ({"grammar": "start: " + "(" * 5000 + '"a"' + ")" * 5000}, "grammar: .*nested"),
        (
            {"grammar": "start: r0\n" + "".join(f"r{i}: r{i + 1}\n" for i in range(5000))},
            "grammar has 5,001 colons",
        ),
        ({"grammar": Path("no-such.lark")}, "grammar: cannot read 'no-such.lark': No such file"),
    ],
)
def test_constraints_that_cannot_be_obeyed(model, constraint, said):
    """Some of these end the process, by a stack that overflows, where they reach the library unbounded."""
    with pytest.raises(ConfigError, match=said):
        model.generate("Hello", max_tokens=2, **constraint)


def test_a_constraint_that_grows_too_hard_while_answering(model):
    with pytest.raises(DataError, match="the constraint cannot go on from this point of the answer: "):
        model.generate("Hello", regex="((a{1000}){1000}){1000}", max_tokens=3)


def test_a_constraint_needs_a_token_that_ends(model):
    endless = LanguageModel(model.model, Tokenizer(model.tokenizer.backend), "endless")
    endless.tokenizer.eos_ids = ()
    with pytest.raises(ConfigError, match="need a tokenizer with an end-of-text or end-of-turn token"):
        endless.generate("Hello", regex="a")


# At the command line ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["generate", "smolm2-135m", "Hello"],
        ["chat", "smolm2-135m"],
        ["evaluate", "smolm2-135m", "--data", "x"],
    ],
)
def test_command_line_unknown_model(monkeypatch, tmp_path, words, fails):
    monkeypatch.setenv("FULLSPAN_HOME", str(tmp_path))
    message = fails(*words)
    assert "smolm2-135m" in message and "smollm2-135m-instruct" in message


def test_command_line_option_out_of_range(tiny_chat_model, fails):
    assert "--top-p: " in fails("generate", str(tiny_chat_model), "Hello", "--top-p", "0")
    assert "--logit-bias: should be TOKEN=BIAS" in fails(
        "generate", str(tiny_chat_model), "Hello", "--logit-bias", "a"
    )
    # As the user typed them, also where the error comes from deep inside.
    assert "--regex: unclosed group" in fails("chat", str(tiny_chat_model), "--regex", "(a")
    generate = ("generate", str(tiny_chat_model), "Hello")
    assert "--json-schema is not JSON" in fails(*generate, "--json-schema", "{")
    assert "--json-schema and --regex are given" in fails(*generate, "--json-schema", "{}", "--regex", "a")
    assert "--logit-bias: the token id 99999" in fails(*generate, "--logit-bias", "99999=1")
    assert "shown in JSON only" in fails("generate", str(tiny_chat_model), "Hello", "--logprobs", "1")


def test_command_line_nothing_to_say(tiny_chat_model, fails):
    assert "the prompt is empty" in fails("generate", str(tiny_chat_model))


def test_command_line_prompt_too_long(tiny_chat_model, fails):
    assert "the model's context holds 256" in fails("generate", str(tiny_chat_model), "-", stdin="x" * 300)
    assert "the model's context holds 256" in fails("chat", str(tiny_chat_model), stdin="x" * 300 + "\n")


def test_command_line_truncated_weights(tiny_chat_model, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(tiny_chat_model, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    # One case as a process of its own, as a person would see it.
    done = subprocess.run(
        [sys.executable, "-m", "fullspan", "chat", str(broken), "--message", "Hello"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert "model.safetensors" in done.stderr and "Traceback" not in done.stderr


def test_command_line_truncated_gguf(tiny_chat_model, tmp_path, fails):
    from fullspan.models.loading import load_model, save_model
    from fullspan.models.tokenizers import load_tokenizer

    whole = tmp_path / "whole.gguf"
    save_model(load_model(tiny_chat_model), whole, tokenizer=load_tokenizer(tiny_chat_model))
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert "broken.gguf" in fails("generate", str(broken), "Hello")


def test_evaluate_without_anything_to_measure(tiny_chat_model, tmp_path, fails):
    data = tmp_path / "held.jsonl"
    data.write_text('{"prompt": "a", "completion": "b"}\n')
    assert "nothing to measure" in fails(
        "evaluate", str(tiny_chat_model), "--data", str(data), "--no-baseline"
    )


def test_evaluate_names_the_example_that_is_too_long(tiny_chat_model, tmp_path, fails):
    data = tmp_path / "held.jsonl"
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "x" * 400, "completion": "b"}]
    data.write_text("\n".join(map(json.dumps, rows)))
    assert "256" in fails("evaluate", str(tiny_chat_model), "--data", str(data))
