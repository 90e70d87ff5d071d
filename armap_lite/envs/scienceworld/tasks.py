"""The episodes of ScienceWorld: tasks of a split, and a user's own splits."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from armap_lite.envs.scienceworld.data import DATA, MAX_STEPS
from armap_lite.trajectory import Task

PER_FAMILY = 10  # test and dev: the first ten variations of each family, or all there are
Place = tuple[str, int]  # family, variation


class Tasks(Sequence[Task]):
    """The tasks of a split. The simulator is asked for a task's instruction when the task is looked at, not before."""

    def __init__(self, split: str, places: Sequence[Place], describe: Callable[[str, int], str]):
        self._split, self._places, self._describe = split, places, describe

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return Tasks(self._split, self._places[at], self._describe)
        family, variation = self._places[at]
        asked, setup = self._describe(family, variation), {"variation": variation}
        return Task(f"{family}-{variation}", "scienceworld", self._split, asked, setup, family, MAX_STEPS[family])


def read_index(file: Path) -> dict[str, list[Place]]:
    """The episodes that a user's file gives to splits. Raises ValueError for an unknown one, or one given twice."""
    index = json.loads(file.read_text(encoding="utf-8"))
    shown = {(family, variation) for family, variation, _ in DATA["examples"]}
    seen: dict[Place, str] = {}
    for split, places in index.items():
        if split not in ("train", "dev", "test") or not places:
            raise ValueError(f"{file}: {split!r} has {places!r}; expected 'train', 'dev' or 'test', each with episodes")
        for place in places:
            match place:
                case [str(family), int()] if family in MAX_STEPS:
                    key = tuple(place)
                case _:
                    raise ValueError(f"{file}: {place!r} in {split!r} is no episode; expected one like ['boil', 1]")
            if key in seen:
                raise ValueError(f"{file}: {place!r} is in {seen[key]!r} and in {split!r}; give it to one of them")
            if split != "train" and key in shown:
                raise ValueError(f"{file}: {place!r} in {split!r} is worked out in the agent's prompt; give another")
            seen[key] = split
    return {split: [place for place, of in seen.items() if of == split] for split in index}
