"""The data of all stages: tasks, observations, trajectories, preference pairs; frozen dataclasses, in files JSON."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from armap_lite.storage.records import Record

SHOWN = ("always", "while_current", "never")


@dataclass(frozen=True)
class Task(Record):
    """One thing to do: what the agent is told, and what the environment needs to set it up."""

    id: str  # unique within an environment, e.g. "train-17"
    env: str
    split: str  # "train", "dev" or "test"
    instruction: str
    setup: dict[str, Any] = field(default_factory=dict)  # JSON that `Environment.reset` understands
    family: str | None = None  # the kind of task, where the world has kinds: results are also given by family
    max_steps: int | None = None  # where it differs from the environment's


@dataclass(frozen=True)
class Observation(Record):
    """What the environment shows. It never carries a reward or a score."""

    text: str
    admissible: tuple[str, ...] = ()  # empty: done, or ask `Environment.admissible`
    done: bool = False
    picture: str | None = None  # path of the picture that belongs to this observation
    show: str = "always"  # whether transcripts keep its text: "always", "while_current" (it comes last) or "never"

    def __post_init__(self) -> None:
        if self.show not in SHOWN:
            raise ValueError(f"show={self.show!r}: expected one of {', '.join(SHOWN)}")


@dataclass(frozen=True)
class Step(Record):
    """One action and what the environment showed after it."""

    action: str
    observation: str
    picture: str | None = None
    show: str = "always"  # of the observation: see `Observation.show`


@dataclass(frozen=True)
class Trajectory(Record):
    """A task and the steps taken in it; `start` is the text before the first action."""

    task: Task
    start: str
    steps: tuple[Step, ...] = ()
    done: bool = False
    failure: str | None = None  # why it was aborted, if it was; counted, never dropped silently
    picture: str | None = None  # the picture of the start
    show: str = "always"  # of the start: see `Observation.show`

    @classmethod
    def begin(cls, task: Task, observation: Observation) -> Trajectory:
        """The trajectory without steps that starts with `observation`."""
        return cls(task, observation.text, picture=observation.picture, show=observation.show)

    @property
    def actions(self) -> tuple[str, ...]:
        return tuple(step.action for step in self.steps)

    @property
    def pictures(self) -> tuple[str, ...]:
        """The pictures seen, in order."""
        return tuple(picture for picture in (self.picture, *(step.picture for step in self.steps)) if picture)

    def then(self, action: str, observation: Observation) -> Trajectory:
        """This trajectory, one step longer."""
        step = Step(action, observation.text, observation.picture, observation.show)
        return dataclasses.replace(self, steps=(*self.steps, step), done=observation.done)


@dataclass(frozen=True)
class PreferencePair(Record):
    """The triplet the reward model learns from: (instruction, chosen, rejected)."""

    id: str
    task_id: str  # pairs are split by task: none is both in training and test
    instruction: str  # refined: it says what `chosen` did; or the task's own, of which `chosen` did more
    chosen: Trajectory
    rejected: Trajectory
    origin: str  # who worded the instruction: "llm", "plain" for a sentence built from the facts, "task" for its own
    changed_at: int  # index of the first action that differs


def transcript(trajectory: Trajectory, instruction: str | None = None) -> str:
    """Instruction, then what was seen and done, a line each: what the policy and the reward model both read.

    Observations with show="while_current" appear only if they come last, those with "never" do not appear.
    """
    lines = [instruction or trajectory.task.instruction]
    last = len(trajectory.steps)
    seen = [("", trajectory.start, trajectory.show), *((s.action, s.observation, s.show) for s in trajectory.steps)]
    for k, (action, observation, show) in enumerate(seen):
        kept = show == "always" or (show == "while_current" and k == last)
        lines += [action] * (k > 0) + [observation] * kept
    # " [SEP] " takes four of SmolLM2's tokens, " | " takes one.
    return "".join(" ".join(line.split()).replace(" [SEP] ", " | ") + "\n" for line in lines)
