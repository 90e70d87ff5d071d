"""Other ways to choose among the attempts of Best-of-N: `python tests/bench/choosers.py PLANS --env webshop`

PLANS is what `planning.py --keep PLANS` wrote, or the plans.jsonl of a run. For each way the score of the chosen
attempts with its interval over tasks, and the paired difference to a random pick:

reward    the learned reward that was asked when the plans were made
code      what the world's code reads: an attempt that satisfies the task's own instruction, any of them
count     WebShop: how much of what that instruction names (kind, each detail, price) code finds bought
majority  the attempt that was drawn most often
judge     an LLM that is shown two attempts, blind and in both orders, which one does what the instruction asks; what
          it prefers by log-probability, averaged over the orders, meets the next one (--judge SPEC)
NAME      another reward model (--reward NAME=FOLDER …), e.g. that of another world
last      the shipped reward model, which may also choose any other last action of an attempt that ends it (--last), as
          `expand_terminal_siblings` lets MCTS do; also compared with the answers of MCTS, where PLANS has them

Equal ones share the choice. Then Best-of-N for N = 1, 2, 4, …: learned reward and score of what the reward chooses.
Last line: JSON, ratio = score chosen by the learned reward to that of a random pick.
"""

import argparse
import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from armap_lite import envs, evaluate, llms, planners, reward, statistics
from armap_lite.batching import Batcher
from armap_lite.envs import prompts
from armap_lite.envs.hindsight import LLMHindsight
from armap_lite.episode import Episode
from armap_lite.evaluate import ByPlan
from armap_lite.pipeline import evaluation, profiles, results
from armap_lite.planners import PlanResult
from armap_lite.trajectory import Trajectory


def by_code(env: Any, plans: Sequence[PlanResult]) -> ByPlan:
    def fulfilled(plan: PlanResult) -> list[float]:
        goal = env.hindsight.parse(plan.answer.task.instruction)
        return [float(bool(goal) and env.hindsight.satisfied(s.trajectory, goal)) for s in plan.samples]

    return {plan.id: fulfilled(plan) for plan in plans}


def by_count(env: Any, plans: Sequence[PlanResult]) -> ByPlan:
    goals = {plan.id: env.hindsight.parse(plan.answer.task.instruction) for plan in plans}
    count = env.hindsight.count
    return {p.id: [count(s.trajectory, goal) if (goal := goals[p.id]) else 0 for s in p.samples] for p in plans}


def by_majority(plans: Sequence[PlanResult]) -> ByPlan:
    walks = {plan.id: [sample.trajectory.actions for sample in plan.samples] for plan in plans}
    return {name: [walk.count(actions) for actions in walk] for name, walk in walks.items()}


async def by_judge(spec: str, env: Any, plans: Sequence[PlanResult], counts: Counter[str]) -> ByPlan:
    lm = llms.load(spec)
    batch = Batcher(lm)

    async def lead(text: str, one: Trajectory, other: Trajectory) -> float:
        asked = [prompts.comparison(text, a, b, LLMHindsight.max_chars) for a, b in ((one, other), (other, one))]
        answers = await asyncio.gather(*(batch.choose(prompt, prompts.PAIR, None, 1.0, 0) for prompt in asked))
        first, second = (a.logprob - b.logprob for a, b in answers)
        counts["the same side in both orders" if (first > 0) == (second < 0) else "the same letter in both"] += 1
        return float(first - second)

    async def best(plan: PlanResult) -> list[float]:
        seen = list({sample.trajectory.actions: sample.trajectory for sample in plan.samples}.values())
        kept = seen[0]
        for other in seen[1:]:
            kept = kept if await lead(plan.answer.task.instruction, kept, other) >= 0 else other
        return [float(sample.trajectory.actions == kept.actions) for sample in plan.samples]

    found: dict[str, list[float]] = {}
    for first in range(0, len(plans), 16):
        some = plans[first : first + 16]
        found |= dict(zip((plan.id for plan in some), await asyncio.gather(*map(best, some))))
        lm.reset()
    return found


def with_last_actions(env: Any, plan: PlanResult) -> list[Any]:
    """The attempts, and each with any other last action that ends it."""
    episode, found = Episode(env, plan.answer.task), {s.trajectory.actions: s.trajectory for s in plan.samples}
    for actions in list(found):
        state = episode.start()
        for action in actions[:-1]:
            state = episode.step(state, action)
        ends = [episode.step(state, action) for action in state.admissible]
        found |= {end.trajectory.actions: end.trajectory for end in ends if end.over and not end.trajectory.failure}
    return list(found.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plans", type=Path)
    parser.add_argument("--env", required=True, choices=envs.ENVIRONMENTS)
    parser.add_argument("--profile", default="fast")
    parser.add_argument("--n", type=int, help="only the first attempts, for the ways; the curve has all")
    parser.add_argument("--judge", help="an LLM, e.g. smollm2-135m-instruct")
    parser.add_argument("--reward", nargs="*", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--last", action="store_true")
    options = parser.parse_args()
    loaded = list(planners.load(options.plans))
    plans = [plan for plan in loaded if plan.planner == "best_of_n"]
    family, settings = evaluate.families(plans), profiles.get(options.profile, options.env).env_options
    strata = [family[plan.task_id] for plan in plans] if family else None
    with contextlib.closing(envs.make_judge(options.env, **settings)) as judge:
        every = evaluate.score_plans(plans, judge)
    golds, counts = {name: gold[: options.n] for name, gold in every.items()}, Counter[str]()
    fewer = [PlanResult(**{**vars(p), "samples": p.samples[: options.n], "answer_index": 0}) for p in plans]

    ways: dict[str, ByPlan] = {"random": {name: [0.0] * len(gold) for name, gold in golds.items()}, "oracle": golds}
    ways["reward"] = {plan.id: [sample.reward for sample in plan.samples] for plan in fewer}  # type: ignore[misc]
    ways["majority"] = by_majority(fewer)
    with envs.make(options.env, **settings) as env:
        if env.hindsight is not None:
            ways["code"] = by_code(env, fewer)
        if options.env == "webshop":
            ways["count"] = by_count(env, fewer)
        if options.judge:
            ways["judge"] = asyncio.run(by_judge(options.judge, env, fewer, counts))
    for name, folder in (one.split("=", 1) for one in options.reward):
        ways[name] = evaluation.rewards_of_attempts(fewer, reward.load(folder))

    picked, table = {name: evaluate.choose_by(fewer, golds, keys) for name, keys in ways.items()}, {}
    if options.last:
        model, calls, found = reward.load(envs.reward_model(options.env)), [], {}
        with (
            envs.make(options.env, **settings) as env,
            contextlib.closing(envs.make_judge(options.env, **settings)) as judge,
        ):
            for plan in fewer:
                ends = with_last_actions(env, plan)
                rewards = model.score([plan.answer.task.instruction] * len(ends), ends)
                model.reset()
                found[plan.task_id] = judge.score(ends[int(rewards.argmax())])
                calls.append(len(ends))
            searched = [plan for plan in loaded if plan.planner == "mcts"]
            mcts = {plan.task_id: judge.score(plan.answer) for plan in searched}
        picked["last"] = found
        print(f"last: {sum(calls) / len(calls):.1f} reward calls a task")
        if mcts.keys() >= found.keys():
            print("last - mcts:", statistics.paired_difference(found, {k: mcts[k] for k in found}, strata=strata))
    for name, scores in picked.items():
        mean, low, high = statistics.bootstrap_mean(list(scores.values()), strata=strata)
        gain = statistics.paired_difference(scores, picked["random"], strata=strata)
        order = evaluate.order_of_attempts(fewer, golds, ways[name]) if name in ways else {"order_accuracy": None}
        table[name] = {"mean": mean, "ci_low": low, "ci_high": high, "gain": gain, "order": order}
        said = f"{name:10} {mean:.3f} [{low:.3f}, {high:.3f}]   - random {gain['difference']:+.3f} "
        print(said + f"[{gain['ci_low']:.3f}, {gain['ci_high']:.3f}]   order {order['order_accuracy']}")
    print(dict(counts))
    rewards: Any = [[sample.reward for sample in plan.samples] for plan in plans]
    curve = statistics.best_of_n_curve(rewards, [every[plan.id] for plan in plans])
    learned = statistics.best_of_n_curve(rewards, rewards)["selected"]
    lines = [
        {"n": n, "reward": learned[n - 1], **{k: v[n - 1] for k, v in curve.items() if k != "n"}}
        for n in (1, 2, 4, 8, 16, 32, 64, 128)
        if n <= len(curve["n"])
    ]
    for line in lines:
        print({k: round(float(v), 3) for k, v in line.items()})
    details = {"env": options.env, "tasks": len(plans), "ways": table, "judge": dict(counts), "curve": lines}
    ratio = table["reward"]["mean"] / table["random"]["mean"]
    head = {"name": "choosers", "ratio": ratio, "versus": "a random pick", "unit": "score of Best-of-N"}
    print(json.dumps({**head, "device": results.versions()["cpu"], "details": details}, default=float))


if __name__ == "__main__":
    main()
