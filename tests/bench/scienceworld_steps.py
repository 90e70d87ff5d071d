"""Steps per second of the ScienceWorld wrapper against the raw simulator, on the same actions.

The raw side calls the simulator's own `step` and `getScore` through its Java gateway and nothing else. The package's
own `ScienceWorldEnv.step`, which also lists the valid actions each time, is timed beside it.
"""

from __future__ import annotations

import json
import random
import statistics
import time

from armap_lite import results
from armap_lite.envs.scienceworld import SIMPLIFICATION, ScienceWorld
from armap_lite.world import World


def walks(env: ScienceWorld, episodes: int, steps: int) -> list:
    rng, found = random.Random(0), []
    tasks = env.tasks("train")
    for i in range(episodes):
        world = World(env, tasks[i * len(tasks) // episodes])
        state = world.start()
        while not state.over and len(state.trajectory.steps) < steps:
            options = [a for a in state.admissible if not a.startswith("focus")]  # a wrong focus would end it
            state = world.step(state, rng.choice(options))
        found.append(state.trajectory)
    return found


def main(episodes: int = 12, steps: int = 25, rounds: int = 7) -> None:
    from scienceworld import ScienceWorldEnv

    with ScienceWorld() as env:
        paths = walks(env, episodes, steps)
        count = sum(len(p.steps) for p in paths)
        raw = env._pool.of(object())[0]

        def wrapped() -> float:
            spent = 0.0
            for path in paths:
                env.reset(path.task)
                start = time.perf_counter()
                for action in path.actions:
                    env.step(action)
                spent += time.perf_counter() - start
            return spent

        def bare() -> float:
            spent = 0.0
            for path in paths:
                raw.load(path.task.setup["family"], path.task.setup["variation"], SIMPLIFICATION, False)
                raw.step("look around")
                start = time.perf_counter()
                for action in path.actions:
                    str(raw.step(action))
                    raw.getScore()
                spent += time.perf_counter() - start
            return spent

        wrapped(), bare()  # the virtual machine compiles what is used often
        pairs = [(wrapped(), bare()) for _ in range(rounds)]
        ratio = statistics.median(b / w for w, b in pairs)
        fast, plain = (count / statistics.median(times) for times in zip(*pairs))
        print(f"wrapper {fast:,.0f} steps/s, raw simulator {plain:,.0f} steps/s, {count} steps, {rounds} rounds")
    package = ScienceWorldEnv("", None, 1000)
    path = paths[0]
    package.load(path.task.setup["family"], path.task.setup["variation"], SIMPLIFICATION)
    package.reset()
    start = time.perf_counter()
    for action in path.actions:
        package.step(action)
    listed = len(path.steps) / (time.perf_counter() - start)
    package.close()
    package._gateway.java_process.wait(10)
    details = {"wrapper": fast, "raw": plain, "package_step": listed, "n": count}
    device = results.versions()["cpu"]
    row = {"name": "scienceworld_steps", "ratio": ratio, "versus": "raw simulator step + getScore", "unit": "steps/s"}
    print(json.dumps({**row, "device": device, "details": details}))


if __name__ == "__main__":
    main()
