"""What a ScienceWorld episode achieved, and whether it satisfies a goal. No score is read."""

import math
import re
import zlib
from collections.abc import Callable, Iterator
from itertools import permutations, product

from armap_lite.envs.hindsight import Goal
from armap_lite.envs.scienceworld.data import DATA, WORDS, default_state, kind, parse, same_thing, substance
from armap_lite.envs.scienceworld.events import Event, EventLog, circuits, read, state_changes
from armap_lite.trajectory import Trajectory

BOXES = DATA["boxes"]
SECONDARY = re.compile(r"(?:green|orange|violet|purple) paint")
SOURCES = {"renewable": "solar panel|wind turbine", "nonrenewable": "(?:gas|nuclear) generator", "": ""}


def achieved(trajectory: Trajectory) -> Goal:
    """One goal that `trajectory` reached; {} if it reached nothing that anyone would ask for.

    Goals of the kind that the task itself asks for come first, since that is what the reward model has to judge later;
    then those with the most steps. Ties are broken by a hash of the task's id and the number of steps: instructions
    vary between trajectories, and a trajectory always gets the same.
    """
    log, asked = read(trajectory), parse(trajectory.task.instruction) or {}

    def rank(goal: Goal) -> tuple[bool, bool, int]:
        as_asked = goal["do"] == asked.get("do")
        priority = DATA["goals"][goal["do"]]["priority"] + ("into" in goal)
        return as_asked, as_asked and goal.keys() == asked.keys(), priority

    reached = [goal for goal in candidates(log, asked) if goal.get("at") != "" and is_reached(log, goal)]
    if not reached:
        return {}
    best = max(map(rank, reached))
    reached = [goal for goal in reached if rank(goal) == best]
    return reached[zlib.crc32(f"{trajectory.task.id}/{len(trajectory.steps)}".encode()) % len(reached)]


def satisfied(trajectory: Trajectory, goal: Goal) -> bool:
    """Whether `trajectory` does what `goal` asks for, in its order; it may do more."""
    return is_reached(read(trajectory), goal)


def is_reached(log: EventLog, goal: Goal) -> bool:
    """Whether `goal` is reached in `log`."""
    return CHECKS.get(goal["do"], _did)(log, goal)


def candidates(log: EventLog, asked: Goal) -> Iterator[Goal]:
    """Goals that `log` may have reached; `is_reached` says which of them it did."""
    focused, recipes = log.of("focus"), [e for e in log.of("take", "read") if "recipe" in e.thing]
    seed_room = next((e.room for e in log.of("take", "put") if "seed" in e.thing), "greenhouse")
    recipe_room = next((e.room for e in [*recipes, *log.of("mix")]), "kitchen")  # or where something was mixed
    for event in focused[-1:]:
        for name in _names(event.thing):
            yield {"do": "focus" if name == event.thing else "find", "thing": name, "at": event.room}
    for event in focused:
        thing, room, puts = event.thing, event.room, log.of("put", after=event.at)
        for name, put in product(_names(thing), puts):
            yield {"do": "find", "thing": name, "into": put.into, "room": put.room}
        for do in ("boil", "melt", "freeze", "change"):
            yield {"do": do, "thing": thing if thing == "ice" else substance(thing)[0]}
        for put in puts:
            for yes, no in _boxes(put.into, asked):
                yield {"do": "conductivity", "thing": thing, "at": room, "yes": yes, "no": no}
        for source in ({}, {"source": "renewable"}, {"source": "nonrenewable"}):
            yield {"do": "power", "thing": thing, **source}
        yield {"do": "grow fruit", "thing": thing, "at": seed_room}
        yield {"do": "grow plant", "thing": thing.removesuffix(" seed"), "at": seed_room}
        yield {"do": "create", "thing": thing}
        yield {"do": "create", "thing": thing, "at": recipe_room}
        yield {"do": "create in two steps", "thing": thing}
        for count in ({"count": "3"}, {"count": "4"}, {}):
            yield {"do": "life stages", **count, "thing": _species(thing)}
        for end in [*puts, *log.of("focus", after=event.at)]:
            do, box = ("temperature", end.into) if end.verb == "put" else ("melting point", end.thing)
            for limit, (above, below) in product(DATA["thresholds"], _boxes(box, asked)):
                sides = {"limit": limit, "above": above, "below": below}
                yield {"do": do, "thing": thing, "at": room, **sides, "room": end.room}
    if "lived" in asked.get("do", ""):  # in other tasks the animals to compare are unknown
        for do in (asked["do"], "longest lived", "shortest lived"):
            yield {"do": do}
    for event in log.events:
        if event.verb == "put":
            yield {"do": "place", "thing": event.thing, "into": event.into, "room": event.room}
        elif event.verb in ("pour", "connect"):
            yield {"do": event.verb, "thing": event.thing, "into": event.into, "at": event.room}
        elif event.verb in DATA["goals"] and event.verb != "focus":
            yield {"do": event.verb, "thing": event.thing, "at": event.room}


def _names(thing: str) -> list[str]:
    """What a task may call `thing`: its own name, its kind, and whether it lives."""
    return list(dict.fromkeys((thing, kind(thing), kind(thing, broad=True))))


def _boxes(box: str, asked: Goal) -> list[tuple[str, ...]]:
    """`box` and another box, in both orders: the other one of the task, if it names two."""
    named = [asked[key] for key in ("above", "below", "yes", "no") if key in asked]
    return list(permutations((box, next(b for b in [*named, *BOXES] if b != box)))) if box in BOXES else []


def _species(name: str) -> str:
    """The animal or plant, without its stage."""
    name = {"tadpole": "frog", "caterpillar": "butterfly"}.get(name, name.replace("common toad", "frog"))
    name = re.sub(r"^(?:(?:baby|hatchling|juvenile|adult) )+", "", name)
    return re.sub(r" (?:egg|pupa|seed|tree|plant)$", "", name)


# One check for each kind of goal. A step that does not occur is at infinity, so nothing is later.


def _focus(log: EventLog, thing: str, after: float = -1) -> float:
    """The first step later than `after` at which `thing` was focused on."""
    return next((e.at for e in log.of("focus", after=after) if e.thing == thing), math.inf)


def _did(log: EventLog, goal: Goal) -> bool:
    """One event of the goal's own verb; focused on in any room: a carried thing stays the same thing."""
    there = [e for e in log.of({"place": "put"}.get(goal["do"], goal["do"])) if e.thing == goal["thing"]]
    into, anywhere = goal.get("into"), goal["do"] == "focus" or "at" not in goal
    return any(into in (None, e.into) and (anywhere or e.room == goal["at"]) for e in there)


def _found(log: EventLog, goal: Goal) -> bool:
    """Focused on in the right room; or moved into the right container later, a plant also with its pot.

    The benchmark gives a full score for that only where the agent focused on this thing alone.
    """

    def moved(event: Event, put: Event) -> bool:  # the action names the content of the pot
        potted = "pot" in put.thing and kind(event.thing) == "plant" and f"containing {event.thing}" in put.action
        return put.into == goal["into"] and (potted or same_thing(put.thing, event.thing))

    fitting = [e for e in log.of("focus") if goal["thing"] in _names(e.thing)]
    if "into" not in goal:
        return any(e.room == goal["at"] for e in fitting)
    alone = len({e.thing for e in log.of("focus")}) == 1
    return alone and any(moved(e, put) for e in fitting for put in log.of("put", after=e.at))


def _changed(log: EventLog, goal: Goal) -> bool:
    """Focused on, and then boiled, melted or frozen."""
    base = substance(goal["thing"])[0]
    start = next((e.at for e in log.of("focus") if substance(e.thing)[0] == base), math.inf)
    return any(at > start and goal["do"] in (verb, "change") for at, verb in state_changes(log, goal["thing"]))


def _measured(log: EventLog, goal: Goal) -> bool:
    """Focused on thermometer, then thing, then chose the box that fits the limit and the readings before it."""
    thing, limit, placed = goal["thing"], float(goal["limit"]), goal["do"] == "temperature"
    start = _focus(log, thing, after=_focus(log, "thermometer"))
    for end in log.of("put" if placed else "focus", after=start):
        box = end.into if placed else end.thing
        # (degrees, name), where the name may be "unknown substance" or "solid lead"
        readings = [(int(e.into), e.thing) for e in log.of("measure") if e.at < end.at and _means(e.thing, thing)]
        if not readings or box not in (goal["above"], goal["below"]) or (placed and not same_thing(end.thing, thing)):
            continue
        if placed:
            return box == goal["above" if readings[-1][0] > limit else "below"]
        states = [(degrees, substance(name)[1] or default_state(thing)) for degrees, name in readings]
        above = any(state == "solid" and degrees > limit for degrees, state in states)
        below = any(state == "liquid" and degrees < limit for degrees, state in states)
        return above != below and box == goal["above" if above else "below"]
    return False


def _means(name: str, thing: str) -> bool:
    """Whether `name` in an action, like "unknown substance", may mean `thing`."""
    base, state = substance(name)
    return name == thing or (bool(state) and base == substance(thing)[0]) or same_thing(name, thing)


def _powered(log: EventLog, goal: Goal) -> bool:
    """Focused on, and then powered by a circuit."""
    start, sources = _focus(log, goal["thing"]), SOURCES[goal.get("source", "")]
    return any(at > start and part == goal["thing"] and re.search(sources, src) for at, src, part in circuits(log))


def _conducted(log: EventLog, goal: Goal) -> bool:
    """Focused on, and then put into the box that fits its material, or else what a lamp showed."""
    thing = goal["thing"]
    put = next((e for e in log.of("put", after=_focus(log, thing)) if e.thing == thing and "box" in e.into), None)
    if put is None:
        return False
    flows = True if WORDS["metal"].search(thing) else False if WORDS["insulator"].search(thing) else None
    if flows is None:
        for at, _, lamp in circuits(log, through=thing):
            shown = [re.search(rf"{lamp}, which is (on|off)", text) for i, text in log.texts if at < i < put.at]
            if (lit := [match[1] for match in shown if match]) and flows is None:
                flows = "on" in lit
    return flows is not None and put.into == goal["yes" if flows else "no"]


def _planted(log: EventLog, goal: Goal) -> list[Event]:
    soil = re.compile("pot|soil")
    return [e for e in log.of("put", "pour") if e.thing == f"{goal['thing']} seed" and soil.search(e.into)]


def _grew_fruit(log: EventLog, goal: Goal) -> bool:
    focused = [e for e in log.of("focus") if e.thing == goal["thing"]]
    return any(e.room == seed.room and e.at > seed.at for e in focused for seed in _planted(log, goal))


def _grew_plant(log: EventLog, goal: Goal) -> bool:
    """A seed was planted; after a seed was focused on, the plant reproduces or has a flower."""
    thing, planted = goal["thing"], _planted(log, goal)
    grown = rf"{thing} (?:tree|plant) in the reproducing stage|reproducing {thing} (?:tree|plant)"
    seen = [at for at, text in log.texts if re.search(grown, text)]
    rooms = {e.room for e in planted}
    seen += [e.at for e in log.of("take", "focus") if e.thing.endswith("flower") and e.room in rooms]
    return bool(planted) and any(at > _focus(log, f"{thing} seed") for at in seen)


def _mixed(log: EventLog, thing: str) -> list[int]:
    """The steps that produced `thing`: "blue green paint" is the "green-blue paint" of other texts."""
    return [e.at for e in log.of("mix") if set(re.split("[- ]", e.thing)) == set(re.split("[- ]", thing))]


def _created(log: EventLog, goal: Goal) -> bool:
    """Mixed, then focused on; in two steps, a secondary color is mixed and focused on before."""
    thing = goal["thing"]
    mixed = _mixed(log, thing)
    if goal["do"] == "create in two steps":
        halves = [e for e in log.of("focus") if SECONDARY.fullmatch(e.thing) and e.thing != thing]
        ready = [e.at for e in halves if any(at < e.at for at in _mixed(log, e.thing))]
        mixed = [last for last in mixed if any(half < last for half in ready)]
    return any(_focus(log, thing, after=at) < math.inf for at in mixed)


def _staged(log: EventLog, goal: Goal) -> bool:
    """Focused on all life stages in their order, and on nothing else of the same species."""
    plant = "count" not in goal
    kinds = [tuple(stages) for stages in DATA["life_stages"]["plant" if plant else "animal"]]
    named = re.compile(rf"\b({'|'.join(sorted({stage for stages in kinds for stage in stages}))})\b(?! jar)")
    stages = []
    for event in log.of("focus"):
        if _species(event.thing) == _species(goal["thing"]):
            # only the action names the stage of a plant, before the name of its container
            found = named.search(f"{event.action} {event.thing}" if plant else event.thing)
            stages.append(found[1] if found else "")
    return tuple(stages) in kinds and goal.get("count", "4") == str(len(stages))


def _compared(log: EventLog, goal: Goal) -> bool:
    """The benchmark places three animals outside: a long-lived one, a short-lived one, and one in between."""
    at: float = -1
    for word in ("long", "short"):
        if f"{word}est" in goal["do"]:
            lived = WORDS[f"{word}-lived"]
            at = next((e.at for e in log.of("focus", after=at) if lived.search(e.thing)), math.inf)
    return at < math.inf


CHECKS: dict[str, Callable[[EventLog, Goal], bool]] = {
    "find": _found,
    **dict.fromkeys(("boil", "melt", "freeze", "change"), _changed),
    **dict.fromkeys(("temperature", "melting point"), _measured),
    "power": _powered,
    "conductivity": _conducted,
    "grow fruit": _grew_fruit,
    "grow plant": _grew_plant,
    **dict.fromkeys(("create", "create in two steps"), _created),
    "life stages": _staged,
    **dict.fromkeys(("longest lived", "shortest lived", "longest, then shortest lived"), _compared),
}
