"""A small simulator in Gymnasium's form."""

import random
from typing import Any

import numpy as np

COLOURS = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200)}


class Shelf:
    """Three jars in an order that the seed decides; a step moves along the shelf or takes the jar that stands there.

    With `noise`, no two resets in a row show the same jar, whatever the seed.
    """

    resets = 0

    def __init__(self, render_mode: str | None = None, noise: bool = False):
        self.render_mode, self.noise = render_mode, noise
        self.reward: Any = 1.0  # for the right jar
        self.closed = 0

    def reset(self, *, seed: int | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        rng = random.Random(None if self.noise else seed)
        self.jars = rng.sample(sorted(COLOURS), 3)
        if self.noise:
            Shelf.resets += 1
            self.jars = [sorted(COLOURS)[(Shelf.resets + k) % 3] for k in range(3)]
        self.wanted, self.at, self.held = rng.choice(self.jars), 1, ""
        return self.seen(), {}

    def step(self, action: str) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]:
        if action not in ("-1", "1", "take"):
            raise KeyError(action)
        if action == "take":
            self.held = self.jars[self.at]
        else:
            self.at += int(action)
        right = self.reward if self.held == self.wanted else self.reward * 0.0
        return self.seen(), right, bool(self.held), False, {}

    def seen(self) -> dict[str, Any]:
        return {"jar": self.jars[self.at], "at": self.at, "held": self.held, "mission": f"Take the {self.wanted} jar."}

    def render(self) -> np.ndarray:
        return np.full((4, 6, 3), COLOURS[self.jars[self.at]], dtype=np.uint8)

    def close(self) -> None:
        self.closed += 1
