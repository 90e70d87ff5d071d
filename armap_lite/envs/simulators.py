"""The simulators of a world that others made, shared by all episodes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from armap_lite.envs.base import SimulatorError


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
        """The simulator of `world`. It is closed where the block raises, as SimulatorError, or is interrupted."""
        try:
            if world.simulator not in self:
                raise SimulatorError("the simulator was closed")
            yield world.simulator
        except BaseException as error:
            broken = self.open.pop(id(world.simulator), None)
            world.simulator = world.at = None
            with contextlib.suppress(Exception):  # the first error matters
                broken.close()
            if not isinstance(error, Exception):
                raise
            raise SimulatorError(f"{world.name}: {method} failed with {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """End all of them."""
        self.idle.clear()
        while self.open:
            with contextlib.suppress(Exception):  # the others are closed all the same
                self.open.popitem()[1].close()
