"""Environments by name. `make` gives the world, `make_judge` the score; only evaluation needs the second."""

from __future__ import annotations

from typing import Any

from armap_lite.envs.base import Environment, Judge
from armap_lite.envs.game24 import Game24, Game24Judge
from armap_lite.envs.scienceworld import ScienceWorld, ScienceWorldJudge
from armap_lite.envs.webshop import WebShop, WebShopJudge

ENVIRONMENTS: dict[str, tuple[type[Environment], type[Judge]]] = {
    "game24": (Game24, Game24Judge),
    "scienceworld": (ScienceWorld, ScienceWorldJudge),
    "webshop": (WebShop, WebShopJudge),
}


def make(name: str, **options: Any) -> Environment:
    """The environment called `name`. Raises ValueError for a name that is not known."""
    return named(name)[0](**options)


def make_judge(name: str, **options: Any) -> Judge:
    """The judge of environment `name`: the true score, for the final evaluation alone."""
    return named(name)[1](**options)


def named(name: str) -> tuple[type[Environment], type[Judge]]:
    """The classes registered as `name`. Raises ValueError for a name that is not known."""
    if name not in ENVIRONMENTS:
        raise ValueError(f"environment {name!r} is not known; there is {', '.join(sorted(ENVIRONMENTS))}")
    return ENVIRONMENTS[name]
