"""Does the search find more than independent attempts do? `python tests/bench/search.py --env webshop --reward MODEL`

Best-of-N against MCTS on development tasks, each MCTS with as many LLM tokens as Best-of-N spent on the same task:
mean learned reward of the answers, which is what both maximise; attempts, tokens, steps; then the judge's score.
Without `--variant` MCTS has the settings of the profile. A variant is JSON that changes them:
`--variant '{"greedy_rollouts": false, "num_action_samples": 6}'`. Last line: JSON, ratio of the different attempts.
"""

import argparse
import asyncio
import contextlib
import json
import time
from typing import Any

import numpy as np

from armap_lite import envs, evaluate, llms, reward, statistics
from armap_lite.agent import Agent
from armap_lite.batching import Batcher, gather_or_cancel
from armap_lite.episode import Episode
from armap_lite.pipeline import profiles, results
from armap_lite.pipeline.run import evenly_spaced
from armap_lite.planners import PLANNERS, PlanResult, Search


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Rows of Best-of-N and of each variant of MCTS, and their paired differences."""
    profile = profiles.get(options.profile, options.env)
    best = {**profile.planners["best_of_n"], **({"n": options.n} if options.n else {})}
    tree = {k: v for k, v in profile.planners["mcts"].items() if k != "llm_tokens"}
    plans: dict[str, list[PlanResult]] = {}
    seconds = {}
    with envs.make(options.env, **profile.env_options) as env:
        lm, model = llms.load(profile.policy), reward.load(options.reward)
        agent, tasks = Agent(lm, env), evenly_spaced(env.tasks("dev"), options.tasks)

        async def run(name: str, planner: str, settings: dict[str, Any]) -> None:
            batch = Batcher(lm, model, env.max_concurrent_episodes)

            async def one(i: int) -> None:
                spent = [plan.budget.llm_tokens for plan in plans.get("best_of_n", [])]
                limit = {"llm_tokens": spent[i] if options.budget == "task" else int(np.mean(spent))} if spent else {}
                search = Search(planner, Episode(env.fork(), tasks[i]), agent, batch, options.seed)
                found[i] = await PLANNERS[planner](search, **settings, **limit)

            found: dict[int, PlanResult] = {}
            await gather_or_cancel([one(i) for i in range(len(tasks))])
            plans[name] = [found[i] for i in range(len(tasks))]

        variants = {v: json.loads(v) for v in options.variant} or {"profile": {}}
        for name, settings in {"best_of_n": best, **{v: {**tree, **change} for v, change in variants.items()}}.items():
            start = time.process_time()
            asyncio.run(run(name, "best_of_n" if name == "best_of_n" else "mcts", settings))
            seconds[name] = time.process_time() - start
    with contextlib.closing(envs.make_judge(options.env, **profile.env_options)) as judge:
        golds = {name: evaluate.score_plans(some, judge) for name, some in plans.items()}
    return {name: row(name, plans, golds) | {"cpu_seconds": round(seconds[name])} for name in plans}


def row(name: str, plans: dict[str, list[PlanResult]], golds: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    """Means over tasks, and paired differences to Best-of-N: mean and 95 % interval."""
    some = plans[name]
    reward = {n: [float(plan.samples[plan.answer_index].reward) for plan in plans[n]] for n in (name, "best_of_n")}
    score = {n: [golds[n][plan.id][plan.answer_index] for plan in plans[n]] for n in (name, "best_of_n")}
    distinct = [len({sample.trajectory.actions for sample in plan.samples}) for plan in some]
    found: dict[str, Any] = {"n": len(some), "attempts": np.mean([len(plan.samples) for plan in some])}
    found["distinct"] = np.mean(distinct)
    found |= {cost: np.mean([getattr(plan.budget, cost) for plan in some]) for cost in evaluate.COSTS}
    for what, values in (("reward", reward), ("score", score)):
        difference = statistics.paired_difference(values[name], values["best_of_n"])
        found |= {what: np.mean(values[name])}
        found[f"{what}_difference"] = [difference[end] for end in ("difference", "ci_low", "ci_high")]
    found = {key: np.round(value, 3).tolist() for key, value in found.items()}
    print(f"{name}: {found}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="game24", choices=envs.ENVIRONMENTS)
    parser.add_argument("--profile", default="fast", choices=profiles.PROFILES)
    parser.add_argument("--reward", required=True, metavar="FOLDER", help="a trained reward model")
    parser.add_argument("--tasks", type=int, default=24, help="development tasks, evenly spaced")
    parser.add_argument("--n", type=int, help="attempts of Best-of-N; by default those of the profile")
    parser.add_argument(
        "--budget", choices=["task", "mean"], default="task", help="what Best-of-N spent: on it, or on average"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variant", action="append", default=[], metavar="JSON", help="settings of MCTS to change")
    options = parser.parse_args()
    rows = compare(options)
    best, *others = rows.values()
    ratio = round(others[0]["distinct"] / best["distinct"], 2)
    head = {"name": "search", "ratio": ratio, "versus": "best_of_n at equal LLM tokens", "unit": "different attempts"}
    print(json.dumps({**head, "device": results.versions()["cpu"], "details": {**vars(options), "rows": rows}}))


if __name__ == "__main__":
    main()
