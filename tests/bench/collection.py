"""How fast are trajectories collected? This source tree against another one, in turns: environment steps per second.

Each run is a process of its own: episodes of training tasks side by side, with the embedded policy, until all are over
or the model was asked `--calls` times. Both trees draw with the same seeds. In bf16 their rounding differs, and so do
some draws: `same_first_actions` is the share of episodes that begin alike; with `--fp32` it is 1.
`--change` runs a statement before this tree's runs, to see what another setting would do: `.` is then the other tree.

git worktree add /tmp/before COMMIT
python tests/bench/collection.py /tmp/before --env scienceworld [--runs 3] [--threads 1] [--fp32]
python tests/bench/collection.py . --change "lm.forest.spare = 64"
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

WORLDS = ("game24", "scienceworld", "webshop")
EPISODES = {"game24": (16, 6), "scienceworld": (16, 3), "webshop": (6, 4)}  # tasks, and samples of each, as in `fast`


class EnoughError(Exception):
    """The model was asked as often as was wanted."""


class Counting:
    """Passes `choose` on and counts seconds, steps, and the model's forward passes."""

    def __init__(self, lm: Any, calls: int):
        self.lm, self.calls, self.seconds, self.steps, self.passes = lm, calls, 0.0, 0, 0
        self.first: list[str] = []  # the answers to the first call
        lm.model.register_forward_pre_hook(self._count)

    def _count(self, *_: Any) -> None:
        self.passes += 1

    def choose(self, *args: Any, **options: Any) -> Any:
        if not self.calls:
            raise EnoughError
        self.calls -= 1
        start = time.perf_counter()
        answers = self.lm.choose(*args, **options)
        self.seconds += time.perf_counter() - start
        self.steps += len(answers)
        self.first = self.first or [choice.text for [choice] in answers]
        return answers


def measure(name: str, calls: int, threads: int, dtype: str, change: str) -> dict[str, Any]:
    """One run, in the source tree that this process imports."""
    import torch

    from armap_lite import envs, llms
    from armap_lite.agent import Agent, rollout
    from armap_lite.batching import Batcher
    from armap_lite.episode import Episode
    from armap_lite.rng import derive_seed

    torch.set_num_threads(threads)
    num_tasks, samples = EPISODES[name]
    with envs.make(name) as env:
        lm = llms.load("smollm2-135m-instruct", dtype=dtype)
        exec(change, {"torch": torch, "lm": lm, "env": env})  # noqa: S102 - what the caller wants to try
        agent, tasks = Agent(lm, env), env.draw(num_tasks, seed=7)  # type: ignore[arg-type]
        lm.choose(["warm"], [["up", "down"]])
        lm.reset()  # type: ignore[attr-defined]
        counting = Counting(lm, calls)
        batch = Batcher(counting, max_concurrent_episodes=env.max_concurrent_episodes)  # type: ignore[arg-type]

        async def act() -> None:
            seeds = [(task, derive_seed(0, task.id, k)) for task in tasks for k in range(samples)]
            episodes = [rollout(Episode(env.fork(), t), batch, agent.policy(batch, 1.5, s)) for t, s in seeds]
            await asyncio.gather(*episodes)

        before, start, cpu = lm.forest.tokens_computed, time.perf_counter(), time.process_time()  # type: ignore[attr-defined]
        with contextlib.suppress(EnoughError):
            asyncio.run(act())
        seconds, steps = time.perf_counter() - start, counting.steps
        return {
            "seconds_per_step": round(seconds / steps, 4),
            "model_seconds_per_step": round(counting.seconds / steps, 4),
            "cpu_seconds_per_step": round((time.process_time() - cpu) / steps, 4),  # without Java's
            "steps": steps,
            "passes": counting.passes,
            "tokens_per_pass": round((lm.forest.tokens_computed - before) / counting.passes, 1),  # type: ignore[attr-defined]
            "first": counting.first,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="the folder of another source tree")
    parser.add_argument("--env", default="game24", choices=WORLDS)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--calls", type=int, default=24)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--fp32", action="store_true")
    parser.add_argument("--change", default="")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    dtype = "float32" if options.fp32 else "auto"
    if options.measure:
        print(json.dumps(measure(options.env, options.calls, options.threads, dtype, options.change)))
        return
    found: dict[str, list[dict[str, Any]]] = {"before": [], "now": []}
    trees = {"before": options.other.resolve(), "now": Path(__file__).parents[2]}
    for _ in range(options.runs):
        for side, tree in trees.items():
            run = subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--measure", *(["--change", ""] if side == "before" else [])],
                env=os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": str(options.threads)},
                stdout=subprocess.PIPE,
                check=True,
                encoding="utf-8",
            )
            found[side].append(json.loads(run.stdout.splitlines()[-1]))
    first = {side: [run.pop("first") for run in runs] for side, runs in found.items()}
    same = [sum(a == b for a, b in zip(*both)) / len(both[0]) for both in zip(*first.values())]

    def ratios(key: str) -> list[float]:
        return sorted(round(before[key] / now[key], 2) for before, now in zip(*found.values()))

    result = {
        "name": "collection",
        "ratio": statistics.median(ratios("seconds_per_step")),
        "versus": f"the source tree {options.other.name}",
        "unit": "times the environment steps per second",
        "device": f"{options.threads} threads of {platform.machine()}",
        "details": {
            "env": options.env,
            "change": options.change,
            "ratios": ratios("seconds_per_step"),
            "model_ratios": ratios("model_seconds_per_step"),
            "cpu_ratios": ratios("cpu_seconds_per_step"),
            "same_first_actions": [round(share, 3) for share in same],
            **found,
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
