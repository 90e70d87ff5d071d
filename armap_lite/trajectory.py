"""The data that flows through ARMAP: tasks, observations, trajectories, preference pairs.

Frozen dataclasses with JSON in and out, and nothing else. Every stage reads and writes these.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


class Record:
    """JSON in and out for the frozen dataclasses below."""

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON types; empty optional fields are left out."""
        return _plain(self)

    @classmethod
    def _nested(cls) -> dict[str, Callable[[Any], Any]]:
        """How fields that are records themselves are read back."""
        return {}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Any:
        """The record back from `to_json`'s output. Raises ValueError on unknown or missing fields."""
        names = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        if unknown := set(data) - names:
            raise ValueError(f"{cls.__name__} has no field {sorted(unknown)}; it has {sorted(names)}")
        try:
            nested = cls._nested()
            return cls(**{name: nested[name](v) if name in nested else v for name, v in data.items()})
        except TypeError as error:
            raise ValueError(f"{cls.__name__}: {error}") from error


@dataclass(frozen=True)
class Task(Record):
    """One thing to do: what the agent is told, and what the environment needs to set it up."""

    id: str  # unique within an environment, e.g. "train-17"
    env: str
    split: str  # "train", "dev" or "test"
    instruction: str
    setup: dict[str, Any] = field(default_factory=dict)  # JSON that `Environment.reset` understands


@dataclass(frozen=True)
class Observation(Record):
    """What the environment shows. It never carries a reward or a score."""

    text: str
    admissible: tuple[str, ...] = ()  # actions that do something here; empty when done
    done: bool = False
    picture: str | None = None  # path of the picture that belongs to this observation

    @classmethod
    def _nested(cls) -> dict[str, Callable[[Any], Any]]:
        return {"admissible": tuple}


@dataclass(frozen=True)
class Step(Record):
    """One action and what the environment showed after it."""

    action: str
    observation: str
    picture: str | None = None


@dataclass(frozen=True)
class Trajectory(Record):
    """A task and the steps taken in it; `start` is the text before the first action."""

    task: Task
    start: str
    steps: tuple[Step, ...] = ()
    done: bool = False
    failure: str | None = None  # why it broke off, where it did; counted, never dropped in silence
    picture: str | None = None  # the picture of the start

    @classmethod
    def _nested(cls) -> dict[str, Callable[[Any], Any]]:
        return {"task": Task.from_json, "steps": lambda steps: tuple(Step.from_json(s) for s in steps)}

    @property
    def actions(self) -> tuple[str, ...]:
        return tuple(step.action for step in self.steps)

    @property
    def pictures(self) -> tuple[str, ...]:
        """The pictures seen, in order."""
        return tuple(picture for picture in (self.picture, *(step.picture for step in self.steps)) if picture)

    def then(self, action: str, observation: Observation) -> Trajectory:
        """This trajectory, one step longer."""
        step = Step(action, observation.text, observation.picture)
        return dataclasses.replace(self, steps=(*self.steps, step), done=observation.done)


@dataclass(frozen=True)
class PreferencePair(Record):
    """The triplet the reward model learns from: (instruction, chosen, rejected)."""

    id: str
    task_id: str  # the split of pairs is by task, so that no task is both learned from and tested on
    instruction: str  # refined: it says what `chosen` did
    chosen: Trajectory
    rejected: Trajectory
    origin: str  # who worded the instruction: "llm", or "plain" for a sentence built from the facts
    changed_at: int  # index of the first action that differs

    @classmethod
    def _nested(cls) -> dict[str, Callable[[Any], Any]]:
        return {"chosen": Trajectory.from_json, "rejected": Trajectory.from_json}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((f, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {f.name: _plain(v) for f, v in pairs if v is not None and not (v == () and f.default == ())}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value
