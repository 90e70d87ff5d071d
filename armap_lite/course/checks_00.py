"""What the exercise of 00 · Start here asks for."""

from __future__ import annotations

from typing import Any

from armap_lite.course import exercise
from armap_lite.course.answers import numbers


@exercise("00-1")
def choice(answer: Any, given: Any) -> None:
    """three numbers: the true score of the answer, of a random attempt on average, and of the best attempt"""
    golds = [gold for _, gold in given]
    wanted = {
        "The answer (the attempt with the highest reward)": max(given)[1],
        "A random attempt, on average": sum(golds) / len(golds),
        "The best attempt": max(golds),
    }
    numbers(answer, wanted)
