"""What happened in a ScienceWorld episode, read from its text, and the sentences that say so. No score is read."""

from __future__ import annotations

import re
import zlib

from armap_lite.trajectory import Trajectory

ROOMS = "art studio, bathroom, bedroom, foundry, greenhouse, hallway, kitchen, living room, outside, workshop"
ANIMAL = re.compile(
    r"\b(?:ant|beaver|bee|blue jay|brown bear|butterfly|chameleon|chipmunk|crocodile|dove|dragonfly|elephant|frog"
    r"|tortoise|hedgehog|moth|mouse|parrot|rabbit|toad|turtle|wolf)\b"
)
PLANT = re.compile(r"\b(?:tree|plant|seedling|seed|flower)\b(?! pot| jar)")
ROOM = re.compile(r"(?:This room is called|This outside location is called|You (?:teleport|move) to) the (.+?)\.")
NAME = r"([\w()-]+(?: (?!and\b|to\b|in\b|into\b|is\b|around\b)[\w()-]+)*)"
PHRASINGS = (
    (
        {"find": "animal", "into": "red box", "room": "kitchen"},
        "Your task is to find a(n) animal. First, focus on the thing. Then, move it to the red box in the kitchen.",
    ),
    (
        {"find": "plant", "at": "greenhouse"},
        "Your task is to find a(n) plant around the greenhouse. Focus on the thing.",
    ),
    (
        {"focus": "green paint", "at": "art studio"},
        "Go to the art studio. When you are done, focus on the green paint.",
    ),
    ({"put": "lead", "into": "metal pot", "room": "foundry"}, "Move the lead to the metal pot in the foundry."),
    (
        {"focus": "thermometer", "at": "bathroom"},
        "The thermometer is around the bathroom. Focus on the thermometer.",
    ),
)


def read_facts(trajectory: Trajectory) -> dict[str, str]:
    """What was focused on last and in which room, and what was put where last; {} where there is neither.

    In a third of the tasks things are called by name, in a third by kind ("animal") and in a third by whether they
    live: real tasks do all of that.
    """
    room = "hallway"
    facts: dict[str, str] = {}
    for text in (trajectory.start, *(step.observation for step in trajectory.steps)):
        if there := ROOM.match(text):
            room = there[1]
        elif focus := re.match(r"You focus on the (.+?)\.", text):
            facts.update(focus=focus[1], at=room)
        elif (put := re.match(r"You move the (.+?) to the (.+?)\.", text)) and put[2] != "inventory":
            facts.update(put=put[1], into=put[2], room=room)
    if "focus" in facts:
        how = zlib.crc32(trajectory.task.id.encode()) % 3
        moved = "put" in facts and facts["put"] in facts["focus"]  # a "dove egg" is moved as "the dove"
        if how or moved:
            called = facts["focus"] if how == 0 else kind(facts["focus"], broad=how == 2)
            return {"find": called, **_part(facts, *(("into", "room") if moved else ("at",)))}
        return _part(facts, "focus", "at")
    return _part(facts, "put", "into", "room") if "put" in facts else {}


def plain(facts: dict[str, str]) -> str:
    """A sentence in the benchmark's style that states `facts`."""
    if "find" in facts and "at" in facts:
        text = "Your task is to find a(n) {find} around the {at}. Focus on the thing."
    elif "find" in facts:
        text = "Your task is to find a(n) {find}. First, focus on the thing. Then, move it to the {into} in the {room}."
    elif "focus" in facts:
        text = "Your task is to find the {focus}. The {focus} is located around the {at}. Focus on the {focus}."
    else:
        text = "Your task is to place the {put} in the {into}. The {into} is located around the {room}."
    return text.format(**facts)


def read_instruction(instruction: str) -> dict[str, str] | None:
    """The facts that `instruction` names; None where it names none, several, or denies something."""
    if re.search(r"\b(?:not|never|no|without|avoid|except|unless)\b|n['’]t\b", instruction):
        return None
    rooms = {room for room in ROOMS.split(", ") if re.search(rf"\b{room}\b", instruction)}
    focus = {name for name in re.findall(rf"focus on the {NAME}", instruction, re.IGNORECASE) if name != "thing"}
    find = re.findall(rf"find an?(?:\(n\))? {NAME}", instruction, re.IGNORECASE)
    moves = re.findall(rf"(?:move|place|put) (?:the )?{NAME} (?:to|in|into) the {NAME}", instruction, re.IGNORECASE)
    if len(rooms) != 1 or len(focus) > 1 or len(find) > 1 or len(moves) > 1:
        return None
    [room] = rooms
    if find and not moves and not focus:
        return {"find": find[0], "at": room}
    if find and moves and not focus:
        return {"find": find[0], "into": moves[0][1], "room": room}
    if focus and not find and not moves:
        return {"focus": focus.pop(), "at": room}
    if moves and not find and not focus:
        return {"put": moves[0][0], "into": moves[0][1], "room": room}
    return None


def kind(name: str, broad: bool = False) -> str:
    """What sort of thing `name` is, as the benchmark's tasks put it; `broad`: only whether it lives."""
    animal, plant = bool(ANIMAL.search(name)), bool(PLANT.search(name))
    if not animal and not plant:
        return "non-living thing"
    return "living thing" if broad else "animal" if animal else "plant"


def _part(facts: dict[str, str], *keys: str) -> dict[str, str]:
    return {key: facts[key] for key in keys}
