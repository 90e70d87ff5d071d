"""The events of a ScienceWorld episode, read from its text in one pass. No score is read."""

import itertools
import re
from collections.abc import Set
from typing import NamedTuple

from armap_lite.envs.scienceworld.data import DATA, default_state, same_thing, substance
from armap_lite.trajectory import Trajectory

ROOM = re.compile(r"(?:This room is called|This outside location is called|You (?:teleport|move) to) the (.+?)\.")
RESPONSES = [(verb, re.compile(pattern)) for verb, pattern in DATA["responses"]]
REFUSED = re.compile(r"No known action|Ambiguous request|It's not clear|.*\bcan't\b|Unknown")


class Event(NamedTuple):
    """Something that the agent did. `room`: where, or for a carried thing the room in which it was found, if any."""

    verb: str  # one of those in RESPONSES
    thing: str
    room: str
    into: str = ""  # where a thing was put or poured, what it was connected to, or degrees celsius
    at: int = 0  # index of the step
    action: str = ""
    text: str = ""  # the simulator's answer


class EventLog(NamedTuple):
    """The events of an episode in order, and each text that may name a thing: (step, text), the start being step -1."""

    events: list[Event]
    texts: list[tuple[int, str]]

    def of(self, *verbs: str, after: float = -1) -> list[Event]:
        """The events with these verbs at steps later than `after`."""
        return [event for event in self.events if event.verb in verbs and event.at > after]


def read(trajectory: Trajectory) -> EventLog:
    """The events of `trajectory`, from its actions and from what the simulator answered."""
    log = EventLog([], [(-1, trajectory.start)])
    found = {"orange": ""}  # carried thing: the room in which it was found; an agent starts with an orange
    inside: dict[str, str] = {}  # container: its content, as far as known
    room = there[1] if (there := ROOM.match(trajectory.start)) else "hallway"
    for at, step in enumerate(trajectory.steps):
        action, text = step.action, step.observation
        log.texts.extend([(at, text)] if REFUSED.match(text) else [(at, action), (at, text)])
        if there := ROOM.match(text):
            room = there[1]
            continue
        verb, match = next(((verb, m) for verb, pattern in RESPONSES if (m := pattern.match(text))), ("", None))
        if match is None:
            continue
        thing, into = (*match.groups(), "")[:2]
        thing, home = thing.replace("common toad", "frog"), room
        if verb == "focus":
            home = next((where for carried, where in found.items() if same_thing(carried, thing)), room)
            if held := re.match(r"focus on substance (?:in|on) (.+)", action):
                inside[held[1]] = thing
        elif verb == "take":
            home = found[thing] = found.get(thing) or room
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
        log.events.append(Event(verb, thing, home, into, at, action, text))
    return log


# States of matter.

HEAT, COLD = re.compile(r"stove|oven|furnace|fire pit|burner|lighter"), re.compile(r"freezer|fridge")
WATER = r"(?<!soapy )(?<!salt )(?<!sugar )\b(ice|water|steam)\b"
TRANSITIONS = {
    ("solid", "liquid"): "melt",
    ("liquid", "solid"): "freeze",
    **dict.fromkeys(itertools.product(("solid", "liquid"), ("gaseous", "on fire")), "boil"),
}


def state_changes(log: EventLog, name: str) -> list[tuple[int, str]]:
    """Changes of state of a substance: (step that shows it, "boil", "melt" or "freeze"). Burning counts as boiling.

    A name alone may mean another portion of the same substance (there is ice in the freezer). So a state has to be new
    in the episode and follow heating or cooling; or it is seen again, and the last treatment fits.
    """
    base = substance(name)[0]
    named = WATER if base == "water" else rf"\b(?:(?:solid|liquid|gaseous) )?{re.escape(base)}\b(?: \(on fire\))?"
    treated = [(e.at, "hot") for e in log.of("activate", "put") if HEAT.search(e.into or e.thing)]
    treated = sorted(treated + [(e.at, "cold") for e in log.of("put") if COLD.search(e.into)])
    changes: list[tuple[int, str]] = []
    seen: set[str] = set()
    now = ""
    for at, match in ((at, match) for at, text in log.texts for match in re.finditer(named, text)):
        state = "on fire" if "on fire" in match[0] else substance(match[0])[1] or default_state(base)
        verb = TRANSITIONS.get((now, state), "")
        before, needed = [how for t, how in treated if t < at], "cold" if verb == "freeze" else "hot"
        if verb and needed in before and (state not in seen or (changes and before[-1] == needed)):
            changes.append((at, verb))
        seen.add(state)
        now = state
    return changes


# Circuits. An end is (thing, "anode" | "cathode" | "terminal 1" | "terminal 2"), a connection a set of two ends.

SOURCE = re.compile(r"battery|solar panel|wind turbine|(?:gas|nuclear) generator|hydroelectric")
RENEWABLE = re.compile(r"solar panel|wind turbine|hydroelectric")
ENDS = re.compile(r"(terminal \d|anode|cathode) on (.+?) is now connected to (terminal \d|anode|cathode) on (.+)")
End = tuple[str, str]


def circuits(log: EventLog, through: str = "") -> list[tuple[int, str, str]]:
    """Closed circuits: (step that closes it, source, component), poles opposed, joined by wires alone.

    With `through`, only circuits that this thing closes in place of a wire. A thing that is moved is disconnected.
    A generator has to run; a solar panel or wind turbine has to be outside.
    """
    connections: set[frozenset[End]] = set()
    running: set[str] = set()
    places: dict[str, str] = {}
    since: dict[tuple[str, str], int] = {}
    for event in log.events:
        if event.verb in ("take", "put"):
            connections = {ends for ends in connections if all(thing != event.thing for thing, _ in ends)}
            places[event.thing] = event.into
        elif event.verb in ("activate", "deactivate"):
            (running.add if event.verb == "activate" else running.discard)(event.thing)
        elif event.verb == "connect" and (ends := ENDS.match(event.text)):
            connections.add(frozenset({(ends[2], ends[1]), (ends[4], ends[3])}))
            places.setdefault(ends[2], event.room)
        for source, component in _closed(connections, through) - (_closed(connections) if through else set()):
            works = source in running or "generator" not in source
            if works and (places.get(source) == "outside" or not RENEWABLE.search(source)):
                since.setdefault((source, component), event.at)
    return [(at, *pair) for pair, at in since.items()]


def _closed(connections: Set[frozenset[End]], through: str = "") -> set[tuple[str, str]]:
    """(source, component) whose poles are joined crosswise by wires, or by `through` in place of a wire."""

    def reach(start: End) -> set[End]:
        seen, todo = {start}, [start]
        while todo:
            here = todo.pop()
            there = {end for ends in connections if here in ends for end in ends}
            wires = {thing for thing, _ in there if "wire" in thing or thing == through}
            new = (there | {(wire, f"terminal {n}") for wire in wires for n in (1, 2)}) - seen
            seen |= new
            todo += new
        return seen

    sources = {thing for ends in connections for thing, _ in ends if SOURCE.search(thing)}
    return {
        (source, thing)
        for source in sources
        for thing, pole in reach((source, "anode"))
        if pole == "cathode" and thing != source and (thing, "anode") in reach((source, "cathode"))
    }
