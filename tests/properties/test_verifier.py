"""Speculation leaves the target's distribution as it is: everything that may happen is gone through."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence

import numpy as np
import pytest

from fullspan.decoding.speculation.tree import Probabilities, Tree
from fullspan.decoding.speculation.verifier import Chance, choose_token, walk, without


class Script:
    """Chance that does what a script says, then always the first that is possible, and notes the rest."""

    def __init__(self, script: Sequence[int]) -> None:
        self.script, self.done, self.others, self.probability = list(script), 0, [], 1.0

    def coin(self, probability: float) -> bool:
        heads = min(max(probability, 0.0), 1.0)
        return self._decide([heads, 1 - heads]) == 0

    def draw(self, probabilities: Probabilities) -> int:
        return self._decide(probabilities)

    def _decide(self, weights: Sequence[float] | Probabilities) -> int:
        possible = [outcome for outcome, weight in enumerate(weights) if weight > 0]
        if self.done == len(self.script):
            self.others += [[*self.script, outcome] for outcome in possible[1:]]
            self.script.append(possible[0])
        outcome = self.script[self.done]
        self.done += 1
        self.probability *= float(weights[outcome])
        return outcome


def outcomes(run: Callable[[Chance], Hashable]) -> dict[Hashable, float]:
    """Every result of a random function, and its probability."""
    found: dict[Hashable, float] = defaultdict(float)
    waiting: list[list[int]] = [[]]
    while waiting:
        script = Script(waiting.pop())
        found[run(script)] += script.probability
        waiting += script.others
    return found


def lattice(n: int, parts: int) -> list[Probabilities]:
    """All distributions over n tokens whose probabilities are multiples of 1 / parts, zeros among them."""
    points = itertools.product(range(parts + 1), repeat=n)
    return [np.array(point) / parts for point in points if sum(point) == parts]


def uneven(n: int, seed: int) -> list[Probabilities]:
    """Some distributions that are no round numbers, one with zeros."""
    generator = np.random.default_rng(seed)
    some = [generator.dirichlet(np.full(n, spread)) for spread in (0.3, 1.0)]
    holes = some[1] * (np.arange(n) % 2)
    return [*some, holes / holes.sum()]


def pairs() -> list[tuple[Probabilities, Probabilities]]:
    """p and q: q = 0 where p > 0, p = 0 where q > 0, p = q and disjoint ones are among them."""
    return [
        *itertools.product(lattice(2, 4), repeat=2),
        *itertools.product(lattice(3, 3), repeat=2),
        *itertools.product(uneven(4, 0), repeat=2),
        *itertools.product(uneven(5, 1), repeat=2),
    ]


def draw_children(
    q: Probabilities, n: int, chance: Chance, *, replacement: bool
) -> list[tuple[int, Probabilities]]:
    drawn: list[tuple[int, Probabilities]] = []
    left: Probabilities | None = q
    while left is not None and len(drawn) < n:
        token = chance.draw(left)
        drawn.append((token, left))
        left = left if replacement else without(left, token)
    return drawn


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_a_token_has_the_targets_distribution(n: int, replacement: bool) -> None:
    for p, q in pairs():
        if replacement and n == 3 and len(p) > 3:
            continue  # 5^3 draws each

        def run(chance: Chance, p: Probabilities = p, q: Probabilities = q) -> int:
            return choose_token(p, draw_children(q, n, chance, replacement=replacement), chance)

        found = outcomes(run)
        np.testing.assert_allclose([found[token] for token in range(len(p))], p, atol=1e-12)


def test_one_draw_is_accepted_as_often_as_any_rule_could() -> None:
    """sum min(p, q), corollary 3.6 of Leviathan et al.; a verifier that ignores drafts is lossless too."""
    for p, q in pairs():

        def run(chance: Chance, p: Probabilities = p, q: Probabilities = q) -> bool:
            token = chance.draw(q)
            return choose_token(p, [(token, q)], chance) == token

        np.testing.assert_allclose(outcomes(run)[True], np.minimum(p, q).sum(), atol=1e-12)


def test_more_draws_are_accepted_more_often() -> None:
    p, q = uneven(5, 2)[0], uneven(5, 3)[1]

    def hit(n: int, replacement: bool) -> float:
        def run(chance: Chance) -> bool:
            drawn = draw_children(q, n, chance, replacement=replacement)
            return choose_token(p, drawn, chance) in [token for token, _ in drawn]

        return outcomes(run)[True]

    one, two, three = (hit(n, False) for n in (1, 2, 3))
    assert one < two < three
    assert one < hit(2, True) < two  # what was refused once is refused again


def test_a_certain_proposal_is_a_one_hot_draw() -> None:
    """So it needs no coin: drawing from p and looking whether it was proposed is the same."""
    for p, _ in pairs():
        for token in range(len(p)):
            found = outcomes(
                lambda chance, p=p, token=token: choose_token(p, [(token, np.eye(len(p))[token])], chance)
            )
            np.testing.assert_allclose([found[each] for each in range(len(p))], p, atol=1e-12)


class Language:
    """A distribution for each text, from nothing but the text."""

    def __init__(self, n: int, seed: int, zeros: bool = False) -> None:
        self.n, self.seed, self.zeros = n, seed, zeros

    def __call__(self, text: Sequence[int]) -> Probabilities:
        generator = np.random.default_rng([self.seed, len(text), *text])
        p = generator.dirichlet(np.ones(self.n))
        if self.zeros:
            p[generator.integers(self.n)] = 0.0
        return p / p.sum()


def grow(draft: Language, text: tuple[int, ...], widths: Sequence[int], chance: Chance) -> Tree:
    """A tree of draws without replacement, level by level."""
    tree = Tree(0)
    level = [0]
    for width in widths:
        found = []
        for node in level:
            q = draft((*text, *tree.path(node)))
            for token, left in draw_children(q, width, chance, replacement=False):
                found.append(tree.add(node, token, left))
        level = found
    return tree


def certain(n: int, widths: Sequence[int]) -> Tree:
    """The lowest tokens, whatever the text."""
    tree, level = Tree(0), [0]
    for width in widths:
        level = [tree.add(node, token) for node in level for token in range(width)]
    return tree


@pytest.mark.parametrize(
    ("n", "widths", "zeros"),
    [(2, (2, 1), False), (2, (1, 2), True), (3, (1, 1), False), (3, (2,), True), (2, (1, 1, 1), False)],
)
@pytest.mark.parametrize("kind", ["other", "equal", "certain", "mixed"])
def test_a_text_has_the_targets_distribution(n: int, widths: tuple[int, ...], zeros: bool, kind: str) -> None:
    """Steps with trees until there are three tokens, some of them beyond what is wanted."""
    target = Language(n, seed=1, zeros=zeros)
    draft = target if kind == "equal" else Language(n, seed=2, zeros=zeros)

    def run(chance: Chance) -> tuple[int, ...]:
        text: tuple[int, ...] = ()
        while len(text) < 3:
            if kind == "certain":
                tree = certain(n, widths)
            else:
                tree = grow(draft, text, widths[: 3 - len(text)], chance)
            if kind == "mixed":
                tree.add(0, n - 1)  # behind those drawn, and perhaps one of them
            begin = text
            for _, token in walk(
                tree,
                lambda node, tree=tree, begin=begin: choose_token(
                    target((*begin, *tree.path(node))), tree.drawn(node), chance
                ),
            ):
                text = (*text, token)
        return text[:3]

    found = outcomes(run)
    for text in itertools.product(range(n), repeat=3):
        expected = float(np.prod([target(text[:i])[token] for i, token in enumerate(text)]))
        assert abs(found[text] - expected) < 1e-12
    if kind == "equal":
        return
    assert sum(found.values()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("n", [1, 2])
def test_greedy_is_the_limit(n: int) -> None:
    """A one-hot p: its token, whatever was drawn; and it is accepted if it was."""
    for winner in range(4):
        p = np.eye(4)[winner]
        for q in [*uneven(4, 5), np.eye(4)[0]]:

            def run(chance: Chance, p: Probabilities = p, q: Probabilities = q) -> int:
                return choose_token(p, draw_children(q, n, chance, replacement=False), chance)

            assert {token for token, weight in outcomes(run).items() if weight > 0} == {winner}


def test_drawn_tokens_are_not_pruned() -> None:
    """Certain ones are, with what stands behind them; a choice among draws would change the distribution."""
    q = np.array([0.5, 0.5])
    tree = Tree(9)
    drawn = tree.add(0, 1, q)
    tree.add(tree.add(drawn, 0, q), 1)
    tree.add(tree.add(0, 0), 1, q)
    left = tree.pruned(lambda path: 0)
    assert (left.tokens, left.parents, left.drawn_from[1:]) == ([9, 1, 0], [-1, 0, 1], [q, q])

    def picky(chance: Chance) -> int:
        token = chance.draw(q)
        return choose_token(q, [(token, q)] if token == 0 else [], chance)

    assert outcomes(picky)[0] == pytest.approx(0.75)  # instead of 0.5: what `pruned` must not do
