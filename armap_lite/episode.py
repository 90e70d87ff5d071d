"""One task's states, reached again at will: the live environment moves only when it has to.

No environment here can save and restore. A state is its action sequence; it is known by that sequence, and
what was first observed in it is kept, so a search sees one picture of it however often it comes by.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from armap_lite.envs.base import Environment, SimulatorError
from armap_lite.trajectory import Observation, Task, Trajectory


@dataclass(frozen=True)
class State:
    """A trajectory so far and the actions that can follow."""

    trajectory: Trajectory
    admissible: tuple[str, ...]

    @property
    def over(self) -> bool:
        return self.trajectory.done or not self.admissible


class Episode:
    """The states of `task` in `env`. `steps`: steps the environment carried out; `steps_avoided`: those it would have
    carried out besides, were each state replayed from the start."""

    def __init__(self, env: Environment, task: Task):
        self.env = env
        self.task = task
        self.steps = 0
        self.steps_avoided = 0
        self._known: dict[tuple[str, ...], State] = {}

    def start(self) -> State:
        """The state before any action; where the simulator fails, a trajectory without steps, with its `failure`."""
        if () not in self._known:
            try:
                observation = self.env.reset(self.task)
            except SimulatorError as error:
                self.env.at = None
                return State(Trajectory(self.task, "", failure=str(error)), ())
            self.env.at = (self, ())
            trajectory = Trajectory.begin(self.task, observation)
            self._known[()] = self._state(trajectory, observation)
        return self._known[()]

    def step(self, state: State, action: str) -> State:
        """The state after `action` in `state`; where the simulator fails, the trajectory so far, with its `failure`."""
        actions = (*state.trajectory.actions, action)
        if actions in self._known:
            self.steps_avoided += len(actions)
            return self._known[actions]
        try:
            if self.env.at != (self, actions[:-1]):
                self.env.replay(self.task, actions[:-1])
                self.steps += len(actions) - 1
            else:
                self.steps_avoided += len(actions) - 1
            observation = self.env.step(action)
            self.steps += 1
            self.env.at = (self, actions)
            self._known[actions] = self._state(state.trajectory.then(action, observation), observation)
        except SimulatorError as error:
            self.env.at = None
            return State(dataclasses.replace(state.trajectory, failure=str(error)), ())
        return self._known[actions]

    def release(self) -> None:
        """No more steps for now: the simulator may serve another episode; a later step replays."""
        self.env.at = None
        self.env.release()

    def _state(self, trajectory: Trajectory, observation: Observation) -> State:
        over = trajectory.done or len(trajectory.steps) >= (self.task.max_steps or self.env.max_steps)
        return State(trajectory, () if over else observation.admissible or self.env.admissible())
