"""Architectures, one file each, found by name; `loading` opens and writes their checkpoints."""
