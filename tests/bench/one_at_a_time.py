"""Scoring and tree search in batches with shared prefixes, against one whole text at a time.

scoring   the attempts of a search (`--attempts` at each of `--scored` tasks): all in one call, and each alone, read
          from its first token
mcts      tasks side by side, and one after the other, where each call reads its whole prompt again, with each action
          behind it (as llm-reasoners' search asks a language model)

Both sides search with the same seeds in fp32; `same` is the share of equal answers, `apart` the largest difference of
a reward. The slow side does every so manieth (`--every`) task only. `--capacity` and `--pack`: other settings of both
models' engines. Ratios are of work done per second, by the clock
and per CPU second of this process (without Java's). The reward model is the one that the kit ships.

python tests/bench/one_at_a_time.py [--env webshop] [--tasks 8] [--every 8] [--rollouts 4] [--attempts 48] [--runs 3]
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from armap_lite import envs, llms, planners, reward
from armap_lite.agent import Agent
from armap_lite.llms.plain import PlainHidden, PlainLogits
from armap_lite.pipeline import profiles, results
from armap_lite.pipeline.run import evenly_spaced
from armap_lite.trajectory import Trajectory


class Forgetful:
    """A language model that keeps nothing from one call to the next."""

    def __init__(self, lm: Any):
        self.lm = lm

    def __getattr__(self, name: str) -> Any:
        return getattr(self.lm, name)

    def choose(self, *args: Any, **options: Any) -> Any:
        self.lm.reset()
        return self.lm.choose(*args, **options)


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What `work` returns, and its seconds by the clock and of the CPU."""
    start = time.perf_counter(), time.process_time()
    found = work()
    return found, time.perf_counter() - start[0], time.process_time() - start[1]


def search(env: Any, lm: Any, model: Any, tasks: Any, rollouts: int, group: int) -> list[planners.PlanResult]:
    """The profile's MCTS on `tasks`, with so many attempts at each."""
    options = {**profiles.get("fast", env.name).planners["mcts"], "rollouts": rollouts}
    options.pop("llm_tokens", None)  # its budget is what Best-of-N spent
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "plans.jsonl")
        asyncio.run(planners.plan(env, Agent(lm, env), model, tasks, out, {"mcts": options}, group=group))
        return planners.load(out)


def compare(options: argparse.Namespace, env: Any, lm: Any, model: Any) -> dict[str, Any]:
    """One run of both, in turns."""
    tasks = evenly_spaced(env.tasks("dev"), options.tasks)
    forests = lm.forest, model.forest
    # Candidates of one call may share a batch, as there; what is read is the whole text of each.
    whole = PlainLogits(lm.model, pack=2048), PlainHidden(model.network.backbone, pack=1)
    lm.reset()
    model.reset()
    fast, fast_wall, fast_cpu = timed(lambda: search(env, lm, model, tasks, options.rollouts, len(tasks)))
    found = search(env, lm, model, tasks[: options.scored], options.attempts, options.scored)
    walks: list[Trajectory] = [sample.trajectory for plan in found for sample in plan.samples]
    model.reset()
    rewards, score_wall, score_cpu = timed(lambda: model.score([w.task.instruction for w in walks], walks))
    lm.forest, model.forest = whole
    try:
        some = walks[:: options.every]  # the slow side is timed on some; each is a text of its own

        def alone() -> np.ndarray:
            found = []
            for walk in some:
                model.reset()
                found.append(float(model.score([walk.task.instruction], [walk])[0]))
            return np.array(found)

        single, single_wall, single_cpu = timed(alone)
        few = tasks[:: options.every]
        slow, slow_wall, slow_cpu = timed(lambda: search(env, Forgetful(lm), model, few, options.rollouts, 1))
    finally:
        lm.forest, model.forest = forests
    answers = {plan.task_id: plan.answer.actions for plan in fast}
    times = len(tasks) / len(few)
    return {
        "scoring": round(single_wall / len(some) / (score_wall / len(walks)), 2),
        "scoring_cpu": round(single_cpu / len(some) / (score_cpu / len(walks)), 2),
        "apart": float(np.abs(rewards[:: options.every] - single).max()),
        "mcts": round(slow_wall / fast_wall * times, 2),
        "mcts_cpu": round(slow_cpu / fast_cpu * times, 2),
        "same": round(sum(answers[plan.task_id] == plan.answer.actions for plan in slow) / len(slow), 2),
        "attempts": [len(walks), sum(len(plan.samples) for plan in slow)],
        "seconds": [round(s, 1) for s in (score_wall, single_wall, fast_wall, slow_wall)],
    }


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--env", default="game24", choices=envs.ENVIRONMENTS)
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--every", type=int, default=8)
    parser.add_argument("--rollouts", type=int, default=4)
    parser.add_argument("--scored", type=int, default=2)
    parser.add_argument("--attempts", type=int, default=48)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--capacity", type=int)
    parser.add_argument("--pack", type=int)
    options = parser.parse_args()
    engine = {name: getattr(options, name) for name in ("capacity", "pack") if getattr(options, name)}
    model = reward.load(envs.reward_model(options.env), dtype="float32", **engine)
    lm = llms.load("smollm2-135m-instruct", dtype="float32", **engine)
    lm.choose(["warm"], [["up", "down"]])
    with envs.make(options.env) as env:
        runs = [compare(options, env, lm, model) for _ in range(options.runs)]
    middle = {
        key: statistics.median(run[key] for run in runs) for key in ("scoring", "mcts", "scoring_cpu", "mcts_cpu")
    }
    result = {
        "name": "one_at_a_time",
        "ratio": middle["mcts"],
        "versus": "one task after the other, whole texts",
        "unit": "times the searches per second",
        "device": f"{torch.get_num_threads()} threads of {results.versions()['cpu']}",
        "details": {"env": options.env, "median": middle, "runs": runs},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
