"""Monte Carlo tree search (ARMAP-M) in three words: simulate, expand, backward.

Each simulation walks down by the selection rule, grows the tree along one rollout of the policy, asks the reward
model about the finished trajectory, and carries the answer back up. A node expands from its own state.
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


@dataclass(eq=False)
class Node:
    """One action and the state it leads to."""

    action: str = ""  # empty at the root
    prior: float = 1.0  # the policy's probability of the action among its siblings
    parent: Node | None = None
    state: State = None  # type: ignore[assignment]  # reached when the node is first visited
    children: list[Node] = field(default_factory=list)  # filled by `expand`
    visits: int = 0
    value: float = -math.inf  # the highest (discounted) reward of a rollout through here
    exhausted: bool = False  # nothing below is left to try


async def mcts(
    search: Search,
    *,
    rollouts: int = 10,
    c: float = 1.0,
    temperature: float = 1.0,
    width: int | None = None,
    gamma: float = 1.0,
    expand_terminal_siblings: bool = False,
    num_action_samples: int | None = None,
    max_branching_depth: int | None = None,
    llm_tokens: int | None = None,
    env_steps: int | None = None,
) -> PlanResult:
    """Up to `rollouts` finished trajectories; answers with the one the reward model likes most.

    `c` weighs exploration, `width` bounds the children of a node (None: all), `gamma` discounts a reward on its way up.
    `num_action_samples`: the children of a node are the distinct ones among so many draws of the policy, not all that
    are admissible: where there are hundreds, listing them costs more than drawing (None: list them).
    `max_branching_depth`: from that many actions on the tree no longer branches, a rollout draws one action after the
    other (None: it branches to the end).
    `expand_terminal_siblings`: with a finished trajectory, try the siblings of its last action too; they need no
    further LLM call.
    `llm_tokens`, `env_steps`: no new simulation after the first once that many were spent, or carried out.
    The paper's code has c = 4.5 * sqrt(2), width 10, depth 10, gamma 0.9, temperature 1.5 (0.7 on Game of 24).
    """
    async with search.batch.episode_slots:  # a simulator of its own until the search ends
        root = Node(state=search.episode.start())
        samples: list[Sample] = []
        low, high = math.inf, -math.inf
        tokens, steps = (math.inf if most is None else most for most in (llm_tokens, env_steps))
        while not samples or (
            len(samples) < rollouts and not root.exhausted and search.tokens < tokens and search.steps < steps
        ):
            leaf = await simulate(
                root, search, len(samples), c, temperature, (width, num_action_samples, max_branching_depth), low, high
            )
            leaves = [leaf, *last_siblings(leaf, search)] if expand_terminal_siblings else [leaf]
            rewards = await asyncio.gather(*(search.reward(node.state.trajectory) for node in leaves))
            for node, reward in list(zip(leaves, rewards))[: rollouts - len(samples)]:
                samples.append(Sample(node.state.trajectory, reward))
                low, high = min(low, reward), max(high, reward)
                backward(node, reward, gamma)
        search.episode.release()
        answer = best(samples)
        return search.result(samples, answer, to_dict(root, samples[answer].trajectory.actions))


async def simulate(
    root: Node,
    search: Search,
    k: int,
    c: float,
    temperature: float,
    children: tuple[int | None, int | None, int | None],
    low: float,
    high: float,
) -> Node:
    """Walk from `root` to a finished trajectory: by `select` as far as the tree reaches, by the policy beyond."""
    node, inside = root, True
    while not node.state.over:
        if not node.children:
            await expand(node, search, temperature, *children)
            inside = node is root
        if inside:
            node = select(node, c, low, high)
        else:
            rng = np.random.default_rng(derive_seed(search.seed, "simulate", k, len(node.state.trajectory.steps)))
            chances = np.array([child.prior for child in node.children])
            node = node.children[int(rng.choice(len(chances), p=chances / chances.sum()))]
        if node.parent and node.state is None:
            node.state = search.episode.step(node.parent.state, node.action)
    return node


def last_siblings(leaf: Node, search: Search) -> list[Node]:
    """The siblings of `leaf` that end the episode as it does and were not tried yet."""
    found: list[Node] = []
    for node in leaf.parent.children if leaf.parent else []:
        if node is not leaf and node.state is None:
            node.state = search.episode.step(leaf.parent.state, node.action)  # type: ignore[union-attr]
            if node.state.over:
                found.append(node)
    return found


def select(node: Node, c: float, low: float, high: float) -> Node:
    """The open child with the highest value + c * (prior * K) * sqrt(ln(visits of the parent)) / (1 + visits).

    K is the number of children: with equal priors this is the published rule. Values are scaled to [0, 1] by the lowest
    and highest reward seen in this search; a child never visited counts as the lowest.
    """

    def score(child: Node) -> float:
        value = (child.value - low) / (high - low) if child.visits and high > low else 0.0
        explore = math.sqrt(math.log(node.visits + 1)) / (1 + child.visits)
        return value + c * child.prior * len(node.children) * explore

    return max((child for child in node.children if not child.exhausted), key=score)


async def expand(
    node: Node,
    search: Search,
    temperature: float,
    width: int | None,
    num_action_samples: int | None,
    max_branching_depth: int | None,
) -> None:
    """Give `node` its children: the `width` actions the policy finds most probable in the node's own state, or all."""
    if max_branching_depth is not None and len(node.state.trajectory.actions) >= max_branching_depth:
        num_action_samples = 1
    choices = await search.act(node.state, temperature, "expand", *node.state.trajectory.actions, n=num_action_samples)
    if num_action_samples is None:
        weights = {choice.text: math.exp(choice.logprob) for choice in choices}
    else:
        weights = dict(Counter(choice.text for choice in choices))  # a server tells no probability of what it drew
    kept = sorted(weights, key=lambda action: -weights[action])[:width]
    total = sum(weights[action] for action in kept)
    node.children = [Node(action, weights[action] / total, node) for action in kept]


def backward(leaf: Node, reward: float, gamma: float) -> None:
    """Carry `reward` from `leaf` to the root: visits count up, values keep the maximum, finished branches close."""
    leaf.exhausted = True
    node: Node | None = leaf
    while node is not None:
        node.visits += 1
        node.value = max(node.value, reward)
        node.exhausted = node.exhausted or (bool(node.children) and all(child.exhausted for child in node.children))
        reward *= gamma
        node = node.parent


def to_dict(root: Node, answer: tuple[str, ...]) -> dict[str, Any]:
    """The visited part of the tree as plain data; the path to `answer` is marked `chosen`."""

    def draw(node: Node, path: tuple[str, ...] | None) -> dict[str, Any]:
        return {
            "action": node.action or None,
            "visits": node.visits,
            "value": node.value,
            "prior": node.prior,
            "chosen": path is not None,
            "children": [
                draw(child, path[1:] if path and child.action == path[0] else None)
                for child in node.children
                if child.visits
            ],
        }

    return draw(root, answer)


def tree_after(plan: PlanResult, rollouts: int, gamma: float = 1.0) -> dict[str, Any]:
    """The tree of `plan` as it stood after its first `rollouts` rollouts, the path of the last of them marked `chosen`.

    A search is a chain of `backward`: those of the first rollouts are done again on the nodes of the finished tree.
    `gamma` is the search's own. Raises ValueError where `plan` has no tree, or `gamma` does not lead to its values.
    """
    if plan.tree is None:
        raise ValueError(f"plan {plan.id!r} has no tree; only those of planner 'mcts' have one")

    def grow(drawn: dict[str, Any], parent: Node | None = None) -> Node:
        node = Node(drawn["action"] or "", drawn["prior"], parent)
        node.children = [grow(child, node) for child in drawn["children"]]
        return node

    root = grow(plan.tree)
    path: tuple[str, ...] = ()
    for k, sample in enumerate(plan.samples):
        if k == rollouts:
            return to_dict(root, path)
        node, path = root, sample.trajectory.actions
        for action in path:
            node = next(child for child in node.children if child.action == action)
        backward(node, sample.reward or 0.0, gamma)
    if not math.isclose(root.value, plan.tree["value"], rel_tol=1e-6, abs_tol=1e-6):
        was, now = plan.tree["value"], root.value
        raise ValueError(f"gamma={gamma} makes the root's value {now:.4f}, the search had {was:.4f}; give its gamma")
    return to_dict(root, path)
