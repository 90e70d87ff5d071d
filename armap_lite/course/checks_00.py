"""What the exercise of 00 · Start here asks for."""

import random
from typing import Any

from armap_lite.course import exercise
from armap_lite.course.answers import numbers


def attempts(rng: random.Random) -> tuple[tuple[float, float], ...]:
    """(reward, true score) of six attempts."""
    rewards = rng.sample(range(-20, 30), 6)
    return tuple((reward / 10, rng.choice((0.0, 0.25, 0.5, 0.75, 1.0))) for reward in rewards)


@exercise("00-1", ((1.3, 0.0), (2.2, 0.75), (-0.4, 1.0), (0.9, 0.5), (-1.7, 0.0), (0.1, 0.0)), attempts)
def choice(answer: Any, given: Any) -> None:
    """three numbers: the true score of the answer, of a random attempt on average, and of the best attempt"""
    golds = [gold for _, gold in given]
    wanted = {
        "The answer (the attempt with the highest reward)": max(given)[1],
        "A random attempt, on average": sum(golds) / len(golds),
        "The best attempt": max(golds),
    }
    numbers(answer, wanted)
