"""What the mirror of a pair is for: `python tests/bench/mirrors.py RUN --env game24 --seeds 0 1 2`

Stage 2 on the trajectories of the finished run RUN, with executed changes alone, with and without mirrors
(`swap_roles`), and a reward model of the profile trained on equally many pairs of each. Both rank the run's
development pairs, all of them and those with a mirror, and the attempts of Best-of-N at its test tasks.
Last line: JSON, ratio = pair accuracy with a mirror, trained with mirrors to without.
"""

import argparse
import asyncio
import contextlib
import json
import random
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from armap_lite import collect, envs, evaluate, planners, reward, statistics, synthesize
from armap_lite.pipeline import evaluation, profiles, results
from armap_lite.reward import training
from armap_lite.trajectory import PreferencePair


def pairs_of(env: Any, run: Path, folder: Path, swap_roles: bool, negatives: int) -> list[PreferencePair]:
    out, walks = folder / f"pairs-{swap_roles}.jsonl", collect.load(run / "trajectories.jsonl")
    unasked: Any = SimpleNamespace(reset=lambda: None)  # without drafts no LLM is asked
    options: dict[str, Any] = {"num_negatives": negatives, "num_drafts": 0, "swap_roles": swap_roles}
    asyncio.run(synthesize.synthesize(env, unasked, walks, out, **options))
    return synthesize.load(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--env", default="game24", choices=envs.ENVIRONMENTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    args = parser.parse_args()
    settings, run = profiles.get("fast", args.env), args.run / args.env
    dev = synthesize.load(run / "dev_pairs.jsonl")
    twice, ids = np.array(synthesize.mirrored(dev)), np.array([pair.task_id for pair in dev])
    plans = [plan for plan in planners.load(run / "plans.jsonl") if plan.planner == "best_of_n"]
    with contextlib.closing(envs.make_judge(args.env, **settings.env_options)) as judge:
        golds = evaluate.score_plans(plans, judge)
    found: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as name, envs.make(args.env, **settings.env_options) as env:
        folder = Path(name)
        made = {way: pairs_of(env, run, folder, way, max(1, settings.num_negatives)) for way in (True, False)}
        print({f"mirrors {way}": len(pairs) for way, pairs in made.items()}, flush=True)
        for seed in args.seeds:
            for way, pairs in made.items():
                some = random.Random(seed).sample(pairs, min(map(len, made.values())))
                out = folder / f"{way}-{seed}"
                training.train(some, out, settings.reward, settings.training, seed=seed, enable_progress_bar=False)
                model = reward.load(out)
                scores = evaluation.score_pairs(dev, {"": model})
                margins = np.subtract(scores["chosen"], scores["rejected"])
                rewards = evaluation.rewards_of_attempts(plans, model)
                one = {
                    "pairs": len(some),
                    "all": statistics.pair_metrics(margins, ids),
                    "with a mirror": statistics.pair_metrics(margins[twice], ids[twice]),
                    "order": evaluate.order_of_attempts(plans, golds, rewards),
                }
                found.setdefault("with" if way else "without", []).append(one)
                said = "   ".join(
                    f"{k} {v.get('pair_accuracy', v.get('order_accuracy')):.3f} [{v['ci_low']:.3f}, {v['ci_high']:.3f}]"
                    for k, v in one.items()
                    if isinstance(v, dict)
                )
                print(f"{'with' if way else 'without':8} seed {seed}   {len(some)} pairs   {said}", flush=True)
    mean = {way: np.mean([one["with a mirror"]["pair_accuracy"] for one in some]) for way, some in found.items()}
    head = {"name": "mirrors", "ratio": mean["with"] / mean["without"], "versus": "without", "unit": "pair accuracy"}
    print(json.dumps({**head, "device": results.versions()["cpu"], "details": found}, default=float))


if __name__ == "__main__":
    main()
