"""Choosing token by token: down the trie of the admissible strings, each token drawn among those that lead on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from armap_lite.llms.base import Choice
from armap_lite.llms.choices import tempered
from armap_lite.llms.tree import Logits, Node


class TrieNode:
    """A place in the trie: the tokens that lead on from it, and the options that end here, by their numbers."""

    __slots__ = ("below", "options")

    def __init__(self) -> None:
        self.below: dict[int, TrieNode] = {}
        self.options: list[int] = []


def build_trie(options: Sequence[Sequence[int]]) -> TrieNode:
    """The trie of `options`, lists of token ids. Raises ValueError where one goes on where another ends.

    It knows no prompt: the same list of actions after another prompt, or in another episode, is the same trie.
    """
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
    """On the way down from `node`, where the trie's `branch` hangs; what can go on in one way only, does."""

    def __init__(self, node: Node, branch: TrieNode):
        self.node, self.branch, self.logp = node, branch, 0.0
        self._straight()

    def _straight(self) -> None:
        while len(self.branch.below) == 1:
            [(token, self.branch)] = self.branch.below.items()
            self.node = self.node.child(token)

    @property
    def over(self) -> bool:
        return not self.branch.below

    def go(self, token: int, logp: float) -> None:
        self.node, self.branch, self.logp = self.node.child(token), self.branch.below[token], self.logp + logp
        self._straight()

    def next(self, temperature: float) -> np.ndarray:
        """log p of each token below, given that one of them comes next; their `logprob` is known by then."""
        return tempered([self.node.child(token).logprob for token in self.branch.below], temperature)


def fill_next(forest: Logits, walks: Sequence[TrieCursor]) -> None:
    """One pass of the model: what comes next in each of `walks`."""
    for walk in walks:
        for token in walk.branch.below:
            walk.node.child(token)
    forest.fill_logprobs(dict.fromkeys(walk.node for walk in walks))


def draw(
    forest: Logits,
    prompts: Sequence[Node],
    tries: Sequence[TrieNode],
    texts: Sequence[Sequence[str]],
    n: int,
    temperature: float,
    seeds: Sequence[int | None],
) -> list[list[Choice]]:
    """`n` walks down each trie; all walks of all tries go on together, one pass of the model for each level."""
    walks = [[TrieCursor(prompt, trie) for _ in range(n)] for prompt, trie in zip(prompts, tries)]
    rngs = [np.random.default_rng(seed) for seed in seeds]
    while live := [(walk, rng) for some, rng in zip(walks, rngs) for walk in some if not walk.over]:
        fill_next(forest, [walk for walk, _ in live])
        for walk, rng in live:
            logp = walk.next(temperature)
            p = np.exp(logp)
            pick = int(rng.choice(len(p), p=p / p.sum()))
            walk.go(list(walk.branch.below)[pick], float(logp[pick]))
    out = []
    for prompt, some, options in zip(prompts, walks, texts):
        read = {node for walk in some for node in walk.node.path()[prompt.depth + 1 :]}
        size = prompt.depth + 1 + len(read)
        out.append([Choice(options[w.branch.options[0]], w.branch.options[0], w.logp, size) for w in some])
    return out


def all_logprobs(
    forest: Logits,
    prompts: Sequence[Node],
    tries: Sequence[TrieNode],
    texts: Sequence[Sequence[str]],
    temperature: float,
) -> list[list[Choice]]:
    """Every option once, in order, with the probability that a walk ends there; equal options share theirs."""
    live = [TrieCursor(prompt, trie) for prompt, trie in zip(prompts, tries)]
    ends: list[list[TrieCursor]] = [[] for _ in prompts]
    whose = list(range(len(prompts)))
    while live:
        fill_next(forest, [walk for walk in live if not walk.over])
        further, owners = [], []
        for walk, i in zip(live, whose):
            if walk.over:
                ends[i].append(walk)
                continue
            for token, logp in zip(walk.branch.below, walk.next(temperature)):
                further.append(TrieCursor(walk.node, walk.branch))
                further[-1].logp = walk.logp
                further[-1].go(token, float(logp))
                owners.append(i)
        live, whose = further, owners
    out = []
    for prompt, found, options in zip(prompts, ends, texts):
        read = {node for walk in found for node in walk.node.path()[prompt.depth + 1 :]}
        logps = {i: w.logp - float(np.log(len(w.branch.options))) for w in found for i in w.branch.options}
        size = prompt.depth + 1 + len(read)
        out.append([Choice(text, i, logps[i], size) for i, text in enumerate(options)])
    return out
