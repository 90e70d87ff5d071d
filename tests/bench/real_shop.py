"""Every stage on WebShop's own products: `python tests/bench/real_shop.py FOLDER runs/real-0 [--seed 0]`

FOLDER holds WebShop's files (items_shuffle*.json, items_ins_v2*.json). Agent, pairs, reward model and planners as in
`make reproduce`, in the profile's sizes but for --tasks, the test goals, spread evenly over the official 500; those
files bring no pictures, so the reward model only reads. `pool_seeds.py` pools several such runs. Last line: JSON,
ratio = Best-of-N to sampling.
"""

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

from armap_lite.display.tables import results_table
from armap_lite.pipeline import results
from armap_lite.pipeline.run import Run


async def stages(run: Run) -> dict[str, Any]:
    await run.collect()
    await run.synthesize()
    await run.train(enable_progress_bar=False)
    await run.margins()
    await run.plan()
    return await run.evaluate()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--tasks", type=int, default=120)
    options = parser.parse_args()
    shop = {"folder": str(options.folder.resolve())}
    run = Run("webshop", options.profile, options.out, options.seed, env_options=shop, test_tasks=options.tasks)
    found = asyncio.run(stages(run))
    print(results_table(found["rows"]), "\n", found["reward_model"][0])
    mean = {row["planner"]: row["mean"] for row in found["rows"]}
    ratio = mean["best_of_n"] / mean["sampling"] if mean["sampling"] else float("nan")
    summary = {"name": "real_shop", "ratio": ratio, "versus": "sampling", "unit": "mean WebShop reward"}
    print(json.dumps({**summary, "device": results.versions()["cpu"], "details": mean}))


if __name__ == "__main__":
    main()
