"""Tables of ScienceWorld (`data.json`), what the names of things say, and goals in the benchmark's own sentences.

A goal is a dict of strings: `do` says what kind of goal it is, the other keys are what the sentence names.

In the file: families: the paper's 24 task families and their step limits. examples: [family, variation, actions],
solved by hand in training variations. responses: the simulator's answers to actions, as [verb, pattern] with groups for
the thing and its destination. goals: for each kind of goal the benchmark's sentences and a priority, which grows with
the number of steps. continuations: patterns of actions, see `continuations.py`.
"""

import json
import re
from pathlib import Path
from typing import Any

from armap_lite.envs.hindsight import Goal

DATA: dict[str, Any] = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
WORDS = {name: re.compile(rf"\b(?:{words})\b") for name, words in DATA["words"].items()}
MAX_STEPS: dict[str, int] = DATA["families"]
PLANT = re.compile(r"\b(?:tree|plant|seedling|seed|flower)\b(?! pot| jar)")
LIQUID = re.compile(r"\b(?:juice|milk|mercury|water)$")  # at room temperature; all other substances are solid


def same_thing(moved: str, focused: str) -> bool:
    """Whether both names mean one thing: a "dove egg" is moved as "the dove", but an "orange box" is no "orange"."""
    rest = re.sub(rf"\b{re.escape(moved)}\b", "", focused, count=1)
    return rest != focused and not re.search(r"\b(?:box|juice|paint|seed|seedling|tree|plant|flower)\b", rest)


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


# Sentences.

FEW_SHOT = tuple((goal, text) for goal, text in DATA["few_shot"])
# If a kind has two sentences with the same slots, `to_text` writes the first and `parse` reads both: in one task the
# benchmark names the secondary color again in its last sentence.
FORMS = [(do, sentence) for do, goal in DATA["goals"].items() for sentence in goal["sentences"]]
ROOM = "|".join(DATA["rooms"])
SLOT = {"limit": r"-?\d+(?:\.\d+)?", "count": r"\d+", "at": ROOM}
TEXT = r"(?!(?:not|never|no) )[\w()'-]+(?: [\w()'-]+)*?"  # of any other slot
# Words of texts that ask for more than finding, focusing or placing.
MORE = re.compile(rf"\b(?:{DATA['words']['more']})\b|n['’]t\b", re.IGNORECASE)
NAME = r"([\w()-]+(?: (?!and\b|to\b|in\b|into\b|is\b|around\b)[\w()-]+)*)"


def slots(sentence: str) -> set[str]:
    """The names of the slots in `sentence`."""
    return set(re.findall(r"\{(\w+)\}", sentence))


def _pattern(sentence: str) -> re.Pattern[str]:
    """`sentence` with its slots as groups; a slot that occurs twice must have the same value."""
    seen: set[str] = set()

    def group(match: re.Match[str]) -> str:
        name = match[1]
        if name in seen:
            return f"(?P={name})"
        seen.update({name} - {""})
        return f"(?P<{name}>{SLOT.get(name, TEXT)})" if name else TEXT

    return re.compile(re.sub(r"\\\{(\w*)\\\}", group, re.escape(sentence)), re.IGNORECASE)


PATTERNS = [(do, _pattern(sentence)) for do, sentence in FORMS]


def to_text(goal: Goal) -> str:
    """The benchmark's sentence for `goal`. Raises ValueError if there is none."""
    for do, sentence in FORMS:
        if do == goal.get("do") and slots(sentence) == goal.keys() - {"do"}:
            return sentence.format(**goal)
    raise ValueError(f"no sentence for the goal {goal}; kinds of goals: {', '.join(sorted(DATA['goals']))}")


def parse(instruction: str) -> Goal | None:
    """The goal that `instruction` states; None if it states none or several, or denies something."""
    text = " ".join(instruction.split())
    for do, pattern in PATTERNS:
        if match := pattern.fullmatch(text):
            return {"do": do, **match.groupdict()}
    return _parse_freely(text)


def _parse_freely(text: str) -> Goal | None:
    """The goal of a text in other words than the benchmark's, if it is about finding, focusing or placing."""
    rooms = [room for room in DATA["rooms"] if re.search(rf"\b{room}\b", text)]
    focus = {name for name in re.findall(rf"focus on the {NAME}", text, re.IGNORECASE) if name != "thing"}
    find = re.findall(rf"find an?(?:\(n\))? {NAME}", text, re.IGNORECASE)
    moves = re.findall(rf"(?:move|place|put) (?:the )?{NAME} (?:to|in|into) the {NAME}", text, re.IGNORECASE)
    if MORE.search(text) or len(rooms) != 1:
        return None
    match (len(find), len(focus), len(moves)):
        case (1, 0, 0):
            return {"do": "find", "thing": find[0], "at": rooms[0]}
        case (1, 0, 1):
            return {"do": "find", "thing": find[0], "into": moves[0][1], "room": rooms[0]}
        case (0, 1, 0):
            return {"do": "focus", "thing": focus.pop(), "at": rooms[0]}
        case (0, 0, 1):
            return {"do": "place", "thing": moves[0][0], "into": moves[0][1], "room": rooms[0]}
    return None
