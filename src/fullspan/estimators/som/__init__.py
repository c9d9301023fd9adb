"""Self-organizing maps."""

from __future__ import annotations
