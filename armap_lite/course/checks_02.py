"""What the exercises of 02 · Collect trajectories ask for."""

import math
import random
from collections.abc import Sequence
from typing import Any
from unittest import mock

from armap_lite.course import exercise, puzzle, random_trajectory
from armap_lite.course.answers import WrongAnswerError, equal, expect, numbers, replayable
from armap_lite.course.toys import four_numbers
from armap_lite.envs.game24 import Game24
from armap_lite.trajectory import Observation, transcript

WAYS = (
    ("4 * 3 = 12", "12 * 2 = 24", "24 * 1 = 24"),
    ("3 * 2 = 6", "6 * 4 = 24", "24 * 1 = 24"),
    ("4 + 3 = 7", "7 * 2 = 14", "14 + 1 = 15"),
    ("4 * 3 = 12", "12 * 2 = 24", "24 * 1 = 24"),
    ("4 - 3 = 1", "2 - 1 = 1", "1 - 1 = 0"),
    ("4 - 2 = 2", "3 - 1 = 2", "2 - 2 = 0"),
)


def walks(rng: random.Random) -> tuple[tuple[int, ...], tuple[tuple[str, ...], ...]]:
    """Four numbers and six walks, one or two of them repeated."""
    four = four_numbers(rng)
    ways = [random_trajectory(Game24(), puzzle(*four), rng).actions for _ in range(rng.randint(4, 5))]
    ways += rng.sample(ways, 6 - len(ways))
    return four, tuple(rng.sample(ways, 6))


@exercise("02-1", ((1, 2, 3, 4), WAYS), walks)
def kept_and_ends(answer: Any, given: Any) -> None:
    """two numbers: how many of the six walks stage 1 keeps, and how many different ends they come to"""
    kept, ends = set(given[1]), {actions[-1].split(" = ")[1] for actions in given[1]}
    numbers(answer, {"Trajectories kept (an exact repeat is left out)": len(kept), "Different ends": len(ends)})


@exercise("02-2")
def with_temperature(answer: Any) -> None:
    """`with_temperature(logprobs, temperature)`: the probabilities P_T, as a list, of choices with these `logprob`"""
    logs = [math.log(p) for p in (0.6, 0.3, 0.1)]
    roots = [math.sqrt(p) for p in (0.6, 0.3, 0.1)]
    found = answer(given := list(logs), 1.0)
    equal(found, [0.6, 0.3, 0.1], "T = 1 leaves probabilities that add up to one as they are")
    expect(given == logs, f"Your function changed the list that it was given to {given}; make a new one.")
    equal(answer(logs, 2.0), [r / sum(roots) for r in roots], "T = 2 takes square roots")
    equal(answer([math.log(0.02), math.log(0.06)], 1.0), [0.25, 0.75], "0.02 and 0.06 are to add up to one")
    equal(answer(logs, 1e9), [1 / 3] * 3, "A very high T makes all alike")
    equal(answer(logs, 0.01), [1.0, 0.0, 0.0], "A very low T leaves the favourite alone")
    equal(answer([-2000.0, -2000.0], 1.0), [0.5, 0.5], "exp(-2000) is 0 for a computer; take the highest off first")
    equal(answer([-2000.0, -1.0], 1.0), [0.0, 1.0], "One very low, one high; take the highest off, not another one")


@exercise("02-3")
def sides(answer: Any) -> None:
    """`sides(probabilities)`: the number of sides of a fair die with the same entropy"""
    for k in (1, 2, 6, 30):
        equal(answer([1 / k] * k), k, f"{k} choices, all equally likely")
    equal(answer([0.5, 0.25, 0.25]), 2 * math.sqrt(2), "One half and two quarters")
    equal(answer([0.25, 0.5, 0.25]), 2 * math.sqrt(2), "The same in another order")
    equal(answer([0.5, 0.0, 0.5]), 2, "A choice with probability 0 changes nothing (0 ln 0 counts as 0)")


class DeadEnd(Game24):
    """A wall after the first step: not over, and nothing left to do."""

    def step(self, action: str) -> Observation:
        self.admissible = lambda: ()  # type: ignore[method-assign]
        return Observation("a wall")


@exercise("02-4")
def rollout(answer: Any) -> None:
    """`rollout(env, task, policy)`: one trajectory; `policy(transcript(so far), admissible)` picks each action"""
    asked: list[tuple[str, tuple[str, ...]]] = []

    def middle(prompt: str, admissible: Sequence[str]) -> str:
        expect(admissible, "The policy was asked to choose among no actions: stop where nothing is admissible.")
        asked.append((prompt, tuple(admissible)))
        return admissible[len(admissible) // 2]

    for four in ((4, 5, 6, 10), (3, 3, 8, 8)):
        asked.clear()
        env, task = Game24(), puzzle(*four)
        found = answer(Game24(), task, middle)
        replayable(found, env, task, f"{four}")
        seen = [env.replay(task, found.actions[:i]) for i in range(3)]
        equal([prompt for prompt, _ in asked], [transcript(t) for t in seen], f"{four}: the prompts")
        offered = [env.replay(task, t.actions) and env.admissible() for t in seen]
        equal([admissible for _, admissible in asked], offered, f"{four}: the actions that were offered")
    endless, case = Game24(), "A world that never ends, with env.max_steps = 4"
    endless.max_steps = 4
    stop = WrongAnswerError(f"{case}: you did 25 steps and would go on.")
    walking = [Observation("still here", ("walk", "run"))] * 24
    with mock.patch.object(endless, "step", side_effect=[*walking, stop]):
        equal(len(answer(endless, puzzle(1, 2), middle).steps), 4, f"{case}: steps")
    short = answer(DeadEnd(), puzzle(1, 2), middle)
    equal(len(short.steps), 1, "A world with nothing admissible after a step: steps")
