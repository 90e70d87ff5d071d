"""Looking back at a trajectory: what it achieved, in a form that code can compare and words can state."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence

from armap_lite.trajectory import Task, Trajectory

Goal = dict[str, str]  # what one can ask for: the world's own keys, each value in one canonical spelling


class Hindsight(ABC):
    """What stage 2 knows of a world beyond how to act in it. It reads text and actions, never a score.

    Three methods suffice. They must agree: `parse(to_text(goal)) == goal`, and a trajectory satisfies what it achieved.
    """

    few_shot: tuple[tuple[Goal, str], ...] = ()  # (goal, instruction): how tasks are worded here, for the data LLM

    @abstractmethod
    def achieved(self, trajectory: Trajectory) -> Goal:
        """The goal that `trajectory` reached; empty where it reached nothing that one could ask for."""

    @abstractmethod
    def to_text(self, goal: Goal) -> str:
        """A plain instruction that states `goal`: the fallback where no text of the data LLM passes the check."""

    @abstractmethod
    def parse(self, instruction: str) -> Goal | None:
        """The goal that `instruction` states, spelled as `achieved` spells it; None where it cannot be read."""

    def satisfied(self, trajectory: Trajectory, goal: Goal) -> bool:
        """Whether `trajectory` does what an instruction with `goal` asks for, whatever else it does."""
        return self.achieved(trajectory) == goal

    def similar_actions(self, trajectory: Trajectory, action: str, others: Sequence[str]) -> list[str]:
        """Actions in `others` that are easily confused with `action` after `trajectory`, used as hard negatives."""
        return []

    def carry_on(self, trajectory: Trajectory, seed: int) -> tuple[int, Sequence[str]] | None:
        """How an attempt can be continued until it achieved more; None where there is no way or no need.

        The number of its steps to keep, and regular expressions for the actions that follow, in order. Each is matched
        by a whole admissible action, or passed over. `<name>` stands for what the group `(?P<name>...)` of an earlier
        expression matched.
        """
        return None

    def retarget(self, task: Task, instruction: str) -> Task | None:
        """`task` with `instruction` in place of its own, or None if it cannot be parsed or is infeasible here."""
        return dataclasses.replace(task, instruction=instruction) if self.parse(instruction) else None

    def start_text(self, goal: Goal) -> str:
        """The first observation of a task with `goal`, for the few-shot prompt that proposes instructions."""
        return "; ".join(f"{key} {value}" for key, value in goal.items())
