"""The contract every environment keeps, and the judge that stands apart from it."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence

from armap_lite.trajectory import Observation, Task, Trajectory


class SimulatorError(RuntimeError):
    """The simulator broke off in mid-episode (a dead JVM, say). What was done is kept, and counted as a failure."""


class Environment(ABC):
    """A world an agent acts in. It shows text and pictures; it never shows a reward.

    Use it as a context manager: leaving it ends every process it started.
    A state is its task and the actions taken so far, so any state can be reached again by `replay`.
    """

    name: str
    version: str
    metric: str  # what the judge's score means, e.g. "success"
    max_steps: int
    guide: str  # one line on how to act, at the head of the agent's prompt
    phrasings: tuple[
        tuple[dict[str, str], str], ...
    ]  # (facts, instruction): how tasks are worded here, for the data LLM

    skips: bool = True  # a changed trajectory may pass over old actions: see `synthesize.change`
    parallel: int = 1000  # episodes that may be under way at once without one being replayed for another's sake
    choose_by: str = "string"  # how the policy chooses here: see `LanguageModel.choose`
    freely: bool = False  # list, for people, also what was done before in the same place
    at: object = None  # where the live simulation stands; kept by `World`, cleared by `reset`

    @abstractmethod
    def tasks(self, split: str) -> list[Task]:
        """The tasks of "train", "dev" or "test", always in the same order; the splits are disjoint."""

    def draw(self, n: int, seed: int) -> list[Task]:
        """`n` training tasks at random, or all there are."""
        tasks = self.tasks("train")
        return random.Random(seed).sample(tasks, min(n, len(tasks)))

    @abstractmethod
    def reset(self, task: Task) -> Observation:
        """Start `task` afresh and show its first observation."""

    @abstractmethod
    def step(self, action: str) -> Observation:
        """Do `action`. One that the environment does not understand changes nothing and says so."""

    @abstractmethod
    def admissible(self) -> tuple[str, ...]:
        """Actions that do something in the current state; empty when the episode is over."""

    @abstractmethod
    def examples(self) -> list[tuple[Task, tuple[str, ...]]]:
        """Worked examples to act by: training tasks and the actions that do them."""

    @abstractmethod
    def adopt(self, task: Task, instruction: str) -> Task | None:
        """`task` with an instruction that an LLM proposed for it; None where the two do not fit."""

    @abstractmethod
    def start_text(self, facts: dict[str, str]) -> str:
        """The first observation of a task with these facts, for the few-shot prompt that proposes instructions."""

    @abstractmethod
    def facts(self, trajectory: Trajectory) -> dict[str, str]:
        """What `trajectory` did, read off by code: the facts that a true instruction has to name.

        Keys are the environment's own (`"numbers"`, `"result"`), values are in one canonical spelling;
        empty where the trajectory did nothing that one could ask for.
        """

    def fulfils(self, trajectory: Trajectory, asked: dict[str, str]) -> bool:
        """Does `trajectory` do what an instruction with the facts `asked` asks for, whatever else it does?"""
        return self.facts(trajectory) == asked

    def alike(self, trajectory: Trajectory, action: str, others: Sequence[str]) -> list[str]:
        """Those of `others` that one may take for `action` after `trajectory`; empty where none is like it.

        What differs in so little teaches what the instruction turns on (see `synthesize.change`).
        """
        return []

    def carry_on(self, trajectory: Trajectory, seed: int) -> tuple[int, Sequence[str]] | None:
        """How an attempt can be carried on to something worth asking for; None where there is no way or no need.

        The number of its steps to keep, and regular expressions for the actions that follow, in order. Each is matched
        by a whole admissible action, or passed over. `<name>` stands for what the group `(?P<name>...)` of an earlier
        expression matched.
        """
        return None

    @abstractmethod
    def plain_instruction(self, facts: dict[str, str]) -> str:
        """A plain sentence that states `facts`: the fall-back where no LLM text passes the check."""

    @abstractmethod
    def states(self, instruction: str) -> dict[str, str] | None:
        """The facts that `instruction` names, spelled as `facts` spells them; None where it cannot be read."""

    def replay(self, task: Task, actions: Sequence[str]) -> Trajectory:
        """Carry out `actions` from the start of `task`; stops where the episode is over."""
        self.at = None
        observation = self.reset(task)
        trajectory = Trajectory(task, observation.text, picture=observation.picture)
        for action in actions:
            if trajectory.done:
                break
            trajectory = trajectory.then(action, self.step(action))
        return trajectory

    def fork(self) -> Environment:
        """An environment of the same kind to run beside this one; by default this one, which then replays more."""
        return self

    def rest(self) -> None:
        """The episode is over, or will be replayed: what a fork holds for it may serve others."""

    def close(self) -> None:
        """End whatever was started. Safe to call twice."""

    def __enter__(self) -> Environment:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Judge(ABC):
    """The true score. Only the final evaluation may ask; nothing that learns or plans can reach it."""

    @abstractmethod
    def score(self, trajectory: Trajectory) -> float:
        """The score of `trajectory` in [0, 1], found by replaying its actions, not by believing its text."""

    def close(self) -> None:
        """End whatever was started. Safe to call twice."""
