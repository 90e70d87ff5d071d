"""Does a small policy act better if it reads what it saw? `python tests/bench/shown.py [--tasks 60]`

One attempt at each of some development tasks of ScienceWorld's short families, drawn and greedy. The transcript holds
the actions alone ("never", as the kit does it), the last observation too ("while_current"), or all ("always"), and so
do the solved examples in the prompt. Last line: JSON, ratio = score with all observations to that without.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

from armap_lite import envs, evaluate, llms, planners
from armap_lite.agent import Agent
from armap_lite.envs.scienceworld.environment import ScienceWorld
from armap_lite.pipeline import profiles, results
from armap_lite.pipeline.run import evenly_spaced
from armap_lite.trajectory import SHOWN, Observation

PLANNERS = {"sampling": {"temperature": 1.0}, "greedy": {}}


class Nothing:
    """In place of a reward model: none of `PLANNERS` asks for a reward."""

    def reset(self) -> None: ...


def attempts(show: str, count: int, lm: Any, settings: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    class Shown(ScienceWorld):
        def _observe(self, done: bool = False) -> Observation:
            return dataclasses.replace(super()._observe(done), show=show)

    with tempfile.TemporaryDirectory() as folder, Shown(**settings) as env:
        out, tasks = Path(folder) / "plans.jsonl", evenly_spaced(env.tasks("dev"), count)
        asyncio.run(planners.plan(env, Agent(lm, env), Nothing(), tasks, out, PLANNERS))
        plans = planners.load(out)
    with contextlib.closing(envs.make_judge("scienceworld", **settings)) as judge:
        golds = evaluate.score_plans(plans, judge)
    return evaluate.rows(plans, golds, dict.fromkeys(PLANNERS, 0.0), show=show), evaluate.task_scores(plans, golds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=60)
    options = parser.parse_args()
    profile = profiles.get("fast", "scienceworld")
    lm = llms.load(profile.policy)
    rows, scores = {}, {}
    for show in SHOWN:
        rows[show], scores[show] = attempts(show, options.tasks, lm, dict(profile.env_options))
        lm.reset()
        for row in rows[show]:
            said = f"{row['mean']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
            print(show, row["planner"], said, f"{row['llm_tokens'] / row['n']:.0f} tokens", row["n"], flush=True)
    for planner in PLANNERS:
        for show in SHOWN[:2]:
            gain = evaluate.paired_difference(scores["never"][planner], scores[show][planner])
            print(f"{planner}: never - {show}", {k: round(v, 3) for k, v in gain.items()})
    ratio = rows["always"][0]["mean"] / rows["never"][0]["mean"]
    head = {"name": "shown", "ratio": ratio, "versus": "actions alone", "unit": "score of one attempt"}
    print(json.dumps({**head, "device": results.versions()["cpu"], "details": rows}))


if __name__ == "__main__":
    main()
