"""Stages 1, 2 and 4 on many processes and machines, by Ray: `python -m armap_lite reproduce … --ray [num_cpus=2 …]`.

Groups of tasks go to the cluster that RAY_ADDRESS names (without it, this machine); the notebooks then find the stages
done. A worker runs the stage's own code with its own models and simulators in its own folder. Assets come from the
machine's cache; the reward model and all lines travel through Ray. On machines that compute alike and use as many
threads, the files equal those of one process byte for byte.
"""

import asyncio
import functools
import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from armap_lite import collect, synthesize
from armap_lite.exchange import preferences
from armap_lite.pipeline.run import Run
from armap_lite.pipeline.run_dir import COUNTER_FILES
from armap_lite.storage.assets import how_to_install
from armap_lite.storage.store import JsonlStore, read_jsonl, write_atomic

try:
    import ray
except ImportError as error:
    raise ImportError(f"spreading a run needs Ray ({error}); {how_to_install('scale')}") from error

REWARD = ("training.json", "reward_model/reward.json", "reward_model/weights.safetensors")
FILES = {  # stage -> the file that it writes, and those that it reads
    "collect": ("trajectories.jsonl", ()),
    "synthesize": ("pairs.jsonl", ("trajectories.jsonl",)),
    "plan": ("plans.jsonl", REWARD),
}


def run_stages(run: Run, **resources_per_worker: float) -> None:
    """Collect, synthesize, train (here) and plan, skipping what is finished. For the resources see `run_stage`."""
    run_stage(run, "collect", **resources_per_worker)
    run_stage(run, "synthesize", **resources_per_worker)
    preferences.to_parquet(synthesize.load(run.path("pairs.jsonl")), run.path("pairs.parquet"))
    asyncio.run(run.train(enable_progress_bar=False))
    run_stage(run, "plan", **resources_per_worker)


def run_stage(run: Run, stage: str, **resources_per_worker: float) -> Counter[str]:
    """Complete `stage` ("collect", "synthesize" or "plan"); returns the number of groups that each node worked on.

    `resources_per_worker`, as Ray names them: `num_cpus` (default 1; also the number of threads), `num_gpus`, `memory`
    in bytes. Every worker loads all models, so with many cores let it take several. A group whose worker dies is done
    again elsewhere; one that ends before those ahead of it waits in a folder beside the stage's file.
    """
    file, inputs = FILES[stage]
    if stage == "plan":
        total, size = len(run.test_tasks), run.settings.group
    else:  # groups as in one process: what is batched together decides the last bits of a number
        code: Any = synthesize.synthesize if stage == "synthesize" else collect.collect
        items = collect.load(run.path("trajectories.jsonl")) if stage == "synthesize" else run.train_tasks
        total, size = len(items), code.__kwdefaults__["group"]
    out, folder, nodes = run.path(file), run.path(f"{file}.parts"), Counter[str]()
    if not out.exists():
        shutil.rmtree(folder, ignore_errors=True)  # parts of a file that was deleted to be made again
    parts = [(slice(i, i + size), folder / f"{i}-{i + size}.jsonl") for i in range(0, total, size)]
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else Ray reports its use over the network
    with JsonlStore(out) as store, ray.init(log_to_driver=False):
        names = [name for name in (file, *inputs) if run.path(name).exists()]  # a finished reward model has no folder
        home = [ray.put((run, {name: run.path(name).read_bytes() for name in names}))]
        work = ray.remote(_work).options(**{"num_cpus": 1, "scheduling_strategy": "SPREAD", **resources_per_worker})
        pending = {work.remote(home, stage, file, item_slice): part for item_slice, part in parts if not part.exists()}
        for _, part in tqdm(parts, stage):
            while not part.exists():
                [ended], _ = ray.wait(list(pending))
                try:
                    lines, counted, node = ray.get(ended)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from error  # as if it had happened here
                for name, counts in counted.items():
                    run.add_counts(name, counts)
                write_atomic(pending.pop(ended), lines)
                nodes[node] += bool(lines)
            store.extend(read_jsonl(part))
            run.check_invalid_actions()
    shutil.rmtree(folder, ignore_errors=True)
    return nodes


_own = functools.lru_cache(maxsize=1)(lambda home: ray.get(home))  # a worker keeps its run, and so its models


def _work(home: list[Any], stage: str, file: str, item_slice: slice) -> tuple[bytes, dict[str, dict[str, float]], str]:
    """In a worker: the lines that the items of `item_slice` add to the stage's file, the counters, and the node."""
    run, files = _own(*home)
    with tempfile.TemporaryDirectory() as scratch:
        run.folder, run.item_slice = Path(scratch), item_slice
        for name, data in files.items():
            write_atomic(run.path(name), data)
        asyncio.run(getattr(run, stage)())
        counted = {name: run.counts(name) for name in COUNTER_FILES}
        return run.path(file).read_bytes()[len(files[file]) :], counted, ray.get_runtime_context().get_node_id()
