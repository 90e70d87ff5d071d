"""What the planners reach with another seed, policy or size: `python tests/bench/planning.py --env webshop --seed 1`.

The test tasks and planners of a profile, without Reflexion, guided by the shipped reward model; for `fast` as in `make
reproduce SEED=1`, without the reward model that such a run trains beside it. Last line: JSON, ratio = score of
Best-of-N to that of a random pick among its attempts, with the rows and paired differences.

--policy SPEC     another LLM that acts, with its options
--n 64            another N of Best-of-N
--reward FOLDER   another reward model
--others          the test tasks that neither `fast` nor `laptop` plays
--dev 60          so many development tasks in their place, to choose settings on
--temperature T   of the attempts of sampling, Best-of-N and MCTS
--keep FILE       the plans, for `choosers.py`; what is there already is not planned again
"""

import argparse
import asyncio
import contextlib
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from armap_lite import envs, evaluate, planners, reward
from armap_lite.pipeline import profiles, results
from armap_lite.pipeline.run import Run, evenly_spaced


async def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Rows and differences, as they stand in `results.json`."""
    env = options.env
    run = Run(env, options.profile, folder, options.seed, options.policy)
    settings, tasks, out = run.settings, run.test_tasks, options.keep or folder / "plans.jsonl"
    chosen = {name: dict(settings.planners[name]) for name in options.planners}
    if options.n:
        chosen["best_of_n"]["n"] = options.n
    if options.temperature:
        for name in {"sampling", "best_of_n", "mcts"} & chosen.keys():
            chosen[name]["temperature"] = options.temperature
    if options.dev:
        tasks = evenly_spaced(run.env.tasks("dev"), options.dev)
    if options.others:
        sizes = [profiles.get(name, env).test_tasks for name in ("fast", "laptop")]
        played = [task for size in sizes for task in evenly_spaced(run.env.tasks("test"), size)]
        tasks = [task for task in run.env.tasks("test") if task not in played]
    model = reward.load(options.reward or envs.reward_model(env))
    seconds = Counter(dict.fromkeys(chosen, 0.0))
    inputs = run.env, run.agent, model, tasks, out, chosen
    await planners.plan(*inputs, seed=options.seed, group=settings.group, timed=seconds.update)
    plans = planners.load(out)
    with contextlib.closing(envs.make_judge(env, **settings.env_options)) as judge:
        golds = evaluate.score_plans(plans, judge)
    run.env.close()
    return {
        "rows": evaluate.rows(plans, golds, dict(seconds), env=env, seed=options.seed, policy=run.lm.name),
        "differences": evaluate.differences(plans, golds, env),
        "order": evaluate.order_of_attempts(plans, golds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="game24", choices=envs.ENVIRONMENTS)
    parser.add_argument("--profile", default="fast")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--policy")
    parser.add_argument("--reward")
    parser.add_argument("--n", type=int)
    parser.add_argument("--planners", nargs="+", default=["sampling", "greedy", "best_of_n", "mcts"])
    parser.add_argument("--others", action="store_true")
    parser.add_argument("--dev", type=int)
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(options, Path(folder)))
    mean = {row["planner"]: row["mean"] for row in found["rows"]}
    ratio = mean["best_of_n"] / mean["random_best_of_n"]
    head = {"name": "planning", "ratio": ratio, "versus": "a random pick", "unit": "score of Best-of-N"}
    print(json.dumps({**head, "device": results.versions()["cpu"], "details": found}))


if __name__ == "__main__":
    main()
