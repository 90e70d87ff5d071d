"""How to continue an attempt in ScienceWorld so that it achieves something of several steps. No score is read.

An untrained agent hardly ever boils or measures anything. To have such goals in training, the beginning of an attempt
is continued with hand-written patterns of actions (`continuations` in `data.json`). Each is a regular expression for a
whole admissible action. `<it>` stands for what the group `(?P<it>...)` matched before; `{thing}` is filled in here.
Hindsight then reads what came of it, as for any attempt.
"""

import random
import re
from collections.abc import Callable

from armap_lite.envs.hindsight import Goal
from armap_lite.envs.scienceworld.data import DATA, WORDS, default_state, parse, substance
from armap_lite.envs.scienceworld.events import read
from armap_lite.envs.scienceworld.goals import achieved
from armap_lite.trajectory import Trajectory

BRING = 0.7  # share of attempts with a focus that go on with the focused thing
MAX_KEPT = 4  # steps of an attempt that a continuation from the start of a task keeps at most
PRIMARY = {"violet": "red|blue", "purple": "red|blue", "green": "blue|yellow", "orange": "red|yellow"}


def plan(trajectory: Trajectory, seed: int) -> tuple[int, list[str]] | None:
    """How many steps of `trajectory` to keep, and patterns of the actions to follow; None if there are none."""
    asked, rng = parse(trajectory.task.instruction) or {}, random.Random(seed)
    done, way = achieved(trajectory), WAYS.get(asked.get("do", ""))
    if way is None or (done.get("do") == asked["do"] and done.keys() == asked.keys()):
        return None
    if not all(re.fullmatch(r"[\w .,'-]+", name) for name in asked.values()):
        return None  # the names become parts of patterns
    focused = [event.at for event in read(trajectory).of("focus")]
    live = len(trajectory.steps) - trajectory.done  # without a last step that ended the episode
    steps = trajectory.task.max_steps or 0
    can_bring = asked["do"] == "find" and "into" in asked and focused and focused[0] < min(live, steps - 3)
    if can_bring and rng.random() < BRING:
        it = re.escape(trajectory.actions[focused[0]].removeprefix("focus on "))
        return focused[0] + 1, _bring(it, asked, rng)
    patterns = way(asked, rng)
    free = steps - len(patterns)
    if not patterns or free < 0:
        return None
    return rng.randint(0, min([MAX_KEPT, free, live, *focused[:1]])), patterns


def _fill(name: str, **slots: str) -> list[str]:
    return [pattern.format(**slots) for pattern in DATA["continuations"][name]]


def _bring(it: str, asked: Goal, rng: random.Random) -> list[str]:
    """Carry the focused thing to the room of the task and put it into the task's box or another one."""
    return _fill("bring", it=it, room=asked["room"], box=rng.choice((asked["into"], r"\w+ box")))


def _find(asked: Goal, rng: random.Random) -> list[str]:
    if "into" not in asked:
        return []
    name = f"find {asked['thing']}"
    start = _fill(name if name in DATA["continuations"] else "find animal", **asked, animal=WORDS["animal"].pattern)
    return start + _bring("<it>", asked, rng)


def _change(asked: Goal, rng: random.Random) -> list[str]:
    """Freeze what should boil and boil what should freeze: the text shows only changes that do not end the task."""
    thing, do = asked["thing"], asked["do"]
    base, state = substance(thing)
    solid = (state or default_state(thing)) == "solid"
    if do == "change" or (do == "melt" and solid):
        return []
    start = _fill("heat") + _fill("fill with water" if base == "water" and not solid else "fill", thing=thing)
    if do == "boil" and not solid:
        return start + _fill("cool", base=base)
    wait = ["wait"] * (0 if do == "boil" else 1 if solid else 2)  # melting takes less time than burning
    return start + _fill("burn") + wait + _fill("look at it", base=base)


def _measure(asked: Goal, rng: random.Random) -> list[str]:
    """Into one of the two boxes: hindsight finds a limit for which it is right."""
    thing = rf"(?:.* )?{asked['thing']}(?: in .*)?"
    if asked["thing"].startswith("unknown substance"):
        thing = rf"unknown substance(?: {asked['thing'][-1]})?(?: in .*)?"
    return _fill(asked["do"], it=thing, box=asked[rng.choice(("above", "below"))], **asked)


def _power(asked: Goal, rng: random.Random) -> list[str]:
    it = rf"(?:{asked['thing']}|{asked['thing'].removeprefix('electric ')})"
    source = r"(?:nuclear|gas) generator" if "source" in asked else "battery"
    return _fill("power", it=it, source=source) + ([f"activate {source}"] if "source" in asked else [])


def _conduct(asked: Goal, rng: random.Random) -> list[str]:
    if not WORDS["metal"].search(asked["thing"]) and not WORDS["insulator"].search(asked["thing"]):
        return []
    out = _fill("conductivity", box=asked[rng.choice(("yes", "no"))], **asked)
    return out[:2] + out[-1:] if asked["at"] == "workshop" else out


def _create(asked: Goal, rng: random.Random) -> list[str]:
    """Mix a secondary color of two primary ones, then a tertiary one with a third."""
    if "at" in asked:
        return []
    second, twice = next((color for color in PRIMARY if color in asked["thing"]), ""), asked["do"] != "create"
    if not second or not twice:
        second = rng.choice(("violet", "green", "orange"))
    slots = {"second": second, "primary": PRIMARY[second]}
    return _fill("create", **slots) + (_fill("create in two steps", **slots) if twice else [])


def _compare(asked: Goal, rng: random.Random) -> list[str]:
    return _fill(asked["do"], long=WORDS["long-lived"].pattern, short=WORDS["short-lived"].pattern)


def _watch(asked: Goal, rng: random.Random) -> list[str]:
    if "count" not in asked:
        return []
    out, thing = ["teleport to outside"], asked["thing"]
    for stage in DATA["life_stages"]["animal"][asked["count"] == "4"]:
        out += [f"focus on (?:{stage} .*{thing}|{thing} {stage}|{thing})", "wait", "wait"]
    return out[:-2]


def _grow(asked: Goal, rng: random.Random) -> list[str]:
    thing, pots = asked["thing"], "1" if asked["do"] == "grow plant" else "123"
    seed = rf"(?:.* )?{thing} seed(?:(?: in the seed stage)? \(?(?:in|on) (?!flower).*)?"
    out = _fill("soil", **asked)  # some pots are empty: soil is dug outside
    for pot in pots:  # twice: the first may be ambiguous, the second gives its meaning
        out += _fill("plant", seed=seed, pot=pot)
    if asked["do"] == "grow plant":  # not the planted one: the episode would end before the text shows the plant
        out += _fill("focus on another seed", seed=seed, thing=thing)
    out += [*_fill("water"), *(f"pour jug into flower pot {pot}.*" for pot in pots)]
    return out + _fill(asked["do"], **asked) * 6


WAYS: dict[str, Callable[[Goal, random.Random], list[str]]] = {
    "find": _find,
    **dict.fromkeys(("boil", "melt", "freeze", "change"), _change),
    **dict.fromkeys(("temperature", "melting point"), _measure),
    "power": _power,
    "conductivity": _conduct,
    **dict.fromkeys(("create", "create in two steps"), _create),
    **dict.fromkeys(("longest lived", "shortest lived", "longest, then shortest lived"), _compare),
    "life stages": _watch,
    **dict.fromkeys(("grow fruit", "grow plant"), _grow),
}
