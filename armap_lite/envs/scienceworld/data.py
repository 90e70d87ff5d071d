"""Tables and sentences of ScienceWorld (`data.json`), and what the names of things say.

In the file: families: the paper's 24 task families and their step limits. examples: [family, variation, actions],
solved by hand in training variations. responses: the simulator's answers to actions, as [verb, pattern] with groups for
the thing and its destination. goals: for each kind of goal the benchmark's sentences and a priority, which grows with
the number of steps. continuations: patterns of actions, see `continuations.py`.
"""

from __future__ import annotations

import json
import re
from importlib import resources
from typing import Any

DATA: dict[str, Any] = json.loads(resources.files(__package__).joinpath("data.json").read_text(encoding="utf-8"))
WORDS = {name: re.compile(rf"\b(?:{words})\b") for name, words in DATA["words"].items()}
MAX_STEPS: dict[str, int] = DATA["families"]
PLANT = re.compile(r"\b(?:tree|plant|seedling|seed|flower)\b(?! pot| jar)")
LIQUID = re.compile(r"\b(?:juice|milk|mercury|water)$")  # at room temperature; all other substances are solid


def same_thing(moved: str, focused: str) -> bool:
    """Whether both names mean one thing: a "dove egg" is moved as "the dove", but an "orange seed" is no "orange"."""
    rest = re.sub(rf"\b{re.escape(moved)}\b", "", focused, count=1)
    return rest != focused and not re.search(r"\b(?:paint|seed|seedling|tree|plant|flower)\b", rest)


def kind(name: str, broad: bool = False) -> str:
    """The kind of thing in the words of the benchmark's tasks; `broad`: only living or non-living."""
    animal, plant = bool(WORDS["animal"].search(name)), bool(PLANT.search(name))
    if not animal and not plant:
        return "non-living thing"
    return "living thing" if broad else "animal" if animal else "plant"


def substance(name: str) -> tuple[str, str]:
    """A substance and its state: "ice" is ("water", "solid"); the state is "" if the name does not say."""
    if name in ("ice", "water", "steam"):
        return "water", {"ice": "solid", "water": "liquid", "steam": "gaseous"}[name]
    state = re.match(r"(solid|liquid|gaseous) ", name)
    return (name[state.end() :], state[1]) if state else (name, "")


def default_state(name: str) -> str:
    """The state at room temperature, in which the benchmark uses a substance's bare name."""
    return "liquid" if LIQUID.search(name) else "solid"
