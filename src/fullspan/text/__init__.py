"""Text in and out: tokenizers, chat templates, example files, packing."""
