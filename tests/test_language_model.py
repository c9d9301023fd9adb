"""What a person meets: load, generate, chat and evaluate, in Python and at the command line."""

from __future__ import annotations

import io
import json
import math
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import fullspan
from fullspan.adapters.lora import LoRAConfig, add_lora, lora_parameters
from fullspan.adapters.peft_format import save_adapter
from fullspan.cli import main
from fullspan.decoding.language_model import LanguageModel
from fullspan.decoding.options import GenerationOptions, Options
from fullspan.text.chat import encode_chat
from fullspan.text.examples import Message

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Ho"},
    {"role": "user", "content": "He"},
]


@pytest.fixture(scope="module", autouse=True)
def _float32():
    """The same numbers on every CPU, and tolerances of float32."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fullspan.decoding.loading.default_dtype", lambda device: torch.float32)
        yield


@pytest.fixture(scope="module")
def model(tiny_chat_model: Path) -> LanguageModel:
    return fullspan.load(tiny_chat_model)


@pytest.fixture(scope="module")
def adapter(tiny_chat_model: Path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tuned") / "adapter"
    tuned = fullspan.load(tiny_chat_model).model
    add_lora(tuned, LoRAConfig(rank=4), seed=1)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in lora_parameters(tuned).items():
        if name.endswith("lora_B"):
            torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    save_adapter(tuned, folder, str(tiny_chat_model))
    return folder


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command in this process; what it prints."""

    def run(*words: str | Path, stdin: str = "") -> str:
        monkeypatch.setattr(sys, "argv", ["fullspan", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as end:
            main()
        shown = capsys.readouterr()
        assert end.value.code in (0, None), shown.err
        return shown.out

    return run


# Python -------------------------------------------------------------------------------------------


def test_options_are_the_same_for_type_checkers():
    assert set(Options.__annotations__) == set(GenerationOptions.model_fields)


def test_a_batch_equals_one_by_one_in_every_field_but_time(model):
    prompts = ["a", "The longest of the prompts by far", "two words"]
    options = {"max_tokens": 20, "temperature": 0.9, "top_p": 0.9, "logprobs": 2}
    together = model.generate(prompts, seed=5, **options)
    for row, prompt in enumerate(prompts):
        alone = model.generate(prompt, seed=5 + row, **options)
        assert (alone.text, alone.token_ids, alone.finish_reason, alone.n_prompt_tokens) == (
            together[row].text,
            together[row].token_ids,
            together[row].finish_reason,
            together[row].n_prompt_tokens,
        )
        for mine, batched in zip(alone.logprobs, together[row].logprobs, strict=True):
            assert mine.logprob == pytest.approx(batched.logprob, abs=1e-4)


def test_several_samples_of_a_prompt(model):
    options = {"temperature": 1.0, "max_tokens": 12}
    three = model.generate("Once", n=3, seed=7, **options)
    assert len({each.text for each in three}) == 3
    assert three[0].token_ids == model.generate("Once", seed=7, **options).token_ids
    assert [each.token_ids for each in model.generate("Once", n=2, seed=7, **options)] == [
        each.token_ids for each in three[:2]
    ]
    # Beside other prompts each sample is the same: the second prompt draws from the next seed.
    flat = model.generate(["A much longer prompt", "Once"], n=3, seed=6, **options)
    assert [each.token_ids for each in flat[3:]] == [each.token_ids for each in three]
    assert len(model.chat("Hi", n=1, max_tokens=2)) == 1


def test_biases_and_penalties(model):
    said = model.generate("Once", max_tokens=6, logit_bias={"e": 100}).text
    assert said == "eeeeee"
    [token] = model.tokenizer.encode("e")
    assert model.generate("Once", max_tokens=6, logit_bias={token: 100}).text == said
    # A penalty of 2 each time wears a bias of 4 down: two of one, then one of the other at a time.
    worn = model.generate("Once", max_tokens=9, logit_bias={"e": 100, "f": 96}, frequency_penalty=2.0)
    free = model.generate("Once", max_tokens=9, logit_bias={"e": 100, "f": 96})
    assert set(free.text) == {"e"} and set(worn.text) == {"e", "f"}


def test_logprobs_have_the_text_of_tokens(model):
    answer = model.generate("Hello", max_tokens=4, logprobs=3, temperature=1.0, seed=1)
    for each in answer.logprobs:
        assert each.text == model.tokenizer.decode([each.token_id], skip_special_tokens=False)
        assert len(each.top) == 3
        assert all(
            top.text == model.tokenizer.decode([top.token_id], skip_special_tokens=False) for top in each.top
        )
    assert model.tokenizer.token_text(model.tokenizer.eos_ids[0]) == "<|im_end|>"


def test_seeds(model):
    def sample(seed: int | None) -> str:
        return model.generate("Once", temperature=1.0, max_tokens=20, seed=seed).text

    assert sample(1) == sample(1) != sample(2)
    torch.manual_seed(3)
    first, second = sample(None), sample(None)
    torch.manual_seed(3)
    assert first == sample(None) != second


def test_conversations_in_every_form(model):
    question = [{"role": "user", "content": "Hi"}]
    one = model.chat("Hi", max_tokens=8)
    assert model.chat(question, max_tokens=8).text == one.text
    assert model.chat([Message("user", "Hi")], max_tokens=8).text == one.text
    long = model.chat(CHAT, max_tokens=8)
    assert long.n_prompt_tokens == len(encode_chat(model.tokenizer, CHAT, add_generation_prompt=True).ids)
    assert [each.text for each in model.chat(["Hi", question, CHAT], max_tokens=8)] == [
        one.text,
        one.text,
        long.text,
    ]


def test_stream_joins_to_the_text_and_keeps_the_result(model):
    whole = model.generate("Hello", max_tokens=30)
    stream = model.stream("Hello", max_tokens=30)
    assert "".join(stream) == whole.text
    assert stream.result.token_ids == whole.token_ids
    stopped = model.stream("Hello", max_tokens=30)
    first = next(iter(stopped))
    assert first and whole.text.startswith(stopped.result.text)
    assert len(stopped.result.token_ids) < 30


def test_constraints_and_samples_at_the_command_line(run, tiny_chat_model, tmp_path):
    file = tmp_path / "digits.lark"
    file.write_text("start: /[0-9]{3}/")
    words = ["generate", tiny_chat_model, "Hello", "--temperature", "1"]
    assert re.fullmatch(r"\d{3}\n---\n\d{3}\n", run(*words, "--grammar", file, "--n", "2"))
    assert run(*words, "--regex", "yes") == "yes\n"
    schema = tmp_path / "schema.json"
    schema.write_text('{"enum": [7]}')
    assert run(*words, "--json-schema", schema) == "7\n"
    lines = run(*words, "--json-schema", '{"enum": ["a"]}', "--n", "2", "--format", "json").splitlines()
    assert [json.loads(line)["text"] for line in lines] == ['"a"', '"a"']
    biased = ["--logit-bias", "e=100", "--logit-bias", "66=-100", "--max-tokens", "2"]
    assert run(*words, *biased) == "ee\n"
    assert run("chat", tiny_chat_model, "--message", "Hi", "--regex", "no|yes") in ("no\n", "yes\n")


def test_end_tokens_and_stop_strings_end_an_answer(model):
    whole = model.generate("Hello", max_tokens=30)
    stop = whole.text[5:8]
    cut = model.generate("Hello", max_tokens=30, stop=stop)
    assert cut.finish_reason == "stop" and cut.text == whole.text.partition(stop)[0]
    # Sampling hotly from 259 tokens meets the end token now and then.
    answers = model.generate(["Hello"] * 20, temperature=5.0, max_tokens=100, seed=0)
    for answer in answers:
        ended = answer.token_ids[-1] in model.tokenizer.eos_ids
        assert answer.finish_reason == ("stop" if ended else "length")
        assert not any(token in model.tokenizer.eos_ids for token in answer.token_ids[:-1])
    assert {answer.finish_reason for answer in answers} == {"stop", "length"}


def test_score_is_the_probability_of_what_was_generated(model):
    answer = model.generate("Hello", max_tokens=10, logprobs=0)
    ids = model.prompt_ids("Hello") + list(answer.token_ids)
    from fullspan.decoding.scoring import score_tokens

    scored = score_tokens(model.model, ids).logprobs[-len(answer.token_ids) :]
    assert scored == pytest.approx([each.logprob for each in answer.logprobs], abs=1e-4)


def test_an_adapter_is_merged_and_names_its_base(model, tiny_chat_model, adapter):
    beside = fullspan.load(tiny_chat_model, adapter=adapter)
    alone = fullspan.load(adapter)
    assert str(tiny_chat_model) in alone.name and str(adapter) in alone.name
    scores = [each.score("Hello there").total for each in (model, beside, alone)]
    assert scores[1] == scores[2] != scores[0]
    assert not list(lora_parameters(alone.model))


# Command line -------------------------------------------------------------------------------------


def test_generate(run, model, tiny_chat_model):
    expected = model.generate("Hello", max_tokens=12)
    words = ["generate", tiny_chat_model, "--max-tokens", "12"]
    assert run(*words, "Hello") == expected.text + "\n"
    assert run(*words, "Hello", "--no-stream") == expected.text + "\n"
    assert run(*words, stdin="Hello") == run(*words, "-", stdin="Hello") == expected.text + "\n"
    found = json.loads(run(*words, "Hello", "--format", "json", "--logprobs", "2"))
    assert found["text"] == expected.text and found["token_ids"] == list(expected.token_ids)
    assert found["tokens_per_second"] > 0 and len(found["logprobs"][0]["top"]) == 2


def test_chat_message(run, model, tiny_chat_model, adapter):
    words = ["chat", tiny_chat_model, "--message", "Hi", "--max-tokens", "12"]
    assert run(*words) == model.chat("Hi", max_tokens=12).text + "\n"
    told = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert run(*words, "--system", "Be brief.") == model.chat(told, max_tokens=12).text + "\n"
    tuned = fullspan.load(adapter).chat("Hi", max_tokens=12).text
    assert run(*words, "--adapter", adapter) == tuned + "\n"


def test_chat_by_lines(run, model, tiny_chat_model, tmp_path):
    file = tmp_path / "talk.jsonl"
    lines = ["One", "", "/reset", "/system Be brief.", "Hi", "He", f"/save {file}", "/help", "/exit", "never"]
    shown = run("chat", tiny_chat_model, "--max-tokens", "6", stdin="\n".join(lines))
    [saved] = map(json.loads, file.read_text().splitlines())
    turns = saved["messages"]
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "user", "assistant"]
    # Each answer follows from all that was said before it, and from nothing that was reset.
    for index in (2, 4):
        answer = model.chat(turns[:index], max_tokens=6).text
        assert turns[index]["content"] == answer and answer in shown
    assert "/system TEXT" in shown and f"wrote {file}" in shown and "never" not in json.dumps(turns)


def test_chat_forgets_the_oldest_turns_when_the_context_is_full(run, tiny_chat_model, capsys, tmp_path):
    file = tmp_path / "talk.jsonl"
    lines = ["a" * 60, "b" * 60, "c" * 60, f"/save {file}"]
    run("chat", tiny_chat_model, "--max-tokens", "20", "--system", "Be.", stdin="\n".join(lines))
    turns = json.loads(file.read_text())["messages"]
    assert turns[0]["content"] == "Be." and turns[-2]["content"] == "c" * 60
    assert "a" * 60 not in [turn["content"] for turn in turns]


def test_chat_imports_nothing_that_it_does_not_need(tiny_chat_model):
    # Each of these costs the first answer a second or more; torch's compiler alone some four.
    heavy = ["torch._dynamo", "numba", "duckdb", "pyarrow", "matplotlib", "scipy", "transformers", "pandas"]
    code = (
        "import sys; from fullspan.cli import main\n"
        f"sys.argv = ['fullspan', 'chat', {str(tiny_chat_model)!r}, '--message', 'Hi', '--max-tokens', '4']\n"
        "try:\n    main()\nfinally:\n"
        f"    print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


class Terminal:
    """A process that believes a person sits at it."""

    def __init__(self, *words: str) -> None:
        self.us, them = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fullspan", *words],
            stdin=them,
            stdout=them,
            stderr=them,
            start_new_session=True,
            # A shell starts its background jobs deaf to Ctrl-C; a person's terminal does not.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        os.close(them)
        self.seen = ""

    def wait_for(self, text: str, seconds: float = 120) -> str:
        """Read until `text` comes; what came before it."""
        until = time.monotonic() + seconds
        while text not in self.seen:
            if not select.select([self.us], [], [], max(0, until - time.monotonic()))[0]:
                raise AssertionError(f"no {text!r} in {self.seen!r}")
            self.seen += os.read(self.us, 65536).decode(errors="replace")
        before, _, self.seen = self.seen.partition(text)
        return before

    def wait_for_more(self) -> None:
        """Read until something comes."""
        while not self.seen:
            self.seen = os.read(self.us, 65536).decode(errors="replace")

    def type(self, text: str) -> None:
        os.write(self.us, text.encode())


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_chat_at_a_terminal(tiny_chat_model, tmp_path):
    endless = tmp_path / "endless"
    shutil.copytree(tiny_chat_model, endless)
    config = json.loads((endless / "config.json").read_text())
    (endless / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 10**6}))
    terminal = Terminal("chat", str(endless), "--max-tokens", "100000")
    try:
        terminal.wait_for("Ctrl-D leaves")
        terminal.wait_for("> ")
        terminal.type("/hepl\n")
        terminal.wait_for("did you mean 'help'?")
        terminal.wait_for("> ")
        terminal.type("Hello\n")
        terminal.wait_for("Hello\r\n")
        terminal.wait_for_more()  # the answer is under way, and would go on for minutes
        os.kill(terminal.process.pid, signal.SIGINT)
        terminal.wait_for("(stopped)")
        assert terminal.process.poll() is None
        terminal.wait_for("> ")
        time.sleep(1)  # a signal between the prompt and the wait for a key would only count at that key
        os.kill(terminal.process.pid, signal.SIGINT)  # nothing to stop: the conversation stays
        terminal.wait_for("leaves)")
        terminal.wait_for("> ")
        terminal.type("\x04")
        assert terminal.process.wait(60) == 0
    finally:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.us)


def test_evaluate(run, model, tiny_chat_model, adapter, tmp_path):
    conversations = [
        [{"role": "user", "content": f"Question {i}?"}, {"role": "assistant", "content": "x" * (i + 1)}]
        for i in range(5)
    ]
    conversations[3] = [*CHAT, {"role": "assistant", "content": "Ha"}]
    data, out = tmp_path / "held.jsonl", tmp_path / "evaluation.json"
    data.write_text("\n".join(json.dumps({"messages": turns}) for turns in conversations))
    words = ["evaluate", tiny_chat_model, "--data", data, "--adapter", adapter, "--out", out]
    shown = run(*words, "--samples", "2", "--max-tokens", "5")
    found = json.loads(out.read_text())

    from fullspan.decoding.scoring import score_tokens

    for name, each in (("before", model), ("after", fullspan.load(adapter))):
        logprobs = []
        for turns in conversations:
            ids, supervised = encode_chat(each.tokenizer, turns)
            scored = score_tokens(each.model, ids).logprobs
            logprobs += [logprob for logprob, said in zip(scored, supervised[1:], strict=True) if said]
        loss = -sum(logprobs) / len(logprobs)
        # float32 sums in another order; the adapter merged here and beside the weights there
        assert found[name]["loss"] == pytest.approx(loss, rel=1e-4)
        assert found[name]["perplexity"] == pytest.approx(math.exp(loss), rel=1e-3)
        assert found[name]["n_tokens"] == len(logprobs) and found[name]["n_examples"] == 5
        answers = [each.chat(turns[:-1], max_tokens=5).text for turns in (conversations[0], conversations[2])]
        assert [sample[name] for sample in found["samples"]] == answers
    assert [sample["question"] for sample in found["samples"]] == ["Question 0?", "Question 2?"]
    assert [sample["reference"] for sample in found["samples"]] == ["x", "xxx"]
    assert f"{found['after']['loss']:.3f}" in shown and f"wrote {out}" in shown

    run(*words, "--no-baseline", "--samples", "0", "--max-examples", "2")
    again = json.loads(out.read_text())
    assert again["before"] is None and again["samples"] == [] and again["after"]["n_examples"] == 2
