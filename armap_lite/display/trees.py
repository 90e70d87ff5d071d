"""Search trees as they grew, for figures and widgets."""

from __future__ import annotations

import math
from typing import Any

from armap_lite.planners.base import PlanResult
from armap_lite.planners.mcts import Node, backward, to_dict


def tree_after(plan: PlanResult, rollouts: int, gamma: float = 1.0) -> dict[str, Any]:
    """The tree of `plan` after its first `rollouts` rollouts, with the path of the last of them marked `chosen`.

    The `backward` of each of these rollouts is repeated on the nodes of the finished tree. `gamma` is the search's own.
    Raises ValueError if `plan` has no tree, or `gamma` does not lead to its values.
    """
    if plan.tree is None:
        raise ValueError(f"plan {plan.id!r} has no tree; only those of planner 'mcts' have one")
    root, tree = _unvisited(plan.tree), None
    path: tuple[str, ...] = ()
    for k, sample in enumerate(plan.samples):
        tree = to_dict(root, path) if k == rollouts else tree
        node, path = root, sample.trajectory.actions
        for action in path:
            node = next(child for child in node.children if child.action == action)
        backward(node, sample.reward or 0.0, gamma)
    if not math.isclose(root.value, plan.tree["value"], rel_tol=1e-6, abs_tol=1e-6):
        was, now = plan.tree["value"], root.value
        raise ValueError(f"gamma={gamma} makes the root's value {now:.4f}, the search had {was:.4f}; give its gamma")
    return tree or to_dict(root, path)


def _unvisited(drawn: dict[str, Any], parent: Node | None = None) -> Node:
    """The nodes of a drawn tree, without visits and values."""
    node = Node(drawn["action"] or "", drawn["prior"], parent)
    node.children = [_unvisited(child, node) for child in drawn["children"]]
    return node
