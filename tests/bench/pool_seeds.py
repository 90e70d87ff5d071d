"""Several seeds of one profile, pooled: `python tests/bench/pool_seeds.py game24 runs/laptop-0 runs/laptop-1 ...`

Run folders, or records of them (see `measured.py`).
Score of each planner: mean over seeds for each task, interval over tasks. Last line: JSON, ratio = MCTS to Best-of-N.
"""

import json

import measured
import numpy as np

from armap_lite import evaluate, statistics
from armap_lite.display.tables import results_table
from armap_lite.pipeline import results


def main(env: str, sources: list[str]) -> None:
    found = [measured.load(source, env) for source in sources]
    scores, family = measured.scores([plans for _, plans in found])
    pooled = measured.pooled_rows(scores, family)
    print(results_table(pooled), "\n")
    for name in dict.fromkeys(plan.planner for plan in found[0][1]):
        budgets = [plan.spent for _, plans in found for plan in plans if plan.planner == name]
        spent = [np.mean([budget[what] for budget in budgets]) for what in measured.SPENT]
        print(f"{name}: {spent[0]:,.0f} LLM tokens, {spent[1]:.1f} env steps, {spent[2]:.1f} reward calls a task")
    mean = {row["planner"]: row["mean"] for row in pooled}
    closed = statistics.gap_closed(mean[evaluate.FLOOR], mean["best_of_n"], mean[evaluate.CEILING])
    print(f"best_of_n closes {closed:.3f} of the gap between {evaluate.FLOOR} and {evaluate.CEILING}")
    average = {name: [float(np.mean([seed[t] for seed in seeds])) for t in seeds[0]] for name, seeds in scores.items()}
    strata = family and [family[task] for task in scores["sampling"][0]]
    duels = (("best_of_n", evaluate.FLOOR), ("best_of_n", "greedy"), ("best_of_n", "sampling"))
    for a, b in (*duels, ("mcts", "greedy"), ("mcts", "sampling"), ("mcts", "best_of_n")):
        print(f"{a} - {b}: {statistics.paired_difference(average[a], average[b], strata=strata)}")
    for source, (head, _) in zip(sources, found):
        sides = head["margins"]
        margins = np.subtract(sides["chosen"], sides["rejected"])
        print(f"{source}: {statistics.pair_metrics(margins, sides['task_ids'])}")
    rows = {row["planner"]: row for row in pooled}
    ratio = mean["mcts"] / mean["best_of_n"] if mean["best_of_n"] else float("nan")
    device = results.versions()["cpu"]
    summary = {"name": "pool_seeds", "ratio": ratio, "versus": "best_of_n", "unit": "mean score", "device": device}
    print(json.dumps({**summary, "details": rows}))


if __name__ == "__main__":
    main(**measured.arguments(__doc__, env=None, sources="+"))
