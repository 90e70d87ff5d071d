"""Goals of ScienceWorld in the benchmark's own sentences, and back.

A goal is a dict of strings: `do` says what kind of goal it is, the other keys are what the sentence names.
"""

from __future__ import annotations

import re

from armap_lite.envs.scienceworld.events import ROOMS

# What each kind of goal asks for. Where a kind has two sentences with the same slots, the first is written and both are
# read: in one task the benchmark names the secondary color again in its last sentence.
SENTENCES = """
find:
    Your task is to find a(n) {thing}. First, focus on the thing. Then, move it to the {into} in the {room}.
find:
    Your task is to find a(n) {thing} around the {at}. Focus on the thing.
focus:
    Your task is to find the {thing}. The {thing} is located around the {at}. Focus on the {thing}.
place:
    Your task is to place the {thing} in the {into}. The {into} is located around the {room}.
boil:
    Your task is to boil {thing}. For compounds without a boiling point, combusting the substance is also
    acceptable. First, focus on the substance. Then, take actions that will cause it to change its state of
    matter.
melt:
    Your task is to melt {thing}. First, focus on the substance. Then, take actions that will cause it to change
    its state of matter.
freeze:
    Your task is to freeze {thing}. First, focus on the substance. Then, take actions that will cause it to
    change its state of matter.
change:
    Your task is to change the state of matter of {thing}. First, focus on the substance. Then, take actions
    that will cause it to change its state of matter.
melting point:
    Your task is to measure the melting point of {thing}, which is located around the {at}. First, focus on the
    thermometer. Next, focus on the {thing}. If the melting point of {thing} is above {limit} degrees celsius,
    focus on the {above}. If the melting point of {thing} is below {limit} degrees celsius, focus on the
    {below}. The boxes are located around the {room}.
temperature:
    Your task is to measure the temperature of {thing}, which is located around the {at}. First, focus on the
    thermometer. Next, focus on the {thing}. If the {thing} temperature is above {limit} degrees celsius, place
    it in the {above}. If the {thing} temperature is below {limit} degrees celsius, place it in the {below}. The
    boxes are located around the {room}.
power:
    Your task is to turn on the {thing} by powering it using a {source} power source. First, focus on the
    {thing}. Then, create an electrical circuit that powers it on.
power:
    Your task is to turn on the {thing}. First, focus on the {thing}. Then, create an electrical circuit that
    powers it on.
conductivity:
    Your task is to determine if {thing} is electrically conductive. The {thing} is located around the {at}.
    First, focus on the {thing}. If it is electrically conductive, place it in the {yes}. If it is electrically
    nonconductive, place it in the {no}.
grow fruit:
    Your task is to grow a {thing}. This will require growing several plants, and them being crosspollinated to
    produce fruit. Seeds can be found in the {at}. To complete the task, focus on the grown {thing}.
grow plant:
    Your task is to grow a {thing} plant from seed. Seeds can be found in the {at}. First, focus on a seed.
    Then, make changes to the environment that grow the plant until it reaches the reproduction life stage.
create:
    Your task is to use chemistry to create the substance '{thing}'. A recipe and some of the ingredients might
    be found near the {at}. When you are done, focus on the {thing}.
create in two steps:
    Your task is to use chemistry to create {thing}. When you are part-way done, focus on the intermediate
    (secondary color) paint you created. When you are completely done, focus on the {thing}.
create in two steps:
    Your task is to use chemistry to create {thing}. When you are part-way done, focus on the intermediate
    (secondary color) paint you created. When you are completely done, focus on the {} paint.
create:
    Your task is to use chemistry to create {thing}. When you are done, focus on the {thing}.
longest, then shortest lived:
    Your task is to find the animal with the longest life span, then the shortest life span. First, focus on the
    animal with the longest life span. Then, focus on the animal with the shortest life span. The animals are in
    the 'outside' location.
longest lived:
    Your task is to find the animal with the longest life span. The animals are in the 'outside' location. Focus
    on the animal with the longest life span.
shortest lived:
    Your task is to find the animal with the shortest life span. The animals are in the 'outside' location.
    Focus on the animal with the shortest life span.
life stages:
    Your task is to focus on the {count} life stages of the {thing}, starting from earliest to latest.
life stages:
    Your task is to focus on the life stages of the {thing} plant, starting from earliest to latest. The plants
    are located outside.
mix:
    Your task is to mix {thing}. Some of the ingredients might be found near the {at}.
pour:
    Your task is to pour the contents of the {thing} into the {into}. Look for them around the {at}.
connect:
    Your task is to connect the {thing} to the {into}. They are located around the {at}.
measure:
    Your task is to measure the temperature of the {thing} in the {at}. Use the thermometer.
activate:
    Your task is to activate the {thing}. The {thing} is located around the {at}.
deactivate:
    Your task is to deactivate the {thing}. The {thing} is located around the {at}.
open:
    Your task is to open the {thing}. The {thing} is located around the {at}.
read:
    Your task is to read the {thing}. The {thing} is located around the {at}.
"""
FEW_SHOT = (
    (
        {"do": "find", "thing": "animal", "into": "red box", "room": "kitchen"},
        "Your task is to find a(n) animal. First, focus on the thing. Then, move it to the red box in the kitchen.",
    ),
    (
        {"do": "find", "thing": "plant", "at": "greenhouse"},
        "Your task is to find a(n) plant around the greenhouse. Focus on the thing.",
    ),
    (
        {"do": "focus", "thing": "green paint", "at": "art studio"},
        "Go to the art studio. When you are done, focus on the green paint.",
    ),
    (
        {"do": "place", "thing": "lead", "into": "metal pot", "room": "foundry"},
        "Move the lead to the metal pot in the foundry.",
    ),
    (
        {"do": "create", "thing": "violet paint"},
        "Your task is to use chemistry to create violet paint. When you are done, focus on the violet paint.",
    ),
    (
        {"do": "activate", "thing": "stove", "at": "kitchen"},
        "Your task is to activate the stove. The stove is located around the kitchen.",
    ),
)
OTHERWISE = re.compile(  # a text with these words asks for more than finding, focusing or placing
    r"\b(?:not|never|no|without|avoid|except|unless|if|boil|melt|freeze|grow|chemistry|mix|pour|measure|temperature"
    r"|circuit|connect|power|turn|activate|deactivate|open|read|conductive|life|state)\b|n['’]t\b",
    re.IGNORECASE,
)
NAME = r"([\w()-]+(?: (?!and\b|to\b|in\b|into\b|is\b|around\b)[\w()-]+)*)"


def _pattern(sentence: str) -> re.Pattern[str]:
    """A sentence with its slots as groups; a slot that occurs twice has to say the same both times."""
    out, seen = "", set()
    for text, slot in re.findall(r"([^{]+)(\{\w*\})?", sentence):
        name = slot[1:-1]
        out += re.escape(text)
        if slot and name in seen:
            out += f"(?P={name})"
        elif slot:
            value = {"limit": r"-?\d+(?:\.\d+)?", "count": r"\d+", "at": ROOMS.replace(", ", "|")}.get(
                name, r"(?!(?:not|never|no) )[\w()'-]+(?: [\w()'-]+)*?"
            )
            out += f"(?P<{name}>{value})" if name else value
            seen.add(name)
    return re.compile(out, re.IGNORECASE)


FORMS = tuple((do, " ".join(text.split())) for do, text in re.findall(r"^(\S.*):\n((?: {4}.*\n)+)", SENTENCES, re.M))
PATTERNS = tuple((do, _pattern(sentence)) for do, sentence in FORMS)
SLOTS = tuple((do, frozenset(re.findall(r"\{(\w+)\}", sentence)), sentence) for do, sentence in FORMS)


def to_text(goal: dict[str, str]) -> str:
    """The benchmark's sentence for `goal`. Raises ValueError where there is no sentence for such a goal."""
    for do, slots, sentence in SLOTS:
        if do == goal.get("do") and slots == goal.keys() - {"do"}:
            return sentence.format(**goal)
    raise ValueError(f"no sentence for the goal {goal}; kinds of goals: {', '.join(sorted({s[0] for s in SLOTS}))}")


def parse(text: str) -> dict[str, str] | None:
    """The goal that `text` states; None where it states none, several, or denies something."""
    text = " ".join(text.split())
    for do, pattern in PATTERNS:
        if match := pattern.fullmatch(text):
            return {"do": do, **match.groupdict()}
    return loose(text)


def loose(text: str) -> dict[str, str] | None:
    """The goal of a text in other words than the benchmark's, where it is about finding, focusing on or placing."""
    if OTHERWISE.search(text):
        return None
    rooms = {room for room in ROOMS.split(", ") if re.search(rf"\b{room}\b", text)}
    focus = {name for name in re.findall(rf"focus on the {NAME}", text, re.IGNORECASE) if name != "thing"}
    find = re.findall(rf"find an?(?:\(n\))? {NAME}", text, re.IGNORECASE)
    moves = re.findall(rf"(?:move|place|put) (?:the )?{NAME} (?:to|in|into) the {NAME}", text, re.IGNORECASE)
    if len(rooms) != 1 or len(focus) > 1 or len(find) > 1 or len(moves) > 1:
        return None
    [room] = rooms
    if find and not moves and not focus:
        return {"do": "find", "thing": find[0], "at": room}
    if find and moves and not focus:
        return {"do": "find", "thing": find[0], "into": moves[0][1], "room": room}
    if focus and not find and not moves:
        return {"do": "focus", "thing": focus.pop(), "at": room}
    if moves and not find and not focus:
        return {"do": "place", "thing": moves[0][0], "into": moves[0][1], "room": room}
    return None
