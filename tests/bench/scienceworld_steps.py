"""Steps per second of the ScienceWorld wrapper against the raw simulator, on the same actions.

The raw side calls the simulator's own `step` and `getScore` through its Java gateway and nothing else. The package's
own `ScienceWorldEnv.step`, which also lists the valid actions each time, is timed beside it.
"""

import argparse
import json
import random
import statistics
import time

from armap_lite.envs.scienceworld.environment import SIMPLIFICATION, ScienceWorld
from armap_lite.episode import Episode
from armap_lite.pipeline import results
from armap_lite.trajectory import Trajectory


def walks(env: ScienceWorld, episodes: int, steps: int) -> list:
    rng, found = random.Random(0), []
    tasks = env.tasks("train")
    for i in range(episodes):
        episode = Episode(env, tasks[i * len(tasks) // episodes])
        state = episode.start()
        while not state.over and len(state.trajectory.steps) < steps:
            options = [a for a in state.admissible if not a.startswith("focus")]  # a wrong focus would end it
            state = episode.step(state, rng.choice(options))
        found.append(state.trajectory)
    return found


def main(episodes: int = 12, steps: int = 25, rounds: int = 15) -> None:
    from scienceworld import ScienceWorldEnv

    with ScienceWorld() as env:
        paths = walks(env, episodes, steps)
        count = sum(len(p.steps) for p in paths)
        raw = env._pool.of(object())[0]

        def wrapped(path: Trajectory) -> float:
            env.reset(path.task)
            start = time.perf_counter()
            for action in path.actions:
                env.step(action)
            return time.perf_counter() - start

        def bare(path: Trajectory) -> float:
            raw.load(path.task.family, path.task.setup["variation"], SIMPLIFICATION, False)
            raw.step("look around")
            start = time.perf_counter()
            for action in path.actions:
                str(raw.step(action))
                raw.getScore()
            return time.perf_counter() - start

        def typical(times: list[float]) -> float:
            return statistics.median(times[2:])  # the virtual machine first compiles what is used often

        spent = [0.0, 0.0]
        for path in paths:  # of each episode both sides by turns, as the machine's speed drifts
            times: tuple[list[float], list[float]] = ([], [])
            for i in range(rounds + 2):
                for side in (0, 1) if i % 2 else (1, 0):
                    times[side].append((wrapped, bare)[side](path))
            spent = [total + typical(some) for total, some in zip(spent, times)]
        fast, plain = (count / total for total in spent)
        ratio = spent[1] / spent[0]
        print(f"wrapper {fast:,.0f} steps/s, raw simulator {plain:,.0f} steps/s, {count} steps, {rounds} rounds")
    package = ScienceWorldEnv("", None, 1000)
    path = paths[0]
    package.load(path.task.family, path.task.setup["variation"], SIMPLIFICATION)
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
    formatter = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser(description=__doc__, formatter_class=formatter).parse_args()
    main()
