"""A Llama's weights as the engine's kernels read them.

Queries and keys keep GGUF's order of rows, in which neighbours are rotated. Heads are padded to multiples of
32 dimensions and all sizes to whole groups of 32, with zeros, which change no result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fullspan.checkpoints.gguf_file import GGUFFile
from fullspan.core.device import usable_cores
from fullspan.core.errors import CheckpointError, ConfigError, did_you_mean
from fullspan.decoding.engine._layout import (
    ADDRESS,
    BIAS,
    BLOCK_BYTES,
    GROUP,
    KIND,
    N_BLOCKS,
    N_GROUPS,
    Q4,
    Q8,
    ROWS,
)
from fullspan.decoding.engine.memory import allocate
from fullspan.decoding.engine.packing import (
    KINDS,
    NATIVE,
    Rows,
    block_bytes,
    join,
    kind_of_gguf,
    packed_bytes,
    quantise,
    rows_from_gguf,
)
from fullspan.models._llama_config import LlamaConfig

# What one matrix of a layer is made of.
_QKV = ("attn_q", "attn_k", "attn_v")
# Weights of a large matrix that are put in order at a time.
_CHUNK = 2**21


def padded(n: int, to: int = GROUP) -> int:
    """`n` up to the next multiple.

    Examples
    --------
    >>> padded(33), padded(64)
    (64, 64)
    """
    return -(-n // to) * to


@dataclass(frozen=True)
class Slot:
    """A matrix in a model's memory."""

    kind: int
    n_rows: int
    n_groups: int
    start: int


@dataclass(frozen=True, eq=False)
class PackedModel:
    """Weights in one piece of memory.

    Attributes
    ----------
    config : LlamaConfig
    matrices : list of Slot
        Four of each layer, then the head and the embedding (which may be the same).
    memory : ndarray of uint8
    norms : float32 [2 n_layers + 1, padded d_model]
    biases : list of (ndarray of float32 or None)
        Of each of `matrices`.
    """

    config: LlamaConfig
    matrices: list[Slot]
    memory: np.ndarray
    norms: np.ndarray
    biases: list[np.ndarray | None]

    @property
    def is_integer(self) -> bool:
        """Whether the matrices are of integers rather than of floats."""
        return self.matrices[0].kind in (Q4, Q8)

    def table(self) -> np.ndarray:
        """The matrices as the kernels' table, int64 [4 n_layers + 2, 6]."""
        table = np.zeros((len(self.matrices), BIAS + 1), np.int64)
        base = self.memory.ctypes.data
        for row, slot, bias in zip(table, self.matrices, self.biases, strict=True):
            row[ADDRESS], row[KIND] = base + slot.start, slot.kind
            row[N_BLOCKS], row[N_GROUPS] = -(-slot.n_rows // ROWS), slot.n_groups
            row[BLOCK_BYTES] = block_bytes(slot.kind, slot.n_groups)
            row[BIAS] = 0 if bias is None else bias.ctypes.data
        return table


@dataclass(frozen=True, eq=False)
class _Matrix:
    """A matrix to be packed, from the tensors of these names."""

    names: Sequence[str]
    kind: int
    n_rows: int
    n_groups: int
    parts: Callable[[], Iterable[Rows]]  # its rows from the first on, in whole blocks but the last


class _Source:
    """Tensors by their GGUF names, as rows of a kind.

    Parameters
    ----------
    config : LlamaConfig
    floats : function
        The tensor of a name as float32.
    file : GGUFFile, optional
        Where they come from, if blocks may stay as they are there.
    kind : int, optional
        What to make of all matrices; otherwise they stay what they are, and others become Q8.
    """

    def __init__(
        self,
        config: LlamaConfig,
        floats: Callable[[str], np.ndarray],
        file: GGUFFile | None,
        kind: int | None,
    ) -> None:
        self.config, self.floats, self.file, self.kind = config, floats, file, kind

    def native_kind(self, name: str) -> int | None:
        """The kind whose blocks the file has."""
        return None if self.file is None else kind_of_gguf(self.file[name])

    def kind_of(self, names: Sequence[str], asked: int | None) -> int:
        """What matrices that are to be one become: of their kind, or of Q8 where they differ."""
        kinds = {asked if asked is not None else self.native_kind(name) for name in names}
        [kind] = kinds if len(kinds) == 1 else [None]
        return Q8 if kind is None else kind

    def rows(self, name: str, kind: int) -> Rows:
        """All rows of a matrix."""
        if self.file is not None and self.native_kind(name) == kind:
            return rows_from_gguf(self.file[name])
        return quantise(self.floats(name), kind)

    def parts(self, name: str, kind: int) -> Iterator[Rows]:
        """The rows of a matrix, some at a time: what they need besides stays small."""
        if self.file is not None and self.native_kind(name) == kind:
            n_rows, n_columns = self.file[name].shape
            step = padded(max(1, _CHUNK // n_columns), ROWS)
            for start in range(0, n_rows, step):
                yield rows_from_gguf(self.file[name], slice(start, start + step))
        else:
            yield quantise(self.floats(name), kind)

    def head_order(self, n_heads: int) -> np.ndarray:
        """Rows of heads that are padded: the number of each in the file, or -1."""
        dim = self.config.head_dim
        order = np.full((n_heads, padded(dim)), -1)
        order[:, :dim] = np.arange(n_heads * dim).reshape(n_heads, dim)
        return order.ravel()

    def qkv(self, names: Sequence[str], kind: int) -> Iterator[Rows]:
        counts = (self.config.n_heads, self.config.n_kv_heads, self.config.n_kv_heads)
        found = [self.rows(name, kind) for name in names]
        if self.config.head_dim % GROUP:
            found = [rows.take(self.head_order(n)) for rows, n in zip(found, counts, strict=True)]
        yield join(found)

    def output(self, name: str, kind: int) -> Iterator[Rows]:
        if self.config.head_dim % GROUP == 0:
            return self.parts(name, kind)
        order = self.head_order(self.config.n_heads)
        weights = self.floats(name)[:, order]
        weights[:, order < 0] = 0
        return iter([quantise(weights, kind)])

    def gate_up(self, names: Sequence[str], kind: int) -> Iterator[Rows]:
        """32 rows of the gate, 32 of what it gates, and so on."""
        yield join([self.rows(name, kind) for name in names]).take(self.gate_order())

    def gate_order(self) -> np.ndarray:
        d_ff = self.config.d_ff
        order = np.full((2, padded(d_ff)), -1)
        order[0, :d_ff], order[1, :d_ff] = np.arange(d_ff), np.arange(d_ff, 2 * d_ff)
        return order.reshape(2, -1, GROUP).transpose(1, 0, 2).ravel()

    def matrices(self) -> Iterator[_Matrix]:
        """All matrices, in the order of the table."""
        config, kind = self.config, self.kind
        dim, d_model, d_ff = padded(config.head_dim), padded(config.d_model), padded(config.d_ff)
        n_heads, n_rows = config.n_heads, (config.n_heads + 2 * config.n_kv_heads) * dim

        def matrix(
            names: Sequence[str],
            asked: int | None,
            shape: tuple[int, int],
            parts: Callable[[Any, int], Iterable[Rows]],
        ) -> _Matrix:
            became, argument = self.kind_of(names, asked), names[0] if len(names) == 1 else names
            return _Matrix(names, became, shape[0], shape[1] // GROUP, partial(parts, argument, became))

        for layer in range(config.n_layers):
            at = f"blk.{layer}."
            yield matrix([f"{at}{part}.weight" for part in _QKV], kind, (n_rows, d_model), self.qkv)
            output = [f"{at}attn_output.weight"]
            yield matrix(output, kind, (config.d_model, n_heads * dim), self.output)
            gate_up = [f"{at}ffn_gate.weight", f"{at}ffn_up.weight"]
            yield matrix(gate_up, kind, (2 * d_ff, d_model), self.gate_up)
            yield matrix([f"{at}ffn_down.weight"], kind, (config.d_model, d_ff), self.parts)
        # Four bits would cost the head and the embedding too much.
        kind = Q8 if kind == Q4 else kind
        for name in ["token_embd.weight"] if config.tied_head else ["output.weight", "token_embd.weight"]:
            yield matrix([name], kind, (config.vocab_size, d_model), self.parts)

    def biases(self) -> list[np.ndarray | None]:
        """The bias of each matrix, in the order of its rows."""
        found: list[np.ndarray | None] = []
        config = self.config
        for layer in range(config.n_layers):
            qkv = output = gate_up = down = None
            if config.attention_bias:
                counts = (config.n_heads, config.n_kv_heads, config.n_kv_heads)
                parts = zip(_QKV, counts, strict=True)
                qkv = np.concatenate(
                    [_taken(self.floats(f"blk.{layer}.{part}.bias"), self.head_order(n)) for part, n in parts]
                )
                output = self.floats(f"blk.{layer}.attn_output.bias")
            if config.mlp_bias:
                both = [self.floats(f"blk.{layer}.ffn_{part}.bias") for part in ("gate", "up")]
                gate_up = _taken(np.concatenate(both), self.gate_order())
                down = self.floats(f"blk.{layer}.ffn_down.bias")
            found += [qkv, output, gate_up, down]
        return [*(None if bias is None else _whole(bias, ROWS) for bias in found), None, None]

    def norms(self) -> np.ndarray:
        """The weights of all norms."""
        parts = [
            f"blk.{layer}.{part}_norm.weight"
            for layer in range(self.config.n_layers)
            for part in ("attn", "ffn")
        ]
        return np.stack([_whole(self.floats(name), GROUP) for name in [*parts, "output_norm.weight"]])


def _taken(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    return np.where(order < 0, np.float32(0), values[order])


def _whole(values: np.ndarray, to: int) -> np.ndarray:
    """Filled up with zeros to a multiple."""
    return np.pad(np.asarray(values, np.float32), (0, -len(values) % to))


def pack_gguf(file: GGUFFile, config: LlamaConfig, weights: str | None = None) -> PackedModel:
    """The model of a GGUF file.

    Parameters
    ----------
    file : GGUFFile
    config : LlamaConfig
    weights : {"q4", "q8", "bf16", "f32"}, optional
        What to make of the matrices. By default those of Q4_0, Q4_1 and Q8_0 stay as they are, and others
        become q8.

    Raises
    ------
    CheckpointError
        If tensors are missing, unexpected or misshapen.
    """
    _check_shapes(config, {name: tensor.shape for name, tensor in file.tensors.items()})

    return _pack(_Source(config, file.dequantize, file, _kind(weights)))


def is_ready(file: GGUFFile) -> bool:
    """Whether no matrix of a file needs to be quantised anew."""
    return all(tensor.ggml_type in NATIVE for tensor in file.tensors.values() if len(tensor.shape) == 2)


def pack_tensors(tensors: Mapping[str, np.ndarray], config: LlamaConfig, weights: str) -> PackedModel:
    """The model of float32 tensors by their GGUF names."""
    _check_shapes(config, {name: tensor.shape for name, tensor in tensors.items()})
    return _pack(_Source(config, tensors.__getitem__, None, _kind(weights)))


def _kind(weights: str | None) -> int | None:
    if weights is None:
        return None
    if weights not in KINDS:
        raise ConfigError(f"weights cannot be {weights!r}", did_you_mean(weights, KINDS))
    return KINDS[weights]


def _pack(source: _Source) -> PackedModel:
    """Put all matrices into one piece of memory, some at a time, each on a thread."""
    matrices = list(source.matrices())
    sizes = [packed_bytes(matrix.kind, matrix.n_rows, matrix.n_groups) for matrix in matrices]
    starts = [0, *np.cumsum(sizes).tolist()]
    memory = allocate(starts.pop())

    def put(matrix: _Matrix, start: int) -> None:
        for rows in matrix.parts():
            end = start + packed_bytes(matrix.kind, len(rows), matrix.n_groups)
            rows.pack(memory[start:end])
            start = end
            if source.file is not None:
                source.file.release(matrix.names)

    with ThreadPoolExecutor(min(usable_cores(), 4)) as pool:
        list(pool.map(put, matrices, starts))
    slots = [
        Slot(each.kind, each.n_rows, each.n_groups, start)
        for each, start in zip(matrices, starts, strict=True)
    ]
    if source.config.tied_head:
        slots.append(slots[-1])
    return PackedModel(source.config, slots, memory, source.norms(), source.biases())


def _check_shapes(config: LlamaConfig, shapes: Mapping[str, tuple[int, ...]]) -> None:
    expected = dict(_expected(config))
    missing = [name for name in expected if name not in shapes]
    others = [name for name in shapes if name not in expected and name != "rope_freqs.weight"]
    misshapen = [
        f"{name} is {shapes[name]}, expected {shape}"
        for name, shape in expected.items()
        if name in shapes and tuple(shapes[name]) != shape
    ]
    for what, names in (("missing", missing), ("unexpected", others), ("of another shape", misshapen)):
        if names:
            raise CheckpointError(f"the weights do not fit the model: {len(names)} {what}: {names[0]}")


def _expected(config: LlamaConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    d, ff, dim = config.d_model, config.d_ff, config.head_dim
    q, kv = config.n_heads * dim, config.n_kv_heads * dim
    yield "token_embd.weight", (config.vocab_size, d)
    yield "output_norm.weight", (d,)
    if not config.tied_head:
        yield "output.weight", (config.vocab_size, d)
    attention = {"attn_q": (q, d), "attn_k": (kv, d), "attn_v": (kv, d), "attn_output": (d, q)}
    mlp = {"ffn_gate": (ff, d), "ffn_up": (ff, d), "ffn_down": (d, ff)}
    for layer in range(config.n_layers):
        for part in ("attn_norm", "ffn_norm"):
            yield f"blk.{layer}.{part}.weight", (d,)
        for parts, has_bias in ((attention, config.attention_bias), (mlp, config.mlp_bias)):
            for part, shape in parts.items():
                yield f"blk.{layer}.{part}.weight", shape
                if has_bias:
                    yield f"blk.{layer}.{part}.bias", shape[:1]
