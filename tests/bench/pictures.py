"""Do pictures earn their place? `python tests/bench/pictures.py runs/laptop-0 [runs/laptop-1 ...]`, after WebShop ran.

For each run folder a second reward model is trained on the same pairs, with the same settings and no eyes; both rank
the pairs of the development tasks (which neither was trained on, nor stopped early by). Pairs are grouped twice: by
whether the goal of their task needs the picture, and, stricter, by whether the instruction names a detail that is in
the text of neither trajectory. Intervals draw whole tasks. Last line: JSON, ratio of the right ones where it is needed.
"""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from armap_lite import evaluate, reward
from armap_lite.agent import transcript
from armap_lite.envs.webshop.environment import WebShop
from armap_lite.envs.webshop.wishes import tokens
from armap_lite.reward.training import train
from armap_lite.run import Run
from armap_lite.trajectory import PreferencePair


def only_seen(env: WebShop, pair: PreferencePair) -> bool:
    """Whether `pair`'s instruction names a detail of which no word is in the text of either trajectory."""
    asked = (env.states(pair.instruction) or {}).get("details", "").split(", ")
    told = {word for side in (pair.chosen, pair.rejected) for word in tokens(transcript(side, "-"))}
    return any(words and not told & set(words) for words in map(tokens, asked))


def margins(run: Run, pairs: list[PreferencePair]) -> dict[str, np.ndarray]:
    """Rewards of chosen minus rejected, with eyes and without, [pairs] each."""
    blind = run.path("reward_without_pictures")
    if not (blind / "trained.json").is_file():
        settings = dataclasses.replace(run.settings.reward, vision=None)
        learned = asyncio.run(run.pairs())
        train(learned, blind, settings, run.settings.training, seed=run.seed, enable_progress_bar=False)
        (blind / "trained.json").write_text("{}")
    found = {}
    for name, model in (("with", run.reward), ("without", reward.load(blind))):
        texts = [pair.instruction for pair in pairs]
        sides = [model.score(texts, some) for some in ([p.chosen for p in pairs], [p.rejected for p in pairs])]
        found[name] = sides[0] - sides[1]
    return found


def by_task(tasks: list[str], margins: list[float]) -> dict[str, float]:
    """Share of the pairs of each task that are ranked rightly; a margin of 0 counts half."""
    right: dict[str, list[float]] = {}
    for task, margin in zip(tasks, margins):
        right.setdefault(task, []).append((np.sign(margin) + 1) / 2)
    return {task: float(np.mean(some)) for task, some in right.items()}


def main(folders: list[str]) -> None:
    groups: dict[str, dict[str, list[Any]]] = {}
    for folder in folders:
        told = {
            k: ast.literal_eval(v)
            for k, v in json.loads((Path(folder) / "webshop/run.json").read_text()).items()
            if k in ("profile", "seed")
        }
        run = Run("webshop", told["profile"], folder, told["seed"])
        pairs = asyncio.run(run.test_pairs())
        both, env = margins(run, pairs), WebShop()
        for i, pair in enumerate(pairs):
            goal = bool(pair.chosen.task.setup.get("needs_picture"))
            for name in (f"goal needs picture: {goal}", f"detail only in a picture: {only_seen(env, pair)}"):
                kept = groups.setdefault(name, {"tasks": [], "with": [], "without": []})
                kept["tasks"].append(pair.task_id)  # the same tasks in each seed: drawn together
                for eyes, margin in both.items():
                    kept[eyes].append(margin[i])
    details = {}
    for name, kept in sorted(groups.items()):
        details[name] = {eyes: evaluate.pair_metrics(kept[eyes], kept["tasks"]) for eyes in ("with", "without")}
        for eyes, found in details[name].items():
            low, high = found["ci_low"], found["ci_high"]
            print(f"{name:32s} {eyes:8s} {found['pair_accuracy']:.3f} [{low:.3f}, {high:.3f}] n={found['n_pairs']}")
        right = {eyes: by_task(kept["tasks"], kept[eyes]) for eyes in ("with", "without")}
        difference = evaluate.paired_difference(right["with"], right["without"])
        details[name]["with - without, mean over tasks"] = difference
        print(f"{name:32s} {'paired':8s} {difference}")
    needed = details["detail only in a picture: True"]
    ratio = needed["with"]["pair_accuracy"] / needed["without"]["pair_accuracy"]
    versus = "the same reward model without pictures, pairs whose instruction names what only a picture shows"
    result = {"name": "pictures", "ratio": round(ratio, 3), "versus": versus, "unit": "pair accuracy"}
    print(json.dumps({**result, "details": details}))


if __name__ == "__main__":
    main(sys.argv[1:])
