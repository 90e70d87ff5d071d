"""Stage 5: customise the reward at inference, without training anything again.

objective(trajectory) = learned reward - sum of weight * term(trajectory). Terms add up, so one can ask for short *and*
simple at once. A planner takes an objective as it takes a reward.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from armap_lite.envs.webshop import price_paid
from armap_lite.trajectory import Trajectory

Term = Callable[[Trajectory], float]


def length(trajectory: Trajectory) -> float:
    """Number of actions."""
    return float(len(trajectory.steps))


def actions_like(pattern: str) -> Term:
    """A term that counts the actions in which the regular expression `pattern` occurs."""
    compiled = re.compile(pattern)
    return lambda trajectory: float(sum(bool(compiled.search(action)) for action in trajectory.actions))


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


def price(trajectory: Trajectory) -> float:
    """What a web shop was paid, in hundreds of dollars, up to 5; and 5 for nothing bought.

    Nothing that this package's shop sells costs as much. In another one, what is dearer counts no more than not buying:
    otherwise a large weight would rather not buy at all.
    """
    paid = price_paid(trajectory)
    return 5.0 if paid is None else min(paid / 100, 5.0)


# What there is to control in each environment: names for an axis, and terms. Elsewhere: the number of actions.
TERMS: dict[str, dict[str, Term]] = {
    # Every finished puzzle has three steps, so length decides nothing here; which arithmetic it takes does.
    "game24": {"multiplications and divisions": actions_like(r" [*/] ")},
    "webshop": {"price paid, in 100 $": price, "actions": length},
}


# Several wishes in one term, so that one weight asks for all of them.
MIXED: dict[str, dict[str, Term]] = {
    "webshop": {"price and 10 $ an action, in 100 $": lambda trajectory: price(trajectory) + length(trajectory) / 10},
}


def terms(env: str) -> dict[str, Term]:
    """The terms worth controlling in environment `env`, by name; the first is the one that figures show."""
    return TERMS.get(env, {"actions": length})
