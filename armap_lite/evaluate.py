"""The last stage: the judge's score of each plan, as rows of results. No stage before it reads a true score."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from armap_lite.envs.base import Judge, Term
from armap_lite.planners.base import PlanResult
from armap_lite.statistics import bootstrap_mean, check_same_tasks, order_accuracy, paired_difference
from armap_lite.trajectory import Trajectory

Plans = Sequence[PlanResult]
ByPlan = Mapping[str, Sequence[float]]  # plan id -> a number for each of its samples
COSTS = ("llm_tokens", "llm_tokens_without_reuse", "env_steps", "reward_calls")  # fields of `Budget` in a row
# Other choices among the attempts of best_of_n: at random, by the judge, and by the run's own reward model where
# another one guided the planners.
FLOOR, CEILING, OWN = "random_best_of_n", "oracle_best_of_n", "own_best_of_n"
DERIVED = (OWN, FLOOR, CEILING)
PLANNERS = ("sampling", "greedy", "best_of_n", "reflexion", "mcts", *DERIVED)
COMPARED = (
    *((planner, baseline) for planner in ("best_of_n", "mcts") for baseline in ("sampling", "greedy", FLOOR)),
    ("reflexion", "sampling"),
    ("mcts", "best_of_n"),
    *((OWN, baseline) for baseline in ("sampling", "greedy", FLOOR)),
)


def score_plans(plans: Plans, judge: Judge) -> dict[str, list[float]]:
    """Gold score in [0, 1] of every sample of every plan, by plan id.

    The same actions in the same task are judged once. An aborted trajectory is scored as far as it went.
    """
    known: dict[tuple[str, tuple[str, ...]], float] = {}

    def score(trajectory: Trajectory) -> float:
        key = (repr(trajectory.task), trajectory.actions)  # the whole task, as its goal decides the score
        if key not in known:
            known[key] = gold = float(judge.score(trajectory))
            if not 0 <= gold <= 1:
                raise ValueError(f"the judge gave {gold} for task {trajectory.task.id!r}; expected a score in [0, 1]")
        return known[key]

    return {plan.id: [score(sample.trajectory) for sample in plan.samples] for plan in plans}


def task_scores(plans: Plans, golds: ByPlan, own: ByPlan | None = None) -> dict[str, dict[str, float]]:
    """Gold score of each planner's answer: planner -> task id -> score, tasks sorted by id.

    `best_of_n` yields two more: the floor (a random choice among its samples: their mean) and the ceiling (their best);
    and a third where `own` has rewards of its samples, by plan id, from another reward model than guided it.
    Raises ValueError for planners that were run on different tasks.
    """
    found: dict[str, dict[str, float]] = {}
    for plan in sorted(plans, key=lambda plan: plan.task_id):
        gold = golds[plan.id]
        scores = {plan.planner: gold[plan.answer_index]}
        if plan.planner == "best_of_n":
            scores |= {FLOOR: sum(gold) / len(gold), CEILING: max(gold)}
            if own:
                scores[OWN] = gold[int(np.argmax(own[plan.id]))]
        for planner, score in scores.items():
            if plan.task_id in found.setdefault(planner, {}):
                raise ValueError(f"planner {planner!r} has two plans for task {plan.task_id!r}; keep one")
            found[planner][plan.task_id] = score
    if unknown := found.keys() - set(PLANNERS):
        raise ValueError(f"planner {sorted(unknown)[0]!r} is not known; expected one of {PLANNERS}")
    check_same_tasks(found)
    return {planner: found[planner] for planner in PLANNERS if planner in found}


def families(plans: Plans) -> dict[str, str] | None:
    """Task id -> family, if all tasks have one."""
    found = {plan.task_id: plan.answer.task.family for plan in plans}
    return found if all(found.values()) else None  # type: ignore[return-value]


def _mean(scores: Mapping[str, float], family: Mapping[str, str] | None) -> dict[str, float]:
    """mean, ci_low and ci_high of scores by task id."""
    tasks = sorted(scores)  # in one order, so that the same scores have the same interval wherever they are shown
    strata = [family[task] for task in tasks] if family else None
    return dict(zip(("mean", "ci_low", "ci_high"), bootstrap_mean([scores[t] for t in tasks], strata=strata)))


def rows(
    plans: Plans, golds: ByPlan, seconds: dict[str, float], own: ByPlan | None = None, own_model: str = "", **run: Any
) -> list[dict[str, Any]]:
    """Result rows, one per planner, and those that `best_of_n` implies: see `task_scores`.

    COSTS are totals over the row's n tasks, failures samples that broke off. What best_of_n implies has its costs.
    `seconds` by planner; `own_model`: the reward model of `own`; `run`: what all rows share: env, env_version, split,
    metric, policy, reward_model, profile, seed, device.
    """
    out, family = [], families(plans)
    for planner, scores in task_scores(plans, golds, own).items():
        source = "best_of_n" if planner in DERIVED else planner
        if source not in seconds:
            raise ValueError(f"no seconds for planner {source!r}; got {sorted(seconds)}")
        some = [plan for plan in plans if plan.planner == source]
        cost = {k: sum(getattr(p.budget, k) for p in some) for k in COSTS}
        cost["failures"] = sum(sample.trajectory.failure is not None for plan in some for sample in plan.samples)
        head = {**run, "planner": planner, "n": len(scores), **_mean(scores, family)}
        head |= {"reward_model": own_model} if planner == OWN else {}
        out.append({**head, **cost, "seconds": float(seconds[source])})
    return out


def differences(plans: Plans, golds: ByPlan, env: str, own: ByPlan | None = None) -> list[dict[str, Any]]:
    """`paired_difference` of `planner` and `versus`, for each of `COMPARED` that there is in `task_scores`."""
    scores, family = task_scores(plans, golds, own), families(plans)
    strata = [family[task] for task in next(iter(scores.values()))] if family else None
    return [
        {"env": env, "planner": a, "versus": b, **paired_difference(scores[a], scores[b], strata=strata)}
        for a, b in COMPARED
        if {a, b} <= scores.keys()
    ]


def order_of_attempts(plans: Plans, golds: ByPlan, own: ByPlan | None = None) -> dict[str, Any]:
    """`order_accuracy` on the attempts of Best-of-N, with its interval and numbers of pairs and tasks.

    `own`: rewards to take instead of those that guided it, by plan id. The accuracy is None where Best-of-N was not
    run, or all its attempts at each task have the same score.
    """
    some = [plan for plan in plans if plan.planner == "best_of_n"]
    rewards = [own[plan.id] if own else [sample.reward for sample in plan.samples] for plan in some]
    found: Any = order_accuracy(rewards, [golds[plan.id] for plan in some], [plan.task_id for plan in some])
    return found or {"order_accuracy": None, "ci_low": None, "ci_high": None, "n_pairs": 0, "n_tasks": 0}


def choose_by(plans: Plans, golds: ByPlan, keys: ByPlan) -> dict[str, float]:
    """Gold score by task id, if of a planner's attempts the one with the highest key were the answer.

    `keys`: a number for each attempt, by plan id (plans without are left out); those with equal keys share the choice.
    """
    found = {}
    for plan in sorted((plan for plan in plans if plan.id in keys), key=lambda plan: plan.task_id):
        highest = np.asarray(keys[plan.id]) == max(keys[plan.id])
        found[plan.task_id] = float(np.mean(np.asarray(golds[plan.id])[highest]))
    return found


def control_points(
    lines: Sequence[Mapping[str, Any]], plans: Plans, golds: ByPlan, env: str, terms: Mapping[str, Term]
) -> list[dict[str, Any]]:
    """Stage 5's `lines` as points: for each planner, term and weight the answers' mean score, cost and `terms`."""
    known = {(p.id, s.trajectory.actions): gold for p in plans for s, gold in zip(p.samples, golds[p.id])}
    groups = defaultdict(list)
    for line in lines:
        groups[line["planner"], line["term"], line["weight"]].append(line)
    points, family = [], families(plans)
    for (planner, label, weight), some in groups.items():
        answers = [Trajectory.from_json(line["trajectory"]) for line in some]
        scores = {answer.task.id: known[f"{planner}/{answer.task.id}", answer.actions] for answer in answers}
        point = {"env": env, "planner": planner, "term": label, "weight": weight, "n": len(some)}
        mean = _mean(scores, family)
        point |= {"score": mean.pop("mean"), **mean}
        point |= {key: float(np.mean([line[key] for line in some])) for key in ("cost", "steps")}
        point["terms"] = {name: float(np.mean([*map(term, answers)])) for name, term in terms.items()}
        points.append(point)
    return points
