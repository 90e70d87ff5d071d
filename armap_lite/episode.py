"""One task's states, cached; the environment is stepped or replayed only for a state that is new.

No environment here can save and restore. A state is identified by its action sequence. What is observed on the first
visit is stored, so a search sees the same observation on every visit.
"""

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
    """All visited states of `task` in `env`; each can be reached again by replaying its actions.

    `steps`: environment steps carried out. `steps_avoided`: those that replaying each state from the start would add.
    Where the simulator fails, the state has the trajectory so far, with its `failure`, and no admissible action.
    """

    def __init__(self, env: Environment, task: Task):
        self.env, self.task = env, task
        self.steps = self.steps_avoided = 0
        self._known: dict[tuple[str, ...], State] = {}

    def start(self) -> State:
        """The state before any action."""
        if () not in self._known:
            try:
                observation = self.env.reset(self.task)
                self._keep(Trajectory.begin(self.task, observation), observation)
            except SimulatorError as error:
                return self._failed(Trajectory(self.task, ""), error)
        return self._known[()]

    def step(self, state: State, action: str) -> State:
        """The state after `action` in `state`."""
        before = state.trajectory.actions
        actions = (*before, action)
        if actions in self._known:
            self.steps_avoided += len(actions)
            return self._known[actions]
        try:
            if self.env.at == (self, before):
                self.steps_avoided += len(before)
            else:
                self.env.replay(self.task, before)
                self.steps += len(before)
            observation = self.env.step(action)
            self.steps += 1
            self._keep(state.trajectory.then(action, observation), observation)
        except SimulatorError as error:
            return self._failed(state.trajectory, error)
        return self._known[actions]

    def release(self) -> None:
        """Let another episode use the simulator; a later step replays."""
        self.env.at = None
        self.env.release()

    def _keep(self, trajectory: Trajectory, observation: Observation) -> None:
        self.env.at = (self, trajectory.actions)
        over = trajectory.done or len(trajectory.steps) >= (self.task.max_steps or self.env.max_steps)
        admissible = () if over else observation.admissible or self.env.admissible()
        self._known[trajectory.actions] = State(trajectory, admissible)

    def _failed(self, trajectory: Trajectory, error: SimulatorError) -> State:
        self.env.at = None
        return State(dataclasses.replace(trajectory, failure=str(error)), ())
