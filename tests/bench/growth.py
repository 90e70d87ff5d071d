"""How do time and memory grow with the work? `PYTHONPATH=.:tests python tests/bench/growth.py [--figure growth.png]`

Stages 1 to 4 with a random three-layer model, where Python weighs as much as it ever will, on 1, 2, 4 and 8 times the
tasks, samples and tokens. Each measurement has a process of its own: CPU seconds of one thread, and the memory that
the work added to a process that had its models loaded. `Corridor` is a world whose episodes have as many steps as are
asked for; prompts hold the whole trajectory, so its tokens grow with the steps.
Ratio: seconds of a unit of work at 8 times the work against those at 1, the worst of all rows; 1 is linear.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import psutil
import torch
from tiny import tiny_lm, tiny_network

from armap_lite import collect, envs, planners, synthesize
from armap_lite.agent import Agent
from armap_lite.envs.base import Environment
from armap_lite.reward.config import TrainingConfig
from armap_lite.reward.scorer import RewardModel
from armap_lite.reward.training import train
from armap_lite.trajectory import Observation, PreferencePair, Task, Trajectory

TIMES = (1, 2, 4, 8)
START = "fork" if sys.platform == "linux" else "spawn"  # a fork has the imports done; torch has no threads before
SEARCHES: dict[str, dict[str, Any]] = {
    "best_of_n": {"n": 8},
    "mcts": {"rollouts": 8, "expand_terminal_siblings": True, "num_action_samples": None},
}


class Corridor(Environment):
    """`max_steps` doors, two of which are open at each step."""

    name, version, metric = "corridor", "1", "none"
    guide = "Walk through the doors."

    def __init__(self, steps: int):
        self.max_steps = steps

    def tasks(self, split: str) -> list[Task]:
        return [Task(f"{split}-{i}", self.name, split, f"Walk through door {i}.") for i in range(200)]

    def reset(self, task: Task) -> Observation:
        self.walked = 0
        return Observation("a corridor", self.admissible())

    def step(self, action: str) -> Observation:
        self.walked += 1
        return Observation(f"behind the {action}", self.admissible(), done=self.walked == self.max_steps)

    def admissible(self) -> tuple[str, ...]:
        return f"open door {self.walked}", f"open door {self.walked + 1}"


def collected(env: Environment, tasks: int, samples: int, folder: Path) -> Path:
    file = folder / "trajectories.jsonl"
    agent = Agent(tiny_lm(), env, examples=0)
    work = collect.collect(env, agent, env.tasks("train")[:tasks], file, samples=samples, num_proposals=0)
    asyncio.run(work)
    return file


def collecting(tasks: int, samples: int, steps: int | None = None) -> Callable[[Path], Any]:
    def prepare(folder: Path) -> Callable[[], Any]:
        env: Environment = envs.make("game24") if steps is None else Corridor(steps)
        return lambda: collected(env, tasks, samples, folder)

    return prepare


def synthesizing(count: int) -> Callable[[Path], Any]:
    def prepare(folder: Path) -> Callable[[], Any]:
        env, lm = envs.make("game24"), tiny_lm()
        found = collect.load(collected(env, count // 4 + 8, 8, folder))[:count]
        assert len(found) == count
        return lambda: asyncio.run(synthesize.synthesize(env, lm, found, folder / "pairs.jsonl", num_drafts=1))

    return prepare


def training(count: int, steps: int) -> Callable[[Path], Any]:
    def walk(task: Task, first: int) -> Trajectory:
        env = Corridor(steps)
        return env.replay(task, [f"open door {first + k}" for k in range(steps)])

    def prepare(folder: Path) -> Callable[[], Any]:
        tasks = Corridor(steps).tasks("train") + Corridor(steps).tasks("dev") + Corridor(steps).tasks("test")
        pairs = [
            PreferencePair(t.id, t.id, t.instruction, walk(t, 0), walk(t, 1), origin="plain", changed_at=0)
            for t in tasks[:count]
        ]
        network = tiny_network(max_tokens=8192)
        config = TrainingConfig(num_validations=1)
        quiet = {"enable_progress_bar": False, "accelerator": "cpu"}
        return lambda: train(pairs, folder / "model", network[0].config, config, network=network, **quiet)

    return prepare


def planning(tasks: int, times: int = 1) -> Callable[[Path], Any]:
    def prepare(folder: Path) -> Callable[[], Any]:
        env = envs.make("game24")
        agent, reward = Agent(tiny_lm(), env, examples=0), RewardModel(*tiny_network())
        size = {"n": "n", "rollouts": "rollouts"}
        search = {p: {k: v * times if k in size else v for k, v in o.items()} for p, o in SEARCHES.items()}
        return lambda: asyncio.run(
            planners.plan(env, agent, reward, env.tasks("test")[:tasks], folder / "plans.jsonl", search, group=8)
        )

    return prepare


# What grows -> what is done at k times the work.
ROWS: dict[str, Callable[[int], Callable[[Path], Any]]] = {
    "collection: tasks": lambda k: collecting(16 * k, 4),
    "collection: samples of a task": lambda k: collecting(16, 4 * k),
    "collection: steps of an episode": lambda k: collecting(8, 2, steps=8 * k),
    "synthesis: trajectories": lambda k: synthesizing(32 * k),
    "training: pairs": lambda k: training(48 * k, steps=8),
    "training: steps of a trajectory": lambda k: training(48, steps=8 * k),
    "planning: tasks": lambda k: planning(8 * k),
    "planning: attempts at a task": lambda k: planning(8, times=k),
}


def measure(name: str, k: int) -> tuple[float, float]:
    """CPU seconds, and megabytes that row `name` added, at `k` times the work."""
    torch.set_num_threads(1)
    process, ended, peak = psutil.Process(), threading.Event(), [0]
    with tempfile.TemporaryDirectory() as scratch:
        warm, measured = Path(scratch, "warm"), Path(scratch, "measured")
        warm.mkdir()
        measured.mkdir()
        ROWS[name](1)(warm)()  # imports, first-use costs and buffers of fixed size
        work = ROWS[name](k)(measured)
        before = process.memory_info().rss

        def look() -> None:
            while not ended.wait(0.02):
                peak[0] = max(peak[0], process.memory_info().rss)

        threading.Thread(target=look, daemon=True).start()
        start = time.process_time()
        work()
        seconds = time.process_time() - start
        ended.set()
    return seconds, max(0, peak[0] - before) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", type=Path, metavar="FILE", help="also draw the table, into a PNG or SVG file")
    parser.add_argument("--only", nargs="+", default=list(ROWS), choices=ROWS, metavar="ROW")
    options = parser.parse_args()
    details: dict[str, Any] = {}
    print(f"{'CPU seconds, MB added':<34}" + "".join(f"{f'{k} x':>16}" for k in TIMES) + f"{'per unit, 8 x':>16}")
    for name in options.only:
        found = []
        for k in TIMES:
            with multiprocessing.get_context(START).Pool(1) as pool:
                found.append(pool.apply(measure, (name, k)))
        growth = found[-1][0] / found[0][0] / TIMES[-1]
        details[name] = {"seconds": [round(s, 2) for s, _ in found], "megabytes": [round(mb) for _, mb in found]}
        details[name]["of_a_unit"] = round(growth, 2)
        print(f"{name:<34}" + "".join(f"{s:>9.2f}{mb:>7.0f}" for s, mb in found) + f"{growth:>16.2f}", flush=True)
    if options.figure:
        draw(details, options.figure)
    result = {"name": "growth", "ratio": max(row["of_a_unit"] for row in details.values())}
    result |= {"versus": "a unit of work at an eighth of it", "unit": "CPU seconds of a unit of work"}
    print(json.dumps({**result, "device": f"1 thread of {platform.machine()}", "details": details}))


def draw(details: dict[str, Any], file: Path) -> None:
    import matplotlib as mpl

    from armap_lite.display import canvas

    with mpl.rc_context(canvas.STYLE):
        figure = canvas.NotebookFigure(figsize=(12, 5), layout="constrained")
        left, right = figure.subplots(1, 2)
        for name, row in details.items():
            left.plot(TIMES, [s / row["seconds"][0] for s in row["seconds"]], marker="o", label=name)
            right.plot(TIMES, row["megabytes"], marker="o")
        left.plot(TIMES, TIMES, color=canvas.GREY, ls="--", label="linear")
        left.set(xlabel="times the work", ylabel="times the CPU seconds", xscale="log", yscale="log")
        right.set(xlabel="times the work", ylabel="MB added", xscale="log")
        for axes in (left, right):
            axes.set_xticks(TIMES, [str(k) for k in TIMES])
        figure.legend(loc="outside right upper")
        figure.savefig(file)


if __name__ == "__main__":
    sys.exit(main())
