"""What does control cost? `python tests/bench/frontier.py [--env webshop] runs/laptop-0 [runs/laptop-1 ...]`

Run folders, or records of them (see `measured.py`). The attempts of Best-of-N and MCTS, chosen among anew under the
weights of each control term, all seeds together. In the shop twice: over all goals, where one for which
nothing is bought counts as 500 dollars, and over the goals for which something is bought with the term and without,
which is what a shopper would call cheaper. Last line: JSON, ratio of the first term (price, or actions) of Best-of-N
with the largest weight that costs at most 0.02 of score.
"""

import argparse
import json
import sys

import measured
import numpy as np

from armap_lite import envs, statistics
from armap_lite.pipeline import profiles

LOST = 0.02  # of score: what control may cost
NOTHING = 5  # hundred dollars: what a goal counts for which nothing is bought


def answers(plans: list[measured.Plan], term: str, weight: float, names: list[str]) -> np.ndarray:
    """Score of what is chosen, and what it costs in each term: [goals, 1 + terms]."""
    rows = []
    for plan in plans:
        k = int(np.argmax(np.array(plan.rewards) - weight * np.array(plan.costs[term])))
        rows.append((plan.scores[k], *(plan.costs[name][k] for name in names)))
    return np.array(rows)


def interval(plans: list[measured.Plan], change: np.ndarray) -> str:
    """95 % bootstrap interval of a mean change [plans]: seeds are averaged within a goal, and goals drawn."""
    _, first, goal, count = np.unique([p.task_id for p in plans], True, return_inverse=True, return_counts=True)
    family = [plans[i].family for i in first]
    strata = [str(one) for one in family] if any(family) else None
    _, low, high = statistics.bootstrap_mean(np.bincount(goal, change) / count, strata=strata)
    return f"[{low:+.3f}, {high:+.3f}]"


def main(env: str, sources: list[str]) -> None:
    best: dict[str, float] = {}
    names, control_weights = list(measured.terms(env)), profiles.get("laptop", env).control_weights
    found = [plan for source in sources for plan in measured.load(source, env)[1]]
    for planner in ("best_of_n", "mcts"):
        plans = [plan for plan in found if plan.planner == planner]
        plain = answers(plans, names[0], 0.0, names)
        means = ", ".join(
            f"{mean:.3f} {name}" for name, mean in zip(("score", *names), plain.mean(axis=0), strict=True)
        )
        print(f"{planner}, n = {len(plain)}: {means}")
        for term in plans[0].costs:
            for weight in control_weights.get(term, profiles.DEFAULT_CONTROL_WEIGHTS)[1:]:
                weighted = answers(plans, term, weight, names)
                groups = {"all": np.ones(len(plain), dtype=bool)}
                if env == "webshop":
                    groups["bought"] = (plain[:, 1] < NOTHING) & (weighted[:, 1] < NOTHING)
                line = f"   {term}, λ = {weight:g}:"
                for what, some in groups.items():
                    before, after = plain[some].mean(axis=0), weighted[some].mean(axis=0)
                    lost, less = after[0] - before[0], after[1:] / before[1:] - 1
                    ends = f" {interval(plans, weighted[:, 0] - plain[:, 0])}" if what == "all" else f" ({some.sum()})"
                    line += f"   {what}: score {lost:+.3f}{ends}"
                    line += "".join(f", {name} {change:+.1%}" for name, change in zip(names, less, strict=True))
                if planner == "best_of_n" and term == names[0] and lost >= -LOST:  # of the last group
                    best = {"weight": weight, names[0]: 1 + less[0], "score": lost}
                print(line)
    if not best:
        sys.exit(f"no weight of {names[0]} costs at most {LOST} of Best-of-N's score: see the lines above")
    versus = "Best-of-N without control" + ", goals for which something is bought either way" * (env == "webshop")
    result = {"name": "frontier", "ratio": round(best[names[0]], 3), "versus": versus, "unit": names[0]}
    print(json.dumps({**result, "device": "that of the records", "details": best}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--env", default="webshop", choices=envs.ENVIRONMENTS)
    parser.add_argument("sources", nargs="+", metavar="RUN", help="a run folder, or a record of one")
    options = parser.parse_args()
    main(options.env, options.sources)
