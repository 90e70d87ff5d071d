"""Hindsight in ScienceWorld: what an episode achieved, and whether it does what is asked. No score is read."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

from armap_lite.envs.scienceworld.events import Event, Story, bare, changes, circuits, kind, read, same, substance
from armap_lite.envs.scienceworld.instructions import parse, to_text
from armap_lite.trajectory import Trajectory

Goal = dict[str, str]

LIMITS = ("-50.0", "-10.0", "0.0", "10.0", "50.0", "100.0", "200.0")  # degrees celsius, as the benchmark has them
BOXES = ("red box", "green box", "blue box", "orange box", "yellow box", "purple box")
# The benchmark puts three animals outside: one of the first kind, one of the second, and one that lives in between.
LONG_LIVED = re.compile(r"\b(?:brown bear|crocodile|elephant|parrot|tortoise)\b")  # over 20 years
SHORT_LIVED = re.compile(r"\b(?:ant|chameleon|dragonfly|hedgehog|mouse)\b")  # under 6 years
METAL = re.compile(r"\b(?:aluminum|brass|bronze|copper|gold|iron|lead|metal|platinum|silver|steel|tin|zinc)\b")
INSULATOR = re.compile(r"\b(?:apricot|avocado|book|ceramic|glass|paper|plastic|rubber|sodium chloride|wood|wooden)\b")
SECONDARY = re.compile(r"(?:green|orange|violet|purple) paint")
PLANT_STAGES = (("seed", "seedling", "adult", "reproducing"),)
ANIMAL_STAGES = (
    ("baby", "juvenile", "adult"),
    ("egg", "hatchling", "juvenile", "adult"),
    ("egg", "caterpillar", "pupa", "adult"),
    ("egg", "tadpole", "adult"),
)


def achieved(trajectory: Trajectory) -> Goal:
    """One goal that `trajectory` reached; {} where there is nothing that one could ask for.

    A goal of the kind that the task itself asks for comes first, since that is what a reward has to judge later. Of
    the others it is one with the most steps, chosen by the task's id and the number of steps taken: that gives all
    sorts of instructions, and the same trajectory always the same.
    """
    story = read(trajectory)
    asked = parse(trajectory.task.instruction) or {}
    reached = [goal for goal in candidates(story, asked) if holds(story, goal)]
    if not reached:
        return {}

    def rank(goal: Goal) -> tuple[bool, bool, int]:
        alike = goal["do"] == asked.get("do")
        return alike, alike and goal.keys() == asked.keys(), WORTH[goal["do"]] + ("into" in goal)

    best = max(map(rank, reached))
    reached = [goal for goal in reached if rank(goal) == best]
    return reached[zlib.crc32(f"{trajectory.task.id}/{len(trajectory.steps)}".encode()) % len(reached)]


def satisfied(trajectory: Trajectory, goal: Goal) -> bool:
    """Does `trajectory` do what `goal` asks for, in its order, whatever else it does besides?"""
    return holds(read(trajectory), goal)


# What may be asked for: the more steps, the rather. What is only done on the way to something else comes last.
WORTH = {
    **dict.fromkeys(("open", "activate", "deactivate", "read", "connect", "pour"), 0),
    **dict.fromkeys(("place", "measure", "mix"), 1),
    **dict.fromkeys(("find", "focus"), 2),
    **dict.fromkeys(("longest lived", "shortest lived", "create", "grow fruit"), 4),
    **dict.fromkeys(("power", "conductivity", "grow plant", "longest, then shortest lived"), 5),
    **dict.fromkeys(("boil", "melt", "freeze", "change", "temperature", "melting point"), 6),
    **dict.fromkeys(("create in two steps", "life stages"), 6),
}


def candidates(story: Story, asked: Goal) -> Iterator[Goal]:
    """Goals that `story` may have reached; `holds` says which of them it did."""
    focused = story.of("focus")
    for event in focused[-1:]:
        for name in dict.fromkeys((event.thing, kind(event.thing), kind(event.thing, broad=True))):
            yield {"do": "focus" if name == event.thing else "find", "thing": name, "at": event.room}
    for event in focused:
        for name in dict.fromkeys((event.thing, kind(event.thing), kind(event.thing, broad=True))):
            for put in story.of("put", after=event.at):
                yield {"do": "find", "thing": name, "into": put.into, "room": put.room}
        thing, room = event.thing, event.room
        for do in ("boil", "melt", "freeze", "change"):
            yield {"do": do, "thing": thing if thing == "ice" else substance(thing)[0]}
        for put in story.of("put", after=event.at):
            if put.into in BOXES:
                two = put.into, other(put.into, asked)
                for yes, no in (two, two[::-1]):
                    yield {"do": "conductivity", "thing": thing, "at": room, "yes": yes, "no": no}
        yield {"do": "power", "thing": thing}
        yield {"do": "power", "thing": thing, "source": "renewable"}
        yield {"do": "power", "thing": thing, "source": "nonrenewable"}
        yield {"do": "grow fruit", "thing": thing, "at": seeds(story, thing)}
        yield {"do": "grow plant", "thing": thing.removesuffix(" seed"), "at": seeds(story, thing)}
        yield {"do": "create", "thing": thing}
        yield {"do": "create", "thing": thing, "at": ingredients(story)}
        yield {"do": "create in two steps", "thing": thing}
        for count in "34":
            yield {"do": "life stages", "count": count, "thing": animal(thing)}
        yield {"do": "life stages", "thing": animal(thing)}
        for put in [*story.of("put", after=event.at), *story.of("focus", after=event.at)]:
            box, do = (put.into, "temperature") if put.verb == "put" else (put.thing, "melting point")
            if box in BOXES:
                slots = {"do": do, "thing": thing, "at": room}
                for limit in LIMITS:
                    for above, below in ((box, other(box, asked)), (other(box, asked), box)):
                        yield {**slots, "limit": limit, "above": above, "below": below, "room": put.room}
    if "lived" in asked.get("do", ""):  # elsewhere nobody knows which animals there are to compare
        yield {"do": asked["do"]}
        yield {"do": "longest lived"}
        yield {"do": "shortest lived"}
    for event in story.events:
        if event.verb == "put":
            yield {"do": "place", "thing": event.thing, "into": event.into, "room": event.room}
        elif event.verb in ("pour", "connect"):
            yield {"do": event.verb, "thing": event.thing, "into": event.into, "at": event.room}
        elif event.verb in WORTH and event.verb != "focus":
            yield {"do": event.verb, "thing": event.thing, "at": event.room}


def other(box: str, asked: Goal) -> str:
    """Another box than `box`: the one that the task names beside it, where it names two."""
    named = [asked[key] for key in ("above", "below", "yes", "no") if key in asked]
    return next((b for b in [*named, *BOXES] if b != box), box)


def holds(story: Story, goal: Goal) -> bool:
    """Is `goal` reached in `story`?"""
    do, thing = goal["do"], goal.get("thing", "")
    focused = story.of("focus")
    if do in ("find", "focus"):
        return any(found(story, event, goal) for event in focused)
    if do in ("boil", "melt", "freeze", "change"):
        first = [e.at for e in focused if substance(e.thing)[0] == substance(thing)[0]]
        done = changes(story, thing)
        return bool(first) and any(at > first[0] and do in (verb, "change") for at, verb in done)
    if do in ("temperature", "melting point"):
        return measured(story, goal)
    if do == "power":
        return powered(story, goal)
    if do == "conductivity":
        return conducted(story, goal)
    seeded = [e for e in story.of("put", "pour") if e.thing == f"{thing} seed" and re.search("pot|soil", e.into)]
    if do == "grow fruit":
        return any(e.thing == thing and e.room == p.room and e.at > p.at for e in focused for p in seeded)
    if do == "grow plant":
        seed = [e.at for e in focused if e.thing == f"{thing} seed"]
        grown = rf"{thing} (?:tree|plant) in the reproducing stage|reproducing {thing} (?:tree|plant)"
        seen = [at for at, text in story.texts if re.search(grown, text)]
        rooms = {e.room for e in seeded}  # a plant that flowers is in its reproduction stage
        seen += [e.at for e in story.of("take", "focus") if e.thing.endswith("flower") and e.room in rooms]
        return bool(seed and seeded) and any(at > seed[0] for at in seen)
    if do == "create":
        return any(e.thing == thing and e.at > mix.at for e in focused for mix in made(story, thing))
    if do == "create in two steps":
        return any(
            e.thing == thing and first.at < half.at < last.at < e.at
            for e in focused
            for last in made(story, thing)
            for half in focused
            if SECONDARY.fullmatch(half.thing) and half.thing != thing
            for first in made(story, half.thing)
        )
    if do == "life stages":
        return staged(story, goal)
    if do.endswith("lived"):
        kinds = [LONG_LIVED] * ("longest" in do) + [SHORT_LIVED] * ("shortest" in do)
        at = -1
        for which in kinds:
            at = next((e.at for e in focused if e.at > at and which.search(e.thing)), len(story.texts))
        return at < len(story.texts)
    verb = {"place": "put"}.get(do, do)
    return any(
        e.thing == thing and e.into == goal.get("into", e.into) and e.room == goal.get("at", e.room)
        for e in story.of(verb)
    )


def found(story: Story, event: Event, goal: Goal) -> bool:
    """Is what was focused on what `goal` asks to find, in the right room, or moved into the right thing later?"""
    names = {event.thing, kind(event.thing), kind(event.thing, broad=True)}
    if goal["do"] == "focus":
        return event.thing == goal["thing"]  # by name: one that was carried elsewhere is the same thing
    if "into" not in goal:
        return goal["thing"] in names and event.room == goal["at"]
    moved = (put for put in story.of("put", after=event.at) if put.into == goal["into"])
    return goal["thing"] in names and any(same(put.thing, event.thing) or potted(story, event, put) for put in moved)


def potted(story: Story, event: Event, put: Event) -> bool:
    """Was a plant moved in the pot it stands in? The action says what the pot contains."""
    return "pot" in put.thing and kind(event.thing) == "plant" and f"containing {event.thing}" in put.action


def names_it(name: str, thing: str) -> bool:
    """May the words of an action, like "unknown substance", mean `thing`?"""
    state, base = substance(name)[1], substance(thing)[0]
    return name == thing or (bool(state) and substance(name)[0] == base) or same(name, thing)


def readings(story: Story, thing: str, before: int) -> list[tuple[int, str]]:
    """Temperatures of `thing` in degrees celsius, and the words by which it was called."""
    return [(int(e.into), e.thing) for e in story.of("measure") if e.at < before and names_it(e.thing, thing)]


def measured(story: Story, goal: Goal) -> bool:
    """Thermometer, then thing, then the box on the right side of the limit, as readings say that came before it."""
    thing, limit = goal["thing"], float(goal["limit"])
    tool = next((e.at for e in story.of("focus") if e.thing == "thermometer"), len(story.texts))
    start = next((e.at for e in story.of("focus", after=tool) if e.thing == thing), len(story.texts))
    if goal["do"] == "temperature":
        ends = [(e.at, e.into) for e in story.of("put", after=start) if same(e.thing, thing)]
    else:
        ends = [(e.at, e.thing) for e in story.of("focus", after=start)]
    for at, box in ends:
        seen = readings(story, thing, at)
        if not seen or box not in (goal["above"], goal["below"]):
            continue
        if goal["do"] == "temperature":
            return box == (goal["above"] if seen[-1][0] > limit else goal["below"])
        called = [(t, substance(name)[1] or bare(thing)) for t, name in seen]
        above = any(state == "solid" and t > limit for t, state in called)
        below = any(state == "liquid" and t < limit for t, state in called)
        return above != below and box == (goal["above"] if above else goal["below"])
    return False


def powered(story: Story, goal: Goal) -> bool:
    """Was the thing focused on, and then a circuit closed that powers it?"""
    first = next((e.at for e in story.of("focus") if e.thing == goal["thing"]), len(story.texts))
    wanted = {
        "renewable": re.compile("solar panel|wind turbine"),
        "nonrenewable": re.compile("(?:gas|nuclear) generator"),
        "": re.compile(""),
    }[goal.get("source", "")]
    return any(at > first and part == goal["thing"] and wanted.search(src) for at, src, part in circuits(story))


def conducted(story: Story, goal: Goal) -> bool:
    """Was the thing focused on, and then put into the box that fits what it is made of, or what a lamp showed?"""
    thing = goal["thing"]
    first = next((e.at for e in story.of("focus") if e.thing == thing), len(story.texts))
    put = next((e for e in story.of("put", after=first) if e.thing == thing and "box" in e.into), None)
    if put is None:
        return False
    flows = True if METAL.search(thing) else False if INSULATOR.search(thing) else None
    for at, _, lamp in circuits(story, through=thing):
        shown = [re.search(rf"{lamp}, which is (on|off)", text) for i, text in story.texts if at < i < put.at]
        lit = [match[1] for match in shown if match]
        if lit and flows is None:
            flows = "on" in lit
    return flows is not None and put.into == (goal["yes"] if flows else goal["no"])


def staged(story: Story, goal: Goal) -> bool:
    """Were all stages of one living thing focused on, from the first to the last, and none before its time?"""
    kinds = ANIMAL_STAGES if "count" in goal else PLANT_STAGES
    named = re.compile(rf"\b({'|'.join(sorted({stage for stages in kinds for stage in stages}))})\b(?! jar)")
    stages = []
    for event in story.of("focus"):
        if animal(event.thing) == animal(goal["thing"]):
            # of a plant, the action alone says in which stage it is; what it stands in may be named behind that
            found = named.search(f"{event.action} {event.thing}" if kinds is PLANT_STAGES else event.thing)
            stages.append(found[1] if found else "")
    return tuple(stages) in kinds and goal.get("count", "4") == str(len(stages))


def animal(name: str) -> str:
    """The animal or plant, without its stage."""
    name = {"tadpole": "frog", "caterpillar": "butterfly"}.get(name, name.replace("common toad", "frog"))
    name = re.sub(r"^(?:(?:baby|hatchling|juvenile|adult) )+", "", name)
    return re.sub(r" (?:egg|pupa|seed|tree|plant)$", "", name)


def made(story: Story, thing: str) -> list[Event]:
    """The mixings that produced `thing`: "blue green paint" is the "green-blue paint" of other texts."""
    return [e for e in story.of("mix") if set(re.split("[- ]", e.thing)) == set(re.split("[- ]", thing))]


def seeds(story: Story, thing: str) -> str:
    """The room where the seeds were found; where none was taken, the one in which they were planted."""
    took = [e.room for e in story.of("take", "put") if "seed" in e.thing]
    return took[0] if took else "greenhouse"


def ingredients(story: Story) -> str:
    """The room where the recipe was, or else where things were mixed."""
    rooms = [e.room for e in story.of("take", "read") if "recipe" in e.thing] + [e.room for e in story.of("mix")]
    return rooms[0] if rooms else "kitchen"


__all__ = ["achieved", "kind", "parse", "satisfied", "to_text"]
