"""Environments by name: `make` gives the environment, `make_judge` its judge, which only evaluation needs."""

import inspect
import json
import os
import random
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from armap_lite.envs.base import Environment, Judge
from armap_lite.envs.game24 import Game24, Game24Judge
from armap_lite.envs.scienceworld import ScienceWorld, ScienceWorldJudge
from armap_lite.envs.webshop import WebShop, WebShopJudge
from armap_lite.trajectory import Observation, Task

ENVIRONMENTS: dict[str, tuple[type[Environment], type[Judge]]] = {
    "game24": (Game24, Game24Judge),
    "scienceworld": (ScienceWorld, ScienceWorldJudge),
    "webshop": (WebShop, WebShopJudge),
}

PATH_OPTIONS = {"folder", "puzzles"}  # options of environments that name a user's files


def reward_model(name: str) -> Path | None:
    """The folder of the reward model that the kit ships for environment `name`; None where it ships none."""
    folder = Path(__file__).parent / "reward_models" / name
    return folder if folder.is_dir() else None


def make(name: str, **options: Any) -> Environment:
    """The environment called `name`. Raises ValueError for a name or an option that is not known."""
    check_options(name, options)
    return lookup(name)[0](**options)


def make_judge(name: str, **options: Any) -> Judge:
    """The judge of environment `name`, with the options of that environment, for the final evaluation alone."""
    check_options(name, options)
    return lookup(name)[1](**options)


def check_options(name: str, options: dict[str, Any]) -> None:
    """Raise ValueError for an option that environment `name` does not have."""
    known = inspect.signature(lookup(name)[0]).parameters.values()
    names = [p.name for p in known if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    unknown = sorted(options.keys() - names)
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in known):
        expected = f"its options are {', '.join(names)}" if names else "it has no options"
        raise ValueError(f"environment {name!r} has no option {unknown[0]!r}; {expected}")


def lookup(name: str) -> tuple[type[Environment], type[Judge]]:
    """The classes registered as `name`. Raises ValueError for a name that is not known."""
    if name not in ENVIRONMENTS:
        raise ValueError(
            f"environment {name!r} is not known; there is {', '.join(sorted(ENVIRONMENTS))}; notebook 08 adds one"
        )
    return ENVIRONMENTS[name]


def check_replay(env: Environment, tasks: Sequence[Task], other: Environment | None = None) -> None:
    """Play each of `tasks` at random, then the same actions in a fork. Raises ValueError where it shows something else.

    States are reached by replay, so an environment has to be deterministic, and its forks alike. `other`: that fork.
    """
    other = env.fork() if other is None else other
    for task in tasks:
        actions, seen = play_at_random(env, task)
        again = [other.reset(task), *map(other.step, actions)]
        for k, (one, two) in enumerate(zip(seen, again)):
            if one != two:
                name = next(f.name for f in fields(one) if getattr(one, f.name) != getattr(two, f.name))
                shown = f"after {actions[:k]} the {name} was {getattr(one, name)!r:.200}, and in a replay"
                shown += f" {getattr(two, name)!r:.200}"
                way = "it has to be deterministic (a simulator: once it is reset with a seed, and whenever it is made)"
                raise ValueError(f"environment {env.name!r} cannot be replayed: in task {task.id!r} {shown}; {way}")
    other.release()


def play_at_random(env: Environment, task: Task) -> tuple[list[str], list[Observation]]:
    """The actions of a random episode, the same at each call, and what was observed before and after each."""
    rng, actions, seen = random.Random(0), list[str](), [env.reset(task)]
    while not seen[-1].done and (options := env.admissible()) and len(actions) < (task.max_steps or env.max_steps):
        actions.append(rng.choice(options))
        seen.append(env.step(actions[-1]))
    return actions, seen


def user_options(env: str) -> dict[str, Any]:
    """Options for environment `env` from ARMAP_LITE_ENV_OPTIONS, JSON: {"webshop": {"folder": "/data/webshop"}}.

    An environment variable reaches the kernels of the notebooks, too; they run elsewhere, so paths are absolute.
    """
    text = os.environ.get("ARMAP_LITE_ENV_OPTIONS", "{}")
    try:
        options = json.loads(text)
        mine = options.get(env, {})
        if unknown := options.keys() - ENVIRONMENTS.keys():
            raise ValueError(f"{min(unknown)!r} is no environment")
        if relative := [mine[name] for name in mine.keys() & PATH_OPTIONS if not Path(mine[name]).is_absolute()]:
            raise ValueError(f"{relative[0]!r} is no absolute path")
    except (ValueError, AttributeError, TypeError) as error:
        expected = 'expected JSON like {"scienceworld": {"heap_mb": 256}}'
        raise ValueError(f"ARMAP_LITE_ENV_OPTIONS={text!r}: {error}; {expected}") from error
    return mine
