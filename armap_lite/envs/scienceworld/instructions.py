"""Goals of ScienceWorld in the benchmark's own sentences, and back.

A goal is a dict of strings: `do` says what kind of goal it is, the other keys are what the sentence names.
"""

from __future__ import annotations

import re

from armap_lite.envs.hindsight import Goal
from armap_lite.envs.scienceworld.data import DATA

FEW_SHOT = tuple((goal, text) for goal, text in DATA["few_shot"])
# If a kind has two sentences with the same slots, `to_text` writes the first and `parse` reads both: in one task the
# benchmark names the secondary color again in its last sentence.
FORMS = [(do, sentence) for do, goal in DATA["goals"].items() for sentence in goal["sentences"]]
ROOM = "|".join(DATA["rooms"])
SLOT = {"limit": r"-?\d+(?:\.\d+)?", "count": r"\d+", "at": ROOM}
TEXT = r"(?!(?:not|never|no) )[\w()'-]+(?: [\w()'-]+)*?"  # of any other slot
MORE = re.compile(  # words of texts that ask for more than finding, focusing or placing
    r"\b(?:not|never|no|without|avoid|except|unless|if|boil|melt|freeze|grow|chemistry|mix|pour|measure|temperature"
    r"|circuit|connect|power|turn|activate|deactivate|open|read|conductive|life|state)\b|n['’]t\b",
    re.IGNORECASE,
)
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
