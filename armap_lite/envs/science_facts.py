"""What happened in a ScienceWorld episode, read from its text, and the sentences that say so. No score is read."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Event:
    """A thing was focused on (`into` is empty), or put into something; `room`: where."""

    thing: str
    room: str
    into: str = ""


def same(moved: str, focused: str) -> bool:
    """Is it one thing? A "dove egg" is moved as "the dove"; an "orange seed" is another thing than "the orange"."""
    rest = re.sub(rf"\b{re.escape(moved)}\b", "", focused, count=1)
    return rest != focused and not re.search(r"\b(?:paint|seed|seedling|tree|plant|flower)\b", rest)


def events(trajectory: Trajectory) -> list[Event]:
    """What was focused on and what was put where, in order. A thing that is carried counts as where it was found."""
    room = "hallway"
    found: dict[str, str] = {}
    out: list[Event] = []
    for text in (trajectory.start, *(step.observation for step in trajectory.steps)):
        if there := ROOM.match(text):
            room = there[1]
        elif focus := re.match(r"You focus on the (.+?)\.", text):
            home = next((at for thing, at in found.items() if same(thing, focus[1])), room)
            out.append(Event(focus[1], home))
        elif put := re.match(r"You move the (.+?) to the (.+?)\.", text):
            if put[2] == "inventory":
                found.setdefault(put[1], room)
            else:
                found.pop(put[1], None)
                out.append(Event(put[1], room, put[2]))
    return out


def read_facts(trajectory: Trajectory) -> dict[str, str]:
    """What was focused on last and in which room, and where it was put then, or what was put where; {} for neither.

    In a third of the tasks things are called by name, in a third by kind ("animal") and in a third by whether they
    live: real tasks do all of that.
    """
    done = events(trajectory)
    focus = next((i for i in reversed(range(len(done))) if not done[i].into), None)
    if focus is None:
        return {"put": done[-1].thing, "into": done[-1].into, "room": done[-1].room} if done else {}
    thing = done[focus].thing
    moved = [event for event in done[focus:] if event.into and same(event.thing, thing)]
    how = zlib.crc32(trajectory.task.id.encode()) % 3
    called = kind(thing, broad=how == 2) if how else thing
    if moved:
        return {"find": called, "into": moved[-1].into, "room": moved[-1].room}
    return {"find" if how else "focus": called, "at": done[focus].room}


def did(trajectory: Trajectory, asked: dict[str, str]) -> bool:
    """Is what `asked` names among what `trajectory` did, whatever else it did besides?"""
    done = events(trajectory)
    for i, event in enumerate(done):
        if "put" in asked:
            if event.into == asked["into"] and event.thing == asked["put"]:
                return True
        elif not event.into:
            names = {event.thing, kind(event.thing), kind(event.thing, broad=True)}
            if "focus" in asked:
                right = event.thing == asked["focus"]  # by name: one that was carried elsewhere is the same thing
            elif "into" in asked:
                after = ((same(e.thing, event.thing), e.into) for e in done[i:] if e.into)
                right = asked["find"] in names and (True, asked["into"]) in after
            else:
                right = asked["find"] in names and event.room == asked["at"]
            if right:
                return True
    return False


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
