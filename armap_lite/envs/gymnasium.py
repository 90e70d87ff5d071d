"""Any Gymnasium environment (https://gymnasium.farama.org) as an `Environment`, and its reward as a `Judge`."""

from __future__ import annotations

import contextlib
import copy
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from armap_lite.envs import check_replay, play_at_random
from armap_lite.envs.base import Environment, Judge, SimulatorError
from armap_lite.storage import assets
from armap_lite.trajectory import Observation, Task, Trajectory

VALUES = {"reset": "observation, info", "step": "observation, reward, terminated, truncated, info"}


class ContractError(SimulatorError, ValueError):
    """A world or its simulator gave something else than is expected: in an episode, a failure of that episode."""


class GymnasiumEnvironment(Environment):
    """A simulator with Gymnasium's `reset` and `step`, put into words by a subclass. Its reward is never read here.

    A task is a seed, and a state is that seed and actions. `tasks` raises ValueError where a check fails.
    """

    metric, max_concurrent_episodes = "reward", 16  # each episode has a simulator of its own
    seeds: Mapping[str, Sequence[int]] = {"train": range(200), "dev": range(1000, 1050), "test": range(2000, 2100)}
    show = "always"  # of every observation: see `Observation.show`
    simulator: Any = None  # the one that runs the current episode

    def __init__(self) -> None:  # forks share these three
        self._open: dict[int, Any] = {}  # simulators by `id`; one that failed is not kept
        self._idle: list[Any] = []  # those of them that run no episode, to be used again
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
            texts = {int(n): self._said("instruction", *self._start(int(n))) for n in self.seeds[split]}
            tasks = [Task(f"{self.name}-{n}", self.name, split, text, {"seed": n}) for n, text in texts.items()]
            self._check(tasks)
            self._tasks[split] = tasks
            self.release()
        return list(self._tasks[split])

    def _check(self, tasks: Sequence[Task]) -> None:
        """Raise ValueError for a seed that occurs twice, a replay that differs, and a seed that is ignored."""
        for seed, times in Counter(chain(*self.seeds.values())).most_common(1):
            if times > 1:
                raise ValueError(f"{self.name}: seed {seed} occurs {times} times; each is one task, in one split")
        other = GymnasiumEnvironment.fork(self)
        other._open, other._idle = {}, []  # simulators of its own, whatever a subclass shares
        with other:
            check_replay(self, tasks[:3], other)
        first = play_at_random(self, tasks[0]) if len(tasks) > 1 else None
        if first and all(play_at_random(self, task) == first for task in tasks[1:]):
            alike = f"all {len(tasks)} tasks of {tasks[0].split!r} are the same one"
            raise ValueError(f"{self.name}: {alike}; make the simulator use the seed of `reset`, or give one seed only")

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
        if id(self.simulator) in self._open:
            self._idle.append(self.simulator)
        self.simulator = self.at = None

    def close(self) -> None:
        self.simulator = self.at = None
        self._idle.clear()
        while self._open:  # those of forks, too
            with contextlib.suppress(Exception):  # the others are closed all the same
                self._open.popitem()[1].close()

    def _start(self, seed: int) -> tuple[Any, Mapping[str, Any]]:
        self.at = None
        if id(self.simulator) not in self._open:
            self.simulator = self._idle.pop() if self._idle else self.make()
            self._open[id(self.simulator)] = self.simulator
        return self._call("reset", seed=seed)

    def _call(self, method: str, *args: Any, **options: Any) -> Any:
        """The answer of the simulator's `method`. Raises ContractError where it fails or has more parts, or fewer."""
        with self._using(method):
            answer = getattr(self.simulator, method)(*args, **options)
            if not isinstance(answer, tuple) or len(answer) != VALUES[method].count(",") + 1:
                raise TypeError(f"it returned {answer!r:.200}, not ({VALUES[method]})")
            return answer

    @contextlib.contextmanager
    def _using(self, method: str) -> Iterator[None]:
        """Close the simulator where the block raises, as ContractError, or is interrupted."""
        try:
            if id(self.simulator) not in self._open:
                raise RuntimeError("the simulator was closed")
            yield
        except BaseException as error:
            broken = self._open.pop(id(self.simulator), None)
            self.simulator = self.at = None
            with contextlib.suppress(Exception):  # the first error matters
                broken.close()  # type: ignore[union-attr]
            if not isinstance(error, Exception):
                raise
            raise ContractError(f"{self.name}: {method} failed with {type(error).__name__}: {error}") from error

    def _observe(self, observation: Any, info: Mapping[str, Any], done: bool) -> Observation:
        self._actions = {} if done else self._said("actions", observation, info)
        text, picture = self._said("describe", observation, info), None
        mode = str(getattr(self.simulator, "render_mode", None))
        if mode.startswith("rgb_array"):
            with self._using("render"):
                frames = self.simulator.render()
                picture = assets.save_frame(frames[-1] if mode == "rgb_array_list" else frames)
        return Observation(text, self.admissible(), done, picture, self.show)

    def _said(self, method: str, observation: Any, info: Mapping[str, Any]) -> Any:
        """What `method` says of an observation. Raises ContractError where it fails or is of another type."""
        expected = "a mapping of each action's text to what `step` takes" if method == "actions" else "a text"
        try:
            value = getattr(self, method)(observation, info)
            texts = [value] if method != "actions" else value if isinstance(value, Mapping) else [None]
            if not all(isinstance(text, str) for text in texts):
                raise TypeError(f"it returned {value!r:.200}; expected {expected}")
            return value
        except Exception as error:
            failed = f"{self.name}: {method} failed with {type(error).__name__}: {error}"
            raise ContractError(f"{failed}, for the observation {observation!r:.200}") from error


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
        try:
            self.total += float(answer[1] or 0.0) if method == "step" else 0.0
        except (TypeError, ValueError) as error:
            raise ContractError(f"{self.name}: step gave the reward {answer[1]!r:.200}; expected a number") from error
        return answer
