"""One training loop, its options, its data and its checkpoints."""
