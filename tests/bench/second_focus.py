"""Does a second focus void a thing "found and moved" in ScienceWorld? `python tests/bench/second_focus.py`

The simulator's own solutions of development episodes, with a focus on another thing (drawn at random) before or after
the first one: what code reads, and what the judge scores. Last line: JSON, ratio = share of these ends, among those
that code calls right, that the judge scores 1.
"""

import argparse
import contextlib
import json
import platform
import random
import sys
from collections import Counter
from pathlib import Path

from armap_lite import envs

sys.path.insert(0, str(Path(__file__).parents[1]))
from science_gold import ScienceWorld, gold

FAMILIES = ("find-animal", "find-living-thing", "find-non-living-thing", "find-plant")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=6, help="episodes of each family")
    n, rng, found = parser.parse_args().n, random.Random(0), Counter[tuple[str, bool, float]]()
    with (
        ScienceWorld(simulators=1) as simulator,
        envs.make("scienceworld") as env,
        contextlib.closing(envs.make_judge("scienceworld")) as judge,
    ):
        for family in FAMILIES:
            for task in [task for task in env.tasks("dev") if task.family == family][:n]:
                path, goal = gold(simulator, task), env.hindsight.parse(task.instruction)
                first = next(i for i, action in enumerate(path) if action.startswith("focus on"))
                for place, at in (("none", None), ("before", first), ("after", first + 1)):
                    actions = path
                    if at is not None:
                        env.replay(task, path[:at])
                        others = [a for a in env.admissible() if a.startswith("focus on") and a != path[first]]
                        actions = [*path[:at], rng.choice(others), *path[at:]]
                    end = env.replay(task, actions)
                    found[place, env.hindsight.satisfied(end, goal), judge.score(end)] += 1
    for (place, right, score), number in sorted(found.items()):
        print(f"{number:4}  second focus: {place:6}  code: {'right' if right else 'wrong'}  judge: {score:.2f}")
    called = Counter({key: number for key, number in found.items() if key[0] != "none" and key[1]})
    share = sum(number for key, number in called.items() if key[2] == 1) / max(1, called.total())
    details = {"ends": [[*key, number] for key, number in sorted(found.items())]}
    line = {"name": "second_focus", "ratio": share, "versus": "all that code calls right", "unit": "ends"}
    print(json.dumps({**line, "device": platform.machine(), "details": details}))


if __name__ == "__main__":
    main()
