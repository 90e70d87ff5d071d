"""What does a wish cost? `python tests/bench/frontier.py runs/laptop-0 [runs/laptop-1 ...]`, after WebShop ran.

Run folders, or records of them (see `measured.py`). The attempts of Best-of-N and MCTS, chosen among anew under weights
of price, of actions, and of both in one, all seeds together. Twice: over all goals, where one for which nothing is
bought counts as 500 dollars, and over the goals for which something is bought with the wish and without, which is what
a shopper would call cheaper. Last line: JSON, ratio of the prices there of Best-of-N with the largest weight that costs
at most 0.02 of score.
"""

from __future__ import annotations

import argparse
import json
import sys

import measured
import numpy as np

from armap_lite import evaluate, profiles
from armap_lite.control import terms

PRICE, ACTIONS = terms("webshop")
WISHES = profiles.get("laptop", "webshop").control_weights
LOST = 0.02  # of score: what a wish may cost


def answers(plans: list[measured.Plan], wish: str, weight: float) -> np.ndarray:
    """Score, price and actions of what is chosen: [goals, 3]."""
    rows = []
    for plan in plans:
        k = int(np.argmax(np.array(plan.rewards) - weight * np.array(plan.costs[wish])))
        rows.append((plan.scores[k], plan.costs[PRICE][k], plan.costs[ACTIONS][k]))
    return np.array(rows)


def interval(plans: list[measured.Plan], change: np.ndarray) -> str:
    """95 % bootstrap interval of a mean change [plans]: seeds are averaged within a goal, and goals drawn."""
    _, goal, count = np.unique([plan.task_id for plan in plans], return_inverse=True, return_counts=True)
    _, low, high = evaluate.bootstrap_mean(np.bincount(goal, change) / count)
    return f"[{low:+.3f}, {high:+.3f}]"


def main(sources: list[str]) -> None:
    best: dict[str, float] = {}
    found = [plan for source in sources for plan in measured.load(source, "webshop")[1]]
    for planner in ("best_of_n", "mcts"):
        plans = [plan for plan in found if plan.planner == planner]
        plain = answers(plans, PRICE, 0.0)
        score, paid, actions = plain.mean(axis=0)
        print(f"{planner}, n = {len(plain)}: score {score:.3f}, {100 * paid:.1f} $, {actions:.2f} actions")
        for name, weights in WISHES.items():
            for weight in weights[1:]:
                wished = answers(plans, name, weight)
                bought = (plain[:, 1] < 5) & (wished[:, 1] < 5)
                line = f"   {name}, λ = {weight:g}:"
                for some, what in ((np.ones_like(bought), "all"), (bought, f"bought ({bought.sum()})")):
                    before, after = plain[some].mean(axis=0), wished[some].mean(axis=0)
                    lost, cheaper, fewer = after[0] - before[0], after[1] / before[1] - 1, after[2] / before[2] - 1
                    ends = f" {interval(plans, wished[:, 0] - plain[:, 0])}" if what == "all" else ""
                    line += f"   {what}: score {lost:+.3f}{ends}, price {cheaper:+.1%}, actions {fewer:+.1%}"
                    if planner == "best_of_n" and name == PRICE and what != "all" and lost >= -LOST:
                        best = {"weight": weight, "price": 1 + cheaper, "score": lost}
                print(line)
    if not best:
        sys.exit(f"no weight of price costs at most {LOST} of Best-of-N's score: see the lines above")
    versus = "Best-of-N without a wish, goals for which something is bought either way"
    result = {"name": "frontier", "ratio": round(best["price"], 3), "versus": versus, "unit": "dollars"}
    print(json.dumps({**result, "details": best}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("sources", nargs="+", metavar="RUN", help="a run folder, or a record of one")
    main(parser.parse_args().sources)
