"""Weights in and out: GGUF, safetensors, and the local model store."""
