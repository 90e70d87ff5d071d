"""Which pairs make a reward model that ranks the agent's own attempts? Measured on training and development tasks.

python tests/bench/order_accuracy.py scienceworld FOLDER --mixes 1+0 0+2 1+1 --pairs 400 --seeds 0

collects attempts at training and development tasks into FOLDER (what is there is kept), makes the pairs of each mix
from the former (EXECUTED+ATTEMPTS[+GRADED]: negatives of each kind for each attempt, see `synthesize`), trains a small
reward model on as many of them as `--pairs` says, and lets it rank the latter. The judge scores development attempts,
here alone. Prints for each mix and seed pair accuracy on held-out tasks, order accuracy, Best-of-N between its floor
and ceiling, and the share of this gap that is closed, each with its interval over tasks. Last line: JSON.
"""

import argparse
import asyncio
import contextlib
import json
import random
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from armap_lite import collect, envs, llms, reward, statistics, synthesize
from armap_lite.agent import Agent
from armap_lite.pipeline import profiles, results
from armap_lite.pipeline.run import evenly_spaced
from armap_lite.reward import TrainingConfig
from armap_lite.storage.store import read_jsonl, write_atomic
from armap_lite.trajectory import PreferencePair, Trajectory


def attempts(file: Path) -> dict[str, list[Trajectory]]:
    """All attempts in `file` by task, the repeated ones too: they are what the agent does."""
    lines = list(read_jsonl(file))
    known = {line["id"]: Trajectory.from_json(line["trajectory"]) for line in lines if "trajectory" in line}
    found: dict[str, list[Trajectory]] = {}
    for line in lines:
        found.setdefault(line["task_id"], []).append(known[line.get("duplicate_of", line["id"])])
    return found


def true_scores(judge: Any, file: Path, of: dict[str, list[Trajectory]]) -> dict[str, list[float]]:
    """The judge's scores of attempts by task, kept in `file`."""
    if not file.is_file():
        with contextlib.closing(judge):
            known: dict[tuple, float] = {}
            for t in (t for some in of.values() for t in some):
                key = t.task.id, t.actions
                known[key] = known[key] if key in known else judge.score(t)
        scores = {task: [known[task, t.actions] for t in some] for task, some in of.items()}
        write_atomic(file, json.dumps(scores))
    return json.loads(file.read_text(encoding="utf-8"))


def measure(model: Any, of: dict[str, list[Trajectory]], golds: dict[str, list[float]]) -> dict[str, Any]:
    """Order accuracy, Best-of-N with floor and oracle, and gap closed, of `model` on the attempts `of` some tasks."""
    rewards = [model.score([t.task.instruction for t in some], some) for some in of.values()]
    true = [np.array(golds[task]) for task in of]
    order = statistics.order_accuracy(rewards, true, list(of))
    curve = statistics.best_of_n_curve(rewards, true)
    each = np.array([[g.mean(), statistics._expected_best(r, g)[-1], g.max()] for r, g in zip(rewards, true)])
    draws = np.random.default_rng(0).multinomial(len(each), np.full(len(each), 1 / len(each)), 10_000) @ each
    gaps = (draws[:, 1] - draws[:, 0]) / np.maximum(draws[:, 2] - draws[:, 0], 1e-9)
    floor, chosen, oracle = each.mean(axis=0)
    return {
        **(order or {}),
        "floor": floor,
        "best_of_n": [chosen, float(curve["selected_low"][-1]), float(curve["selected_high"][-1])],
        "oracle": oracle,
        "gap_closed": [statistics.gap_closed(floor, chosen, oracle), *np.quantile(gaps, (0.025, 0.975))],
        "dev_tasks": len(each),
    }


async def main(args: argparse.Namespace) -> None:
    world, folder = args.world, args.folder
    folder.mkdir(parents=True, exist_ok=True)
    settings = profiles.get(args.profile, world)
    env = envs.make(world, **settings.env_options)
    tasks = {"train": env.draw(args.train, 0), "dev": evenly_spaced(env.tasks("dev"), args.dev)}
    files = {split: folder / f"{split}.jsonl" for split in tasks}
    temperature = args.temperature or settings.collect_temperature
    lm: Any = None
    for split, some in tasks.items():
        if not collect.complete(files[split], some, args.samples):
            lm = lm or llms.load(settings.policy)
            began = time.process_time()
            options: dict[str, Any] = {"samples": args.samples, "temperature": temperature, "num_proposals": 0}
            print(split, await collect.collect(env, Agent(lm, env), some, files[split], **options), flush=True)
            print(f"   {time.process_time() - began:.0f} s of CPU", flush=True)
    of = attempts(files["dev"])
    golds = true_scores(envs.make_judge(world, **settings.env_options), folder / "golds.json", of)
    found = {}
    for mix in args.mixes:
        if args.drafts:
            lm = lm or llms.load(settings.policy)
        pairs = await make_pairs(env, collect.load(files["train"]), folder, mix, lm, args)
        for seed in args.seeds:
            name = f"{mix}{args.note} seed {seed}"
            some = pairs if len(pairs) <= args.pairs else random.Random(seed).sample(pairs, args.pairs)
            place = folder / name.replace(" ", "-")
            found[name] = {"pairs": len(some), "of": len(pairs), **train(some, place, args, seed)}
            found[name] |= measure(reward.load(place), of, golds)
            print(name, json.dumps(found[name], default=float), flush=True)
            with (folder / "found.jsonl").open("a", encoding="utf-8") as out:
                out.write(json.dumps({"name": name, **found[name]}, default=float) + "\n")
    env.close()
    gaps = [one["gap_closed"][0] for one in found.values()]
    line = {"name": "order_accuracy", "ratio": gaps[-1] / gaps[0] if gaps else 1, "versus": "gap closed by the first"}
    line |= {"unit": "gap closed", "device": results.versions()["cpu"], "details": found}
    print(json.dumps(line, default=float))


async def make_pairs(
    env: Any, trajectories: list[Trajectory], folder: Path, mix: str, lm: Any, args: argparse.Namespace
) -> list[PreferencePair]:
    """The pairs of one mix, kept in `folder`."""
    executed, others, *graded = map(int, mix.split("+"))
    began = time.process_time()
    counts = await synthesize.synthesize(
        env,
        lm or SimpleNamespace(reset=lambda: None),  # without drafts no LLM is asked
        trajectories,
        folder / f"pairs-{mix}.jsonl",
        num_negatives=executed,
        num_attempt_negatives=others,
        num_graded=sum(graded),
        num_drafts=args.drafts,
    )
    print(mix, dict(counts), f"{time.process_time() - began:.0f} s of CPU", flush=True)
    return synthesize.load(folder / f"pairs-{mix}.jsonl")


def train(pairs: list[PreferencePair], out: Path, args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Train the reward model of the profile on `pairs`."""
    from armap_lite.reward import training

    config = TrainingConfig(epochs=args.epochs, monitor="val_loss", precision=args.precision, num_validations=4)
    began = time.process_time()
    shape = profiles.get(args.profile, args.world).reward
    metrics = training.train(pairs, out, shape, config, seed=seed, enable_progress_bar=False)
    kept = ("val_accuracy", "val_loss", "steps", "tokens")
    return {**{k: metrics[k] for k in kept}, "cpu_seconds": time.process_time() - began}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("world", choices=("game24", "scienceworld", "webshop"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mixes", nargs="*", default=[], metavar="EXECUTED+ATTEMPTS[+GRADED]")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    for option, default in (("train", 72), ("dev", 36), ("samples", 6), ("pairs", 400), ("epochs", 2), ("drafts", 0)):
        parser.add_argument(f"--{option}", type=int, default=default)
    parser.add_argument("--profile", default="fast", help="its world, policy and reward model")
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--note", default="", help="added to the names of the models, e.g. what else differs")
    asyncio.run(main(parser.parse_args()))
