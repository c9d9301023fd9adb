"""Run the benches named on the command line, or all of them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

HELPERS = {"__init__", "__main__", "interleave", "demo_data"}


def main() -> None:
    folder = Path(__file__).parent
    known = sorted(file.stem for file in folder.glob("*.py") if file.stem not in HELPERS)
    for name in sys.argv[1:] or known:
        if name not in known:
            raise SystemExit(f"no bench named {name!r}; there are {', '.join(known)}")
        print(f"\n== {name} ==", flush=True)
        importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
