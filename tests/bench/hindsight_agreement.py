"""Does a data LLM that looks back agree with the code that does?

python tests/bench/hindsight_agreement.py runs/laptop webshop SPEC [--n 200] [--seconds 3000] [--chars 12000] [--train]

Reads the trajectories of a run, `n` of them at even distances, with the data LLM that SPEC names, in groups, until the
seconds are over. What is done is kept beside the run (`RUN/ENV/hindsight-NAME.jsonl`), and the same command goes on
from there. --train: a reward model is trained on the LLM's pairs, and one on as many pairs that the run itself made of
the same trajectories; both are tested on the run's development pairs. Last line: JSON, the share of the LLM's texts
that code agrees with.
"""

import argparse
import asyncio
import json
import random
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measured
import numpy as np

from armap_lite import collect, envs, llms, synthesize
from armap_lite.envs.hindsight import LLMHindsight
from armap_lite.pipeline import profiles
from armap_lite.pipeline.run import evenly_spaced
from armap_lite.storage.store import read_jsonl
from armap_lite.trajectory import PreferencePair, Trajectory

GROUP = 8  # trajectories read side by side


def look_back(
    env: Any, lm: Any, some: Sequence[Trajectory], out: Path, seconds: float, chars: int, **sizes: Any
) -> None:
    """Stage 2 by `lm` for `some`, group by group, as long as there is time."""
    end, reader = time.monotonic() + seconds, LLMHindsight(env.look_back_examples, max_chars=chars)
    for first in range(0, len(some), GROUP):
        if time.monotonic() < end:
            part = slice(first, first + GROUP)
            made = synthesize.synthesize(env, lm, some, out, item_slice=part, group=GROUP, look_back=reader, **sizes)
            print(f"{min(first + GROUP, len(some))} of {len(some)}: {dict(asyncio.run(made))}", flush=True)


def accuracy(pairs: Sequence[PreferencePair], tested: Sequence[PreferencePair], out: Path, profile: Any) -> float:
    """Share of `tested` that a reward model puts right which learned from `pairs`."""
    from armap_lite import reward
    from armap_lite.reward.training import train

    train(pairs, out, profile.reward, profile.training, seed=0, enable_progress_bar=False)
    model, texts = reward.load(out), [pair.instruction for pair in tested]
    sides = [model.score(texts, [getattr(pair, side) for pair in tested]) for side in ("chosen", "rejected")]
    return float((np.subtract(*sides) > 0).mean())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("env", choices=envs.ENVIRONMENTS)
    parser.add_argument("spec", help="the data LLM")
    parser.add_argument("--n", type=int, default=200, help="trajectories")
    parser.add_argument("--seconds", type=float, default=3000, help="for reading them")
    parser.add_argument("--chars", type=int, default=12_000, help="of a trajectory that are shown")
    parser.add_argument("--train", action="store_true")
    options = parser.parse_args()
    folder = options.run / options.env
    profile = profiles.get(measured.settings(options.run, options.env)["profile"], options.env)
    kept = collect.load(folder / "trajectories.jsonl")
    places = {(t.task.id, t.actions): i for i, t in enumerate(kept)}
    some = evenly_spaced(kept, options.n)
    out = folder / f"hindsight-{re.sub(r'[^a-z0-9]+', '-', options.spec.lower())[-40:]}.jsonl"
    sizes = {"num_negatives": profile.num_negatives, "swap_roles": profile.swap_roles}
    with envs.make(options.env, **profile.env_options) as env:
        look_back(env, llms.load(options.spec), some, out, options.seconds, options.chars, **sizes)
    counts, pairs = synthesize.summary(out), synthesize.load(out)
    done = {line["id"] for line in read_jsonl(out) if "pair" not in line}
    texts = sum(counts[f"code {verdict}"] for verdict in ("agrees", "contradicts", "cannot read it"))
    details: dict[str, Any] = {"trajectories": len(done), "pairs": len(pairs), "counts": dict(counts)}
    if options.train:
        read = {f"{t.task.id}/{places[t.task.id, t.actions]}" for i, t in enumerate(some) if f"{t.task.id}/{i}" in done}
        code = [p for p in synthesize.load(folder / "pairs.jsonl") if re.sub(r"[ab]\d+$", "", p.id) in read]
        size, tested = min(len(pairs), len(code)), synthesize.load(folder / "dev_pairs.jsonl")
        details |= {"trained on": size, "code's pairs": len(code), "tested on": len(tested)}
        for name, found in (("llm", pairs), ("code", code)):
            drawn = random.Random(0).sample(found, size)
            details[f"pair accuracy, {name}"] = round(accuracy(drawn, tested, out.with_suffix(f".{name}"), profile), 3)
    result = {
        "name": "hindsight_agreement",
        "ratio": round(counts["code agrees"] / max(1, texts), 3),
        "versus": "the reading of the world's code",
        "unit": f"share of {texts} texts",
        "device": options.spec,
        "details": details,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
