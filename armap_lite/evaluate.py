"""The last stage: the true score of every plan, and the rows and points of `results.json`.

The only module that asks a judge. Intervals are those of `statistics.py`, over tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from armap_lite.envs.base import Judge
from armap_lite.planners.base import PlanResult
from armap_lite.statistics import bootstrap_mean, check_same_tasks
from armap_lite.trajectory import Trajectory

FLOOR, CEILING = "random_best_of_n", "oracle_best_of_n"
PLANNERS = ("sampling", "greedy", "best_of_n", "reflexion", "mcts", FLOOR, CEILING)


def score_plans(plans: Sequence[PlanResult], judge: Judge) -> dict[str, list[float]]:
    """Gold score in [0, 1] of every sample of every plan, by plan id.

    The same actions in the same task are judged once. A trajectory that broke off is scored as far as it came.
    """
    known: dict[tuple[str, tuple[str, ...]], float] = {}

    def score(trajectory: Trajectory) -> float:
        key = (repr(trajectory.task), trajectory.actions)  # the whole task: what it asks for decides the score
        if key not in known:
            known[key] = gold = float(judge.score(trajectory))
            if not 0 <= gold <= 1:
                raise ValueError(f"the judge gave {gold} for task {trajectory.task.id!r}; expected a score in [0, 1]")
        return known[key]

    return {plan.id: [score(sample.trajectory) for sample in plan.samples] for plan in plans}


def task_scores(plans: Sequence[PlanResult], golds: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """Gold score of each planner's answer: planner -> task id -> score, tasks sorted by id.

    `best_of_n` gives two more: the floor (mean of its samples, the expected score of a random pick) and the ceiling
    (its best sample). Raises ValueError if planners were run on different tasks.
    """
    found: dict[str, dict[str, float]] = {}
    for plan in sorted(plans, key=lambda plan: plan.task_id):
        gold = golds[plan.id]
        scores = {plan.planner: gold[plan.answer_index]}
        if plan.planner == "best_of_n":
            scores |= {FLOOR: sum(gold) / len(gold), CEILING: max(gold)}
        for planner, score in scores.items():
            if plan.task_id in found.setdefault(planner, {}):
                raise ValueError(f"planner {planner!r} has two plans for task {plan.task_id!r}; keep one")
            found[planner][plan.task_id] = score
    if unknown := found.keys() - set(PLANNERS):
        raise ValueError(f"planner {sorted(unknown)[0]!r} is not known; expected one of {PLANNERS}")
    check_same_tasks(found)
    return {planner: found[planner] for planner in PLANNERS if planner in found}


def families(plans: Sequence[PlanResult]) -> dict[str, str] | None:
    """Task id -> family of the task, if all of the environment's tasks have one; else None."""
    found = {plan.task_id: plan.answer.task.family for plan in plans}
    return found if all(found.values()) else None  # type: ignore[return-value]


def pooled_rows(
    per_task: Mapping[str, Sequence[Mapping[str, float]]], family: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """One row per planner over several seeds: planner, seeds, n, mean, ci_low, ci_high.

    `per_task`: planner -> one {task id: score} per seed (see `task_scores`). Seeds are averaged within a task.
    `family`: see `families`.
    """
    check_same_tasks({f"{name}, seed no. {i}": one for name, seeds in per_task.items() for i, one in enumerate(seeds)})
    pooled = []
    for planner, seeds in per_task.items():
        tasks = sorted(seeds[0])
        scores = interval([[one[task] for one in seeds] for task in tasks], tasks, family)
        pooled.append({"planner": planner, "seeds": len(seeds), "n": len(tasks), **scores})
    return pooled


def interval(scores: ArrayLike, tasks: Sequence[str], family: Mapping[str, str] | None) -> dict[str, float]:
    """mean, ci_low, ci_high of `scores`, [tasks] or [tasks, seeds], where `family` stratifies the tasks."""
    strata = [family[task] for task in tasks] if family else None
    return dict(zip(("mean", "ci_low", "ci_high"), bootstrap_mean(scores, strata=strata)))


def rows(
    plans: Sequence[PlanResult],
    golds: Mapping[str, Sequence[float]],
    *,
    seconds: Mapping[str, float],
    **labels: Any,
) -> list[dict[str, Any]]:
    """Result rows, one per planner, and the floor and ceiling that `best_of_n` implies.

    llm_tokens, env_steps, reward_calls: totals over the row's n tasks. failures: samples that broke off.
    `seconds`: by planner. `labels`: what all rows say, such as env and policy. Floor and ceiling repeat the cost of
    best_of_n's samples.
    """
    out, family = [], families(plans)
    for planner, by_task in task_scores(plans, golds).items():
        source = "best_of_n" if planner in (FLOOR, CEILING) else planner
        if source not in seconds:
            raise ValueError(f"no seconds for planner {source!r}; got {sorted(seconds)}")
        own = [plan for plan in plans if plan.planner == source]
        score = {"n": len(by_task), **interval(list(by_task.values()), list(by_task), family)}
        cost = {k: sum(getattr(p.budget, k) for p in own) for k in ("llm_tokens", "env_steps", "reward_calls")}
        failures = sum(sample.trajectory.failure is not None for plan in own for sample in plan.samples)
        end = {"failures": failures, "seconds": float(seconds[source])}
        out.append({**labels, "planner": planner, **score, **cost, **end})
    return out


def control_points(
    lines: Sequence[Mapping[str, Any]],
    plans: Sequence[PlanResult],
    golds: Mapping[str, Sequence[float]],
    env: str,
    terms: Mapping[str, Callable[[Trajectory], float]],
) -> list[dict[str, Any]]:
    """Stage 5's `lines` as points: mean score, cost and `terms` of the answers by planner, term and weight."""
    known = {(p.id, s.trajectory.actions): gold for p in plans for s, gold in zip(p.samples, golds[p.id])}
    groups: dict[tuple, list[tuple[Mapping[str, Any], Trajectory]]] = {}
    for line in lines:
        key = line["planner"], line["term"], line["weight"]
        groups.setdefault(key, []).append((line, Trajectory.from_json(line["trajectory"])))
    points, family = [], families(plans)
    for (planner, label, weight), group in groups.items():
        answers = [answer for _, answer in group]
        tasks = [answer.task.id for answer in answers]
        scores = interval([known[f"{planner}/{a.task.id}", a.actions] for a in answers], tasks, family)
        point = {"env": env, "planner": planner, "term": label, "weight": weight, "n": len(group)}
        means: dict[str, Any] = {key: float(np.mean([line[key] for line, _ in group])) for key in ("cost", "steps")}
        means["terms"] = {name: float(np.mean([*map(term, answers)])) for name, term in terms.items()}
        points.append({**point, "score": scores.pop("mean"), **scores, **means})
    return points


COLUMNS: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "env": ("env", lambda row: row["env"]),
    "seed": ("seed", lambda row: row["seed"]),
    "planner": ("planner", lambda row: f"`{row['planner']}`"),
    "mean": ("mean [95 % interval]", lambda row: f"{row['mean']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"),
    "n": ("tasks", lambda row: row["n"]),
    "seeds": ("seeds", lambda row: row["seeds"]),
    "llm_tokens": ("LLM tokens / task", lambda row: f"{row['llm_tokens'] / row['n']:,.0f}"),
    "env_steps": ("env steps / task", lambda row: f"{row['env_steps'] / row['n']:,.1f}"),
    "reward_calls": ("reward calls / task", lambda row: f"{row['reward_calls'] / row['n']:,.1f}"),
    "seconds": ("seconds", lambda row: f"{row['seconds']:,.0f}"),
}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown table of result rows or pooled rows; env and seed are columns only if they differ."""
    fields = [field for field in COLUMNS if all(field in row for row in rows)]
    fields = [f for f in fields if f not in ("env", "seed") or len({row[f] for row in rows}) > 1]
    cells = [[COLUMNS[f][0] for f in fields], ["---" if f == "planner" else "---:" for f in fields]]
    cells += [[str(COLUMNS[f][1](row)) for f in fields] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
