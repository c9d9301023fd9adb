"""A page about one answer: what was proposed at each step, what was accepted, and where the time went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2

from fullspan.core.errors import DataError
from fullspan.core.files import replacing
from fullspan.decoding.results import Generation
from fullspan.decoding.speculation.drafters import Drafter, Drafting, DraftRow, Learned, Target
from fullspan.decoding.speculation.tree import Tree
from fullspan.text.tokenizer import Tokenizer

_MOST_STEPS = 60  # with proposals, that are drawn


class Recorder:
    """A drafter that remembers what another proposed for the first row of a batch.

    Parameters
    ----------
    drafter : Drafter

    Attributes
    ----------
    steps : list of tuple of (int, Tree)
        Tokens of the text, the prompt counted, and what was proposed behind them.
    """

    def __init__(self, drafter: Drafter) -> None:
        self._drafter = drafter
        self.steps: list[tuple[int, Tree]] = []

    def check(self, target: Target) -> None:
        """As the other does."""
        self._drafter.check(target)

    def begin(self, n_rows: int) -> Drafting:
        """Start on a batch."""
        return _Recording(self._drafter.begin(n_rows), self.steps)


class _LearnedRecorder(Recorder):
    """Of a drafter that looks at hidden states, which the loop has to ask for."""

    def __init__(self, drafter: Learned) -> None:
        super().__init__(drafter)
        self.layers, self.acceptance = drafter.layers, drafter.acceptance


def recorder_of(drafter: Drafter) -> Recorder:
    """A recorder that the loop treats as it treats the drafter."""
    return _LearnedRecorder(drafter) if isinstance(drafter, Learned) else Recorder(drafter)


class _Recording:
    def __init__(self, drafting: Drafting, steps: list[tuple[int, Tree]]) -> None:
        self._drafting, self._steps, self._is_first = drafting, steps, True

    def propose(self, rows: Sequence[DraftRow]) -> list[Tree]:
        trees = self._drafting.propose(rows)
        if self._is_first:
            self._steps.append((len(rows[0].ids), trees[0]))
        return trees

    def keep(self, places: Sequence[int]) -> None:
        self._is_first = self._is_first and 0 in places
        self._drafting.keep(places)


@dataclass
class Node:
    """A proposal as the page draws it."""

    text: str
    is_accepted: bool
    children: list[Node] = field(default_factory=list)


def draw_tree(tree: Tree, came: Sequence[int], tokenizer: Tokenizer) -> list[Node]:
    """The proposals behind a text, those marked that came.

    Parameters
    ----------
    tree : Tree
    came : sequence of int
        The answer's tokens from there on.
    tokenizer : Tokenizer
    """
    nodes = [Node(_shown(tokenizer.token_text(token)), False) for token in tree.tokens]
    nodes[0].is_accepted = True
    for number in range(1, len(tree)):
        parent, depth = nodes[tree.parents[number]], tree.depths[number]
        right = depth <= len(came) and came[depth - 1] == tree.tokens[number]
        nodes[number].is_accepted = parent.is_accepted and right
        parent.children.append(nodes[number])
    return nodes[0].children


def write_speculation_report(
    path: Path | str, name: str, way: str, answer: Generation, recorder: Recorder, tokenizer: Tokenizer
) -> None:
    """Write the page, which needs nothing but itself.

    Parameters
    ----------
    path : Path or str
    name, way : str
        Of the model, and what speculated.
    answer : Generation
    recorder : Recorder
        That took part.
    tokenizer : Tokenizer

    Raises
    ------
    DataError
        If nothing speculated.
    """
    counts = answer.speculation
    if counts is None:
        raise DataError("the answer was decoded without speculation, so there is nothing to report")
    steps = []
    drawn = [(n, tree) for n, tree in recorder.steps if len(tree) > 1]
    for n_read, tree in drawn[:_MOST_STEPS]:
        begin = n_read - answer.n_prompt_tokens
        came = answer.token_ids[begin:]
        before = "".join(tokenizer.token_text(token) for token in answer.token_ids[max(0, begin - 6) : begin])
        steps.append({"before": _shown(before), "children": draw_tree(tree, came, tokenizer)})
    rest = max(0.0, answer.seconds - counts.draft_seconds - counts.verify_seconds)
    times = [
        ("drafting", counts.draft_seconds),
        ("verifying: the model's steps", counts.verify_seconds),
        ("reading the prompt, choosing tokens", rest),
    ]
    positions = [
        (place, hits, n, hits / n)
        for place, (hits, n) in enumerate(zip(counts.accepted, counts.proposed, strict=True), 1)
    ]
    html = _template().render(
        title=f"Speculation: {name}",
        description=f"{way}; an answer of {len(answer.token_ids)} tokens after {answer.n_prompt_tokens}",
        figures=[
            ("tokens a step", f"{counts.tokens_per_step:.2f}"),
            ("steps", f"{counts.n_steps:,}"),
            ("tokens proposed", f"{counts.n_proposed:,}"),
            ("of them accepted", f"{sum(counts.accepted):,}"),
            ("tokens/s, prompt included", f"{answer.tokens_per_second:.0f}"),
        ],
        positions=positions,
        times=[(label, seconds, seconds / max(answer.seconds, 1e-9)) for label, seconds in times],
        steps=steps,
        n_left_out=len(drawn) - len(steps),
        n_without=len(recorder.steps) - len(drawn),
        text=answer.text,
    )
    with replacing(path) as beside:
        beside.write_text(html, encoding="utf-8")


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fullspan.decoding.speculation", "."),
        autoescape=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("report.html.jinja")


def _shown(text: str) -> str:
    """A token's text with its white space made visible."""
    return text.replace("\n", "⏎").replace("\t", "⇥").replace(" ", "·") or "∅"
