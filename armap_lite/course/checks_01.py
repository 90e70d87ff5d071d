"""What the exercises of 01 · Environments ask for."""

from __future__ import annotations

import dataclasses
from typing import Any
from unittest import mock

from armap_lite.course import exercise, puzzle
from armap_lite.course.answers import WrongAnswerError, each, equal, expect, numbers, short
from armap_lite.envs.base import Environment
from armap_lite.envs.game24 import Game24
from armap_lite.trajectory import Observation, Trajectory

SOLVED = ("10 - 4 = 6", "6 * 5 = 30", "30 - 6 = 24")


@exercise("01-1")
def counts(answer: Any, given: Any) -> None:
    """two numbers: how many actions are admissible at the start of the puzzle, and how many after the step"""
    env, (four, step) = Game24(), given
    start, later = env.reset(puzzle(*four)), env.step(step)
    after = f"After it the numbers {later.text.removeprefix('left: ')} are left; actions there"
    numbers(answer, {"Before the first step": len(start.admissible), after: len(later.admissible)})


class Chatty(Game24):
    """Shows more than `Game24`, so that a trajectory tells which of the two it comes from."""

    def _observe(self, note: str = "") -> Observation:
        shown = super()._observe(note)
        return dataclasses.replace(shown, text=f"You see {shown.text}")


def refuse(*_: Any) -> Any:
    raise WrongAnswerError("You call the package's own `replay`; write it yourself: use `env.reset` and `env.step`.")


@exercise("01-2")
def replay(answer: Any) -> None:
    """`replay(env, task, actions)`: the trajectory of the actions from the start; it stops where the episode is over"""
    cases = {
        "Three steps that solve 4 5 6 10": (puzzle(4, 5, 6, 10), SOLVED),
        "No action at all": (puzzle(1, 2, 3, 4), ()),
        "An action that makes no sense, then a good one": (puzzle(1, 2, 3, 4), ("fly", "4 * 3 = 12")),
        "Two more actions after the end of the episode": (puzzle(4, 5, 6, 10), (*SOLVED, "24 + 1 = 25", "fly")),
    }
    for case, (task, actions) in cases.items():
        wanted = Chatty().replay(task, actions)
        with mock.patch.object(Environment, "replay", refuse):
            found = answer(Chatty(), task, actions)
        expect(isinstance(found, Trajectory), f"{case}: expected a Trajectory, found {short(found)}.")
        own = f"{case}: `env` is a world of its own, and begins {wanted.start!r}; found {found.start!r}. Use `env`."
        expect(found.start == wanted.start, own)
        equal(found.actions, wanted.actions, f"{case}: the actions in the trajectory")
        equal([s.observation for s in found.steps], [s.observation for s in wanted.steps], f"{case}: what was seen")
        equal(found, wanted, f"{case}: the whole trajectory")


@exercise("01-3")
def judged(answer: Any) -> None:
    """`score(env, trajectory)`: 1.0 where carrying out the actions really ends at `task.setup["target"]`, else 0.0"""
    env, task = Game24(), puzzle(4, 5, 6, 10)
    right, unfinished = env.replay(task, SOLVED), env.replay(task, SOLVED[:2])
    lie = dataclasses.replace(unfinished.steps[-1], observation="left: 24")
    to_36 = ("10 - 4 = 6", "6 * 5 = 30", "30 + 6 = 36")
    thirds = ("8 / 3 = 8/3", "3 - 8/3 = 1/3", "8 / 1/3 = 24")
    cases = {
        "A right trajectory": (right, 1.0),
        "One that ends at 36": (env.replay(task, to_36), 0.0),
        "One that ends at 36, where 36 is the target": (env.replay(puzzle(4, 5, 6, 10, target=36), to_36), 1.0),
        "One that ends at 224": (env.replay(task, ("10 * 5 = 50", "50 + 6 = 56", "56 * 4 = 224")), 0.0),
        "One that ends at 5/24": (env.replay(task, ("10 - 5 = 5", "6 * 4 = 24", "5 / 24 = 5/24")), 0.0),
        "One that stops before the last step": (unfinished, 0.0),
        "One without a step": (env.replay(task, ()), 0.0),
        "One that writes `left: 24` and did not get there": (
            dataclasses.replace(unfinished, steps=(*unfinished.steps[:-1], lie), done=True),
            0.0,
        ),
        "One that does get there by way of 1/3": (env.replay(puzzle(3, 3, 8, 8), thirds), 1.0),
    }
    each(lambda trajectory: answer(Game24(), trajectory), cases)


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
