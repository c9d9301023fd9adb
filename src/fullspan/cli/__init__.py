"""The command line: one file a verb, imported only when the verb is called.

A verb's file holds a `Config` with its options and a function `command` that takes it (or a Typer
`app` when the verb has verbs of its own). The first line of the file's docstring is the verb's help,
so there is no second list of commands to keep.
"""

from fullspan.cli.app import main

__all__ = ["main"]
