"""What happened in a ScienceWorld episode, read from its text. No score is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from armap_lite.trajectory import Trajectory

ROOMS = "art studio, bathroom, bedroom, foundry, greenhouse, hallway, kitchen, living room, outside, workshop"
ANIMAL = re.compile(
    r"\b(?:ant|beaver|bee|blue jay|brown bear|butterfly|chameleon|chipmunk|crocodile|dove|dragonfly|elephant|frog"
    r"|tortoise|hedgehog|moth|mouse|parrot|rabbit|toad|turtle|wolf)\b"
)
PLANT = re.compile(r"\b(?:tree|plant|seedling|seed|flower)\b(?! pot| jar)")
ROOM = re.compile(r"(?:This room is called|This outside location is called|You (?:teleport|move) to) the (.+?)\.")
# The simulator's answer to an action, and the verb of the event that it reports. Groups: the thing, what it goes into.
ANSWERS = (
    (r"You focus on the (.+?)\.", "focus"),
    (r"(?:\(disconnecting .+?\))*You move the (.+?) to the (inventory)\.", "take"),
    (r"(?:\(disconnecting .+?\))*You move the (.+?) to the (.+?)\.", "put"),
    (r"You pour the contents of the (.+?) into the (.+?)\.", "pour"),
    (r"(?:\w.* and .+?) mix to produce (.+?)\.", "mix"),
    (r"The (.+?) is now activated\.", "activate"),
    (r"The (.+?) is now deactivated\.", "deactivate"),
    (r"The (.+?) is now open\.", "open"),
    (r"\w[\w ]* on (.+?) is now connected to [\w ]+ on (.+)", "connect"),
    (r"(?:the )?thermometer measures a temperature of (-?\d+) degrees celsius", "measure"),
    (r"The \w+ reads: ()", "read"),
)
REFUSED = re.compile(r"No known action|Ambiguous request|It's not clear|.*\bcan't\b|Unknown")


@dataclass(frozen=True)
class Event:
    """Something that the episode did. `room`: where, and of a thing that was carried there, where it was found."""

    verb: str  # one of those in ANSWERS
    thing: str
    room: str
    into: str = ""  # what a thing was put or poured into, or connected to; a reading in degrees celsius
    at: int = 0  # index of the step; the start has none
    action: str = ""


@dataclass
class Story:
    """The events of an episode in order, and each text in which a thing may be named: (step, text)."""

    events: list[Event] = field(default_factory=list)
    texts: list[tuple[int, str]] = field(default_factory=list)

    def of(self, *verbs: str, after: int = -1) -> list[Event]:
        """The events of these verbs at steps later than `after`."""
        return [event for event in self.events if event.verb in verbs and event.at > after]


def read(trajectory: Trajectory) -> Story:
    """The story of `trajectory`, from its actions and from what the simulator answered."""
    room = "hallway"
    found: dict[str, str] = {}  # what is carried, and the room in which it was found
    inside: dict[str, str] = {}  # what a container holds, as far as the episode shows it
    story = Story(texts=[(-1, trajectory.start)])
    if there := ROOM.match(trajectory.start):
        room = there[1]
    for i, step in enumerate(trajectory.steps):
        text, action = step.observation, step.action
        if not REFUSED.match(text):
            story.texts.append((i, action))
        story.texts.append((i, text))
        if there := ROOM.match(text):
            room = there[1]
            continue
        match = next(((m, verb) for pattern, verb in ANSWERS if (m := re.match(pattern, text))), None)
        if match is None:
            continue
        groups, verb = match[0].groups(), match[1]
        thing, into, home = groups[0].replace("common toad", "frog"), groups[1] if len(groups) > 1 else "", room
        if verb == "focus":
            home = next((where for carried, where in found.items() if same(carried, thing)), room)
            if held := re.match(r"focus on substance (?:in|on) (.+)", action):
                inside[held[1]] = thing
        elif verb == "take":
            home = found.setdefault(thing, room)
        elif verb == "put":
            found.pop(thing, None)
            inside[into] = thing
        elif verb == "measure":
            used = re.match(r"use thermometer(?: in inventory)? on (.+?)(?: in inventory)?$", action)
            thing, into = (used[1] if used else ""), thing
            if held := re.match(r"substance (?:in|on) (.+)", thing):
                thing = inside.get(held[1], thing)
        elif verb == "read":
            thing = re.sub(r"^read | in .*", "", action)
        story.events.append(Event(verb, thing, home, into, i, action))
    return story


def same(moved: str, focused: str) -> bool:
    """Is it one thing? A "dove egg" is moved as "the dove"; an "orange seed" is another thing than "the orange"."""
    rest = re.sub(rf"\b{re.escape(moved)}\b", "", focused, count=1)
    return rest != focused and not re.search(r"\b(?:paint|seed|seedling|tree|plant|flower)\b", rest)


def kind(name: str, broad: bool = False) -> str:
    """What sort of thing `name` is, as the benchmark's tasks put it; `broad`: only whether it lives."""
    animal, plant = bool(ANIMAL.search(name)), bool(PLANT.search(name))
    if not animal and not plant:
        return "non-living thing"
    return "living thing" if broad else "animal" if animal else "plant"


# States of matter.

HEAT, COLD = re.compile(r"stove|oven|furnace|fire pit|burner|lighter"), re.compile(r"freezer|fridge")
TURNS = {
    ("solid", "liquid"): "melt",
    ("liquid", "solid"): "freeze",
    ("liquid", "gaseous"): "boil",
    ("solid", "gaseous"): "boil",
    ("liquid", "on fire"): "boil",
    ("solid", "on fire"): "boil",
}
LIQUID = re.compile(r"\b(?:juice|milk|mercury|water)$")  # at room temperature; the other substances are solid then


def substance(name: str) -> tuple[str, str]:
    """A substance and its state: "ice" is ("water", "solid"); the state is "" where the name leaves it open."""
    if name in ("ice", "water", "steam"):
        return "water", {"ice": "solid", "water": "liquid", "steam": "gaseous"}[name]
    state = re.match(r"(solid|liquid|gaseous) ", name)
    return (name[state.end() :], state[1]) if state else (name, "")


def bare(name: str) -> str:
    """The state in which a substance goes by its bare name."""
    return "liquid" if LIQUID.search(name) else "solid"


def sightings(story: Story, name: str) -> Iterator[tuple[int, str]]:
    """Each step that names the substance `name`, and the state it names; a burning one has the state "on fire".

    The benchmark calls a substance by its bare name in the state that it has at room temperature.
    """
    base, _ = substance(name)
    if base == "water":
        # "orange juice in ice" does not occur, but "soapy water" and "salt water" do
        pattern = r"(?<!soapy )(?<!salt )(?<!sugar )\b(ice|water|steam)\b"
    else:
        pattern = rf"\b(?:(?:solid|liquid|gaseous) )?{re.escape(base)}\b(?: \(on fire\))?"
    for at, text in story.texts:
        for match in re.finditer(pattern, text):
            yield at, "on fire" if "on fire" in match[0] else substance(match[0])[1] or bare(base)


def changes(story: Story, name: str) -> list[tuple[int, str]]:
    """Changes of state of a substance: (step that shows it, "boil", "melt" or "freeze").

    A name alone may belong to another portion of the same substance (ice lies in the freezer). So a state has to be
    new in the episode, and heat or cold has to come before it; or it comes again, and the last treatment fits.
    """
    hot = [(e.at, "hot") for e in story.of("activate") if HEAT.search(e.thing)]
    hot += [(e.at, "hot") for e in story.of("put") if HEAT.search(e.into)]
    treated = sorted(hot + [(e.at, "cold") for e in story.of("put") if COLD.search(e.into)])
    out: list[tuple[int, str]] = []
    seen: set[str] = set()
    now = ""
    for at, state in sightings(story, name):
        verb = TURNS.get((now, state))
        before = [how for t, how in treated if t < at]
        right = "cold" if verb == "freeze" else "hot"
        if verb and right in before and (state not in seen or (out and before[-1] == right)):
            out.append((at, verb))
        seen.add(state)
        now = state
    return out


# Circuits.

SOURCE = re.compile(r"battery|solar panel|wind turbine|(?:gas|nuclear) generator|hydroelectric")
RENEWABLE = re.compile(r"solar panel|wind turbine|hydroelectric")
ENDS = re.compile(r"(terminal \d|anode|cathode) on (.+?) is now connected to (terminal \d|anode|cathode) on (.+)")


def circuits(story: Story, through: str = "") -> list[tuple[int, str, str]]:
    """Closed circuits: (step that closes it, source, component), poles opposed, joined by wires alone.

    With `through`, only circuits that this thing closes, in a wire's place. A thing that is moved is disconnected.
    A generator has to run, and what lives on sun or wind has to stand outside.
    """
    joined: set[frozenset[tuple[str, str]]] = set()
    running: set[str] = set()
    rooms: dict[str, str] = {}
    out, known = [], set()
    for event in story.events:
        text = next(t for at, t in reversed(story.texts) if at == event.at)
        if event.verb in ("take", "put"):
            joined = {wire for wire in joined if not any(thing == event.thing for thing, _ in wire)}
            rooms[event.thing] = event.into
        elif event.verb in ("activate", "deactivate"):
            (running.add if event.verb == "activate" else running.discard)(event.thing)
        elif event.verb == "connect" and (ends := ENDS.match(text)):
            joined.add(frozenset({(ends[2], ends[1]), (ends[4], ends[3])}))
            rooms.setdefault(ends[2], event.room)
        for source, component in closed(joined, through):
            works = ("generator" not in source or source in running) and (
                not RENEWABLE.search(source) or rooms.get(source) == "outside"
            )
            if works and (source, component) not in known:
                known.add((source, component))
                out.append((event.at, source, component))
    return out


def closed(joined: Iterable[frozenset[tuple[str, str]]], through: str = "") -> set[tuple[str, str]]:
    """Pairs of source and component whose poles are joined crosswise."""
    pairs = [tuple(pair) for pair in joined if len(pair) == 2]
    sources = {thing for pair in pairs for thing, _ in pair if SOURCE.search(thing)}
    out = set()
    for source in sources:
        lines = {pole: reach((source, pole), pairs, through) for pole in ("anode", "cathode")}
        for (thing, pole), used in lines["anode"].items():
            far = lines["cathode"].get((thing, "anode"))
            if pole == "cathode" and thing != source and far is not None and (not through or used != far):
                out.add((source, thing))
    return out


def reach(start: tuple[str, str], pairs: Iterable[tuple], through: str) -> dict[tuple[str, str], bool]:
    """Ends that wires join to `start`, and whether the thing `through` is one of the wires."""
    pairs, seen, todo = list(pairs), {start: False}, [start]
    while todo:
        here = todo.pop()
        for pair in pairs:
            if here not in pair:
                continue
            there = pair[1 - pair.index(here)]
            news = [there]
            if "wire" in there[0] or there[0] == through:
                news += [(there[0], f"terminal {n}") for n in (1, 2)]
            for end in news:
                if end not in seen:
                    seen[end] = seen[here] or end[0] == through
                    todo.append(end)
    return {end: used for end, used in seen.items() if end != start}
