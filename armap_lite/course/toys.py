"""Small things to try exercises on: puzzles of any numbers, a random player, a toy reward model, half a world."""

import dataclasses
import functools
import math
import random
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from armap_lite.envs.base import Environment
from armap_lite.envs.game24 import Game24, instruction
from armap_lite.envs.hindsight import Goal, Hindsight
from armap_lite.episode import Episode
from armap_lite.synthesize import change
from armap_lite.trajectory import Task, Trajectory


def puzzle(*numbers: int, target: int = 24) -> Task:
    """A Game of 24 task of any numbers."""
    name = "-".join(map(str, (*numbers, target)))
    return Task(name, "game24", "train", instruction(numbers, target), {"numbers": list(numbers), "target": target})


def four_numbers(rng: random.Random) -> tuple[int, ...]:
    """The numbers of a puzzle."""
    return tuple(sorted(rng.randint(2, 9) for _ in range(4)))


def random_trajectory(env: Environment, task: Task, rng: random.Random) -> Trajectory:
    """What a player who knows nothing does: any admissible action with the same chance."""
    episode = Episode(env, task)
    state = episode.start()
    while not state.over:
        state = episode.step(state, rng.choice(state.admissible))
    return state.trajectory


def step_results(trajectory: Trajectory) -> list[Fraction]:
    """The number each step of a Game of 24 came to."""
    return [Fraction(action.split(" = ")[1]) for action in trajectory.actions]


@functools.cache
def toy_reward(n_pairs: int = 100, seed: int = 0) -> tuple[Callable[[Trajectory], float], float]:
    """A reward model of three weights for the Game of 24, and its accuracy on as many other pairs, in half a second.

    It counts how often the target comes up in the steps, and how many fractions; it knows the size of the largest
    number, and nothing about the order of things. Trained by the pairwise loss on pairs as stage 2 makes them.
    """
    env, hindsight, rng = Game24(), Game24.hindsight, random.Random(seed)

    def features(trajectory: Trajectory) -> np.ndarray:
        target, values = (hindsight.parse(trajectory.task.instruction) or {}).get("result"), step_results(trajectory)
        hits = sum(str(value) == target for value in values)
        fractions = sum(value.denominator > 1 for value in values)
        return np.array([hits, fractions, math.log1p(max(map(abs, values), default=0))])  # [3]

    gaps: list[np.ndarray] = []  # [2 n_pairs][3]: features of chosen less those of rejected
    while len(gaps) < 2 * n_pairs:
        walk = random_trajectory(env, puzzle(*(rng.randint(1, 13) for _ in range(4))), rng)
        goal, other = hindsight.achieved(walk), change(env, walk, rng)
        if goal and other:
            task = dataclasses.replace(walk.task, instruction=hindsight.to_text(goal))
            gaps.append(np.subtract(*(features(dataclasses.replace(t, task=task)) for t in (walk, other))))
    learned, held_out = np.array(gaps[:n_pairs]), np.array(gaps[n_pairs:])
    weights = np.zeros(3)
    for _ in range(300):
        weights += learned.T @ (1 / (1 + np.exp(learned @ weights))) / n_pairs  # a step down the pairwise loss
    return lambda trajectory: float(features(trajectory) @ weights), float((held_out @ weights > 0).mean())


LAMPS = ("blue", "green", "red", "white")


class LampHindsight(Hindsight):
    """A goal is `{"lit": "blue red"}`: the lamps that are lit at the end."""

    few_shot = (
        ({"lit": "blue green red"}, "Light the red, the green and the blue lamp."),
        ({"lit": "white"}, "Only the white lamp should be lit in the end."),
        ({"lit": "blue red white"}, "Make it white, blue and red."),
    )

    def achieved(self, trajectory: Trajectory) -> Goal:
        return {"lit": trajectory.steps[-1].observation.removeprefix("lit: ")} if trajectory.done else {}

    def to_text(self, goal: Goal) -> str:
        return f"Light these lamps and no other: {goal['lit']}."

    def parse(self, instruction: str) -> Goal | None:
        found = [lamp for lamp in LAMPS if lamp in instruction.lower()]
        return {"lit": " ".join(found)} if found else None


class LampsBase(Environment):
    """Four lamps, off at first, each with a switch; three switches, and the episode is over. The tasks are here:
    `reset`, `step` and `admissible`, the world itself, are exercise 08-4."""

    name, version, metric, max_steps = "lamps", "1", "right lamps", 3
    guide = "Switch lamps on or off, three times."
    hindsight: Hindsight = LampHindsight()

    def tasks(self, split: str) -> list[Task]:
        wanted = [[lamp] for lamp in LAMPS] + [[other for other in LAMPS if other != lamp] for lamp in LAMPS]
        mine = {"train": wanted[::2], "dev": wanted[1::4], "test": wanted[3::4]}[split]
        return [self._task(f"{split}-{i}", split, " ".join(lamps)) for i, lamps in enumerate(mine)]

    def _task(self, name: str, split: str, lit: str) -> Task:
        return Task(name, self.name, split, self.hindsight.to_text({"lit": lit}), {"lit": lit})

    def examples(self) -> list[tuple[Task, tuple[str, ...]]]:
        return [(self._task("example", "train", "blue green red"), ("switch red", "switch green", "switch blue"))]
