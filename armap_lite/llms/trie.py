"""Choosing token by token: down the trie of the admissible strings, each token drawn among those that lead on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from armap_lite.llms.base import Choice
from armap_lite.llms.forest import LogitForest, Node


class Trie:
    """The admissible strings below one prompt: `ends[i]` is the last token of option i; none is a prefix of another."""

    def __init__(self, prompt: Node, ends: Sequence[Node]):
        self.prompt = prompt
        self.ends = ends
        self.first = {end: i for i, end in reversed(list(enumerate(ends)))}
        self.below: dict[Node, list[Node]] = {}  # only what leads to an option: the forest may know more children
        known = {prompt}
        for node in self.first:
            while node not in known:
                known.add(node)
                self.below.setdefault(node.parent, []).append(node)  # type: ignore[arg-type]
                node = node.parent  # type: ignore[assignment]
        if any(end in self.below for end in self.first):
            raise ValueError("one choice goes on where another ends: by token, choices have to be single lines")

    def descend(self, node: Node) -> Node:
        """The next node, from `node` on, at which there is something to choose, or the end of an option."""
        while len(self.below.get(node, ())) == 1:
            node = self.below[node][0]
        return node

    def logp(self, node: Node, temperature: float) -> np.ndarray:
        """log p of each token below `node`, given that one of them comes next. Needs their `logprob`."""
        logits = np.array([child.logprob for child in self.below[node]], dtype=np.float64)
        if temperature <= 0:
            return np.where(np.arange(len(logits)) == logits.argmax(), 0.0, -np.inf)
        shifted = (logits - logits.max()) / temperature
        return shifted - np.log(np.exp(shifted).sum())


def draw(
    forest: LogitForest,
    tries: Sequence[Trie],
    options: Sequence[Sequence[str]],
    n: int,
    temperature: float,
    seeds: Sequence[int | None],
) -> list[list[Choice]]:
    """`n` walks down each trie; all walks of all tries go on together, one pass of the model for each level."""
    walks = [[trie.descend(trie.prompt)] * n for trie in tries]
    logps = [[0.0] * n for _ in tries]
    seen: list[set[Node]] = [set() for _ in tries]
    rngs = [np.random.default_rng(seed) for seed in seeds]
    while live := [(i, k) for i, walk in enumerate(walks) for k in range(n) if walk[k] not in tries[i].first]:
        forest.weigh(dict.fromkeys(walks[i][k] for i, k in live))
        for i, k in live:
            node, logp = walks[i][k], tries[i].logp(walks[i][k], temperature)
            p = np.exp(logp)
            pick = int(rngs[i].choice(len(p), p=p / p.sum()))
            logps[i][k] += float(logp[pick])
            walks[i][k] = tries[i].descend(tries[i].below[node][pick])
    out = []
    for i, walk in enumerate(walks):
        for end in walk:
            seen[i].update(end.path()[tries[i].prompt.depth + 1 :])
        size = tries[i].prompt.depth + 1 + len(seen[i])
        picks = [tries[i].first[end] for end in walk]
        out.append([Choice(options[i][at], at, logps[i][k], size) for k, at in enumerate(picks)])
    return out


def table(
    forest: LogitForest, tries: Sequence[Trie], options: Sequence[Sequence[str]], temperature: float
) -> list[list[Choice]]:
    """Every option once, in order, with the probability that a walk ends there; equal options share theirs."""
    forest.weigh(dict.fromkeys(node for trie in tries for node, below in trie.below.items() if len(below) > 1))
    out = []
    for trie, texts in zip(tries, options):
        total = {trie.prompt: 0.0}
        for node in sorted(trie.below, key=lambda node: node.depth):
            logp = trie.logp(node, temperature) if len(trie.below[node]) > 1 else [0.0]
            total.update((child, total[node] + float(step)) for child, step in zip(trie.below[node], logp))
        size = trie.prompt.depth + len(total)
        equal = Counter(trie.ends)
        out.append(
            [
                Choice(text, i, total[end] - float(np.log(equal[end])), size)
                for i, (text, end) in enumerate(zip(texts, trie.ends))
            ]
        )
    return out
