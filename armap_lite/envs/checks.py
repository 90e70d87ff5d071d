"""What is checked of a simulator that others made, and of the words for it, wherever a reader may have erred."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from armap_lite.envs import check_replay, play_at_random
from armap_lite.envs.base import SimulatorError
from armap_lite.trajectory import Task

MAPPING = "a mapping of each action's text to what the simulator's `step` takes, e.g. {'go left': 0}"
EXPECTED = {"instruction": "a text", "describe": "a text", "actions": MAPPING}
PARTS = {"reset": "observation, info", "step": "observation, reward, terminated, truncated, info"}
FRAME = "an array [H, W, 3] of uint8; leave render_mode unset for a world without pictures"


class ContractError(SimulatorError, ValueError):
    """A world or its simulator gave something else than is expected: in an episode, a failure of that episode."""


def said(env: Any, method: str, observation: Any, info: Mapping[str, Any]) -> Any:
    """What `method` of `env` says of an observation. Raises ContractError where it fails or is of another type."""
    try:
        value = getattr(env, method)(observation, info)
        texts, mapping = value if isinstance(value, Mapping) else [value], isinstance(value, Mapping)
    except Exception as error:
        what = f"failed with {type(error).__name__}: {error}"
        raise ContractError(f"{env.name}: {method} {what}, for the observation {observation!r:.200}") from error
    if mapping != (method == "actions") or not all(isinstance(text, str) for text in texts):
        raise ContractError(f"{env.name}: {method} returned {value!r:.200}; expected {EXPECTED[method]}")
    return value


def parts(name: str, method: str, answer: Any) -> Any:
    """The answer of a simulator's `reset` or `step`. Raises ContractError where it has more parts, or fewer."""
    if method in PARTS and not (isinstance(answer, tuple) and len(answer) == PARTS[method].count(",") + 1):
        got = f"{len(answer)} values" if isinstance(answer, tuple) else f"a {type(answer).__name__}"
        raise ContractError(f"{name}: the simulator's {method} returned {got}; expected ({PARTS[method]})")
    return answer


def reward(name: str, value: Any) -> float:
    """The reward of a step, for a judge. Raises ContractError where it is no number."""
    try:
        return float(value or 0.0)
    except (TypeError, ValueError) as error:
        raise ContractError(
            f"{name}: the simulator's step gave the reward {value!r:.200}; expected a number"
        ) from error


def frame(name: str, picture: Any) -> np.ndarray:
    """What a simulator's `render` returned. Raises ContractError where that is no picture."""
    if isinstance(picture, np.ndarray):
        if picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3 and picture.size:
            return picture
        got = f"an array {[*picture.shape]} of {picture.dtype}"
    else:
        got = "None" if picture is None else f"a {type(picture).__name__}"
    raise ContractError(f"{name}: the simulator's render returned {got}; expected {FRAME}")


def seeded_tasks(world: Any, split: str, other: Any) -> list[Task]:
    """A task for each seed of `split`. Raises ValueError where two are one, or no replay in `other` shows the same."""
    check_seeds(world.name, world.seeds)
    found = [_task(world, split, seed) for seed in world.seeds[split]]
    tasks = [task for task, _ in found]
    check_replay(world, tasks[:3], other)

    def episodes() -> list[str]:
        firsts = [_task(world, name, seed)[0] for name, seeds in world.seeds.items() for seed in seeds[:3]]
        return [repr((task.instruction, play_at_random(world, task))) for task in firsts]

    check_starts(world.name, split, [(task.instruction, shown) for task, shown in found], episodes)
    return tasks


def _task(world: Any, split: str, seed: int) -> tuple[Task, str]:
    """The task of a seed and its first observation."""
    start = world._start(int(seed))
    text, shown = said(world, "instruction", *start), said(world, "describe", *start)
    return Task(f"{world.name}-{seed}", world.name, split, text, {"seed": int(seed)}), shown


def check_seeds(name: str, splits: Mapping[str, Sequence[int]]) -> None:
    """Raise ValueError for a seed that occurs twice."""
    home: dict[int, str] = {}
    for split, seed in ((split, seed) for split, some in splits.items() for seed in some):
        if seed in home:
            where = f"twice in split {split!r}" if home[seed] == split else f"in splits {home[seed]!r} and {split!r}"
            raise ValueError(f"environment {name!r} has seed {seed} {where}; each seed is one task, in one split")
        home[seed] = split


def check_starts(name: str, split: str, found: Sequence[Hashable], played: Callable[[], Sequence[Hashable]]) -> None:
    """Say it on stderr where the tasks of `split` start alike, from how each starts.

    Raises ValueError if they all do and `played`, how tasks of all splits go, has no difference either.
    """
    different = len(set(found))
    if len(found) < 2 or 2 * different > len(found):
        return
    seem = "its simulator seems to ignore the seed of `reset`"
    if different == 1 and len(set(episodes := played())) == 1 and len(episodes) > 1:
        raise ValueError(f"environment {name!r} has one task only, in all splits alike: {seem}; make it use the seed")
    alike, hint = len(found) - different, f": {seem}" if different == 1 else ""
    print(f"{name}: {alike} of the {len(found)} tasks of {split!r} start like another one{hint}", file=sys.stderr)


def address(url: str) -> str:
    """One spelling of a server's URL. Raises ContractError where it has no scheme."""
    if not (found := re.fullmatch(r"(?i)(http|ws)(s?)://([^/]+)(.*?)/*", url)):
        raise ContractError(
            f"url {url!r} is no server's address; write 'http://{url.rpartition('://')[2] or 'localhost:8000'}'"
        )
    return f"http{found[2].lower()}://{found[3].lower()}{found[4]}"


def fields(url: str, message: Any, answer: Any, *needed: str) -> Any:
    """The `data` of an OpenEnv server's answer. Raises SimulatorError where it lacks what is `needed`."""
    data = answer.get("data") if isinstance(answer, Mapping) else None
    given = data if isinstance(data, Mapping) else {}
    lacks = [repr(key) for key in needed if key not in given] if given is data else ["an object 'data'"]
    if lacks or answer.get("type") == "error":
        hint = "" if given is data and answer.get("type") == "error" else f", which lacks {lacks[0]}"
        raise SimulatorError(f"the server at {url} answered {message} with {answer!r:.300}{hint}")
    return data
