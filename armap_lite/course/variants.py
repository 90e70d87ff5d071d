"""The numbers of the first exercises: for each seed others, for exams. Seed 0 has those of the notebooks."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from armap_lite.course.toys import puzzle, random_trajectory
from armap_lite.envs.game24 import Game24

WAYS = (
    ("4 * 3 = 12", "12 * 2 = 24", "24 * 1 = 24"),
    ("3 * 2 = 6", "6 * 4 = 24", "24 * 1 = 24"),
    ("4 + 3 = 7", "7 * 2 = 14", "14 + 1 = 15"),
    ("4 * 3 = 12", "12 * 2 = 24", "24 * 1 = 24"),
    ("4 - 3 = 1", "2 - 1 = 1", "1 - 1 = 0"),
    ("4 - 2 = 2", "3 - 1 = 2", "2 - 2 = 0"),
)
FIRST: dict[str, Any] = {
    "00-1": ((1.3, 0.0), (2.2, 0.75), (-0.4, 1.0), (0.9, 0.5), (-1.7, 0.0), (0.1, 0.0)),
    "01-1": ((4, 5, 6, 10), "10 - 4 = 6"),
    "02-1": ((1, 2, 3, 4), WAYS),
    "03-1": ((4, 5, 6, 10), ("10 - 4 = 6", "6 * 5 = 30", "30 + 6 = 36")),
    "04-1": ((2.0, 0.5, -1.0, 3.0, 0.0, 1.5), (1.0, 0.7, -3.0, -2.0, 0.0, 1.4)),
    "05-1": (-1.2, 0.4, -0.3, 2.1, 0.4, 2.1, -2.0, 1.0),
    "06-1": {"A": (3.0, 3), "B": (2.4, 1), "C": (0.5, 0)},
    "07-1": {"mean": 0.10, "selected": 0.34, "oracle": 0.42},
    "08-1": (6, 3),
}


def variant(id: str, seed: int = 0) -> Any:
    """What exercise `id` is about, drawn from `seed`. Raises KeyError for an exercise without variants."""
    return DRAW[id](random.Random(f"{id}/{seed}")) if seed else FIRST[id]


def _scored(rng: random.Random) -> tuple[tuple[float, float], ...]:
    """(reward, true score) of six attempts."""
    rewards = rng.sample(range(-20, 30), 6)
    return tuple((reward / 10, rng.choice((0.0, 0.25, 0.5, 0.75, 1.0))) for reward in rewards)


def _numbers(rng: random.Random) -> tuple[int, ...]:
    return tuple(sorted(rng.randint(2, 9) for _ in range(4)))


def _start(rng: random.Random) -> tuple[tuple[int, ...], str]:
    """Four numbers and a first step."""
    four = _numbers(rng)
    return four, rng.choice(Game24().reset(puzzle(*four)).admissible)


def _walks(rng: random.Random) -> tuple[tuple[int, ...], tuple[tuple[str, ...], ...]]:
    """Four numbers and six walks, one or two of them repeated."""
    four = _numbers(rng)
    ways = [random_trajectory(Game24(), puzzle(*four), rng).actions for _ in range(rng.randint(4, 5))]
    ways += rng.sample(ways, 6 - len(ways))
    return four, tuple(rng.sample(ways, 6))


def _failed(rng: random.Random) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Four numbers and a walk to something else than 24 that one can ask for."""
    while True:
        walk = random_trajectory(Game24(), puzzle(*_numbers(rng)), rng)
        if Game24.hindsight.achieved(walk).get("result") not in (None, "0", "24"):
            return tuple(walk.task.setup["numbers"]), walk.actions


def _rewards_of_pairs(rng: random.Random) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The rewards of both sides of six pairs, one of them a tie."""
    chosen = [round(rng.uniform(-2, 3), 1) for _ in range(6)]
    rejected = [round(plus - rng.choice((-2.0, -0.4, 0.1, 0.6, 3.0)), 1) for plus in chosen]
    at = rng.randrange(6)
    rejected[at] = chosen[at]
    return tuple(chosen), tuple(rejected)


def _eight_rewards(rng: random.Random) -> tuple[float, ...]:
    """The first is below 0, and the highest of all comes twice."""
    rewards = [round(rng.uniform(-2, 2), 1) for _ in range(8)]
    rewards[0] = -round(rng.uniform(0.5, 2), 1)
    for at in rng.sample(range(1, 8), 2):
        rewards[at] = 2.1
    return tuple(rewards)


def _attempts(rng: random.Random) -> dict[str, tuple[float, int]]:
    """Three (reward, term), each of them the best for one of the weights 0, 0.5 and 3."""
    best = round(rng.uniform(2.6, 3.4), 1)
    three = [(best, 3), (round(best - rng.uniform(0.2, 0.8), 1), 1), (round(rng.uniform(0.3, 0.7), 1), 0)]
    return dict(zip("ABC", rng.sample(three, 3), strict=True))


def _bounds(rng: random.Random) -> dict[str, float]:
    mean, selected, oracle = sorted(rng.sample(range(5, 90), 3))
    return {"mean": mean / 100, "selected": selected / 100, "oracle": oracle / 100}


def _bag(rng: random.Random) -> tuple[int, int]:
    """Things on the table, and how many of them go into the bag."""
    return rng.randint(5, 9), rng.randint(2, 4)


DRAW: dict[str, Callable[[random.Random], Any]] = {
    "00-1": _scored,
    "01-1": _start,
    "02-1": _walks,
    "03-1": _failed,
    "04-1": _rewards_of_pairs,
    "05-1": _eight_rewards,
    "06-1": _attempts,
    "07-1": _bounds,
    "08-1": _bag,
}
