"""The evaluation of one run: asks the judge, and turns what the stages wrote into rows of `results.json`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from armap_lite import envs, evaluate, statistics
from armap_lite.llms import spec
from armap_lite.planners.base import PlanResult
from armap_lite.trajectory import PreferencePair

if TYPE_CHECKING:
    from armap_lite.pipeline.run import Run


def evaluate_run(
    run: Run,
    training: Mapping[str, float],
    plans: Sequence[PlanResult],
    margins: Mapping[str, list],
    control: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """This environment's part of `results.json`: rows, differences, reward_model, control; and `golds` by plan id.

    `training`: metrics of the run's own reward model; `margins`: what `score_pairs` returns; `control`: the lines of
    stage 5. Of two reward models the one that guided the planners comes first.
    """
    settings, env = run.settings, run.env
    with contextlib.closing(envs.make_judge(run.name, **settings.env_options)) as judge:
        golds = evaluate.score_plans(plans, judge)
    own_files = [f"{name} {Path(p).name}" for name, p in settings.env_options.items() if name in envs.PATH_OPTIONS]
    backbone = " ".join([settings.reward.backbone, *spec.meaning(run.reward_options)])
    own = rewards_of_attempts(plans, run.own_reward) if run.reference else None
    n, all_tasks = len(run.test_tasks), len(env.tasks("test"))
    rows = evaluate.rows(
        plans,
        golds,
        env=run.name,
        env_version=env.version,
        split=", ".join([settings.split, *own_files]) + (f", {n} of {all_tasks}" if n < all_tasks else ""),
        metric=env.metric,
        policy=spec.label(settings.policy),
        reward_model=f"{run.reference.network.config.backbone}, shipped" if run.reference else backbone,
        own=own,
        own_model=backbone,
        profile=run.profile,
        seed=run.seed,
        seconds=run.counts("seconds.json"),
        device=str(next(run.reward.network.parameters()).device),
    )
    models = [("reference", run.reference, None, None)] if run.reference else []
    quality = []
    for name, model, trained, rewards in [*models, ("own", run.own_reward, training, own)]:
        order = evaluate.order_of_attempts(plans, golds, rewards)
        row = {"env": run.name, "model": name, **pair_accuracy(margins, "reference_" if name == "reference" else "")}
        row |= {f"order_{key.removeprefix('order_')}": value for key, value in order.items()}
        quality.append(row | shortened(trained, model, plans))
    compared = evaluate.differences(plans, golds, run.name, own)
    points = evaluate.control_points(control, plans, golds, run.name, env.terms)
    return {"rows": rows, "differences": compared, "reward_model": quality, "control": points, "golds": golds}


def rewards_of_attempts(plans: Sequence[PlanResult], model: Any) -> dict[str, list[float]]:
    """What `model` gives the attempts of Best-of-N, by plan id."""
    some = [plan for plan in plans if plan.planner == "best_of_n"]
    attempts = [sample.trajectory for plan in some for sample in plan.samples]
    rewards = iter(model.score([t.task.instruction for t in attempts], attempts).tolist())
    return {plan.id: [next(rewards) for _ in plan.samples] for plan in some}


def score_pairs(pairs: Sequence[PreferencePair], models: Mapping[str, Any]) -> dict[str, list]:
    """Rewards of both sides of `pairs` by each of `models`: task_ids, <name>chosen, <name>rejected, lists [pairs]."""
    instructions = [pair.instruction for pair in pairs]
    scores: dict[str, list] = {"task_ids": [pair.task_id for pair in pairs]}
    for name, model in models.items():
        scores[f"{name}chosen"] = model.score(instructions, [pair.chosen for pair in pairs]).tolist()
        scores[f"{name}rejected"] = model.score(instructions, [pair.rejected for pair in pairs]).tolist()
    return scores


def pair_accuracy(margins: Mapping[str, list], model: str = "") -> dict[str, Any]:
    """`statistics.pair_metrics` of `model`, a name in `margins`; `baseline`: of its network before training, if any."""

    def metrics(name: str) -> dict[str, float]:
        gaps = np.subtract(margins[f"{name}chosen"], margins[f"{name}rejected"])
        return statistics.pair_metrics(gaps, margins["task_ids"])

    untrained = not model and "untrained_chosen" in margins  # a finished reward model comes without one
    return {**metrics(model), "baseline": metrics("untrained_")["pair_accuracy"] if untrained else None}


def shortened(
    training: Mapping[str, float] | None, reward: Any, plans: Sequence[PlanResult]
) -> dict[str, float | None]:
    """Shares of trajectories that lost their middle, among those in training pairs (None: not known) and in plans."""
    scored = [sample.trajectory for plan in plans for sample in plan.samples if sample.reward is not None]
    distinct = {(t.task.id, t.actions): t for t in scored}.values()
    cut = [reward.encode(t.task.instruction, t)[1] for t in distinct]
    trained = training and training["shortened"] / max(1, 2 * (training["train_pairs"] + training["val_pairs"]))
    return {"shortened": trained, "shortened_planned": sum(cut) / max(1, len(cut))}
