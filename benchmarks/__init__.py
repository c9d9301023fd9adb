"""Our figures beside the best peers': `python -m benchmarks [name ...]`."""
