"""What batching and the shared forest of tokens save: eight trajectories of each of some tasks, with them and without.

with      all samples side by side, batched; prompts, growing trajectories and actions share what they have in common
without   one sample after the other, and each call reads its whole prompt again

Both draw with the same seeds, so environment steps per second compare the same work; `same_actions` is the share of
trajectories in which every action agrees.
Where the slow way takes too long, `--every 8` lets it do every eighth trajectory only; its steps per second are those
of the ones it did. Tokens are what the calls would read with no cache at all (`Choice.tokens`).

python tests/bench/prefix_reuse.py [--env scienceworld] [--tasks 2] [--every 8] [--quick]
"""

import argparse
import asyncio
import json
import platform
import time
from typing import Any

import torch

from armap_lite import envs, llms
from armap_lite.agent import Agent, rollout
from armap_lite.batching import Batcher
from armap_lite.envs.base import Environment
from armap_lite.episode import Episode
from armap_lite.llms.base import Choice
from armap_lite.pipeline.run import evenly_spaced
from armap_lite.trajectory import Trajectory


class Counting:
    """Passes `choose` on and counts what it reads; `forgetful`: nothing is kept from one call to the next."""

    def __init__(self, lm: Any, forgetful: bool):
        self.lm, self.forgetful, self.tokens, self.computed = lm, forgetful, 0, 0

    def choose(self, *args: Any, **options: Any) -> list[list[Choice]]:
        if self.forgetful:
            self.lm.reset()
        start = self.lm.forest.tokens_computed
        answers = self.lm.choose(*args, **options)
        self.computed += self.lm.forest.tokens_computed - start
        self.tokens += sum(choices[0].tokens for choices in answers)
        return answers


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--env", default="game24", choices=envs.ENVIRONMENTS)
    parser.add_argument("--tasks", type=int, default=1)
    parser.add_argument("--every", type=int, default=1, help="the slow way does every so manieth trajectory only")
    parser.add_argument("--quick", action="store_true", help="three samples instead of eight")
    options = parser.parse_args()
    samples = 3 if options.quick else 8
    with envs.make(options.env) as env:
        print(json.dumps(compare(env, options.tasks, samples, options.every)))


def compare(env: Environment, count: int, samples: int, every: int = 1) -> dict[str, Any]:
    lm = llms.load("smollm2-135m-instruct", dtype="float32")
    agent, tasks = Agent(lm, env), evenly_spaced(env.tasks("dev"), count)
    lm.choose(["warm"], [["up"]])

    async def act(counting: Counting, together: bool, every: int = 1) -> list[Trajectory]:
        batch: Any = Batcher(counting, max_concurrent_episodes=env.max_concurrent_episodes)  # type: ignore[arg-type]
        episodes = [(Episode(env.fork(), task), seed) for task in tasks for seed in range(samples)]
        runs = [rollout(episode, batch, agent.policy(batch, 1.0, seed)) for episode, seed in episodes[::every]]
        return list(await asyncio.gather(*runs)) if together else [await run for run in runs]

    def timed(counting: Counting, *how: Any) -> tuple[float, list[Trajectory]]:
        lm.reset()
        start = time.perf_counter()
        walks = asyncio.run(act(counting, *how))
        return time.perf_counter() - start, walks

    reuse, none = Counting(lm, forgetful=False), Counting(lm, forgetful=True)
    (fast, walks), (slow, same) = timed(reuse, True), timed(none, False, every)
    agree = sum(a.actions == b.actions for a, b in zip(walks[::every], same)) / len(same)
    steps = [sum(len(w.steps) for w in some) for some in (walks, same)]
    return {
        "name": "prefix_reuse",
        "ratio": round((steps[0] / fast) / (steps[1] / slow), 2),
        "versus": "one sample after the other, each call reading its whole prompt",
        "unit": "times the environment steps per second",
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"{torch.get_num_threads()} threads of {platform.machine()}",
        "details": {
            "env": env.name,
            "same_actions": round(agree, 2),
            **{
                name: {
                    "episodes": len(some),
                    "steps": done,
                    "seconds": round(seconds, 2),
                    "steps_per_second": round(done / seconds, 2),
                    "tokens_per_second": round(counting.tokens / seconds),
                    "tokens_computed": counting.computed,
                }
                for name, seconds, counting, some, done in (
                    ("with", fast, reuse, walks, steps[0]),
                    ("without", slow, none, same, steps[1]),
                )
            },
        },
    }


if __name__ == "__main__":
    main()
