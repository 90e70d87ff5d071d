"""Gold paths of ScienceWorld's 24 families and near misses, as `science_gold.json` holds them.

`python tests/science_gold.py` writes the file anew (a minute). The simulator's own solutions serve tests alone. A
path goes one look beyond its end, since the text shows a last change of state only then.
"""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from armap_lite.envs.scienceworld.data import MAX_STEPS, to_text
from armap_lite.envs.scienceworld.environment import SIMPLIFICATION, ScienceWorld, Tasks
from armap_lite.trajectory import Step, Task, Trajectory

FILE = Path(__file__).with_name("science_gold.json")
VARIATIONS = {"melt": 12, "freeze": 8, "change-the-state-of-matter-of": 12, "find-plant": 75}  # else the first
OTHER_BOX = (r"(.* )(\w+) box$", lambda m, task: f"{m[1]}{other_box(m[2], task)} box")
# One change to the gold path: what to look for in an action, and what is done in its place ("" for nothing).
MISSES: dict[str, tuple[str, Any]] = {
    **dict.fromkeys(("boil", "melt", "change-the-state-of-matter-of"), (r"activate (stove|blast furnace)", "wait1")),
    "freeze": (r"move metal pot to freezer", "move metal pot to cupboard"),
    **dict.fromkeys(("measure-melting-point-known-substance", "use-thermometer"), OTHER_BOX),
    **dict.fromkeys(("test-conductivity", "test-conductivity-of-unknown-substances"), OTHER_BOX),
    **dict.fromkeys(("find-animal", "find-living-thing"), (r"focus on .*", "focus on axe")),
    "find-non-living-thing": (r"focus on .*", "wait1"),
    "find-plant": (r"move .* to orange box", "wait1"),
    "power-component": (r"connect (.*) to cathode in (.*)", lambda m, task: f"connect {m[1]} to anode in {m[2]}"),
    "power-component-renewable-vs-nonrenewable-energy": (r"focus on .*", "wait1"),
    "grow-fruit": (r"focus on .*", "teleport to kitchen\nfocus on apple"),
    "grow-plant": (r"focus on .* seed .*", "wait1"),
    "chemistry-mix": (r"mix .*", "wait1"),
    "chemistry-mix-paint-secondary-color": (r"mix .*", "wait1"),
    "chemistry-mix-paint-tertiary-color": (r"focus on .*", "wait1"),
    "lifespan-longest-lived": (r"focus on .*", "focus on wolf"),
    "lifespan-shortest-lived": (r"focus on .*", "focus on wolf"),
    "lifespan-longest-lived-then-shortest-lived": (r"focus on .*", "wait1"),
    "identify-life-stages-1": (r"focus on .*", "wait1"),
    "identify-life-stages-2": (r"focus on .*", "wait1"),
}


def other_box(color: str, task: Task) -> str:
    return next(c for c in re.findall(r"(\w+) box", task.instruction) if c != color)


def play(env: ScienceWorld, task: Task, actions: list[str]) -> Trajectory:
    """All of `actions` and a look around, also where the task calls itself completed in between."""
    trajectory = Trajectory(task, env.reset(task).text)
    for action in [*actions, "look around"]:
        trajectory = trajectory.then(action, env.step(action))
    return trajectory


def gold(env: ScienceWorld, task: Task) -> list[str]:
    """The simulator's solution, without what it does only to look for things."""
    env.reset(task)
    start = (task.family, task.setup["variation"], SIMPLIFICATION, True)
    env._call(lambda sim: sim.load(*start))
    found = [str(action) for action in env._call(lambda sim: sim.getGoldActionSequence())]
    if task.family.startswith("identify"):
        return found  # each step lets the animals grow older
    looks = "conductivity" in task.family  # there, the lamp has to be seen
    path = [a for a in found if not a.startswith("open door") and (looks or a != "look around")]
    return [re.sub(r"^go to ", "teleport to ", a) for a in path]


def miss(task: Task, actions: list[str]) -> list[str]:
    """`actions` with the one change of MISSES, at the first place that it fits (boxes: at the last)."""
    pattern, new = MISSES[task.family]
    places = [i for i, action in enumerate(actions) if re.fullmatch(pattern, action)]
    at = places[-1 if pattern == OTHER_BOX[0] else 0]
    match = re.fullmatch(pattern, actions[at])
    return [*actions[:at], *(new if isinstance(new, str) else new(match, task)).split("\n"), *actions[at + 1 :]]


def record(env: ScienceWorld, family: str) -> tuple[Trajectory, Trajectory]:
    """The gold path of a training task of `family`, and its near miss."""
    task = Tasks("train", [(family, VARIATIONS.get(family, env._variations(family, "train")[0]))], env._describe)[0]
    path = gold(env, task)
    return play(env, task, path), play(env, task, miss(task, path))


def form(goal: dict[str, str]) -> tuple[str, int]:
    """The verb of the instruction that asks for `goal`, and the number of its steps."""
    text = to_text(goal)
    verb = re.match(r"Your task is to (use chemistry to create|turn on|\w+)", text)[1]  # type: ignore[index]
    if goal["do"] == "life stages":
        return verb, int(goal.get("count", 4))
    return verb, 1 + len(re.findall(r"\b(?:Then|Next), ", text)) + ("part-way" in text) + (" If " in text)


def load() -> dict[str, tuple[Trajectory, Trajectory]]:
    """Gold path and near miss of each family, from the file."""
    out = {}
    for family, (task, start, steps, kept, rest) in json.loads(FILE.read_text("utf-8")).items():
        first, other = (tuple(Step(*step, show="never") for step in some) for some in (steps, rest))
        good = Trajectory(Task.from_json(task), start, first, show="never")
        out[family] = good, dataclasses.replace(good, steps=(*first[:kept], *other))
    return out


def main() -> None:
    lines = []
    with ScienceWorld(simulators=1) as env:
        for family in MAX_STEPS:
            good, bad = record(env, family)
            rows = [[[s.action, s.observation] for s in t.steps] for t in (good, bad)]
            kept = next(i for i, (x, y) in enumerate(zip(*rows)) if x[0] != y[0])
            row = [good.task.to_json(), good.start, rows[0], kept, rows[1][kept:]]
            lines.append(f"{json.dumps(family)}: {json.dumps(row, ensure_ascii=False)}")
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")


if __name__ == "__main__":
    main()
