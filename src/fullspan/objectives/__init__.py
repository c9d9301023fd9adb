"""Training objectives: pure functions from tensors to a loss."""
