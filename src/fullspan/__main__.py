"""Lets `python -m fullspan` stand for the `fullspan` command."""

from fullspan.cli import main

main()
