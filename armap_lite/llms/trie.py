"""Token-by-token decoding: down the trie of the admissible strings, each token drawn among those that lead on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from armap_lite.llms.base import Choice
from armap_lite.llms.choices import tempered
from armap_lite.llms.tree import Logits, Node


class TrieNode:
    """`below`: the tokens that lead on from here; `options`: the numbers of the options that end here."""

    __slots__ = ("below", "options")

    def __init__(self) -> None:
        self.below: dict[int, TrieNode] = {}
        self.options: list[int] = []


Question = tuple[Node, TrieNode, Sequence[str]]  # the end of a prompt, the trie of its options, and their texts


def build_trie(options: Sequence[Sequence[int]]) -> TrieNode:
    """The trie of `options`, lists of token ids. Raises ValueError where one goes on where another ends."""
    root, ends = TrieNode(), []
    for i, tokens in enumerate(options):
        branch = root
        for token in tokens:
            branch = branch.below.setdefault(token, TrieNode())
        branch.options.append(i)
        ends.append(branch)
    if any(end.below for end in ends):
        raise ValueError("one choice goes on where another ends: by token, choices have to be single lines")
    return root


class TrieCursor:
    """A place in the forest (`node`) and in the trie (`branch`); where only one token leads on, it moves ahead."""

    def __init__(self, node: Node, branch: TrieNode):
        self.node, self.branch, self.logp = node, branch, 0.0
        self._skip_single()

    def _skip_single(self) -> None:
        while len(self.branch.below) == 1:
            [(token, self.branch)] = self.branch.below.items()
            self.node = self.node.child(token)

    def draw(self, temperature: float, rng: np.random.Generator) -> None:
        """Move on by one drawn token; the logits of the next tokens are known by then."""
        logp = next_logprobs(self.node, self.branch, temperature)
        p = np.exp(logp)
        pick = int(rng.choice(len(p), p=p / p.sum()))
        token = list(self.branch.below)[pick]
        self.node, self.branch, self.logp = self.node.child(token), self.branch.below[token], self.logp + logp[pick]
        self._skip_single()


def next_logprobs(node: Node, branch: TrieNode, temperature: float) -> np.ndarray:
    """log p of each token below `branch`, given that one of them comes next."""
    if len(branch.below) < 2:
        return np.zeros(len(branch.below))
    return tempered([node.child(token).logit for token in branch.below], temperature)


def draw(
    forest: Logits, questions: Sequence[Question], n: int, temperature: float, seeds: Sequence[int | None]
) -> list[list[Choice]]:
    """`n` walks down the trie of each question, all at once: one forward pass for each level."""
    cursors = [[TrieCursor(prompt, trie) for _ in range(n)] for prompt, trie, _ in questions]
    rngs = [np.random.default_rng(seed) for seed in seeds]
    while live := [(cursor, rng) for some, rng in zip(cursors, rngs) for cursor in some if cursor.branch.below]:
        for cursor, _ in live:
            for token in cursor.branch.below:
                cursor.node.child(token)
        forest.fill_logits(dict.fromkeys(cursor.node for cursor, _ in live))
        for cursor, rng in live:
            cursor.draw(temperature, rng)
    out = []
    for (prompt, _, options), some in zip(questions, cursors):
        size = prompt.depth + 1 + len({node for cursor in some for node in cursor.node.path()[prompt.depth + 1 :]})
        ends = [(cursor.branch.options[0], float(cursor.logp)) for cursor in some]
        out.append([Choice(options[i], i, logp, size) for i, logp in ends])
    return out


def all_logprobs(forest: Logits, questions: Sequence[Question], temperature: float) -> list[list[Choice]]:
    """Every option once, in order, with the probability that a walk ends there; equal options share theirs."""
    places = [list(_places(prompt, trie)) for prompt, trie, _ in questions]
    forest.fill_logits(dict.fromkeys(node for some in places for node, trie in some if len(trie.below) > 1))
    out = []
    for (prompt, _, options), some in zip(questions, places):
        logp, found = {prompt: 0.0}, [0.0] * len(options)
        for node, branch in some:  # parents first
            for token, step in zip(branch.below, next_logprobs(node, branch, temperature)):
                logp[node.child(token)] = logp[node] + float(step)
            for i in branch.options:
                found[i] = logp[node] - float(np.log(len(branch.options)))
        size = prompt.depth + len(some)
        out.append([Choice(text, i, found[i], size) for i, text in enumerate(options)])
    return out


def _places(node: Node, branch: TrieNode) -> Iterator[tuple[Node, TrieNode]]:
    """The forest's nodes below `node` along the trie, each with its place in the trie."""
    yield node, branch
    for token, below in branch.below.items():
        yield from _places(node.child(token), below)
