"""What a seed found, small enough to keep: `python tests/bench/measured.py runs/laptop-0 webshop COMMIT [NAME]`

Writes tests/bench/seeds/NAME-PROFILE-SEED.json (NAME is that of the environment, if no other is given): of every plan
what it spent and which sample it chose; of every sample its true score, its learned reward, and its control terms
(price, actions); of the reward model its margins on the pairs of development tasks. COMMIT is the code that ran.
`pool_seeds.py` and `frontier.py` read such files, or run folders.
"""

import argparse
import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from armap_lite import envs, evaluate, planners, statistics
from armap_lite.envs.base import Term
from armap_lite.pipeline import results

KEPT = Path(__file__).parent / "seeds"
SPENT = ("llm_tokens", "env_steps", "reward_calls")


@dataclass(frozen=True)
class Plan:
    """A `PlanResult` without its trajectories; `evaluate.task_scores` takes either."""

    planner: str
    task_id: str
    family: str | None
    chosen: int
    spent: dict[str, int]
    scores: list[float]
    rewards: list[float | None]
    costs: dict[str, list[float]] = field(default_factory=dict)

    @property
    def answer_index(self) -> int:
        return self.chosen

    @property
    def id(self) -> str:
        return f"{self.planner}/{self.task_id}"


def terms(env: str) -> Mapping[str, Term]:
    """The terms that control can weigh in environment `env`; the shop's last one mixes the others."""
    return envs.lookup(env)[0].terms


def settings(folder: Path, env: str) -> dict[str, Any]:
    """Profile and seed of the run of `env` under `folder`."""
    return {k: ast.literal_eval(v) for k, v in _json(folder / env / "run.json").items() if k in ("profile", "seed")}


def record(folder: Path, env: str, commit: str = "") -> dict[str, Any]:
    """The record of the run of `env` under `folder`, after its last stage."""
    golds = _json(folder / env / "evaluation.json")["golds"]
    plans = []
    for plan in planners.load(folder / env / "plans.jsonl"):
        some = [sample.trajectory for sample in plan.samples]
        plans.append(
            vars(
                Plan(
                    plan.planner,
                    plan.task_id,
                    plan.answer.task.family,
                    plan.answer_index,
                    {name: getattr(plan.budget, name) for name in SPENT},
                    [_short(score) for score in golds[plan.id]],
                    [None if s.reward is None else _short(s.reward) for s in plan.samples],
                    {name: [_short(term(t)) for t in some] for name, term in terms(env).items()},
                )
            )
        )
    machine = {k: v for k, v in results.versions().items() if k in ("cpu", "gpu", "torch", "transformers")}
    told = {name: _json(folder / env / f"{name}.json") for name in ("training", "margins")}
    return {"env": env, **settings(folder, env), "commit": commit, **machine, **told, "plans": plans}


def load(source: str, env: str) -> tuple[dict[str, Any], list[Plan]]:
    """A record and its plans, from a file that this script wrote or from a run folder."""
    path = Path(source)
    found = record(path, env) if path.is_dir() else _json(path)
    if found["env"] != env:
        raise ValueError(f"{source} is a record of {found['env']!r}; expected one of {env!r}")
    return found, [Plan(**plan) for plan in found["plans"]]


def scores(seeds: Sequence[Sequence[Plan]]) -> tuple[dict[str, list[dict[str, float]]], dict[str, str] | None]:
    """True score by planner, seed and task; and the family of each task, where tasks have one."""
    each = [evaluate.task_scores(plans, {plan.id: plan.scores for plan in plans}) for plans in seeds]
    family = {plan.task_id: plan.family for plan in seeds[0] if plan.family}
    return {name: [seed[name] for seed in each] for name in each[0]}, family or None


def pooled_rows(
    per_task: Mapping[str, Sequence[Mapping[str, float]]], family: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """One row per planner over several seeds: planner, seeds, n, mean, ci_low, ci_high.

    `per_task`: planner -> one {task id: score} per seed; `family`: task id -> family (see `evaluate.families`).
    """
    statistics.check_same_tasks(
        {f"{planner}, seed no. {i}": one for planner, seeds in per_task.items() for i, one in enumerate(seeds)}
    )
    rows = []
    for planner, seeds in per_task.items():
        tasks = sorted(seeds[0])
        strata = [family[task] for task in tasks] if family else None
        mean, low, high = statistics.bootstrap_mean([[one[task] for one in seeds] for task in tasks], strata=strata)
        row = {"planner": planner, "seeds": len(seeds), "n": len(tasks)}
        rows.append({**row, "mean": mean, "ci_low": low, "ci_high": high})
    return rows


def _short(number: float) -> float:
    return int(number) if number == int(number) else round(number, 4)


def _json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def arguments(description: str | None, **places: str | None) -> dict[str, Any]:
    """The command line of a script: each of its `places`, with how many words it takes as argparse says it."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=formatter)
    for name, number in places.items():
        parser.add_argument(name, nargs=number)
    return vars(parser.parse_args())


def main(folder: str, env: str, commit: str, name: str | None = None) -> None:
    found = record(Path(folder), env, commit)
    KEPT.mkdir(exist_ok=True)
    lines = ",\n".join(json.dumps(plan, ensure_ascii=False) for plan in found.pop("plans"))
    head = json.dumps(found, ensure_ascii=False)[:-1]
    target = KEPT / f"{name or env}-{found['profile']}-{found['seed']}.json"
    target.write_text(f'{head}, "plans": [\n{lines}\n]}}\n', encoding="utf-8")
    print(target, f"{target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(**arguments(__doc__, folder=None, env=None, commit=None, name="?"))
