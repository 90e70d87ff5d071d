"""What the exercises of 01 · Environments ask for."""

import dataclasses
import random
from typing import Any
from unittest import mock

from armap_lite.course import exercise, puzzle
from armap_lite.course.answers import WrongAnswerError, equal, expect, numbers, short
from armap_lite.course.toys import four_numbers
from armap_lite.envs.base import Environment
from armap_lite.envs.game24 import Game24
from armap_lite.trajectory import Observation, Trajectory


def start(rng: random.Random) -> tuple[tuple[int, ...], str]:
    """Four numbers and a first step."""
    four = four_numbers(rng)
    return four, rng.choice(Game24().reset(puzzle(*four)).admissible)


@exercise("01-1", ((4, 5, 6, 10), "10 - 4 = 6"), start)
def counts(answer: Any, given: Any) -> None:
    """two numbers: how many actions are admissible at the start of the puzzle, and how many after the step"""
    env, (four, step) = Game24(), given
    first, later = env.reset(puzzle(*four)), env.step(step)
    after = f"After it the numbers {later.text.removeprefix('left: ')} are left; actions there"
    numbers(answer, {"Before the first step": len(first.admissible), after: len(later.admissible)})


class Chatty(Game24):
    """Shows more than `Game24`, so that a trajectory tells which of the two it comes from."""

    def _observe(self, note: str = "") -> Observation:
        shown = super()._observe(note)
        return dataclasses.replace(shown, text=f"You see {shown.text}")


@exercise("01-2")
def replay(answer: Any, cases: Any) -> None:
    """`replay(env, task, actions)`: the trajectory of the actions from the start; it stops where the episode is over"""
    cheat = WrongAnswerError("You call the package's own `replay`; write it yourself: use `env.reset` and `env.step`.")
    for case, (four, actions) in cases.items():
        task = puzzle(*four)
        wanted = Chatty().replay(task, actions)
        with mock.patch.object(Environment, "replay", side_effect=cheat):
            found = answer(Chatty(), task, tuple(actions))
        expect(isinstance(found, Trajectory), f"{case}: expected a Trajectory, found {short(found)}.")
        own = f"{case}: `env` is a world of its own, and begins {wanted.start!r}; found {found.start!r}. Use `env`."
        expect(found.start == wanted.start, own)
        equal(found.actions, wanted.actions, f"{case}: the actions in the trajectory")
        equal([s.observation for s in found.steps], [s.observation for s in wanted.steps], f"{case}: what was seen")
        equal(found, wanted, f"{case}: the whole trajectory")


@exercise("01-3")
def judged(answer: Any, cases: Any) -> None:
    """`score(env, trajectory)`: 1.0 where carrying out the actions really ends at `task.setup["target"]`, else 0.0"""
    for case, (four, target, actions, wanted) in cases.items():
        equal(answer(Game24(), Game24().replay(puzzle(*four, target=target), actions)), wanted, case)
    unfinished = Game24().replay(puzzle(4, 5, 6, 10), ("10 - 4 = 6", "6 * 5 = 30"))
    claim = dataclasses.replace(unfinished.steps[-1], observation="left: 24")
    lie = dataclasses.replace(unfinished, steps=(*unfinished.steps[:-1], claim), done=True)
    equal(answer(Game24(), lie), 0.0, "One that writes `left: 24` and did not get there")
    early = Game24().replay(puzzle(4, 5, 6, 10), ("6 * 4 = 24",))
    equal(answer(Game24(), early), 0.0, "One that reaches 24 with numbers left")
    right = Game24().replay(puzzle(4, 5, 6, 10), ("10 - 4 = 6", "6 * 5 = 30", "30 - 6 = 24"))
    wrong = dataclasses.replace(right.steps[-1], action="30 + 6 = 24")
    sum_lie = dataclasses.replace(right, steps=(*right.steps[:-1], wrong))
    equal(answer(Game24(), sum_lie), 0.0, "One whose last action miscounts")


@exercise("01-4")
def solutions(answer: Any) -> None:
    """`solutions(env, task)`: a list of all sequences of admissible actions that end at the target, each a tuple"""
    counted = {(3, 3, 8, 8, 24): 1, (2, 3, 4, 24): 3, (4, 6, 24): 1, (1, 1, 1, 1, 24): 0, (2, 3, 6, 12): 2}
    for (*start, target), n in counted.items():
        env, task = Game24(), puzzle(*start, target=target)
        found = answer(Game24(), task)
        expect(isinstance(found, list), f"Expected a list, found {found!r}.")
        found = [tuple(actions) for actions in found]
        for actions in found:
            end = env.replay(task, actions)
            expect(end.done and end.steps[-1].observation == f"left: {target}", f"{actions} does not end at {target}.")
        equal(len(set(found)), n, f"{start} to {target}: different sequences")
        equal(len(found), n, f"{start} to {target}: sequences, each of them once")
