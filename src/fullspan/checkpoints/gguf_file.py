"""GGUF files: metadata, and weights as float32, as torch tensors or as the packed bytes they are."""

from __future__ import annotations

import mmap
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from fullspan.checkpoints._dequantize import dequantize_blocks
from fullspan.checkpoints._gguf_header import read_header
from fullspan.checkpoints._gguf_writer import parse_ggml_type, write_gguf
from fullspan.core.device import usable_cores
from fullspan.core.errors import CheckpointError, did_you_mean

if TYPE_CHECKING:
    import torch

__all__ = ["GGMLQuantizationType", "GGUFFile", "GGUFTensor", "parse_ggml_type", "write_gguf"]

# Weights dequantised at a time: 512 KiB of float32 stays in the cache of a core.
_CHUNK = 2**17


@dataclass(frozen=True, eq=False)
class GGUFTensor:
    """One tensor of a GGUF file.

    Attributes
    ----------
    name : str
        Its name in the file, such as ``blk.0.attn_q.weight``.
    shape : tuple of int
        Row-major, as torch prints it (GGUF files state it reversed).
    ggml_type : GGMLQuantizationType
        How its weights are stored.
    data : ndarray of uint8
        Its bytes, memory-mapped and read-only.
    """

    name: str
    shape: tuple[int, ...]
    ggml_type: GGMLQuantizationType
    data: np.ndarray

    @property
    def n_elements(self) -> int:
        """Number of weights."""
        block_size, block_bytes = GGML_QUANT_SIZES[self.ggml_type]
        return len(self.data) // block_bytes * block_size


class GGUFFile:
    """A GGUF file, opened read-only and memory-mapped.

    Parameters
    ----------
    path : path-like
        The file; versions 2 and 3, little-endian.

    Attributes
    ----------
    path : Path
    metadata : dict
        Scalars as Python values, numeric arrays as numpy arrays of the stored type, arrays of
        strings as lists.
    tensors : dict of str to GGUFTensor

    Raises
    ------
    CheckpointError
        If the file is missing, is not GGUF, is truncated, or states something that cannot be.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "tiny.gguf"
    >>> weight = np.arange(64, dtype=np.float32).reshape(2, 32)
    >>> write_gguf(path, {"general.architecture": "llama"}, {"w": weight}, GGMLQuantizationType.Q8_0)
    >>> file = GGUFFile(path)
    >>> file.tensors["w"].shape, file.tensors["w"].ggml_type.name, file.packed("w").shape
    ((2, 32), 'Q8_0', (2, 34))
    >>> bool(abs(file.dequantize("w") - weight).max() < 0.25)
    True
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._mapped = _map_file(self.path)
        self.metadata, infos = read_header(self._mapped, self.path)
        whole = np.frombuffer(self._mapped, dtype=np.uint8)
        self._address: int = whole.ctypes.data
        self.tensors = {
            info.name: GGUFTensor(
                info.name, info.shape, info.ggml_type, whole[info.start : info.start + info.n_bytes]
            )
            for info in infos.values()
        }

    def __getitem__(self, name: str) -> GGUFTensor:
        try:
            return self.tensors[name]
        except KeyError:
            raise CheckpointError(
                f"{self.path} has no tensor {name!r}", did_you_mean(name, self.tensors)
            ) from None

    def dequantize(self, name: str) -> np.ndarray:
        """The weights of one tensor as float32, in a new array of its shape.

        Raises
        ------
        CheckpointError
            If there is no such tensor, or its type holds no weights (integers).
        """
        tensor = self[name]
        out = np.empty(tensor.n_elements, np.float32)
        for chunk, start in self._chunks(tensor):
            out[start : start + chunk.size] = chunk
        return out.reshape(tensor.shape)

    def tensor(self, name: str, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The weights of one tensor in a new torch tensor, float32 unless `dtype` says otherwise."""
        import torch

        tensor = self[name]
        out = torch.empty(tensor.n_elements, dtype=dtype or torch.float32)
        for chunk, at in self._chunks(tensor):
            out[at : at + chunk.size] = torch.from_numpy(chunk)
        return out.reshape(tensor.shape)

    def items(self, dtype: torch.dtype | None = None) -> Iterator[tuple[str, torch.Tensor]]:
        """Each name and tensor in turn; the next ones are dequantised meanwhile, on a few threads."""
        n_threads = min(usable_cores(), 4)  # one thread fills half of the memory's bandwidth
        waiting: deque[tuple[str, Future[torch.Tensor]]] = deque()
        with ThreadPoolExecutor(n_threads) as pool:
            for name in self.tensors:
                waiting.append((name, pool.submit(self.tensor, name, dtype)))
                if len(waiting) > 2 * n_threads:
                    ready, tensor = waiting.popleft()
                    yield ready, tensor.result()
            for ready, tensor in waiting:
                yield ready, tensor.result()

    def release(self, names: Iterable[str]) -> None:
        """Let go of the memory that tensors take up here, once they were read; reading them again is fine."""
        for name in names if hasattr(mmap, "MADV_DONTNEED") else ():
            data = self[name].data
            start = data.ctypes.data - self._address
            first, last = -(-start // mmap.PAGESIZE), (start + data.size) // mmap.PAGESIZE
            if first < last:
                self._mapped.madvise(
                    mmap.MADV_DONTNEED, first * mmap.PAGESIZE, (last - first) * mmap.PAGESIZE
                )

    def packed(self, name: str) -> np.ndarray:
        """The bytes of one tensor as stored, uint8 [rows, bytes per row], without a copy."""
        tensor = self[name]
        return tensor.data.reshape(int(np.prod(tensor.shape[:-1], dtype=np.int64)), -1)

    def _chunks(self, tensor: GGUFTensor) -> Iterator[tuple[np.ndarray, int]]:
        """The weights as float32 pieces (one buffer, used again) and where they start."""
        block_size, block_bytes = GGML_QUANT_SIZES[tensor.ggml_type]
        blocks = tensor.data.reshape(-1, block_bytes)
        step = _CHUNK // block_size
        buffer = np.empty((min(step, len(blocks)), block_size), np.float32)
        try:
            for first in range(0, len(blocks), step):
                piece = blocks[first : first + step]
                out = buffer[: len(piece)]
                dequantize_blocks(piece, tensor.ggml_type, out)
                yield out.reshape(-1), first * block_size
        except NotImplementedError:
            raise CheckpointError(
                f"tensor {tensor.name!r} of {self.path} has type {tensor.ggml_type.name}, "
                "which cannot be turned into floating-point weights"
            ) from None


def _map_file(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as handle:
            if os.fstat(handle.fileno()).st_size == 0:
                raise CheckpointError(f"{path} is not a GGUF file: it is empty")
            return mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise CheckpointError(f"cannot open {path}: {error.strerror or error}") from None
