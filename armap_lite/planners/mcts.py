"""Monte Carlo tree search (ARMAP-M) in three functions: `simulate`, `expand`, `backward`.

Each simulation selects down to a leaf, then follows the policy to the end of the episode; every node on the way is
expanded from its own state and kept. The reward model scores the trajectory, and its reward goes back to the root.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from armap_lite.episode import State
from armap_lite.planners.base import PlanResult, Sample, Search, best
from armap_lite.rng import derive_seed


@dataclass(frozen=True)
class MCTSConfig:
    """Options of `mcts`."""

    rollouts: int = 10  # finished trajectories at most
    c: float = 1.0  # weight of exploration in `select`
    temperature: float = 1.0  # of the policy
    width: int | None = None  # children of a node at most, the most probable ones; None: all
    gamma: float = 1.0  # discount of a reward for each action on its way to the root
    greedy_rollouts: bool = False  # below the tree the policy's most probable action is taken, not a drawn one
    expand_terminal_siblings: bool = False  # also score what `terminal_siblings` finds; no LLM call
    num_action_samples: int | None = None  # children are the distinct actions among so many draws; None: all admissible
    num_uncached_samples: int | None = None  # in its place where each draw costs the whole prompt again (a server)
    max_branching_depth: int | None = None  # at this depth and below, a node has one sampled child
    llm_tokens: int | None = None  # the search ends once so many are spent, but not before the first trajectory does
    env_steps: int | None = None  # the same for environment steps

    def affordable(self, search: Search) -> bool:
        """Whether `search` has tokens and steps left."""
        spent = ((search.tokens, self.llm_tokens), (search.steps, self.env_steps))
        return all(limit is None or used < limit for used, limit in spent)


# The constants of the authors' published code. It draws at temperature 1.5, in Game of 24 at 0.7.
PAPER = {"c": 4.5 * 2**0.5, "gamma": 0.9, "width": 10, "max_branching_depth": 10}


@dataclass(eq=False)
class Node:
    """An action and the state it leads to."""

    action: str = ""  # empty at the root
    prior: float = 1.0  # probability of the action among its siblings, by the policy
    parent: Node | None = None
    state: State = None  # type: ignore[assignment]  # set when the node is first visited
    children: list[Node] = field(default_factory=list)  # set by `expand`
    visits: int = 0
    value: float = -math.inf  # highest discounted reward of a rollout through this node
    exhausted: bool = False  # every trajectory below was tried


async def mcts(search: Search, **options: Any) -> PlanResult:
    """Search until a limit of `MCTSConfig(**options)`; the answer is the trajectory with the highest reward."""
    config = MCTSConfig(**options)
    samples: list[Sample] = []
    async with search.batch.episode_slots:
        root = Node(state=search.episode.start())
        while not samples or (len(samples) < config.rollouts and not root.exhausted):
            leaf = await simulate(root, search, config, samples)
            if leaf is None:
                break
            leaves = [leaf, *terminal_siblings(root, leaf, search)] if config.expand_terminal_siblings else [leaf]
            rewards = await asyncio.gather(*(search.reward(node.state.trajectory) for node in leaves))
            for node, reward in list(zip(leaves, rewards))[: config.rollouts - len(samples)]:
                samples.append(Sample(node.state.trajectory, reward))
                backward(node, reward, config.gamma)
        search.episode.release()
    answer = best(samples)
    return search.result(samples, answer, to_dict(root, samples[answer].trajectory.actions))


async def simulate(node: Node, search: Search, config: MCTSConfig, samples: list[Sample]) -> Node | None:
    """Descend from the root `node` to a finished trajectory: by `select` in the tree, by the policy below it.

    None if the budget ends before.
    """
    rewards = [sample.reward or 0.0 for sample in samples] or [0.0]
    low, high, in_tree = min(rewards), max(rewards), True
    while not node.state.over:
        if samples and not config.affordable(search):
            return None
        if not node.children:
            await expand(node, search, config)
            in_tree = node.parent is None  # below a new leaf the policy decides; a new root is still selected from
        if in_tree:
            node = select(node, config.c, low, high)
        elif config.greedy_rollouts:
            node = node.children[0]
        else:
            seed = derive_seed(search.seed, "simulate", len(samples), len(node.state.trajectory.steps))
            priors = np.array([child.prior for child in node.children])
            node = node.children[int(np.random.default_rng(seed).choice(len(priors), p=priors / priors.sum()))]
        if node.state is None:
            node.state = search.episode.step(node.parent.state, node.action)  # type: ignore[union-attr]
    return node


def select(node: Node, c: float, low: float, high: float) -> Node:
    """The child, not exhausted, with the highest value + c * prior * K * sqrt(ln(visits of `node` + 1)) / (1 + visits).

    K: number of children; with equal priors this is the rule of the published code. Values are scaled to [0, 1] by the
    lowest and the highest reward of this search; a child without visits counts as the lowest.
    """

    def score(child: Node) -> float:
        value = (child.value - low) / (high - low) if child.visits and high > low else 0.0
        explore = math.sqrt(math.log(node.visits + 1)) / (1 + child.visits)
        return value + c * child.prior * len(node.children) * explore

    return max((child for child in node.children if not child.exhausted), key=score)


async def expand(node: Node, search: Search, config: MCTSConfig) -> None:
    """Add the children of `node`, most probable first, with the policy's probabilities in its state as priors."""
    actions, n = node.state.trajectory.actions, config.num_action_samples
    if config.num_uncached_samples is not None and not search.batch.lm.has_prefix_cache:
        n = config.num_uncached_samples
    if config.max_branching_depth is not None and len(actions) >= config.max_branching_depth:
        n = 1
    choices = await search.act(node.state, config.temperature, "expand", *actions, n=n)
    if n is None:
        weights = {choice.text: math.exp(choice.logprob) for choice in choices}
    else:
        weights = dict(Counter(choice.text for choice in choices))  # a server returns draws without probabilities
    kept = sorted(weights, key=lambda action: -weights[action])[: config.width]
    total = sum(weights[action] for action in kept)
    node.children = [Node(action, weights[action] / total, node) for action in kept]


def backward(leaf: Node, reward: float, gamma: float) -> None:
    """Carry `reward` from `leaf` to the root: count visits, keep the highest value, mark what is exhausted."""
    leaf.exhausted = True
    node: Node | None = leaf
    while node is not None:
        node.visits += 1
        node.value = max(node.value, reward)
        node.exhausted = node.exhausted or (bool(node.children) and all(child.exhausted for child in node.children))
        reward *= gamma
        node = node.parent


def terminal_siblings(root: Node, leaf: Node, search: Search) -> list[Node]:
    """Untried nodes that end the episode: siblings of `leaf`, and its action in other states of the tree.

    The policy drew them in states that it has read already, so they cost no token, only steps and a reward.
    """
    found: list[Node] = []
    nodes = [root]
    while nodes:
        node = nodes.pop()
        for child in node.children:
            if child.state is not None:
                nodes.append(child)
            elif node is leaf.parent or child.action == leaf.action:
                child.state = search.episode.step(node.state, child.action)
                found += [child] if child.state.over else []
    return found


def to_dict(node: Node, path: tuple[str, ...] | None) -> dict[str, Any]:
    """The visited part of the tree below `node` as JSON types; nodes on `path`, its actions, are marked `chosen`."""
    return {
        "action": node.action or None,
        "visits": node.visits,
        "value": node.value,
        "prior": node.prior,
        "chosen": path is not None,
        "children": [
            to_dict(child, path[1:] if path and child.action == path[0] else None)
            for child in node.children
            if child.visits
        ],
    }
