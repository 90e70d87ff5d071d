"""Token-by-token decoding: down the trie of the admissible strings, each token drawn among those that lead on."""

from __future__ import annotations

import functools
import heapq
import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from armap_lite.llms.base import Choice
from armap_lite.llms.choices import tempered
from armap_lite.llms.tree import Logits, Node


class TrieNode:
    """The numbers of the options with token ids `ids` that begin with the same `depth` tokens."""

    def __init__(self, ids: Sequence[Sequence[int]], numbers: Sequence[int], depth: int = 0):
        self.ids, self._numbers, self._depth = ids, numbers, depth

    @property
    def options(self) -> list[int]:
        """The numbers of the options that end here."""
        return [i for i in self._numbers if len(self.ids[i]) == self._depth]

    @functools.cached_property  # of a thousand options, walks pass few
    def below(self) -> dict[int, TrieNode]:
        """The tokens that lead on from here."""
        found: dict[int, list[int]] = {}
        for i in self._numbers:
            if len(self.ids[i]) > self._depth:
                found.setdefault(self.ids[i][self._depth], []).append(i)
        return {token: TrieNode(self.ids, numbers, self._depth + 1) for token, numbers in found.items()}


Question = tuple[Node, TrieNode, Sequence[str]]  # the end of a prompt, the trie of its options, and their texts


def build_trie(options: Sequence[tuple[int, ...]]) -> TrieNode:
    """The trie of `options`, token ids. Raises ValueError where one goes on where another ends."""
    different = sorted(set(options))
    if any(longer[: len(one)] == one for one, longer in itertools.pairwise(different)):
        raise ValueError("one choice goes on where another ends: by token, choices have to be single lines")
    return TrieNode(options, range(len(options)))


class TrieCursor:
    """A place in the forest (`node`) and in the trie (`branch`); where only one token leads on, it moves ahead.

    `before`: the same place after earlier prompts, with a running mean of the logits that were read there.
    """

    def __init__(self, node: Node, branch: TrieNode, before: Node, logp: float = 0.0):
        while len(branch.below) == 1:
            [(token, branch)] = branch.below.items()
            node, before = node.child(token), before.child(token)
        self.node, self.branch, self.before, self.logp = node, branch, before, logp

    def after(self, token: int, logp: float = 0.0) -> TrieCursor:
        """A cursor that moved on by `token`, whose log-probability is `logp`."""
        below = self.branch.below[token]
        return TrieCursor(self.node.child(token), below, self.before.child(token), self.logp + logp)

    def children(self) -> list[Node]:
        """The forest's nodes of the next tokens."""
        return [self.node.child(token) for token in self.branch.below]

    def draw(self, temperature: float, number: float) -> TrieCursor:
        """A cursor moved on by the token that the random `number` picks; the next tokens' logits are known by then."""
        logp = tempered([child.logit for child in self.children()], temperature)
        pick = _pick(logp, number)
        for child in self.children():
            mean, new = self.before.child(child.token), child.logit
            if new is not None and new > -math.inf:
                mean.logit = new if mean.logit is None else 0.7 * mean.logit + 0.3 * new
        return self.after(list(self.branch.below)[pick], float(logp[pick]))

    def guess(self, temperature: float, number: float) -> Iterator[tuple[int, float]]:
        """Each next token with a rough probability that `draw` will pick it; none where nothing was read before."""
        seen = [self.before.child(token).logit for token in self.branch.below]
        lowest = min((logit for logit in seen if logit is not None), default=None)
        if lowest is not None:
            logp = tempered([lowest if logit is None else logit for logit in seen], temperature)
            chances = 0.5 * np.exp(logp)
            chances[_pick(logp, number)] += 0.5  # about half of all draws are as they were with the mean
            yield from zip(self.branch.below, chances.tolist())


def _pick(logp: np.ndarray, number: float) -> int:
    """What `numpy.random.Generator.choice` picks where its random number is `number`."""
    p = np.exp(logp)
    rising = (p / p.sum()).cumsum()
    return int((rising / rising[-1]).searchsorted(number, side="right"))


Live = list[tuple[TrieCursor, list[float]]]
LEVELS = 4  # that are guessed at most
LIKELY = 0.05  # the least probability of a place that is read on a guess


def advance(cursors: list[TrieCursor], numbers: list[float], temperature: float) -> Iterator[Live]:
    """Draw, level by level; at each, every cursor takes one of the random `numbers`, in turn.

    Where logits are missing, the live cursors wait for them, each with the numbers that it takes next if none ends.
    """
    used = 0
    while live := [i for i, cursor in enumerate(cursors) if cursor.branch.below]:
        if any(child.logit is None for i in live for child in cursors[i].children()):
            yield [(cursors[i], numbers[used + k :: len(live)][:LEVELS]) for k, i in enumerate(live)]
        for i in live:
            cursors[i] = cursors[i].draw(temperature, numbers[used])
            used += 1


def places(live: Live, temperature: float, spare: int, deepest: int) -> Iterator[Node]:
    """The nodes of the `live` cursors, then likely later ones, the likeliest first.

    The latter take `spare` more tokens together, and none has a path of more than `deepest` tokens.
    """
    ties = itertools.count()
    heap = [(-1.0, next(ties), 0, cursor, numbers) for cursor, numbers in live]
    while heap:
        chance, _, cost, cursor, numbers = heapq.heappop(heap)
        spare -= cost
        if spare < 0:
            return
        cursor.children()  # so that there are nodes whose logits can be filled in
        yield cursor.node
        for token, share in cursor.guess(temperature, numbers[0]) if spare and numbers else ():
            if chance * share <= -LIKELY:
                later = cursor.after(token)
                if later.branch.below and later.node.depth < deepest:
                    cost = later.node.depth - cursor.node.depth
                    heapq.heappush(heap, (chance * share, next(ties), cost, later, numbers[1:]))


def walk(
    forest: Logits, questions: Sequence[Question], n: int, temperature: float, seeds: Sequence[int | None], before: Node
) -> list[list[Choice]]:
    """`n` walks down the trie of each question, all at once.

    Each forward pass reads the logits where walks are, and on a guess where they are likely to come by: some tokens
    more cost less than one more pass. The guesses follow `before`, where what was read is kept; the draws do not.
    """
    walks = [[TrieCursor(prompt, trie, before) for _ in range(n)] for prompt, trie, _ in questions]
    levels = [max(map(len, trie.ids)) + LEVELS for _, trie, _ in questions]
    numbers = [np.random.default_rng(seed).random(n * most).tolist() for seed, most in zip(seeds, levels)]
    runs = [advance(cursors, some, temperature) for cursors, some in zip(walks, numbers)]
    deepest = min(forest.capacity, forest.limit or forest.capacity)
    while live := [waiting for run in runs for waiting in next(run, [])]:
        forest.fill("logit", dict.fromkeys(places(live, temperature, forest.spare, deepest)))
    out = []
    for (prompt, _, options), cursors in zip(questions, walks):
        ends = [(cursor.branch.options[0], cursor.logp) for cursor in cursors]
        tails = {node for cursor in cursors for node in cursor.node.path()[prompt.depth + 1 :]}
        out.append([Choice(options[i], i, logp, prompt.depth + 1 + len(tails)) for i, logp in ends])
    return out


def all_logprobs(forest: Logits, questions: Sequence[Question], temperature: float) -> list[list[Choice]]:
    """Every option once, in order, with the probability that a walk ends there; equal options share theirs."""
    places = [list(_places(prompt, trie)) for prompt, trie, _ in questions]
    forest.fill("logit", dict.fromkeys(node for some in places for node, trie in some if len(trie.below) > 1))
    out = []
    for (prompt, _, options), some in zip(questions, places):
        logp, found = {prompt: 0.0}, [0.0] * len(options)
        for node, branch in some:  # parents first
            below = [node.child(token) for token in branch.below]
            steps = tempered([child.logit for child in below], temperature) if len(below) > 1 else [0.0] * len(below)
            for child, step in zip(below, steps):
                logp[child] = logp[node] + float(step)
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
