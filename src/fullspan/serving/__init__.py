"""The server: a language model behind OpenAI's HTTP interface."""
