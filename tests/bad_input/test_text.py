"""Wrong example files, templates, tokenizers and texts: each gets an error that says what and where."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers

from fullspan.core.errors import CheckpointError, ConfigError, DataError, FullspanError
from fullspan.models.tokenizers import load_tokenizer
from fullspan.text import examples as examples_module
from fullspan.text.chat import encode_chat, render
from fullspan.text.examples import Example, Message, iter_examples, read_examples
from fullspan.text.tokenizer import Tokenizer

USER, ASSISTANT = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
GOOD = {"messages": [USER, ASSISTANT]}
READ = Example([Message("user", "Hi"), Message("assistant", "Hello")])


def jsonl(folder: Path, *rows: Any) -> Path:
    file = folder / "examples.jsonl"
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    file.write_bytes(b"\n".join(lines))
    return file


ROWS = {
    "messages": GOOD,
    "sharegpt": {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
    "alpaca": {"instruction": "Hi", "input": "", "output": "Hello"},
    "prompt and completion": {"prompt": "Hi", "completion": "Hello", "id": 7},
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_formats_read_alike_from_every_kind_of_file(row: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text(json.dumps([row, row], indent=1))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row, row]), tmp_path / "table.parquet")
    assert read_examples(jsonl(tmp_path, row, b"", row)) == [READ, READ]
    assert read_examples(tmp_path / "list.json") == [READ, READ]
    assert read_examples(tmp_path / "table.parquet") == [READ, READ]


def test_what_the_formats_say_beside_the_turns(tmp_path: Path) -> None:
    alpaca = {"instruction": "Add", "input": "1, 2", "output": "3", "system": "Count."}
    assert read_examples(jsonl(tmp_path, alpaca))[0].messages == [
        Message("system", "Count."),
        Message("user", "Add\n\n1, 2"),
        Message("assistant", "3"),
    ]
    with_mark = b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n"
    assert read_examples(jsonl(tmp_path, with_mark)) == [READ]


WRONG_ROWS: list[tuple[Any, str]] = [
    (b'{"messages": [', r"line 2: is not JSON"),
    (b'{"messages": "\xff"}', r"line 2: is not UTF-8 at byte 15"),
    (b"[" * 100_000, r"line 2: is (nested too deeply|not JSON)"),
    ([1, 2], r"line 2: is a JSON list, expected an object"),
    (None, r"line 2: is a JSON null, expected an object"),
    ({}, r"line 2: has none of the keys .*; its keys: none"),
    ({"mesages": [USER]}, r"line 2: has none of the keys(.|\n)*'mesages': did you mean 'messages'\?"),
    ({"messages": []}, r"line 2: has no turn of the assistant"),
    ({"messages": "Hi"}, r"line 2: 'messages' is a text, expected a list of turns"),
    ({"messages": [USER, "Hello"]}, r"line 2: turn 2 is a text, expected an object"),
    (
        {"messages": [USER, {"role": "asistant", "content": "a"}]},
        r"turn 2 has the unknown role 'asistant'(.|\n)*did you mean 'assistant'",
    ),
    ({"messages": [USER, {"role": "assistant"}]}, r"line 2: turn 2: the key 'content' is missing"),
    (
        {"messages": [USER, {"role": "assistant", "contents": "a"}]},
        r"'content' is missing(.|\n)*did you mean 'contents'",
    ),
    ({"messages": [USER, {"role": "assistant", "content": " \n"}]}, r"line 2: turn 2: 'content' is empty"),
    (
        {"messages": [USER, {"role": "assistant", "content": 7}]},
        r"turn 2: 'content' is a number, expected a text",
    ),
    (
        {"messages": [USER, {"role": ["assistant"], "content": "a"}]},
        r"turn 2: 'role' is a list, expected a text",
    ),
    (
        {"messages": [USER, {"role": "assistant", "content": "\ud83d"}]},
        r"'content' has half a surrogate pair",
    ),
    ({"messages": [USER, {**ASSISTANT, "tool_calls": [{}]}]}, r"turn 2 has tool calls"),
    ({"messages": [USER]}, r"line 2: has no turn of the assistant"),
    ({"messages": [ASSISTANT, USER]}, r"line 2: begins with a turn of the assistant"),
    (
        {"messages": [USER, {"role": "system", "content": "a"}, ASSISTANT]},
        r"a system turn that is not the first",
    ),
    ({"instruction": "a", "output": "b"}, r"line 2: is Alpaca, the file began as Messages"),
]


@pytest.mark.parametrize(("row", "error"), WRONG_ROWS)
def test_a_wrong_line_is_named(row: Any, error: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=error) as caught:
        read_examples(jsonl(tmp_path, GOOD, row, GOOD))
    assert "examples.jsonl" in caught.value.message


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"instruction": "a", "outputs": "b"}, r"line 1: the key 'output' is missing(.|\n)*'outputs'"),
        ({"instruction": "", "output": "b"}, r"line 1: 'instruction' is empty"),
        ({"instruction": "a", "input": 3, "output": "b"}, r"line 1: 'input' is a number"),
        ({"instruction": "a", "output": None}, r"line 1: 'output' is a null, expected a text"),
        ({"prompt": "a"}, r"line 1: the key 'completion' is missing"),
        ({"prompt": [USER], "completion": "b"}, r"line 1: 'prompt' is a list, expected a text"),
        (
            {"conversations": [{"from": "hunam", "value": "a"}]},
            r"unknown role 'hunam'(.|\n)*did you mean 'human'",
        ),
        ({"conversations": [{"value": "a"}]}, r"turn 1: the key 'from' is missing"),
    ],
)
def test_a_wrong_row_of_the_other_formats_is_named(row: Any, error: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=error):
        read_examples(jsonl(tmp_path, row))


@pytest.mark.parametrize("content", [b"", b"\n\n  \n", b"[]", b"\xef\xbb\xbf"])
def test_an_empty_file_is_an_error(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no examples"):
        read_examples(jsonl(tmp_path, content))


def test_files_that_are_not_there_or_not_what_they_seem(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_examples(tmp_path / "missing.jsonl")
    with pytest.raises(DataError, match="no such file"):
        read_examples(tmp_path)
    (tmp_path / "no.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_examples(tmp_path / "no.parquet")
    (tmp_path / "cut.json").write_text(json.dumps([GOOD])[:-3])
    with pytest.raises(DataError, match="is not JSON"):
        read_examples(tmp_path / "cut.json")
    pyarrow.parquet.write_table(pyarrow.table({"messages": [1, 2]}), tmp_path / "numbers.parquet")
    with pytest.raises(DataError, match="row 1: 'messages' is a number"):
        read_examples(tmp_path / "numbers.parquet")


def test_an_endless_line_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examples_module, "MAX_LINE_BYTES", 2**20)
    file = jsonl(tmp_path, GOOD, b'{"messages": "' + b"x" * 2**26)
    tracemalloc.start()
    with pytest.raises(DataError, match="line 2: is longer than 1 MiB"):
        read_examples(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**24, "a line of 64 MiB must not be read whole"


def test_large_files_are_read_as_they_are_needed(tmp_path: Path) -> None:
    file = jsonl(tmp_path, *[GOOD] * 10_000)
    tracemalloc.start()
    assert sum(1 for _ in iter_examples(file)) == 10_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < file.stat().st_size / 4


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_any_bytes_end_in_an_error_of_ours(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder, pytest.raises(DataError):
        read_examples(jsonl(Path(folder), content))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["messages", "role", "content", "conversations", "prompt"]), inner)
    ),
    max_leaves=10,
)


@given(JSON)
@settings(deadline=None)
def test_any_json_is_read_or_refused(row: Any) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        try:
            assert read_examples(jsonl(Path(folder), json.dumps(row).encode()))
        except DataError:
            pass


# Templates


CHAT = [USER, ASSISTANT]


@pytest.mark.parametrize(
    ("template", "error"),
    [
        ("{{ user_name }}", r"names what is not there: 'user_name' is undefined"),
        ("{% for m in mesages %}{{ m }}{% endfor %}", r"'mesages' is undefined"),
        ("{{ config.name }}", r"'config' is undefined"),
        ("{{ 'a' + suffix }}", r"'suffix' is undefined"),
        ("{{ missing | length }}", r"'missing' is undefined"),
        ("{{ messages[7].content }}", r"no element 7"),
        ("{% for m in %}", r"not valid, line 1"),
        ("{% frobnicate %}", r"not valid, line 1"),
        ("{{ 'x' | frobnicate }}", r"frobnicate"),
        ("{{ 1 / 0 }}", r"fails with ZeroDivisionError"),
        ("{{ messages + 1 }}", r"fails with TypeError"),
        ("{% include 'other' %}", r"fails with TypeError|loader"),
    ],
)
def test_a_template_that_does_not_work_says_why(template: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        render(template, CHAT)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__class__ }}",
        "{{ raise_exception.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ self._TemplateReference__context }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='system') }}",
        "{{ namespace.__init__.__globals__ }}",
        "{% set ns = namespace(__class__=1) %}{{ ns.x }}",
        "{{ dict.__call__.__globals__ }}",
        "{{ strftime_now.__code__ }}",
        "{{ ''['__class__'] }}",
        "{{ '{0.__class__}'.format('') }}",
        "{{ (''|attr('__class__')).__mro__ }}",
        "{{ lipsum.__globals__ }}",
    ],
)
def test_templates_cannot_reach_python(template: str) -> None:
    with pytest.raises(ConfigError, match=r"reaches for what it must not|names what is not there"):
        render(template, CHAT)


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(10**9) %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% for i in messages recursive %}{{ loop(messages) }}{% endfor %}",
        "{{ 'x' * 10**10 }}",
        "{{ [0] * 10**10 }}",
        "{{ 10 ** 10 ** 10 }}",
        "{% set big = 'x' * 1000000 %}{% for i in range(1000) %}{{ big }}{% endfor %}",
        "{{ '{:{w}}'.format(1, w=80000000) }}",
        "{{ '{:80000000}'.format(1) }}",
        "{{ '%*d' % (80000000, 1) }}",
        "{{ 'x'.ljust(80000000) }}",
        "{{ messages | tojson(indent=80000000) }}",
        "{{ 'a\\nb' | indent(width=80000000) }}",
        "{{ 'x' | center(width=80000000) }}",
        "{{ messages | batch(70000000, 0) | list }}",
        "{{ messages | slice(70000000) | list }}",
        "{{ ([['x' * 1000000] * 1000] * 1000) | string }}",
        "{% set big = 'x' * 9000000 %}{% for i in range(50000) %}{% set s = big | upper %}{% endfor %}",
        "{% set big = 'x' * 9000000 %}{% for i in range(50000) %}{% set s = big[1:] %}{% endfor %}",
        "{% set ns = namespace(l=[], s='x' * 9000000) %}"
        "{% for i in range(50000) %}{% set ns.l = ns.l + [ns.s ~ i] %}{% endfor %}",
        "{% set ns = namespace(n=99) %}{% for i in range(99) %}{% set ns.n = ns.n * ns.n %}{% endfor %}",
    ],
)
def test_templates_come_to_an_end(template: str) -> None:
    with pytest.raises(ConfigError, match=r"which no conversation needs|calls itself|Range too big"):
        render(template, CHAT)


def test_only_plain_data_reaches_a_template() -> None:
    with pytest.raises(DataError, match="'file' is a PosixPath"):
        render("{{ file.unlink() }}", CHAT, variables={"file": Path("/nowhere").absolute()})
    with pytest.raises(DataError, match="a message should be a mapping with a role"):
        render("", [{"content": "no role"}])


# Tokenizers


def tiny(template: str | None = None) -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(models.BPE({character: i for i, character in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens(["<end>"])
    return Tokenizer(backend, eos_ids=[256], chat_template=template)


def test_chats_that_teach_nothing_are_errors() -> None:
    with pytest.raises(DataError, match="no chat template"):
        encode_chat(tiny(), CHAT)
    shows_all = "{% for m in messages %}{{ m.content }}<end>{% endfor %}"
    with pytest.raises(DataError, match="no token of this conversation is supervised"):
        encode_chat(tiny(shows_all), CHAT[:1])
    hides_the_assistant = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    with pytest.raises(DataError, match="no token of this conversation is supervised"):
        encode_chat(tiny(hides_the_assistant), CHAT)
    empty_block = shows_all + "{% generation %}{% endgeneration %}"
    with pytest.raises(DataError, match="no token of this conversation is supervised"):
        encode_chat(tiny(empty_block), CHAT)


def test_texts_and_ids_outside_of_the_vocabulary() -> None:
    tokenizer = tiny()
    with pytest.raises(DataError, match=r"half a surrogate pair, '\\ud800', at character 3"):
        tokenizer.encode("ab\ud800c")
    with pytest.raises(DataError, match="257 is not in the vocabulary of 257 tokens"):
        tokenizer.decode([1, 257])
    with pytest.raises(DataError, match="-1 is not in the vocabulary"):
        tokenizer.decode([-1])
    with pytest.raises(DataError, match="999 is not in the vocabulary"):
        tokenizer.stream().push(999)
    with pytest.raises(DataError, match="-1 is not in the vocabulary"):
        tokenizer.stream().push(-1)


METADATA = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": ["a", "b", "ab", "<end>"],
    "tokenizer.ggml.token_type": [1, 1, 1, 3],
    "tokenizer.ggml.merges": ["a b"],
    "tokenizer.ggml.eos_token_id": 3,
}
SENTENCEPIECE = {
    **METADATA,
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.scores": [-2.0, -3.0, -1.0, 0.0],
}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"tokenizer.ggml.model": "bert"}, r"tokenizer model 'bert' is not supported"),
        ({"tokenizer.ggml.model": None}, r"tokenizer model None is not supported"),
        ({"tokenizer.ggml.pre": "smolm"}, r"pre-tokenizer 'smolm'(.|\n)*did you mean 'smollm'"),
        ({"tokenizer.ggml.tokens": None}, r"no list 'tokenizer.ggml.tokens'"),
        ({"tokenizer.ggml.tokens": "abc"}, r"no list 'tokenizer.ggml.tokens'"),
        ({"tokenizer.ggml.tokens": [1, 2, 3, 4]}, r"should be a list of texts"),
        ({"tokenizer.ggml.tokens": ["a", "b", "b", "<end>"]}, r"holds the token 'b' twice"),
        ({"tokenizer.ggml.merges": None}, r"no list 'tokenizer.ggml.merges'"),
        ({"tokenizer.ggml.merges": ["a z"]}, r"cannot be built.*z"),
        ({"tokenizer.ggml.merges": ["ab"]}, r"cannot be built"),
        ({"tokenizer.ggml.token_type": [1]}, r"should be a list of 4 numbers"),
        ({"tokenizer.ggml.token_type": [1, 1, 1, "x"]}, r"should be a list of 4 numbers"),
        ({"tokenizer.ggml.eos_token_id": 4}, r"eos_token_id' is 4, the vocabulary has 4 tokens"),
        ({"tokenizer.ggml.eos_token_id": "end"}, r"eos_token_id' is 'end'"),
        ({"tokenizer.ggml.bos_token_id": -1}, r"bos_token_id' is -1"),
    ],
)
def test_wrong_gguf_metadata(change: dict[str, Any], error: str) -> None:
    with pytest.raises(CheckpointError, match=error):
        Tokenizer.from_gguf({**METADATA, **change})


def test_wrong_sentencepiece_metadata() -> None:
    assert Tokenizer.from_gguf(SENTENCEPIECE).eos_ids == (3,)
    for scores in (None, [1.0], ["a"] * 4):
        with pytest.raises(CheckpointError, match=r"scores' should be a list of 4 numbers"):
            Tokenizer.from_gguf({**SENTENCEPIECE, "tokenizer.ggml.scores": scores})
    with pytest.raises(CheckpointError, match="scores' should be finite"):
        Tokenizer.from_gguf({**SENTENCEPIECE, "tokenizer.ggml.scores": [float("nan")] * 4})


@given(st.dictionaries(st.sampled_from(sorted({**SENTENCEPIECE, "tokenizer.chat_template": ""})), JSON))
@settings(deadline=None)
def test_any_metadata_is_read_or_refused(change: dict[str, Any]) -> None:
    for metadata in (METADATA, SENTENCEPIECE):
        try:
            Tokenizer.from_gguf({**metadata, **change})
        except FullspanError:
            pass


def test_folders_without_a_whole_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file or folder"):
        load_tokenizer(tmp_path / "missing")
    with pytest.raises(CheckpointError, match=r"no tokenizer.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"")
    with pytest.raises(CheckpointError, match="SentencePiece"):
        load_tokenizer(tmp_path)
    tiny().save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<eos>"}')
    with pytest.raises(CheckpointError, match="the eos_token '<eos>' is not in the vocabulary"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="should hold a JSON object"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="is not JSON"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "BPE"')
    with pytest.raises(CheckpointError, match="is not a valid tokenizer"):
        load_tokenizer(tmp_path)


def test_tokenizers_that_gguf_cannot_hold() -> None:
    word_piece = tokenizers.Tokenizer(models.WordPiece({"a": 0}, unk_token="a"))
    with pytest.raises(CheckpointError, match="type WordPiece"):
        Tokenizer(word_piece).to_gguf_metadata()
    strange = tiny()
    strange.backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    with pytest.raises(CheckpointError, match="no name for the way"):
        strange.to_gguf_metadata()


_DOUBLED = "{% set ns = namespace(x='aaaa') %}{% for i in range(60) %}{% set ns.x = STEP %}{% endfor %}"


@pytest.mark.parametrize(
    "template",
    [
        *(
            _DOUBLED.replace("STEP", step)
            for step in (
                "ns.x ~ ns.x",
                "ns.x + ns.x",
                "ns.x | replace('a', ns.x)",
                "ns.x.replace('a', ns.x)",
                "[ns.x, ns.x] | join(ns.x)",
                "ns.x.join([ns.x, ns.x])",
            )
        ),
        "{{ 'a'.ljust(10**10) }}",
        "{{ 'a' | center(9999999999) }}",
        "{{ 'a\\nb' | indent(9999999999) }}",
        "{{ '{:>9999999999}'.format(1) }}",
        "{{ '%9999999999d' % 1 }}",
    ],
)
def test_templates_never_make_a_gigantic_text(template: str) -> None:
    # 60 doublings are more than any memory holds: the template is stopped before it asks for it.
    with pytest.raises(ConfigError, match="which no conversation needs"):
        render(template, [{"role": "user", "content": "x"}])
