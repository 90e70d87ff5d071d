"""What the exercises of 06 · Control ask for."""

import random
from numbers import Real
from typing import Any

import numpy as np

from armap_lite.control import Objective, Weighted
from armap_lite.course import exercise, puzzle
from armap_lite.course.answers import as_list, equal, expect
from armap_lite.envs.game24 import Game24


def attempts(rng: random.Random) -> dict[str, tuple[float, int]]:
    """Three (reward, term), each of them the best for one of the weights 0, 0.5 and 3."""
    best = round(rng.uniform(2.6, 3.4), 1)
    three = [(best, 3), (round(best - rng.uniform(0.2, 0.8), 1), 1), (round(rng.uniform(0.3, 0.7), 1), 0)]
    return dict(zip("ABC", rng.sample(three, 3), strict=True))


@exercise("06-1", {"A": (3.0, 3), "B": (2.4, 1), "C": (0.5, 0)}, attempts)
def winners(answer: Any, given: Any) -> None:
    """three letters: the attempt with the highest objective for the weights 0, 0.5 and 3"""
    letters = as_list(list(answer) if isinstance(answer, str) else answer, 3)
    reward, term = given["A"]
    for found, weight in zip(letters, (0, 0.5, 3)):
        wanted = max(given, key=lambda name: given[name][0] - weight * given[name][1])
        sums = f"its objective is lower than another one's (that of A is {reward} - {weight} * {term})"
        expect(str(found).strip().upper() == wanted, f"λ = {weight}: not {found!r}; {sums}.")


@exercise("06-2")
def largest(answer: Any, cases: Any) -> None:
    """`largest(trajectory)`: the largest size (without sign) of what a step came to; 0.0 without steps"""
    found = [Game24().replay(puzzle(4, 5, 6, 10), actions) for actions, _ in cases]
    for walk, (actions, wanted) in zip(found, cases):
        equal(answer(walk), wanted, "; ".join(actions) or "No step")
    objective = Objective() - 0.1 * Weighted(answer)
    _, calm, wild, _ = found
    equal(objective(wild, 2.0), 2.0 - 6.1, "Reward 2.0 less 0.1 times your term, for the walk by way of 60")
    expect(objective(calm, 1.0) > objective(wild, 2.0), "The term should make the calm walk win.")


@exercise("06-3")
def tipping(answer: Any) -> None:
    """`tipping(best, cheap)`, each (reward, term): the weight above which `cheap` wins; None where it never does"""
    rng = random.Random(0)
    for _ in range(20):
        best = (rng.uniform(0, 4), rng.randint(2, 6))
        cheap = (best[0] - rng.uniform(0.1, 3), rng.randint(0, best[1] - 1))
        at = answer(best, cheap)
        expect(isinstance(at, (Real, np.floating)), f"best = {best}, cheap = {cheap}: expected a number, found {at!r}.")
        for weight, wins in ((at * 0.99, best), (at * 1.01, cheap)):
            found = max((best, cheap), key=lambda one: one[0] - weight * one[1])
            expect(found == wins, f"best = {best}, cheap = {cheap}: at λ = {weight:.3f} the winner should be {wins}.")
    for cheap in ((1.0, 3), (1.0, 5)):
        expect(answer((2.0, 3), cheap) is None, f"best = (2.0, 3), cheap = {cheap} is not cheaper: expected None.")


@exercise("06-4")
def frontier(answer: Any) -> None:
    """`frontier(points)`, each (cost, reward): those that no other point beats, each once, from cheap to dear"""
    rng = random.Random(1)
    cases = [
        [(1.0, 1.0), (2.0, 3.0), (3.0, 2.0)],
        [(1.0, 1.0), (1.0, 2.0), (2.0, 2.0)],
        [(2.0, 5.0), (2.0, 5.0), (1.0, 4.0)],
        [(0.0, -1.0)],
        *([(float(rng.randint(0, 9)), float(rng.randint(0, 9))) for _ in range(15)] for _ in range(20)),
    ]
    for points in cases:
        beaten = {p for p in points if any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in points)}
        wanted = sorted(set(points) - beaten)
        found = answer(list(points))
        expect(isinstance(found, (list, tuple)), f"Expected a list from cheap to dear, found a {type(found).__name__}.")
        equal(found, wanted, f"The points {points}")
