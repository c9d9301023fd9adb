"""Which device, precision and threads a job uses, decided in one place."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fullspan.core.errors import ConfigError

if TYPE_CHECKING:
    import torch

# Names as Linux prints them in /proc/cpuinfo; those that fullspan's speed depends on.
_TELLING = (
    "sse4_2", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16",
    "amx_bf16", "amx_int8", "asimd", "asimddp", "bf16", "i8mm", "sve",
)  # fmt: skip


def cpu_features() -> list[str]:
    """The instruction sets of this CPU that matter to fullspan's kernels.

    On systems without /proc/cpuinfo, LLVM's answer through Numba's llvmlite is used.
    """
    info = Path("/proc/cpuinfo")
    if info.exists():
        text = info.read_text(encoding="utf-8", errors="replace")
        flags = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
        present = set(flags.partition(":")[2].split())
    else:
        import llvmlite.binding

        found = llvmlite.binding.get_host_cpu_features()
        present = {name.replace("avx512vnni", "avx512_vnni") for name, there in found.items() if there}
    return [name for name in _TELLING if name in present]


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_of(n_jobs: int | None) -> int:
    """How many threads an estimator's `n_jobs` asks for: one for each usable core by default.

    Negative numbers count from the cores downwards: -1 is one for each, -2 leaves one core to others.

    Examples
    --------
    >>> threads_of(3), threads_of(None) == threads_of(-1) == usable_cores()
    (3, True)
    """
    if not n_jobs:
        return usable_cores()
    return int(n_jobs) if n_jobs > 0 else max(1, usable_cores() + 1 + n_jobs)


def has_fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware, so that it is faster than float32."""
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(cpu_features()))


def default_device() -> torch.device:
    """A CUDA device where there is one, otherwise the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def default_device_type() -> str:
    """ "cuda" or "cpu", as `default_device`; torch is imported only where there is a driver to ask for."""
    return default_device().type if _has_gpu_driver() else "cpu"


def _has_gpu_driver() -> bool:
    """Whether torch could find a device that it calls CUDA: of NVIDIA, or of AMD through ROCm."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return Path("/dev/kfd").exists()
    return True


def default_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device is fast at it, otherwise float32."""
    import torch

    fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else has_fast_bfloat16()
    return torch.bfloat16 if fast else torch.float32


def set_threads(n: int | None) -> int:
    """Let torch use `n` threads, or one for each usable core; returns the number set.

    Raises
    ------
    ConfigError
        If `n` is less than one.
    """
    import torch

    if n is not None and n < 1:
        raise ConfigError(f"threads must be at least 1, got {n}")
    n = n or usable_cores()
    torch.set_num_threads(n)
    return n
