"""Stage 5: customise the reward at inference, without training.

objective(trajectory) = learned reward - sum of weight * term(trajectory). Terms add up, so one can ask for short *and*
simple at once. `choose_answers` ranks stored samples again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from armap_lite.envs.base import Term
from armap_lite.planners.base import PlanResult
from armap_lite.storage.store import JsonlStore, read_jsonl
from armap_lite.trajectory import Trajectory

PLANNERS = ("best_of_n", "mcts")  # planners that choose among several samples


@dataclass(frozen=True)
class Objective:
    """The learned reward less weighted terms.

    >>> short = Objective() - 0.5 * Weighted(length)
    >>> simple = short - 1.0 * Weighted(actions_like(" / "))
    """

    terms: tuple[Weighted, ...] = ()

    def __call__(self, trajectory: Trajectory, learned: float) -> float:
        return learned - sum(part.weight * part.term(trajectory) for part in self.terms)

    def __sub__(self, other: Weighted) -> Objective:
        return Objective((*self.terms, other))


@dataclass(frozen=True)
class Weighted:
    """A term and its weight, in units of learned reward for one unit of the term."""

    term: Term
    weight: float = 1.0

    def __rmul__(self, factor: float) -> Weighted:
        return Weighted(self.term, factor * self.weight)


def choose_answers(
    plans: Sequence[PlanResult], terms: Mapping[str, Term], weights: Mapping[str, Sequence[float]], out: Path
) -> list[dict[str, Any]]:
    """For each plan of `PLANNERS`, each of `terms` and each of its `weights`: the best sample, written to `out`.

    Returns the lines. Samples and learned rewards are those of stage 4: nothing is trained or rolled out again.
    """
    cases = [(name, label, weight) for name in PLANNERS for label in terms for weight in weights[label]]
    with JsonlStore(out) as store:
        for planner, label, weight in cases:
            objective = Objective() - weight * Weighted(terms[label])
            for plan in (p for p in plans if p.planner == planner):
                key = f"{planner}/{label}/{weight}/{plan.task_id}"
                if key not in store.ids:
                    chosen = max(plan.samples, key=lambda s: objective(s.trajectory, s.reward or 0.0))
                    case = {"id": key, "planner": planner, "term": label, "weight": weight, "reward": chosen.reward}
                    cost = {"cost": terms[label](chosen.trajectory), "steps": len(chosen.trajectory.steps)}
                    store.append({**case, **cost, "trajectory": chosen.trajectory.to_json()})
    return list(read_jsonl(out))
