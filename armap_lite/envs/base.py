"""The contract that every environment keeps, and the judge that stands apart from it."""

from __future__ import annotations

import random
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

from armap_lite.envs.hindsight import Hindsight
from armap_lite.envs.prompts import Example
from armap_lite.trajectory import Observation, Task, Trajectory

Term = Callable[[Trajectory], float]  # a cost of a trajectory that control can weigh against its reward


class SimulatorError(RuntimeError):
    """The simulator broke off in mid-episode (a dead JVM, say). What was done is kept, and counted as a failure."""


def actions_like(pattern: str) -> Term:
    """A term that counts the actions in which the regular expression `pattern` occurs."""
    return lambda trajectory: float(sum(bool(re.search(pattern, action)) for action in trajectory.actions))


length = actions_like("")  # the number of actions: the empty pattern occurs in each


class Part(NamedTuple):
    """One line of a page that a person plays on: text, then buttons, then text; or an entry for free text."""

    before: str = ""
    actions: tuple[tuple[str, str], ...] = ()  # (label, action): a button each, disabled where not admissible
    after: str = ""
    strong: bool = False  # the text stands out
    entry: tuple[str, str] | None = None  # (label, action with {} where the typed words go), e.g. "search[{}]"


class Environment(AbstractContextManager["Environment"]):
    """A world an agent acts in. It shows text and pictures; it never shows a reward.

    A context manager: leaving it ends every process that it started. A state is a task and the actions taken so far.
    """

    name: str
    version: str
    metric: str  # what the judge's score means, e.g. "success"
    max_steps: int  # of a task that does not say otherwise (`Task.max_steps`)
    guide: str  # one line on how to act, at the head of the agent's prompt
    terms: Mapping[str, Term] = {"actions": length}  # what control can weigh, by name; figures show the first
    hindsight: Hindsight | None = None  # what looks back at trajectories; None: a language model does
    look_back_examples: Sequence[Example] = ()  # of this world, for that language model (`prompts.example` makes one)
    variable_length: bool = True  # a changed trajectory may pass over old actions: see `synthesize.change`
    max_concurrent_episodes: int = 1000  # so many can run at once without one being replayed for another
    decoding: str = "sequence"  # or "token": how the policy chooses here: see `LanguageModel.choose`
    allow_repeats: bool = False  # list, for people, also what was done before in the same place
    at: object = None  # where the live simulation stands; kept by `Episode`, cleared by `reset`

    @abstractmethod
    def tasks(self, split: str) -> list[Task]:
        """The tasks of "train", "dev" or "test", always in the same order; the splits are disjoint."""

    @abstractmethod
    def reset(self, task: Task) -> Observation:
        """Start `task` afresh and show its first observation."""

    @abstractmethod
    def step(self, action: str) -> Observation:
        """Do `action`. One that the environment does not understand changes nothing and says so."""

    @abstractmethod
    def admissible(self) -> tuple[str, ...]:
        """Actions that do something in the current state; empty when the episode is over."""

    def examples(self) -> list[tuple[Task, tuple[str, ...]]]:
        """Worked examples to act by: training tasks and the actions that do them. None by default."""
        return []

    def draw(self, n: int, seed: int) -> list[Task]:
        """`n` training tasks at random, or all there are."""
        tasks = self.tasks("train")
        return random.Random(seed).sample(tasks, min(n, len(tasks)))

    def replay(self, task: Task, actions: Sequence[str]) -> Trajectory:
        """Carry out `actions` from the start of `task`; stops where the episode is over."""
        self.at = None
        trajectory = Trajectory.begin(task, self.reset(task))
        for action in actions:
            if trajectory.done:
                break
            trajectory = trajectory.then(action, self.step(action))
        return trajectory

    def page(self, trajectory: Trajectory, admissible: Sequence[str]) -> list[Part] | None:
        """The last observation as lines with buttons, for people (other actions follow); None: a table of all steps."""
        return None

    def fork(self) -> Environment:
        """An environment of the same kind to run beside this one; by default this one, which then replays more."""
        return self

    def release(self) -> None:
        """The episode is over, or will be replayed: what a fork holds for it may serve others."""

    def close(self) -> None:
        """End whatever was started. Safe to call twice."""

    def __exit__(self, *exc: object) -> None:
        self.close()


class Judge(ABC):
    """The true score. Only the final evaluation may ask; nothing that learns or plans can reach it."""

    @abstractmethod
    def score(self, trajectory: Trajectory) -> float:
        """The score of `trajectory` in [0, 1], found by replaying its actions, not by believing its text."""

    def close(self) -> None:
        """End whatever was started. Safe to call twice."""
