"""Any Gymnasium environment (https://gymnasium.farama.org) as an `Environment`, and its reward as a `Judge`."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from armap_lite.envs.base import Environment, Judge
from armap_lite.envs.simulators import Simulators, check_tasks, reward, said
from armap_lite.trajectory import Observation, Task, Trajectory


class GymnasiumEnvironment(Environment):
    """A simulator with Gymnasium's `reset` and `step`, put into words by a subclass. Its reward is never read here.

    A task is a seed, and a state is that seed and actions. `tasks` raises ValueError where a check fails.
    """

    metric, max_concurrent_episodes = "reward", 16  # each episode has a simulator of its own
    seeds: Mapping[str, Sequence[int]] = {"train": range(200), "dev": range(1000, 1050), "test": range(2000, 2100)}
    show = "always"  # of every observation: see `Observation.show`
    simulator: Any = None  # the one that runs the current episode

    def __init__(self) -> None:
        self._simulators = Simulators()  # forks share these two
        self._tasks: dict[str, list[Task]] = {}
        self._actions: Mapping[str, Any] = {}

    @abstractmethod
    def make(self) -> Any:
        """A new `gymnasium.Env`. With a render mode "rgb_array", its frames become the pictures of the observations."""

    @abstractmethod
    def describe(self, observation: Any, info: Mapping[str, Any]) -> str:
        """The text of an observation."""

    @abstractmethod
    def actions(self, observation: Any, info: Mapping[str, Any]) -> Mapping[str, Any]:
        """The admissible actions: the text of each, and what the simulator's `step` takes for it."""

    def instruction(self, observation: Any, info: Mapping[str, Any]) -> str:
        """The instruction of the task that starts with `observation`."""
        return self.guide

    def tasks(self, split: str) -> list[Task]:
        if split not in self.seeds:
            raise ValueError(f"split {split!r} is not known; there is {', '.join(self.seeds)}")
        if split not in self._tasks:
            texts = {int(n): said(self, "instruction", *self._start(int(n))) for n in self.seeds[split]}
            tasks = [Task(f"{self.name}-{n}", self.name, split, text, {"seed": n}) for n, text in texts.items()]
            other = GymnasiumEnvironment.fork(self)  # with a simulator of its own, whatever a subclass shares
            other._simulators = Simulators()
            with other:
                check_tasks(self, tasks, other, self.seeds)
            self._tasks[split] = tasks
            self.release()
        return list(self._tasks[split])

    def reset(self, task: Task) -> Observation:
        return self._observe(*self._start(task.setup["seed"]), done=False)

    def step(self, action: str) -> Observation:
        if action not in self._actions:
            return Observation(f"{action[:80]!r} is not admissible here.", self.admissible(), not self._actions)
        observation, _, terminated, truncated, info = self._call("step", self._actions[action])
        return self._observe(observation, info, bool(terminated or truncated))

    def admissible(self) -> tuple[str, ...]:
        return tuple(self._actions)

    def fork(self) -> GymnasiumEnvironment:
        other = copy.copy(self)
        other.simulator = other.at = None
        return other

    def release(self) -> None:
        self._simulators.give(self.simulator)
        self.simulator = self.at = None

    def close(self) -> None:
        self.simulator = self.at = None
        self._simulators.close()  # those of forks, too

    def _start(self, seed: int) -> tuple[Any, Mapping[str, Any]]:
        self.at = None
        if self.simulator not in self._simulators:
            self.simulator = self._simulators.take(self.make)
        return self._call("reset", seed=seed)

    def _call(self, method: str, *args: Any, **options: Any) -> Any:
        return self._simulators.call(self, method, *args, **options)

    def _observe(self, observation: Any, info: Mapping[str, Any], done: bool) -> Observation:
        self._actions = {} if done else said(self, "actions", observation, info)
        text, picture = said(self, "describe", observation, info), self._simulators.picture(self)
        return Observation(text, self.admissible(), done, picture, self.show)


class GymnasiumJudge(GymnasiumEnvironment, Judge):
    """The return of an episode, played once more: `class MyJudge(GymnasiumJudge, MyEnvironment): ...`."""

    def value(self, total: float) -> float:
        """The score, in [0, 1], of an episode whose rewards add up to `total`."""
        return min(max(total, 0.0), 1.0)

    def score(self, trajectory: Trajectory) -> float:
        self.total = 0.0
        self.replay(trajectory.task, trajectory.actions)
        return self.value(self.total)

    def _call(self, method: str, *args: Any, **options: Any) -> Any:
        answer = super()._call(method, *args, **options)
        self.total += reward(self, answer[1]) if method == "step" else 0.0
        return answer
