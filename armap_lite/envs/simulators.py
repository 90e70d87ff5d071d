"""The simulators of a world that others made, shared by all episodes, and checks of what they and their words say."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from armap_lite.envs import check_replay, play_at_random
from armap_lite.envs.base import Environment, SimulatorError
from armap_lite.storage import assets
from armap_lite.trajectory import Task

VALUES = {"reset": "observation, info", "step": "observation, reward, terminated, truncated, info"}


class ContractError(SimulatorError, ValueError):
    """A world or its simulator gave something else than is expected: in an episode, a failure of that episode."""


class Simulators:
    """The open simulators of a world and its forks; an idle one is used again, and one that failed is not."""

    def __init__(self) -> None:
        self.open: dict[int, Any] = {}  # by `id`
        self.idle: list[Any] = []  # those of them that run no episode

    def take(self, make: Callable[[], Any]) -> Any:
        """A simulator for an episode; a new one if none is idle."""
        simulator = self.idle.pop() if self.idle else make()
        self.open[id(simulator)] = simulator
        return simulator

    def give(self, simulator: Any) -> None:
        """Let another episode use `simulator`."""
        if simulator in self:
            self.idle.append(simulator)

    def __contains__(self, simulator: object) -> bool:
        return id(simulator) in self.open

    @contextlib.contextmanager
    def using(self, world: Any, method: str) -> Iterator[Any]:
        """The simulator of `world`. It is closed where the block raises, as ContractError, or is interrupted."""
        try:
            if world.simulator not in self:
                raise RuntimeError("the simulator was closed")
            yield world.simulator
        except BaseException as error:
            broken = self.open.pop(id(world.simulator), None)
            world.simulator = world.at = None
            with contextlib.suppress(Exception):  # the first error matters
                broken.close()
            if not isinstance(error, Exception):
                raise
            raise ContractError(f"{world.name}: {method} failed with {type(error).__name__}: {error}") from error

    def call(self, world: Any, method: str, *args: Any, **options: Any) -> Any:
        """The answer of the simulator's `method`. Raises ContractError where it fails or has more parts, or fewer."""
        with self.using(world, method) as simulator:
            answer = getattr(simulator, method)(*args, **options)
            if not isinstance(answer, tuple) or len(answer) != VALUES[method].count(",") + 1:
                raise TypeError(f"it returned {answer!r:.200}, not ({VALUES[method]})")
            return answer

    def picture(self, world: Any) -> str | None:
        """The file of the frame that the simulator shows; None where it renders none."""
        mode = str(getattr(world.simulator, "render_mode", None))
        if not mode.startswith("rgb_array"):
            return None
        with self.using(world, "render") as simulator:
            frames = simulator.render()
            return assets.save_frame(frames[-1] if mode == "rgb_array_list" else frames)

    def close(self) -> None:
        """End all of them."""
        self.idle.clear()
        while self.open:
            with contextlib.suppress(Exception):  # the others are closed all the same
                self.open.popitem()[1].close()


def said(env: Environment, method: str, observation: Any, info: Mapping[str, Any]) -> Any:
    """What `method` of `env` says of an observation. Raises ContractError where it fails or is of another type."""
    expected = "a mapping of each action's text to what `step` takes" if method == "actions" else "a text"
    try:
        value = getattr(env, method)(observation, info)
        texts = [value] if method != "actions" else value if isinstance(value, Mapping) else [None]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError(f"it returned {value!r:.200}; expected {expected}")
        return value
    except Exception as error:
        failed = f"{env.name}: {method} failed with {type(error).__name__}: {error}"
        raise ContractError(f"{failed}, for the observation {observation!r:.200}") from error


def reward(env: Environment, value: Any) -> float:
    """The reward of a step, for a judge. Raises ContractError where it is no number."""
    try:
        return float(value or 0.0)
    except (TypeError, ValueError) as error:
        raise ContractError(f"{env.name}: step gave the reward {value!r:.200}; expected a number") from error


def check_tasks(
    env: Environment, tasks: Sequence[Task], other: Environment, seeds: Mapping[str, Sequence[int]]
) -> None:
    """Raise ValueError for a seed that occurs twice, a replay in `other` that differs, and a seed that is ignored."""
    for seed, times in Counter(chain(*seeds.values())).most_common(1):
        if times > 1:
            raise ValueError(f"{env.name}: seed {seed} occurs {times} times; each is one task, in one split")
    check_replay(env, tasks[:3], other)
    first = play_at_random(env, tasks[0]) if len(tasks) > 1 else None
    if first and all(play_at_random(env, task) == first for task in tasks[1:]):
        alike = f"all {len(tasks)} tasks of {tasks[0].split!r} are the same one"
        raise ValueError(f"{env.name}: {alike}; make the simulator use the seed of `reset`, or give one seed only")
