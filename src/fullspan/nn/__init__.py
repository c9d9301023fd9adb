"""Torch blocks that models are put together from; they take plain arguments, never a config."""
