"""What the first run plans with another seed: `python tests/bench/first_run_seeds.py --env webshop --seed 1`.

The test tasks and planners of profile `fast`, guided by the shipped reward model, as in `make reproduce
SEED=1`; without Reflexion and the reward model that such a run trains beside it. `--others`: as many of the test tasks
that the first run leaves out. Last line: JSON, ratio = score of Best-of-N to that of one sample, with the rows and
paired differences.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from armap_lite import envs, evaluate, planners
from armap_lite.pipeline import results
from armap_lite.pipeline.run import Run, evenly_spaced


async def measure(env: str, seed: int, others: bool, folder: str) -> dict[str, Any]:
    """Rows and differences, as they stand in `results.json`."""
    run = Run(env, "fast", folder, seed)
    settings = run.settings
    chosen = {name: options for name, options in settings.planners.items() if name != "reflexion"}
    out, tasks = Path(folder) / "plans.jsonl", run.test_tasks
    if others:
        left = [task for task in run.env.tasks("test") if task not in tasks]
        tasks = evenly_spaced(left, min(len(left), len(tasks)))
    seconds: Counter[str] = Counter()
    inputs = run.env, run.agent, run.reference, tasks, out, chosen
    await planners.plan(*inputs, seed=seed, group=settings.group, timed=seconds.update)
    plans = planners.load(out)
    with contextlib.closing(envs.make_judge(env, **settings.env_options)) as judge:
        golds = evaluate.score_plans(plans, judge)
    run.env.close()
    order = evaluate.order_of_attempts(plans, golds)
    return {
        "rows": evaluate.rows(plans, golds, dict(seconds), env=env, seed=seed),
        "differences": evaluate.differences(plans, golds, env),
        "order": order,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="game24", choices=envs.ENVIRONMENTS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--others", action="store_true", help="test tasks that the first run leaves out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(options.env, options.seed, options.others, folder))
    mean = {row["planner"]: row["mean"] for row in found["rows"]}
    head = {"name": "first_run_seeds", "ratio": mean["best_of_n"] / mean["sampling"], "versus": "sampling"}
    print(json.dumps({**head, "unit": "score", "device": results.versions()["cpu"], "details": found}))


if __name__ == "__main__":
    main()
