"""What the shared forest of tokens saves: eight trajectories of one puzzle, with it and without.

with      eight samples side by side, batched; prompts, growing trajectories and actions share what they have in common
without   one sample after the other, and each call reads its whole prompt again

Both draw the same actions. Tokens are what the calls would read with no cache at all (`Choice.tokens`), so tokens per
second compare the same work.

python tests/bench/prefix_reuse.py [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import time
from typing import Any

import torch

from armap_lite import llms
from armap_lite.agent import Agent
from armap_lite.batching import Batcher
from armap_lite.collect import rollout
from armap_lite.envs.game24 import Game24, instruction
from armap_lite.llms.base import Choice
from armap_lite.trajectory import Task, Trajectory
from armap_lite.world import World


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
    parser.add_argument("--quick", action="store_true", help="three samples instead of eight")
    samples = 3 if parser.parse_args().quick else 8
    lm, env = llms.load("smollm2-135m-instruct", dtype="float32"), Game24()
    agent = Agent(lm, env)
    task = Task("t", "game24", "test", instruction([4, 5, 6, 10], 24), {"numbers": [4, 5, 6, 10], "target": 24})
    lm.choose(["warm"], [["up"]])

    async def act(counting: Counting, together: bool) -> list[Trajectory]:
        batch: Any = Batcher(counting)  # type: ignore[arg-type]
        runs = [rollout(World(Game24(), task), agent, batch, 1.0, seed) for seed in range(samples)]
        return list(await asyncio.gather(*runs)) if together else [await run for run in runs]

    def timed(counting: Counting, together: bool) -> tuple[float, list[Trajectory]]:
        lm.reset()
        start = time.perf_counter()
        walks = asyncio.run(act(counting, together))
        return time.perf_counter() - start, walks

    reuse, none = Counting(lm, forgetful=False), Counting(lm, forgetful=True)
    (fast, walks), (slow, same) = timed(reuse, True), timed(none, False)
    if [w.actions for w in walks] != [w.actions for w in same]:
        raise SystemExit("the two ways drew different actions: their times do not compare")
    speeds = reuse.tokens / fast, none.tokens / slow
    result = {
        "name": "prefix_reuse",
        "ratio": round(speeds[0] / speeds[1], 2),
        "versus": "one sample after the other, each call reading its whole prompt",
        "unit": "times the tokens per second",
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"{torch.get_num_threads()} threads of {platform.machine()}",
        "details": {
            "samples": samples,
            "with": {
                "seconds": round(fast, 2),
                "tokens_per_second": round(speeds[0]),
                "tokens_computed": reuse.computed,
            },
            "without": {
                "seconds": round(slow, 2),
                "tokens_per_second": round(speeds[1]),
                "tokens_computed": none.computed,
            },
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
