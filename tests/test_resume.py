"""Killed at any moment, a run goes on: what was finished stays byte for byte, and the end is that of a whole run."""

import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from test_training import RESUMED, fit, weights
from tiny import tiny_lm, tiny_network

from armap_lite import collect, envs, planners, synthesize
from armap_lite.agent import Agent
from armap_lite.reward.scorer import RewardModel

# Each run is a process of its own, forked from one that has the imports done: it starts at once and can be killed.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__])
STAGES = ["trajectories.jsonl", "pairs.jsonl", "plans.jsonl"]


def pipeline(out: Path) -> None:
    """Collection, pair synthesis and planning on puzzles of 24.csv, by tiny models in fp32."""
    torch.set_num_threads(1)
    env = envs.make("game24")
    agent = Agent(tiny_lm(0), env, examples=1)
    model = RewardModel(*tiny_network(0))

    async def stages() -> None:
        tasks = env.tasks("train")[:18]
        files = [out / name for name in STAGES]
        await collect.collect(env, agent, tasks, files[0], samples=3, num_proposals=1, temperature=2.0, seed=7, group=3)
        kept = collect.load(files[0])
        await synthesize.synthesize(env, agent.lm, kept, files[1], num_negatives=2, num_drafts=1, seed=7, group=6)
        search = {
            "sampling": {},
            "best_of_n": {"n": 3},
            "reflexion": {"trials": 2, "threshold": 99.0},
            "mcts": {"rollouts": 3},
        }
        await planners.plan(env, agent, model, env.tasks("test")[:16], files[2], search, seed=7, group=2)

    asyncio.run(stages())


def training(out: Path) -> None:
    torch.set_num_threads(1)
    fit(out, RESUMED)


def lines(out: Path) -> list[bytes]:
    """What the stage files hold, as far as each line is whole."""
    found = []
    for name in STAGES:
        with contextlib.suppress(FileNotFoundError):
            found.append((out / name).read_bytes())
    return [data[: data.rfind(b"\n") + 1] for data in found]


@contextlib.contextmanager
def started(target: Callable, *arguments: Any) -> Any:
    process = PROCESSES.Process(target=target, args=arguments)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def kill_when(process: BaseProcess, reached: Callable[[], bool], wait: float) -> None:
    """SIGKILL `process` `wait` seconds after `reached` holds; it must not have come to its end before."""
    limit = time.monotonic() + 120
    while not reached():
        assert process.is_alive() and time.monotonic() < limit
        time.sleep(0.002)
    time.sleep(wait)
    process.kill()
    process.join()
    assert process.exitcode == -9


@pytest.fixture(scope="module", autouse=True)
def imports_done_once() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # where the process to fork from finds this module
        forkserver.ensure_running()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stage files of a run that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole")
    with started(pipeline, out) as process:
        process.join()
        assert process.exitcode == 0
    return out


@pytest.mark.slow
def test_killed_ten_times_a_run_ends_with_the_same_bytes(whole: Path, tmp_path: Path):
    sizes = [data.count(b"\n") for data in lines(whole)]
    assert len(sizes) == 3 and min(sizes) >= 40
    rng = random.Random(0)
    hit: Counter[str] = Counter()
    for kill in range(10):
        stage, moment = divmod(3 * (kill + rng.random()) / 10, 1)  # spread over the stages, at random within each
        count = sum(sizes[: int(stage)]) + int(moment * (sizes[int(stage)] - 8))
        before = lines(tmp_path)
        with started(pipeline, tmp_path) as process:
            kill_when(process, lambda: sum(d.count(b"\n") for d in lines(tmp_path)) >= count, rng.uniform(0, 0.03))  # noqa: B023
        after = lines(tmp_path)
        hit[STAGES[len(after) - 1]] += 1
        assert len(after) >= len(before)
        assert all(new.startswith(old) for old, new in zip(before, after)), kill  # byte for byte
    assert min(hit[name] for name in STAGES) >= 2, hit

    with started(pipeline, tmp_path) as process:
        process.join()
        assert process.exitcode == 0
    for name in STAGES:
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes(), name
        ids = [json.loads(line)["id"] for line in (tmp_path / name).read_text(encoding="utf-8").splitlines()]
        assert len(ids) == len(set(ids))


@pytest.mark.slow
def test_the_stages_make_something_to_lose(whole: Path):
    """The runs above compare files that differ where they should: other seeds and tasks give other lines."""
    kept, pairs, plans = (
        collect.load(whole / STAGES[0]),
        synthesize.load(whole / STAGES[1]),
        planners.load(whole / STAGES[2]),
    )
    assert len({t.actions for t in kept}) > 20
    assert len({p.rejected.actions for p in pairs}) > 20
    assert {p.planner for p in plans} == {"sampling", "best_of_n", "reflexion", "mcts"}
    assert len({s.reward for p in plans for s in p.samples if s.reward is not None}) > 40


@pytest.mark.slow
def test_training_killed_three_times_ends_with_the_same_weights(tmp_path: Path):
    with started(training, tmp_path / "whole/model") as process:
        process.join()
        assert process.exitcode == 0
    out = tmp_path / "killed/model"
    log = tmp_path / "killed/model-training"
    for attempt, batches in enumerate((2, 7, 5)):  # of 16; before the first checkpoint (after 4), then two further on

        def reached(attempt: int = attempt, batches: int = batches) -> bool:
            file = log / f"attempt-{attempt:03}/metrics.csv"
            return file.is_file() and file.read_bytes().count(b"\n") > batches

        with started(training, out) as process:
            kill_when(process, reached, 0.0)
        assert (log / "last.ckpt").is_file() == (attempt > 0)
    with started(training, out) as process:
        process.join()
        assert process.exitcode == 0
    end, expected = weights(out), weights(tmp_path / "whole/model")
    assert all(torch.equal(end[name], expected[name]) for name in expected)
