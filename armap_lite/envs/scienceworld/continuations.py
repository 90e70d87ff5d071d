"""How an attempt is carried on in ScienceWorld until it did something of several steps. No score is read.

An agent that is new here hardly ever boils or measures anything. So that such things are asked for in training, the
beginning of an attempt is carried on by hand: patterns of actions, one after the other, of which each is matched by an
action that is admissible then. What comes of it is read by hindsight, as of any attempt.
"""

from __future__ import annotations

import random
import re

from armap_lite.envs.scienceworld.events import ANIMAL, bare, read, substance
from armap_lite.envs.scienceworld.goals import INSULATOR, LONG_LIVED, METAL, SHORT_LIVED, achieved
from armap_lite.envs.scienceworld.instructions import parse
from armap_lite.trajectory import Trajectory

Goal = dict[str, str]

BROUGHT = 0.7  # of the attempts that focused on something go on with it
KEPT = 4  # steps of an attempt that are kept at most, where the way is new from there
THINGS = (
    r"(?:[\w ]+ )?(?:battery|bowl|chair|cup|drawing|jar|jug|lighter|painting|picture|pillow|shovel|soap|stopwatch|table"
    r"|thermometer|wire|wood|axe)"
)
OPENED = ("open cupboard", "open freezer", "open fridge")
PRIMARY = {"violet": "red|blue", "purple": "red|blue", "green": "blue|yellow", "orange": "red|yellow"}


def plan(trajectory: Trajectory, seed: int) -> tuple[int, list[str]] | None:
    """How many steps of `trajectory` to keep, and patterns of the actions that follow; None where it needs none.

    A pattern is a regular expression for a whole action. `<it>` in it stands for what `(?P<it>...)` matched before.
    """
    asked, rng = parse(trajectory.task.instruction) or {}, random.Random(seed)
    done = achieved(trajectory)
    way = WAYS.get(asked.get("do", ""))
    if way is None or (done.get("do") == asked["do"] and done.keys() == asked.keys()):
        return None
    if not all(re.fullmatch(r"[\w .,'-]+", name) for name in asked.values()):
        return None  # the names become parts of patterns
    focused = [event.at for event in read(trajectory).of("focus")]
    live = len(trajectory.steps) - trajectory.done  # the last step may have ended it
    steps = trajectory.task.max_steps or 0
    brings = asked["do"] == "find" and "into" in asked and focused and focused[0] < min(live, steps - 3)
    if brings and rng.random() < BROUGHT:
        thing = re.escape(trajectory.actions[focused[0]].removeprefix("focus on "))
        return focused[0] + 1, brought(thing, asked, rng)
    patterns = way(asked, rng)
    room = steps - len(patterns)
    if not patterns or room < 0:
        return None
    return rng.randint(0, min([KEPT, room, live, *focused[:1]])), patterns


def brought(thing: str, asked: Goal, rng: random.Random) -> list[str]:
    """Bring what was focused on to the room of the task, and there into its box or another one."""
    box = rng.choice((asked["into"], r"\w+ box"))
    return [f"pick up {thing}", f"teleport to {asked['room']}", f"move (?:.* )?{thing}(?: .*)? to (?:.* )?{box}"]


def find(asked: Goal, rng: random.Random) -> list[str]:
    if "into" not in asked:
        return []
    where, names = {
        "plant": ("greenhouse", r"[\w ]+ (?:tree|plant)"),
        "non-living thing": (asked["room"], THINGS),
    }.get(asked["thing"], ("outside", f"[\\w ]*{ANIMAL.pattern}[\\w ]*"))
    return [f"teleport to {where}", f"focus on (?P<it>{names})", *brought("<it>", asked, rng)]


def heated(asked: Goal, rng: random.Random) -> list[str]:
    """Freeze what is to boil, boil what is to freeze: the text shows a change of state that does not end the task."""
    thing, do = asked["thing"], asked["do"]
    base, solid = substance(thing)[0], (substance(thing)[1] or bare(thing)) == "solid"
    if do == "change" or (do == "melt" and solid):
        return []
    out = ["teleport to kitchen", "pick up thermometer", "open cupboard"]
    if base == "water" and not solid:
        out += ["move metal pot to sink", "activate sink", "focus on (?:substance in metal pot|water)"]
    else:
        out += [*OPENED[1:], f"focus on {thing}(?: in .*)?"]
        out += [f"(?:move {thing}.* |pour cup containing {thing}.* in)to metal pot"]
    mixed = "mix metal pot.*"  # what stays alone is called by its name, which tells its state
    if do == "boil" and not solid:
        out += ["open freezer", "move metal pot.* to freezer", *["wait"] * 4]
        return [*out, f"pick up (?:ice|(?:solid )?{base}|substance in metal pot)", mixed]
    out += ["pick up metal pot", "teleport to foundry", "open blast furnace", "move metal pot.* to blast furnace"]
    out += [
        "activate blast furnace",
        *["wait"] * (0 if do == "boil" else 1 if solid else 2),
    ]  # it melts before it burns
    return [*out, f"use thermometer.* on (?:steam|.*{base}|substance in metal pot)", mixed]


def measured(asked: Goal, rng: random.Random) -> list[str]:
    """Into either of the two boxes: hindsight asks for a limit on the side of it that fits."""
    thing = rf"(?:.* )?{asked['thing']}(?: in .*)?"
    if asked["thing"].startswith("unknown substance"):
        thing = rf"unknown substance(?: {asked['thing'][-1]})?(?: in .*)?"
    box = asked[rng.choice(("above", "below"))]
    out = ["teleport to kitchen", "pick up thermometer", "focus on thermometer.*"]
    if asked["do"] == "melting point":
        out += [*OPENED, f"focus on (?!.*containing){thing}", f"use thermometer.* on (?!.*containing){thing}"]
        return [*out, f"focus on {box}"]
    out += [f"teleport to {asked['at']}", f"pick up {thing}", f"focus on {thing}", f"use thermometer.* on {thing}"]
    return [*out, f"teleport to {asked['room']}", f"move {thing} to (?:.* )?{box}"]


def end(pole: str, thing: str) -> str:
    """One end of a component or wire, in either of the ways in which the simulator calls it."""
    return f"(?:{pole} in )?{thing}(?: {pole})?"


def powered(asked: Goal, rng: random.Random) -> list[str]:
    thing = rf"(?:{asked['thing']}|{asked['thing'].removeprefix('electric ')})"
    source = r"(?:nuclear|gas) generator" if "source" in asked else "battery"
    one, two = r"(?P<one>\w+ wire)", r"(?P<two>(?!<one>)\w+ wire)"
    return [
        "teleport to workshop",
        f"focus on {thing}",
        f"connect {end('anode', source)} to {end('terminal 1', one)}",
        f"connect {end('cathode', source)} to {end('terminal 1', two)}",
        f"connect {end('terminal 2', '<one>')} to {end('cathode', thing)}",
        f"connect {end('terminal 2', '<two>')} to {end('anode', thing)}",
        *([f"activate {source}"] if "source" in asked else []),
    ]


def conducted(asked: Goal, rng: random.Random) -> list[str]:
    if not METAL.search(asked["thing"]) and not INSULATOR.search(asked["thing"]):
        return []
    thing, box = asked["thing"], asked[rng.choice(("yes", "no"))]
    out = [f"teleport to {asked['at']}", f"focus on {thing}(?: in .*)?"]
    if asked["at"] != "workshop":
        out += [f"pick up {thing}(?: in .*)?", "teleport to workshop"]
    return [*out, f"move {thing}(?: in .*)? to (?:.* )?{box}"]


def painted(asked: Goal, rng: random.Random) -> list[str]:
    """Two primary colors make a secondary one, of which a third color makes a tertiary one."""
    if "at" in asked:
        return []
    second = next((color for color in PRIMARY if color in asked["thing"]), "")
    if asked["do"] == "create" or not second:
        second = rng.choice(("violet", "green", "orange"))
    near, paint = "(?: in (?:art studio|table|desk))?", rf"(?:{PRIMARY[second]}) paint"
    cup, mixed = "(?:jug|bowl|cup containing nothing)", r"cup containing [\w-]+ paint and [\w-]+ paint"
    focus = "focus on (?:{0} paint.*|(?:paint|substance) in (?:{1}|cup containing {0} paint.*))"
    out = [
        "teleport to art studio",
        rf"pour cup containing (?P<one>{PRIMARY[second]}) paint{near} into (?P<cup>{cup}{near})",
        rf"pour cup containing (?!<one>){paint}{near} into (?:<cup>|cup containing <one> paint in table)",
        rf"mix (?:<cup>|{mixed}{near})",
        focus.format(second, "<cup>"),
    ]
    if asked["do"] == "create":
        return out
    return [
        *out,
        "open (?:large )?cupboard",
        rf"pour <cup> into cup containing {paint}(?: in \w+)?",  # what was mixed once is not mixed again
        rf"pour cup containing {paint}(?: in \w+)? into cup containing {second} paint(?: in \w+)?",
        rf"mix {mixed}{near}",
        focus.format(r"\w+-\w+", "<cup>"),
    ]


def lived(asked: Goal, rng: random.Random) -> list[str]:
    kinds = [LONG_LIVED] * ("longest" in asked["do"]) + [SHORT_LIVED] * ("shortest" in asked["do"])
    return ["teleport to outside", *(f"focus on .*{which.pattern}.*" for which in kinds)]


def staged(asked: Goal, rng: random.Random) -> list[str]:
    if "count" not in asked:
        return []
    thing = asked["thing"]
    stages = ["egg", "hatchling", "juvenile", "adult"] if asked["count"] == "4" else ["baby", "juvenile", "adult"]
    out = ["teleport to outside"]
    for stage in stages:
        out += [f"focus on (?:{stage} .*{thing}|{thing} {stage}|{thing})", "wait", "wait"]
    return out[:-2]


def grown(asked: Goal, rng: random.Random) -> list[str]:
    thing = asked["thing"]
    seed = rf"(?:.* )?{thing} seed(?:(?: in the seed stage)? \(?(?:in|on) (?!flower).*)?"
    out = [f"teleport to {asked['at']}"]
    out += [rf"pick up (?:seed jar|ceramic cup|(?:seed jar|(?:ceramic )?cup) containing {thing} seed.*)"]
    # some pots are empty, and a hole in the ground gives soil for one
    out += ["teleport to outside", "pick up shovel", "use shovel.* on ground", "pick up soil"]
    out += ["teleport to greenhouse", "move soil(?: in inventory)? to flower pot 1.*"]
    pots = "1" if asked["do"] == "grow plant" else "123"
    for pot in pots:  # a second time with the meaning, where the first was ambiguous
        out += [f"move {seed} to flower pot {pot}.*", f"move {seed} to flower pot {pot} \\(.*"]
    if asked["do"] == "grow plant":  # another seed than the planted one, or else the episode would end unseen
        out += [f"focus on {seed}", f"focus on {thing} seed \\(in (?!flower).*"]
    out += ["activate sink", "open bee hive", "move jug to sink"]
    out += [f"pour jug into flower pot {pot}.*" for pot in pots]
    if asked["do"] == "grow plant":
        end = [r"pick up (?:.* )?flower(?! pot).*|(?:pick up|focus on) .*reproducing.*"]
    else:
        end = [f"focus on (?:red )?{thing}(?: (?:in|on) .*)?", f"focus on (?:red )?{thing} \\(.*"]
    return out + ["wait", *end] * 6


WAYS = {
    "find": find,
    **dict.fromkeys(("boil", "melt", "freeze", "change"), heated),
    **dict.fromkeys(("temperature", "melting point"), measured),
    "power": powered,
    "conductivity": conducted,
    **dict.fromkeys(("create", "create in two steps"), painted),
    **dict.fromkeys(("longest lived", "shortest lived", "longest, then shortest lived"), lived),
    "life stages": staged,
    **dict.fromkeys(("grow fruit", "grow plant"), grown),
}
