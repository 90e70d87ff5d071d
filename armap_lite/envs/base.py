"""The contracts of environments and of judges."""

from __future__ import annotations

import random
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

from armap_lite.envs.hindsight import Hindsight
from armap_lite.envs.page import Part
from armap_lite.envs.prompts import Example
from armap_lite.trajectory import Observation, Task, Trajectory

Term = Callable[[Trajectory], float]  # a cost of a trajectory that control can weigh against its reward


class SimulatorError(RuntimeError):
    """The simulator failed in mid-episode (e.g. its JVM died). The trajectory so far is kept, as a failure."""


def actions_like(pattern: str) -> Term:
    """A term that counts the actions in which the regular expression `pattern` occurs."""
    return lambda trajectory: float(sum(bool(re.search(pattern, action)) for action in trajectory.actions))


length = actions_like("")  # the number of actions: each contains the empty pattern


class Environment(AbstractContextManager["Environment"]):
    """A world that an agent acts in. It shows text and pictures, never a reward.

    A context manager: leaving it ends all processes that it started. A state is a task and the actions taken so far.
    """

    name: str
    version: str
    metric: str  # what the judge's score means, e.g. "success"
    max_steps: int  # of a task without `Task.max_steps`
    guide: str  # one line on how to act, the start of the agent's prompt
    terms: Mapping[str, Term] = {"actions": length}  # what control can weigh, by name; figures show the first
    hindsight: Hindsight | None = None  # reads what a trajectory achieved; None: `LLMHindsight` does
    look_back_examples: Sequence[Example] = ()  # for `LLMHindsight`, made by `prompts.example`
    variable_length: bool = True  # a changed trajectory may skip actions that are no longer admissible
    max_concurrent_episodes: int = 1000  # above this, episodes share a simulator and are replayed
    decoding: str = "sequence"  # or "token": how the policy chooses here: see `LanguageModel.choose`
    allow_repeats: bool = False  # for human players: also list actions already done in the same place
    at: object = None  # (episode, actions) that the live simulation is in; set by `Episode`, cleared by `reset`

    @abstractmethod
    def tasks(self, split: str) -> list[Task]:
        """The tasks of "train", "dev" or "test", always in the same order; the splits are disjoint."""

    @abstractmethod
    def reset(self, task: Task) -> Observation:
        """Start `task` from the beginning and return its first observation."""

    @abstractmethod
    def step(self, action: str) -> Observation:
        """Execute `action`. An invalid action changes nothing, and the observation says so."""

    @abstractmethod
    def admissible(self) -> tuple[str, ...]:
        """Actions that have an effect in the current state; empty when the episode is over."""

    def examples(self) -> list[tuple[Task, tuple[str, ...]]]:
        """Few-shot examples for the policy: training tasks, each with actions that solve it. None by default."""
        return []

    def draw(self, n: int, seed: int) -> list[Task]:
        """`n` random training tasks, or all if there are fewer."""
        tasks = self.tasks("train")
        return random.Random(seed).sample(tasks, min(n, len(tasks)))

    def replay(self, task: Task, actions: Sequence[str]) -> Trajectory:
        """Execute `actions` from the start of `task`, up to the end of the episode."""
        self.at = None
        trajectory = Trajectory.begin(task, self.reset(task))
        for action in actions:
            if trajectory.done:
                break
            trajectory = trajectory.then(action, self.step(action))
        return trajectory

    def page(self, trajectory: Trajectory, admissible: Sequence[str]) -> list[Part] | None:
        """The last observation with buttons, for human players (other actions follow); None: a table of all steps."""
        return None

    def fork(self) -> Environment:
        """An environment for another episode at the same time; by default this one, which then needs more replays."""
        return self

    def release(self) -> None:
        """Give up the resources of the current episode, which is over or will be replayed."""

    def close(self) -> None:
        """End all processes that were started. Safe to call twice."""

    def __exit__(self, *exc: object) -> None:
        self.close()


class Judge(ABC):
    """The true score. Only the final evaluation uses it; nothing that learns or plans can reach it."""

    @abstractmethod
    def score(self, trajectory: Trajectory) -> float:
        """The score of `trajectory` in [0, 1], computed by replaying its actions; its observations are not trusted."""

    def close(self) -> None:
        """End all processes that were started. Safe to call twice."""
