"""The episodes of ScienceWorld that are played: families, limits, worked examples, and a user's own splits."""

from __future__ import annotations

import json
from pathlib import Path

# The 24 task families of the paper and how many steps an episode may take.
STEPS = {
    "boil": 100,
    "change-the-state-of-matter-of": 80,
    "freeze": 80,
    "melt": 80,
    "measure-melting-point-known-substance": 120,
    "use-thermometer": 30,
    "power-component": 20,
    "power-component-renewable-vs-nonrenewable-energy": 30,
    "test-conductivity": 30,
    "test-conductivity-of-unknown-substances": 30,
    "find-animal": 15,
    "find-living-thing": 15,
    "find-non-living-thing": 15,
    "find-plant": 15,
    "grow-fruit": 60,
    "grow-plant": 30,
    "chemistry-mix": 60,
    "chemistry-mix-paint-secondary-color": 15,
    "chemistry-mix-paint-tertiary-color": 30,
    "lifespan-longest-lived": 10,
    "lifespan-longest-lived-then-shortest-lived": 12,
    "lifespan-shortest-lived": 10,
    "identify-life-stages-1": 30,
    "identify-life-stages-2": 30,
}
EXAMPLES = (  # worked by hand, in training variations
    (
        "power-component",
        1,
        (
            "teleport to workshop",
            "focus on red light bulb",
            "connect anode in battery to terminal 1 in yellow wire",
            "connect battery cathode to red wire terminal 1",
            "connect terminal 2 in yellow wire to cathode in red light bulb",
            "connect red wire terminal 2 to anode in red light bulb",
            "wait",
        ),
    ),
    ("lifespan-longest-lived", 4, ("teleport to outside", "focus on egg parrot")),
    (
        "chemistry-mix-paint-secondary-color",
        3,
        (
            "teleport to art studio",
            "pour cup containing blue paint in art studio into cup containing nothing",
            "pour cup containing yellow paint in art studio into cup containing blue paint in table",
            "mix cup containing blue paint and yellow paint",
            "focus on green paint",
        ),
    ),
    (
        "use-thermometer",
        8,
        (
            "teleport to kitchen",
            "pick up thermometer",
            "focus on thermometer",
            "teleport to living room",
            "pick up unknown substance",
            "focus on unknown substance",
            "use thermometer on unknown substance",
            "teleport to bedroom",
            "move unknown substance to red box",
        ),
    ),
    (
        "find-animal",
        3,
        (
            "teleport to outside",
            "focus on butterfly",
            "pick up butterfly",
            "teleport to kitchen",
            "move butterfly to orange box",
        ),
    ),
)
PER_FAMILY = 10  # test and dev: the first ten variations of each family, or all there are


def read_index(file: Path) -> dict[str, list[tuple[str, int]]]:
    """The episodes that a user's file gives to splits. Raises ValueError for one that there is not, or given twice."""
    index = json.loads(file.read_text(encoding="utf-8"))
    seen: dict[tuple[str, int], str] = {}
    for split, places in index.items():
        if split not in ("train", "dev", "test") or not places:
            raise ValueError(f"{file}: {split!r} has {places!r}; expected 'train', 'dev' or 'test', each with episodes")
        for place in places:
            if not (isinstance(place, list) and len(place) == 2 and place[0] in STEPS and isinstance(place[1], int)):
                raise ValueError(f"{file}: {place!r} in {split!r} is no episode; expected one like ['boil', 1]")
            if other := seen.get(tuple(place)):
                raise ValueError(f"{file}: {place!r} is in {other!r} and in {split!r}; give it to one of them")
            if split != "train" and any(tuple(place) == example[:2] for example in EXAMPLES):
                raise ValueError(f"{file}: {place!r} in {split!r} is worked out in the agent's prompt; give another")
            seen[tuple(place)] = split
    return {split: [tuple(place) for place in places] for split, places in index.items()}
