"""Wrong weight files: each gets an error that names the file and what is wrong, and nothing is lost."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as GGML
from torch import nn

from fullspan.checkpoints.gguf_file import GGUFFile, write_gguf
from fullspan.checkpoints.safetensors_folder import SafetensorsFolder, write_folder
from fullspan.checkpoints.weights import load_weights
from fullspan.core.errors import CheckpointError

LLAMA = {"general.architecture": "llama"}


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def entry(key: str, code: int, value: bytes) -> bytes:
    return string(key) + struct.pack("<I", code) + value


def tensor(name: str, *, shape: tuple[int, ...] = (32,), code: int = 0, offset: int = 0) -> bytes:
    dims = struct.pack(f"<{len(shape)}Q", *shape)
    return string(name) + struct.pack("<I", len(shape)) + dims + struct.pack("<IQ", code, offset)


def gguf_bytes(
    *parts: bytes, n_tensors: int = 0, n_entries: int = 0, version: int = 3, data: int = 4096
) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_entries) + b"".join(parts)
    return head + bytes(-len(head) % 32 + data)


BROKEN_GGUF = {
    "empty": (b"", "is not a GGUF file: it is empty"),
    "short": (b"GG", "is not a GGUF file: it does not start with 'GGUF'"),
    "text": (b"hello, this is text", "is not a GGUF file: it does not start with 'GGUF'"),
    "version 1": (gguf_bytes(version=1), "has version 1; GGUF versions 2 and 3"),
    "big-endian": (gguf_bytes(version=3 << 24), "is big-endian"),
    "no header": (
        b"GGUF\3\0\0\0\0",
        "is truncated or broken: the header needs bytes 8-24, but the file ends at 9",
    ),
    "too many tensors": (gguf_bytes(n_tensors=2**60), "more than its 4128 bytes can hold"),
    "unknown value type": (
        gguf_bytes(entry("k", 13, b""), n_entries=1),
        "entry 'k' has the unknown value type 13",
    ),
    "arrays in an array": (
        gguf_bytes(entry("k", 9, struct.pack("<IQ", 9, 1)), n_entries=1),
        "entry 'k' is an array of arrays",
    ),
    "long array": (
        gguf_bytes(entry("k", 9, struct.pack("<IQ", 4, 2**61)), n_entries=1),
        "truncated or broken: metadata entry 'k' needs bytes",
    ),
    "not UTF-8": (
        gguf_bytes(entry("k", 8, struct.pack("<Q", 2) + b"\xff\xfe"), n_entries=1),
        "entry 'k' holds text that is not UTF-8",
    ),
    "key twice": (
        gguf_bytes(entry("k", 0, b"1"), entry("k", 0, b"2"), n_entries=2),
        "metadata entry 'k' appears twice",
    ),
    "alignment": (
        gguf_bytes(entry("general.alignment", 4, struct.pack("<I", 24)), n_entries=1),
        "general.alignment is 24, expected a power of two",
    ),
    "alignment of text": (
        gguf_bytes(entry("general.alignment", 8, string("32")), n_entries=1),
        "general.alignment is '32', expected a power of two",
    ),
    "part of a model": (
        gguf_bytes(entry("split.count", 2, struct.pack("<H", 3)), n_entries=1),
        "is one part of a model in 3 files",
    ),
    "dimensions": (gguf_bytes(tensor("w", shape=(1,) * 5), n_tensors=1), "'w' has 5 dimensions, at most 4"),
    "unknown type": (gguf_bytes(tensor("w", code=99), n_tensors=1), "tensor 'w' has the unknown type 99"),
    "no elements": (
        gguf_bytes(tensor("w", shape=(32, 0)), n_tensors=1),
        "'w' has shape (0, 32), expected positive",
    ),
    "part of a block": (
        gguf_bytes(tensor("w", shape=(31,), code=8), n_tensors=1),
        "rows of a multiple of 32",
    ),
    "huge shape": (
        gguf_bytes(tensor("w", shape=(2**40, 2**40), code=2), n_tensors=1),
        "truncated or broken: tensor 'w' needs bytes",
    ),
    "unaligned": (
        gguf_bytes(tensor("w", offset=4), n_tensors=1),
        "'w' starts at offset 4, expected a multiple of 32",
    ),
    "beyond the end": (
        gguf_bytes(tensor("w", offset=2**63), n_tensors=1),
        "truncated or broken: tensor 'w' needs bytes",
    ),
    "tensor twice": (
        gguf_bytes(tensor("w"), tensor("w", offset=128), n_tensors=2),
        "tensor 'w' appears twice",
    ),
    "overlap": (
        gguf_bytes(tensor("v"), tensor("w", offset=96), n_tensors=2),
        "tensors 'v' and 'w' overlap",
    ),
}


@pytest.mark.parametrize("case", BROKEN_GGUF)
def test_broken_gguf_is_refused_with_its_name_and_the_fault(tmp_path: Path, case: str) -> None:
    content, message = BROKEN_GGUF[case]
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        GGUFFile(path)
    assert str(path) in caught.value.message
    assert message in caught.value.message


def test_a_truncated_model_names_the_tensor_and_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    write_gguf(path, LLAMA, {"w": np.ones((4, 32), np.float32)}, GGML.F32)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    start = len(whole) - 512
    with pytest.raises(
        CheckpointError, match=f"tensor 'w' needs bytes {start}-{len(whole)}, .* ends at {len(whole) - 100}"
    ):
        GGUFFile(path)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.gguf: No such file"):
        GGUFFile(tmp_path / "none.gguf")
    with pytest.raises(CheckpointError, match="Is a directory"):
        GGUFFile(tmp_path)
    with pytest.raises(CheckpointError, match=r"no such file or folder: .*none"):
        SafetensorsFolder(tmp_path / "none")
    with pytest.raises(CheckpointError, match="holds no safetensors file"):
        SafetensorsFolder(tmp_path)


def test_unknown_tensors_get_the_nearest_name(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", LLAMA, {"blk.0.attn_q.weight": np.ones((1, 32), np.float32)}, GGML.F32)
    with pytest.raises(CheckpointError, match=r"did you mean 'blk\.0\.attn_q\.weight'"):
        GGUFFile(tmp_path / "m.gguf").dequantize("blk.0.attn_k.weight")
    write_folder(tmp_path / "m", {}, {"lm_head.weight": torch.ones(1)})
    with pytest.raises(CheckpointError, match=r"did you mean 'lm_head\.weight'"):
        SafetensorsFolder(tmp_path / "m").tensor("lm_heat.weight")


def test_integer_tensors_are_no_weights(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(gguf_bytes(tensor("w", code=26), n_tensors=1))
    with pytest.raises(CheckpointError, match=r"tensor 'w' .* has type I32"):
        GGUFFile(tmp_path / "m.gguf").dequantize("w")


@pytest.mark.parametrize(
    ("weight", "ggml_type", "message"),
    [
        ([np.nan] * 32, GGML.Q8_0, "not finite"),
        ([np.inf] + [0.0] * 31, GGML.Q4_0, "not finite"),
        ([1e5] * 32, GGML.F16, r"reaches 100000, beyond the float16 that F16 stores"),
        ([1e8] * 32, GGML.Q8_0, r"beyond the float16 that Q8_0 stores"),
    ],
)
def test_weights_that_a_type_cannot_hold_are_refused(
    tmp_path: Path, weight: list[float], ggml_type: GGML, message: str
) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"an older model")
    with pytest.raises(CheckpointError, match=message):
        write_gguf(path, LLAMA, {"w": np.float32([weight])}, ggml_type)
    assert path.read_bytes() == b"an older model"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("value", [None, {"a": 1}, [1, "a"], [[1]], 2**70, np.ones((2, 2))])
def test_metadata_that_gguf_cannot_store_is_named(tmp_path: Path, value: object) -> None:
    with pytest.raises(CheckpointError, match=r"(?s)metadata entry 'odd' holds .* which GGUF cannot store"):
        write_gguf(tmp_path / "m.gguf", LLAMA | {"odd": value}, {}, GGML.F32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda f: (f / "model-00002-of-00002.safetensors").unlink(),
            "lacks 1 of its weight files: model-00002",
        ),
        (
            lambda f: (f / "model-00002-of-00002.safetensors").write_bytes(b"{}"),
            "not a valid safetensors file",
        ),
        (lambda f: point_index(f, "../other.safetensors"), "names '../other.safetensors'"),
        (lambda f: point_index(f, "/etc/passwd"), "names '/etc/passwd'"),
        (lambda f: point_index(f, "config.json"), "names 'config.json'"),
        (
            lambda f: point_index(f, "model-00001-of-00002.safetensors"),
            "1 tensors of .* are not in the files",
        ),
        (lambda f: (f / "model.safetensors.index.json").write_text("[]"), "holds a list, expected an object"),
        (lambda f: (f / "model.safetensors.index.json").write_text("{"), "is not valid JSON"),
        (lambda f: (f / "model.safetensors.index.json").write_text("{}"), "has no weight_map"),
    ],
)
def test_broken_shards_are_refused(tmp_path: Path, change: Callable[[Path], object], message: str) -> None:
    (tmp_path / "other.safetensors").write_bytes(b"")
    folder = tmp_path / "m"
    write_folder(folder, {}, {"a": torch.ones(10), "b": torch.ones(10)}, max_shard_bytes=40)
    change(folder)
    with pytest.raises(CheckpointError, match=message):
        SafetensorsFolder(folder)


def point_index(folder: Path, file: str) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": file}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("content", ["", "[1]", "{", "[" * 100_000])
def test_a_broken_config_is_named(tmp_path: Path, content: str) -> None:
    write_folder(tmp_path / "m", {}, {"a": torch.ones(1)})
    (tmp_path / "m" / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        _ = SafetensorsFolder(tmp_path / "m").config


def test_a_folder_of_other_things_is_never_replaced(tmp_path: Path) -> None:
    thesis = tmp_path / "thesis.tex"
    thesis.write_text("years of work")
    with pytest.raises(CheckpointError, match=r"holds 'thesis\.tex', which is no part of a model"):
        write_folder(tmp_path, {}, {"a": torch.ones(1)})
    with pytest.raises(CheckpointError, match="is a file, expected a folder"):
        write_folder(thesis, {}, {"a": torch.ones(1)})
    assert thesis.read_text() == "years of work"


def test_tied_tensors_must_be_written_once(tmp_path: Path) -> None:
    shared = torch.ones(4, 2)
    with pytest.raises(CheckpointError, match=r"'embed' and 'head' are the same memory"):
        write_folder(tmp_path / "m", {}, {"embed": shared, "head": shared})
    assert list(tmp_path.iterdir()) == []


def test_everything_that_does_not_fit_is_named_at_once() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    weights = [
        ("0.weight", torch.ones(3, 2)),
        ("0.weight", torch.ones(3, 2)),
        ("0.bias", torch.ones(4)),
        ("2.weight", torch.ones(1)),
    ]
    with pytest.raises(CheckpointError) as caught:
        load_weights(module, weights)
    assert caught.value.message == (
        "the weights do not fit Sequential\n"
        "  2 missing: 1.weight, 1.bias\n"
        "  1 unexpected: 2.weight\n"
        "  1 of another shape: 0.bias is (4,), expected (3,)\n"
        "  1 given twice: 0.weight"
    )


def test_a_long_list_of_misfits_is_cut(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"300 unexpected: x0, .*, x19, and 280 more"):
        load_weights(nn.Module(), {f"x{i}": torch.ones(1) for i in range(300)})


FULL_DISK = """
import resource, sys
from pathlib import Path
from fullspan.core.errors import CheckpointError

path = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # as if the disk ended there
try:
    if path.suffix == ".gguf":
        import numpy as np
        from fullspan.checkpoints.gguf_file import GGMLQuantizationType, write_gguf

        weights = {"w": np.ones((100, 1000), "f4")}
        write_gguf(path, {"general.architecture": "llama"}, weights, GGMLQuantizationType.F32)
    else:
        import torch
        from fullspan.checkpoints.safetensors_folder import write_folder

        write_folder(path, {}, {"w": torch.ones(100, 1000)})
except CheckpointError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
@pytest.mark.parametrize("name", ["model.gguf", "model"])
def test_a_full_disk_is_told_and_loses_nothing(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix:
        path.write_bytes(b"an older model")
    else:
        write_folder(path, {}, {"old": torch.ones(1)})
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, timeout=120
    )
    assert f"cannot write {path}" in done.stdout, done.stderr
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(
    "names",
    [
        ["notes.txt"],
        ["tokenizer.json"],
        ["config.json", "settings.json"],
        ["config.json", "model.safetensors", "README.md"],
        ["config.json", "model.safetensors", "recipe.yaml"],
        ["model.safetensors"],
    ],
    ids=" ".join,
)
def test_a_folder_with_files_of_a_person_is_never_replaced(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("mine")
    with pytest.raises(CheckpointError, match="choose a new folder, or empty this one"):
        write_folder(tmp_path, {}, {"a": torch.ones(1)})
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == dict.fromkeys(names, "mine")
