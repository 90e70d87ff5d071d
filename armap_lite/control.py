"""Stage 5: customise the reward at inference, without training anything again.

objective(trajectory) = learned reward - sum of weight * term(trajectory). Terms add up, so one can ask for short *and*
simple at once. A planner takes an objective as it takes a reward.
"""

from __future__ import annotations

from dataclasses import dataclass

from armap_lite.envs.base import Term
from armap_lite.trajectory import Trajectory


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
