"""The engine: a model, threads, and a step over some tokens of some sequences.

Shapes: n tokens of a step, V vocab_size.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fullspan.core.device import usable_cores
from fullspan.core.errors import ConfigError, DataError
from fullspan.core.simd_tiles import may_use_tiles
from fullspan.core.standing import StandingCrew
from fullspan.core.threads import new_barrier
from fullspan.decoding.engine import _layout as at
from fullspan.decoding.engine._context_kernels import Plan, scratch_bytes
from fullspan.decoding.engine._layout import MOST_TOKENS, PAGE, ROWS, TILE
from fullspan.decoding.engine._prompt_kernels import prompt_bytes, prompt_summary_bytes
from fullspan.decoding.engine._step_kernels import step_floats, step_integers
from fullspan.decoding.engine.cache import PageShape, SequenceCache
from fullspan.decoding.engine.memory import allocate
from fullspan.decoding.engine.model import PackedModel, padded
from fullspan.decoding.engine.rotation import rotations

_QUIET_SECONDS = 1.5


class Taps:
    """Takes hidden states of the tokens that a step reads: the residual stream behind some layers.

    Behind the last layer it is what the final norm gets.

    Parameters
    ----------
    layers : sequence of int
        Counted from 0.
    """

    def __init__(self, layers: Sequence[int]) -> None:
        self.layers = tuple(layers)
        self.parts: list[np.ndarray] = []

    def take(self) -> np.ndarray:
        """Those of the tokens read since the last time, float32 [n, len(layers), d_model]."""
        parts, self.parts = self.parts, []
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


@dataclass(frozen=True)
class Segment:
    """What a step does for one sequence.

    Attributes
    ----------
    cache : SequenceCache
        Of the tokens before; takes these.
    tokens : sequence of int
    parents : sequence of int, optional
        For a tree of proposals: the number, in `tokens`, of the token that each follows; -1 for the last
        token of the cache. Parents come before children. The cache then holds none of them until its `keep`
        says which path was accepted.
    n_logits : int, optional
        Logits are computed for the last so many tokens; all by default.
    n_read : int
        Of a tree: so many of its tokens were the tree of the step before, and only the others are read.
    taps : Taps, optional
        Gets hidden states of the tokens that are read.
    vectors : ndarray of float32 [n, d_model], optional
        What the layers get instead of the embeddings of `tokens`; for all segments of a step, or none.
    is_prompt : bool
        Many tokens that are all known: they are read in bfloat16 by AMX where the CPU has it, which is
        several times faster and no less exact than steps, but does not give the same last bits.
    """

    cache: SequenceCache
    tokens: Sequence[int]
    parents: Sequence[int] | None = None
    n_logits: int | None = None
    n_read: int = 0
    taps: Taps | None = None
    vectors: np.ndarray | None = None
    is_prompt: bool = False

    def __len__(self) -> int:
        """Tokens that are read."""
        return len(self.tokens) - self.n_read

    @property
    def n_wanted(self) -> int:
        """How many rows of logits it gets."""
        return len(self) if self.n_logits is None else min(self.n_logits, len(self))


class Engine:
    """Runs a packed model on the CPU.

    The logits of a token are the same to the last bit whatever else a step does, however tokens are cut into
    steps, and whatever the number of threads is; those of a prompt are, whatever it is read beside or in.

    Parameters
    ----------
    model : PackedModel
    n_threads : int, optional
        One for each usable core by default.

    Examples
    --------
    >>> from fullspan.decoding.engine.loading import pack_model
    >>> from fullspan.models.llama import Llama, LlamaConfig
    >>> config = LlamaConfig(vocab_size=100, d_model=16, n_layers=1, n_heads=4, n_kv_heads=2, head_dim=4,
    ...                      d_ff=32, max_positions=64)
    >>> engine = Engine(pack_model(Llama(config), "q8"), n_threads=1)
    >>> cache = engine.new_cache()
    >>> engine.step([1, 2, 3], cache).shape, cache.length
    ((3, 100), 3)
    """

    def __init__(self, model: PackedModel, n_threads: int | None = None) -> None:
        config = model.config
        self.config = config
        self.n_threads = n_threads or usable_cores()
        self._model = model
        self._head_dim = padded(config.head_dim)
        self._group = config.n_heads // config.n_kv_heads
        self._shape = PageShape(config.n_layers * config.n_kv_heads, self._head_dim)
        self._lock = threading.Lock()
        self._plan = self._new_plan()
        self._kept: dict[int, np.ndarray] = {}  # what the plan has the addresses of
        self._by_tiles = may_use_tiles() and all(slot.kind != at.F32 for slot in model.matrices)
        self._give_memory()
        kernel = step_integers if model.is_integer else step_floats
        with _announcing_compiler():
            self._crew = StandingCrew(kernel, self.n_threads, self._plan)
        self.close = self._crew.close

    @property
    def token_bytes(self) -> int:
        """Memory that a cache takes for a token."""
        return self._shape.n_bytes // PAGE

    @property
    def packed(self) -> PackedModel:
        """The model that it runs."""
        return self._model

    def new_cache(self) -> SequenceCache:
        """An empty cache."""
        return SequenceCache(self._shape)

    def step(
        self,
        tokens: Sequence[int],
        cache: SequenceCache,
        parents: Sequence[int] | None = None,
        *,
        n_logits: int | None = None,
    ) -> np.ndarray:
        """Logits [n, V] of what follows each token, in float32; arguments as in `Segment`.

        Raises
        ------
        DataError
            If the context has no room for the tokens, or one is outside of the vocabulary.
        """
        return self.step_all([Segment(cache, tokens, parents, n_logits)])[0]

    def read(self, tokens: Sequence[int], cache: SequenceCache, *, n_logits: int | None = None) -> np.ndarray:
        """As `step`, of a prompt: see `Segment.is_prompt`."""
        return self.step_all([Segment(cache, tokens, None, n_logits, is_prompt=True)])[0]

    def step_all(self, segments: Sequence[Segment]) -> list[np.ndarray]:
        """A step over tokens of several sequences, each with its own cache; logits [n, V] for each.

        Sequences of more tokens than a step can take are cut; trees are not. When this fails, the caches
        hold what they held.
        """
        for segment in segments:
            self._check(segment)
        if len({id(segment.cache) for segment in segments}) < len(segments):
            raise ConfigError("two segments of one step have the same cache")
        with self._lock:
            lengths = [segment.cache.length for segment in segments]
            try:
                return self._run_all(segments)
            except BaseException:
                for segment, length in zip(segments, lengths, strict=True):
                    segment.cache.truncate(length)
                raise

    def _check(self, segment: Segment) -> None:
        tokens, config = segment.tokens, self.config
        if len(tokens) == 0:
            raise DataError("a step needs at least one token")
        low, high = min(tokens), max(tokens)
        if low < 0 or high >= config.vocab_size:
            raise DataError(
                f"token id {low if low < 0 else high} is outside the vocabulary of {config.vocab_size}",
                "was the text encoded with another model's tokenizer?",
            )
        depth = len(tokens)
        if segment.parents is not None:
            depth = int(_depths(tokens, segment.parents).max()) + 1
        if segment.n_read and (segment.parents is None or segment.n_read != segment.cache.n_proposed):
            raise ConfigError(
                f"{segment.n_read} tokens of the tree were read before, but the cache was given "
                f"{segment.cache.n_proposed}"
            )
        if segment.cache.length + depth > config.max_positions:
            raise DataError(
                f"{segment.cache.length} tokens and {depth} more do not fit into the model's context of "
                f"{config.max_positions}",
                "shorten the prompt, or ask for fewer tokens",
            )

    def _run_all(self, segments: Sequence[Segment]) -> list[np.ndarray]:
        """Cut the segments into steps."""
        found: list[list[np.ndarray]] = [[] for _ in segments]
        for by_tiles in (False, True):
            chosen = [i for i, s in enumerate(segments) if (s.is_prompt and self._by_tiles) == by_tiles]
            for parts in _steps([(i, segments[i]) for i in chosen], at.CHUNK if by_tiles else MOST_TOKENS):
                logits = self._run([part for _, part in parts], by_tiles)
                for (index, _), rows in zip(parts, logits, strict=True):
                    found[index].append(rows)
        return [parts[0] if len(parts) == 1 else np.concatenate(parts) for parts in found]

    def _run(self, segments: Sequence[Segment], by_tiles: bool) -> list[np.ndarray]:
        """One step."""
        plan, n, n_wanted = self._plan, 0, 0
        tiles = _Tiles(plan.tiles, self._group, at.TILE_TOKENS if by_tiles else TILE)
        for number, segment in enumerate(segments):
            cache, tokens = segment.cache, segment.tokens
            cache.reserve(len(tokens))
            self._list_pages(number, cache)
            start = cache.length
            depths = None if segment.parents is None else _depths(tokens, segment.parents)
            if depths is not None:
                paths = _paths(start, depths, segment.parents or ())
                plan.paths[n : n + len(segment)] = paths[segment.n_read :]
            for i in range(segment.n_read, len(tokens)):
                position = start + (i if depths is None else int(depths[i]))
                linear = depths is None or bool(_is_linear(paths[i], start, int(depths[i])))
                tile, row = tiles.add(n, number, position + 1, linear)
                plan.tokens[n] = (tokens[i], position, start + i, number, start, linear, tile, row)
                n += 1
            plan.wanted[n_wanted : n_wanted + segment.n_wanted] = range(n - segment.n_wanted, n)
            n_wanted += segment.n_wanted
        plan.asked[at.N_TOKENS], plan.asked[at.N_WANTED] = n, n_wanted
        plan.asked[at.N_TILES], plan.asked[at.BY_TILES] = tiles.close(), by_tiles
        self._reach(int(plan.tokens[:n, at.POSITION].max()) + 1)
        self._give_and_tap(segments)
        self._crew.run()
        for segment in segments:
            if segment.parents is None:
                segment.cache.advance(len(segment.tokens))
            else:
                segment.cache.propose(len(segment.tokens))
        self._take_taps(segments)
        logits = self._logits[:n_wanted, : self.config.vocab_size].copy()
        ends = np.cumsum([segment.n_wanted for segment in segments])
        return np.split(logits, ends[:-1])

    def _give_and_tap(self, segments: Sequence[Segment]) -> None:
        """Write what the layers get, if not embeddings, and which layers are looked at."""
        vectors = [segment.vectors for segment in segments if segment.vectors is not None]
        self._plan.asked[at.GIVEN] = len(vectors) > 0
        if vectors:
            given = np.concatenate(vectors)
            self._residual[: len(given), : self.config.d_model] = given
        self._plan.taps[:] = 0
        for segment in segments:
            if segment.taps is not None:
                self._plan.taps[list(segment.taps.layers)] = 1

    def _take_taps(self, segments: Sequence[Segment]) -> None:
        start = 0
        for segment in segments:
            end = start + len(segment)
            if segment.taps is not None:
                found = self._tapped[list(segment.taps.layers), start:end, : self.config.d_model]
                segment.taps.parts.append(np.ascontiguousarray(found.swapaxes(0, 1)))
            start = end

    # Memory ---------------------------------------------------------------------------------------

    def _new_plan(self) -> Plan:
        config, model = self.config, self._model
        d_model, d_ff = padded(config.d_model), padded(config.d_ff)
        sizes = np.zeros(at.N_SIZES, np.int64)
        sizes[at.N_LAYERS], sizes[at.N_HEADS], sizes[at.N_KV_HEADS] = (
            config.n_layers,
            config.n_heads,
            config.n_kv_heads,
        )
        sizes[at.HEAD_DIM], sizes[at.D_MODEL], sizes[at.TRUE_D_MODEL] = (
            self._head_dim,
            d_model,
            config.d_model,
        )
        sizes[at.D_FF], sizes[at.VOCAB_ROWS] = d_ff, padded(config.vocab_size, ROWS)
        # Each token of a tree may begin a tile; those of a prompt do where its sequence or span changes.
        of_trees = MOST_TOKENS * -(-self._group // TILE)
        of_prompts = -(-at.CHUNK * self._group // TILE) + MOST_TOKENS + at.CHUNK // PAGE
        most_tiles = max(of_trees, of_prompts)
        return Plan(
            sizes=sizes,
            matrices=model.table(),
            constants=np.array([config.rms_norm_eps, config.head_dim**-0.5], np.float32),
            asked=np.zeros(at.N_ORDERS, np.int64),
            meeting=new_barrier(self.n_threads),
            tokens=np.zeros((at.CHUNK, at.N_OF_TOKEN), np.int64),
            paths=np.zeros((MOST_TOKENS, MOST_TOKENS), np.int64),
            tiles=np.zeros((most_tiles, at.N_OF_TILE), np.int64),
            wanted=np.zeros(MOST_TOKENS, np.int64),
            taps=np.zeros(config.n_layers, np.int64),
            pages=np.zeros((MOST_TOKENS, config.max_positions // PAGE + 3), np.int64),
        )

    def _give_memory(self) -> None:
        """Allocate what the threads work in."""
        sizes, plan = self._plan.sizes, self._plan
        record = at.INTEGER_RECORD if self._model.is_integer else at.FLOAT_RECORD
        heads = self.config.n_heads * self._head_dim
        most_groups = padded(max(int(sizes[at.D_MODEL]), heads)) // at.GROUP
        d_ff_groups = int(sizes[at.D_FF]) // at.GROUP
        # Of a group of all tokens, in a step and in a chunk of a prompt.
        step_bytes, chunk_bytes = record * (MOST_TOKENS // TILE), at.TILE_BYTES * (at.CHUNK // at.TILE_TOKENS)
        activations = most_groups * step_bytes
        chunks = len(plan.tiles) * self.config.n_kv_heads
        sizes[at.ACTIVATIONS_BYTES] = activations
        sizes[at.SCRATCH_BYTES] = scratch_bytes(self._head_dim, self.config.n_heads)
        sizes[at.PANEL_BYTES] = 2 * at.TILE_BYTES * max(most_groups, d_ff_groups)
        sizes[at.PROMPT_BYTES] = prompt_bytes(self._head_dim)
        summaries = at.MOST_SPANS * (8 * TILE + 4 * TILE * self._head_dim)
        for place, n_bytes in {
            at.RESIDUAL_AT: 4 * at.CHUNK * int(sizes[at.D_MODEL]),
            at.ACTIVATIONS_AT: max(activations * self.n_threads, most_groups * chunk_bytes),
            at.HIDDEN_AT: d_ff_groups * max(step_bytes, chunk_bytes),
            at.QUERIES_AT: 4 * TILE * self._head_dim * chunks,
            at.PARTIALS_AT: chunks * max(summaries, prompt_summary_bytes(self._head_dim)),
            at.SCRATCH_AT: int(sizes[at.SCRATCH_BYTES]) * self.n_threads,
            at.PROMPT_AT: int(sizes[at.PROMPT_BYTES]) * self.n_threads,
            at.PANEL_AT: int(sizes[at.PANEL_BYTES]) * self.n_threads,
            at.LOGITS_AT: 4 * MOST_TOKENS * int(sizes[at.VOCAB_ROWS]),
            at.TAPS_AT: 4 * MOST_TOKENS * int(sizes[at.D_MODEL]) * self.config.n_layers,
        }.items():
            self._keep(place, allocate(n_bytes))
        self._keep(at.NORMS_AT, np.ascontiguousarray(self._model.norms))
        self._logits, self._residual = (
            self._kept[place].view(np.float32).reshape(-1, int(sizes[width]))
            for place, width in ((at.LOGITS_AT, at.VOCAB_ROWS), (at.RESIDUAL_AT, at.D_MODEL))
        )
        shape = self.config.n_layers, MOST_TOKENS, -1
        self._tapped = self._kept[at.TAPS_AT].view(np.float32).reshape(shape)
        self._reach(1)

    def _keep(self, place: int, memory: np.ndarray) -> None:
        self._kept[place] = memory
        self._plan.sizes[place] = memory.ctypes.data

    def _reach(self, n_positions: int) -> None:
        """Compute rotations of so many positions, if there are not as many; then twice as many as before."""
        have = len(self._kept.get(at.ROPE_AT, ()))
        if have < n_positions:
            most = self.config.max_positions
            self._keep(at.ROPE_AT, rotations(self.config, min(most, max(n_positions, 2 * have, 512))))

    def _list_pages(self, number: int, cache: SequenceCache) -> None:
        self._plan.pages[number, : len(cache.addresses)] = cache.addresses


@contextlib.contextmanager
def _announcing_compiler() -> Iterator[None]:
    """Say what takes so long, if it does: kernels come from the disk in less than a second."""
    message = "compiling the decoding kernels (first run, some seconds)"
    timer = threading.Timer(_QUIET_SECONDS, print, (message,), {"file": sys.stderr, "flush": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _steps(segments: Sequence[tuple[int, Segment]], most_tokens: int) -> Iterator[list[tuple[int, Segment]]]:
    """Segments with their numbers, cut and put together to steps. Trees are not cut.

    A step has at most 64 sequences, and at most 64 tokens whose logits, or hidden states, are wanted.
    """
    if any(segment.taps is not None for _, segment in segments):
        most_tokens = MOST_TOKENS
    step: list[tuple[int, Segment]] = []
    room, wanted_room = most_tokens, MOST_TOKENS
    for index, segment in segments:
        if segment.parents is not None:
            if room < len(segment) or wanted_room < segment.n_wanted or len(step) == MOST_TOKENS:
                yield step
                step, room, wanted_room = [], most_tokens, MOST_TOKENS
            step.append((index, segment))
            room, wanted_room = room - len(segment), wanted_room - segment.n_wanted
            continue
        n, begin = len(segment.tokens), 0
        first_wanted = n - segment.n_wanted
        while begin < n:
            if room == 0 or wanted_room == 0 or len(step) == MOST_TOKENS:
                yield step
                step, room, wanted_room = [], most_tokens, MOST_TOKENS
            end = min(n, begin + room, max(first_wanted, begin) + wanted_room)
            wanted = max(0, end - max(first_wanted, begin))
            vectors = None if segment.vectors is None else segment.vectors[begin:end]
            part = replace(segment, tokens=segment.tokens[begin:end], n_logits=wanted, vectors=vectors)
            step.append((index, part))
            room, wanted_room, begin = room - len(part), wanted_room - wanted, end
    if step:
        yield step


class _Tiles:
    """Puts the query rows of tokens into tiles of so many that can share what they read of a cache."""

    def __init__(self, table: np.ndarray, group: int, n_rows: int) -> None:
        self._table, self._group, self._n_rows = table, group, n_rows
        self._tile, self._row = -1, n_rows
        self._key: tuple[int, int, int] | None = None

    def add(self, token: int, sequence: int, limit: int, linear: bool) -> tuple[int, int]:
        """The tile and the row in it where a token's heads begin; it sees `limit` positions."""
        span = _span(limit)
        key = (sequence, span, -1 if linear else token)
        if key != self._key or self._row == self._n_rows:
            self._begin(token, span)
            self._key = key
        begin = self._tile, self._row
        for _ in range(self._group):
            if self._row == self._n_rows:
                self._begin(token, span)
            tile = self._table[self._tile]
            tile[at.TILE_LIMIT] = tile[at.TILE_LIMITS + self._row] = limit
            self._row += 1
            tile[at.TILE_ROWS] = self._row
        return begin

    def close(self) -> int:
        """The number of tiles."""
        return self._tile + 1

    def _begin(self, token: int, span: int) -> None:
        self._tile, self._row = self._tile + 1, 0
        tile = self._table[self._tile]
        tile[at.TILE_TOKEN], tile[at.TILE_SPAN], tile[at.TILE_LIMITS :] = token, span, 0


def _span(limit: int) -> int:
    """Chunks that are summed up one after the other in a context of `limit` positions."""
    span, n_chunks = 1, -(-limit // PAGE)
    while n_chunks > at.MOST_SPANS * span:
        span *= 2
    return span


def _depths(tokens: Sequence[int], parents: Sequence[int]) -> np.ndarray:
    """How many tokens of a tree stand before each on its path."""
    if len(parents) != len(tokens) or len(tokens) > MOST_TOKENS:
        raise ConfigError(
            f"a tree of {len(tokens)} tokens with {len(parents)} parents, expected as many of both, "
            f"up to {MOST_TOKENS}"
        )
    depths = np.zeros(len(parents), np.int64)
    for i, parent in enumerate(parents):
        if not -1 <= parent < i:
            raise ConfigError(f"token {i} of the tree has the parent {parent}, expected -1 to {i - 1}")
        depths[i] = depths[parent] + 1 if parent >= 0 else 0
    return depths


def _paths(start: int, depths: np.ndarray, parents: Sequence[int]) -> np.ndarray:
    """The places in the cache of each token's ancestors, itself the last; int64 [n, 64]."""
    paths = np.zeros((len(parents), MOST_TOKENS), np.int64)
    for i, parent in enumerate(parents):
        if parent >= 0:
            paths[i] = paths[parent]
        paths[i, depths[i]] = start + i
    return paths


def _is_linear(path: np.ndarray, start: int, depth: int) -> bool:
    """Whether a token's ancestors stand in the cache as if they were the only ones."""
    return bool((path[: depth + 1] == np.arange(start, start + depth + 1)).all())
