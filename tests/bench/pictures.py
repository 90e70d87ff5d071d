"""Do pictures earn their place? `python tests/bench/pictures.py runs/laptop-0 [runs/laptop-1 ...]`, after WebShop ran.

For each run folder a second reward model is trained on the same pairs, with the same settings and no eyes. Both rank
pairs of goals which neither was trained on, nor stopped early by: what is meant beside what is most like it and wrong
(of development goals, by which the projector was chosen, and of test goals); and pairs made of the agent's own
trajectories, as training pairs are. Each sort is split by whether its goal needs the picture; where it does, also by
whether the picture of what is meant was among those of the training pairs, whose captions taught the projector.
Intervals draw whole goals. Last line: JSON, ratio of the look-alikes of test goals where the picture is needed.
"""

import asyncio
import dataclasses
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import measured
import numpy as np

from armap_lite import reward, statistics
from armap_lite.envs.webshop.engine import PRODUCTS_PER_PAGE, Product
from armap_lite.envs.webshop.environment import WebShop
from armap_lite.envs.webshop.hindsight import word_difference
from armap_lite.envs.webshop.judge import WebShopJudge
from armap_lite.pipeline.run import Run
from armap_lite.reward.training import train
from armap_lite.trajectory import PreferencePair, Task, Trajectory

MOST = 2  # pairs for each goal
SHELF = 6  # products looked at, those most like the one that is meant


def look_alikes(split: str) -> Iterator[PreferencePair]:
    """For each goal of `split`: buying what is meant (true score 1), and buying what is most like it (below 1)."""
    env, judge = WebShop(), WebShopJudge()
    shop, goals, _ = judge._known
    for task in env.tasks(split):
        goal = goals[task.setup["goal"]]
        meant = shop.products[goal["asin"]]
        chosen = _buy(env, task, meant, [value.lower() for value in goal["goal_options"]])
        if chosen is None or judge.score(chosen) < 1:
            continue
        shelf = [p for p in shop.products.values() if p.query == meant.query]
        shelf.sort(key=lambda p: word_difference(meant.title, p.title))
        wrong = []
        for product in shelf[:SHELF]:
            styles = [value for values in product.options.values() for value in values if value in product.images]
            for style in styles or [""]:
                sizes = [value.lower() for value in goal["goal_options"] if value.lower() not in meant.images]
                other = _buy(env, task, product, [style, *sizes])
                if other and judge.score(other) < 1:
                    wrong.append(other)
        some = wrong[: 2 * MOST]
        random.Random(task.id).shuffle(some)
        for i, other in enumerate(some[:MOST]):
            yield PreferencePair(f"{task.id}/{i}", task.id, task.instruction, chosen, other, "human", 0)


def _buy(env: WebShop, task: Task, product: Product, options: list[str]) -> Trajectory | None:
    """Search as the agent would, find `product`, click what it has of `options`, buy; None where no search shows it."""
    searches = [*env.hindsight.queries(task.instruction)[:1], product.query]
    words = next((words for words in searches if product.asin in env._shop.search(words)), None)
    if words is None:
        return None
    pages = env._shop.search(words).index(product.asin) // PRODUCTS_PER_PAGE
    clicks = [value for values in product.options.values() for value in values if value in options]
    clicks = [*["next >"] * pages, product.asin.lower(), *clicks, "buy now"]
    return env.replay(task, [f"search[{words}]", *(f"click[{value}]" for value in clicks)])


def two_models(run: Run) -> dict[str, Any]:
    """The reward model of `run`, and one trained without pictures beside it."""
    blind = run.path("reward_without_pictures")
    if not (blind / "trained.json").is_file():
        settings = dataclasses.replace(run.settings.reward, vision=None)
        learned = asyncio.run(run.pairs())
        train(learned, blind, settings, run.settings.training, seed=run.seed, enable_progress_bar=False)
        (blind / "trained.json").write_text("{}", encoding="utf-8")
    return {"with": run.reward, "without": reward.load(blind)}


def by_task(tasks: list[str], margins: list[float]) -> dict[str, float]:
    """Share of the pairs of each task that are ranked rightly; a margin of 0 counts half."""
    right: dict[str, list[float]] = {}
    for task, margin in zip(tasks, margins):
        right.setdefault(task, []).append((np.sign(margin) + 1) / 2)
    return {task: float(np.mean(some)) for task, some in right.items()}


def main(folders: list[str]) -> None:
    groups: dict[str, dict[str, list[Any]]] = {}
    alike = {f"look-alikes, {split}": list(look_alikes(split)) for split in ("dev", "test")}
    for folder in folders:
        run = Run("webshop", run_dir=folder, **measured.settings(Path(folder), "webshop"))
        models = two_models(run)
        met = {p for pair in asyncio.run(run.pairs()) for side in (pair.chosen, pair.rejected) for p in side.pictures}
        for sort, pairs in {**alike, "agent's, dev": asyncio.run(run.test_pairs())}.items():
            texts, chosen, rejected = [[getattr(p, k) for p in pairs] for k in ("instruction", "chosen", "rejected")]
            margins = {k: m.score(texts, chosen) - m.score(texts, rejected) for k, m in models.items()}
            for i, pair in enumerate(pairs):
                needed = bool(pair.chosen.task.setup.get("needs_picture"))
                names = [f"{sort}, goal needs picture: {needed}"]
                if needed and sort in alike:
                    names.append(f"{names[0]}, met in training: {pair.chosen.pictures[-1] in met}")
                for kept in [groups.setdefault(name, {"tasks": []}) for name in names]:
                    kept["tasks"].append(pair.task_id)  # the same tasks in each seed: drawn together
                    for eyes, margin in margins.items():
                        kept.setdefault(eyes, []).append(margin[i])
    details = {}
    for name, kept in sorted(groups.items()):
        details[name] = {eyes: statistics.pair_metrics(kept[eyes], kept["tasks"]) for eyes in ("with", "without")}
        for eyes, found in details[name].items():
            low, high = found["ci_low"], found["ci_high"]
            print(f"{name:70s} {eyes:8s} {found['pair_accuracy']:.3f} [{low:.3f}, {high:.3f}] n={found['n_pairs']}")
        right = {eyes: by_task(kept["tasks"], kept[eyes]) for eyes in ("with", "without")}
        difference = statistics.paired_difference(right["with"], right["without"])
        details[name]["with - without, mean over tasks"] = difference
        print(f"{name:70s} {'paired':8s} {difference}")
    needed = details["look-alikes, test, goal needs picture: True"]
    ratio = needed["with"]["pair_accuracy"] / needed["without"]["pair_accuracy"]
    versus = "the same reward model without pictures, look-alikes of test goals that need the picture"
    result = {"name": "pictures", "ratio": round(ratio, 3), "versus": versus, "unit": "pair accuracy"}
    print(json.dumps({**result, "details": details}))


if __name__ == "__main__":
    main(measured.arguments(__doc__, folders="+")["folders"])
