"""Rows of a packed matrix as floats again, and what tells one packed model from another."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from fullspan.decoding.engine._layout import BF16, F32, GROUP, GROUP_BYTES, Q4, ROWS
from fullspan.decoding.engine.model import PackedModel, Slot
from fullspan.decoding.engine.packing import Rows, block_bytes, floats_of

# Rows of each matrix that are looked at to tell models apart.
_PROBES = 3


def unpack_rows(model: PackedModel, matrix: int, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Some rows of a matrix.

    Parameters
    ----------
    model : PackedModel
    matrix : int
        Its number in `model.matrices`; -1 is the embedding, -2 the head.
    rows : ndarray of int64 [n]

    Returns
    -------
    ndarray of float32 [n, padded columns]
    """
    slot = model.matrices[matrix]
    size = block_bytes(slot.kind, slot.n_groups)
    blocks = model.memory[slot.start :][: -(-slot.n_rows // ROWS) * size].reshape(-1, size)
    return floats_of(_lanes(slot, blocks[rows // ROWS], rows % ROWS))


def embeddings(model: PackedModel, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """Embeddings [n, d_model] of tokens."""
    return unpack_rows(model, -1, ids)[:, : model.config.d_model]


def fingerprint(model: PackedModel) -> str:
    """Hexadecimal digest of the sizes, the norms, and some rows of every matrix as floats.

    An adapter that was merged changes it, and so does another kind of weights; how matrices lie in memory
    does not.
    """
    digest = hashlib.sha256(repr(model.config).encode())
    digest.update(np.ascontiguousarray(model.norms).tobytes())
    for number, slot in enumerate(model.matrices):
        rows = np.linspace(0, slot.n_rows - 1, _PROBES).astype(np.int64)
        digest.update(unpack_rows(model, number, rows).tobytes())
    return digest.hexdigest()


def _lanes(slot: Slot, blocks: NDArray[np.uint8], lanes: NDArray[np.int64]) -> Rows:
    """One row of each block."""
    n, groups = len(blocks), slot.n_groups
    each = np.arange(n)
    if slot.kind in (BF16, F32):
        dtype = np.uint16 if slot.kind == BF16 else np.float32
        columns = blocks[:, : groups * GROUP_BYTES[slot.kind]].copy().view(dtype)
        return Rows(slot.kind, columns.reshape(n, groups * GROUP, ROWS)[each, :, lanes], ())
    if slot.kind == Q4:
        records = blocks[:, : groups * GROUP_BYTES[Q4]].reshape(n, groups, -1)
        words = records[:, :, :256].copy().view(np.uint32).reshape(n, groups, 4, ROWS)
        halves = records[:, :, 256:].copy().view(np.uint16).reshape(n, groups, 2, ROWS)[each, :, :, lanes]
        return Rows(Q4, words[each, :, :, lanes], (halves[:, :, 0], halves[:, :, 1]))
    words = blocks[:, : 512 * groups].copy().view(np.uint32).reshape(n, groups, 8, ROWS)
    scales = blocks[:, 512 * groups : 544 * groups].copy().view(np.uint16).reshape(n, groups, ROWS)
    return Rows(slot.kind, words[each, :, :, lanes], (scales[each, :, lanes],))
