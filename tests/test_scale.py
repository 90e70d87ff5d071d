"""Spread over two machines (here: two nodes on this one), a run writes what one process writes, whatever dies."""

import asyncio
import contextlib
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_folder, tiny_network

pytest.importorskip("ray", reason="Ray is not installed")

import psutil
from ray.cluster_utils import Cluster

from armap_lite import collect
from armap_lite.pipeline import scale
from armap_lite.pipeline.run import Run

SEARCH: dict[str, Any] = {
    "sampling": {},
    "best_of_n": {"n": 2},
    "mcts": {"rollouts": 50, "llm_tokens": {"spent_by": "best_of_n"}},
}
SIZES: dict[str, Any] = {
    "collect_tasks": 64,
    "samples": 2,
    "num_proposals": 1,
    "num_negatives": 1,
    "test_tasks": 6,
    "group": 1,
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes of one core each."""
    node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    node |= {"no_monitor": True, "include_log_monitor": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # not 15: tests beside these should not starve it
        cluster = Cluster(initialize_head=True, head_node_args=node)
        cluster.add_node(**node)
        patch.setenv("RAY_ADDRESS", cluster.address)
        yield cluster
        cluster.shutdown()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a language model and what stage 3 leaves behind."""
    folder = tmp_path_factory.mktemp("models")
    tiny_folder(folder / "lm")
    network, _ = tiny_network(1, backbone=str(folder / "lm"))
    network.save(folder / "reward_model")
    (folder / "training.json").write_text('{"trained": false}', encoding="utf-8")
    return folder


def started(models: Path, out: Path, env: str = "game24", **sizes: int) -> Run:
    run = Run(env, "fast", out, 5, str(models / "lm"), str(models / "lm"), planners=SEARCH, **SIZES | sizes)
    shutil.copytree(models / "reward_model", run.path("reward_model"))
    shutil.copy(models / "training.json", run.path("training.json"))
    return run


@pytest.fixture(scope="module")
def whole(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """What one process writes, with as many threads as a worker has."""
    run, threads = started(models, tmp_path_factory.mktemp("whole")), torch.get_num_threads()
    torch.set_num_threads(1)
    for stage in (run.collect, run.synthesize, run.plan):
        asyncio.run(stage())  # type: ignore[operator]
    torch.set_num_threads(threads)
    return run


def kill_one_worker(parts: Path, killed: list[int]) -> None:
    """Wait for the first finished group, then SIGKILL a worker that is busy with another."""
    while parts.parent.exists():
        for process in psutil.Process().children(recursive=True) if list(parts.glob("*.jsonl")) else ():
            with contextlib.suppress(psutil.Error):  # ended by itself
                if process.cmdline()[:1] == ["ray::_work"]:
                    process.kill()
                    killed.append(process.pid)
                    return
        time.sleep(0.02)


def test_collect_on_two_nodes_with_a_worker_killed(cluster: Cluster, whole: Run, models: Path, tmp_path: Path):
    run, killed = started(models, tmp_path), list[int]()
    killer = threading.Thread(target=kill_one_worker, args=(run.path("trajectories.jsonl.parts"), killed), daemon=True)
    killer.start()
    nodes = scale.run_stage(run, "collect")
    assert killed
    assert len(nodes) == 2 and sum(nodes.values()) == 4  # groups of 16 tasks
    assert run.path("trajectories.jsonl").read_bytes() == whole.path("trajectories.jsonl").read_bytes()
    assert not run.path("trajectories.jsonl.parts").exists()


def test_synthesize_goes_on_from_what_one_process_left(cluster: Cluster, whole: Run, models: Path, tmp_path: Path):
    run = started(models, tmp_path)
    shutil.copy(whole.path("trajectories.jsonl"), run.folder)
    data = whole.path("pairs.jsonl").read_bytes()
    run.path("pairs.jsonl").write_bytes(data[: len(data) // 2])
    nodes = scale.run_stage(run, "synthesize")
    assert 1 <= sum(nodes.values()) <= 3  # of 4 groups of 32 trajectories
    assert run.path("pairs.jsonl").read_bytes() == data


def test_plan_goes_on_from_what_the_workers_finished(
    cluster: Cluster, whole: Run, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run, read = started(models, tmp_path), []

    def stopped(part: Path) -> Any:
        read.append(part)
        if len(read) == 3:
            raise KeyboardInterrupt
        return scale_read(part)

    scale_read = scale.read_jsonl
    monkeypatch.setattr(scale, "read_jsonl", stopped)
    with pytest.raises(KeyboardInterrupt):
        scale.run_stage(run, "plan")
    monkeypatch.undo()
    data, finished = whole.path("plans.jsonl").read_bytes(), len(list(run.path("plans.jsonl.parts").iterdir()))
    assert data.startswith(run.path("plans.jsonl").read_bytes())  # at any moment what one process may have left
    nodes = scale.run_stage(run, "plan")
    assert sum(nodes.values()) == 6 - finished
    assert run.path("plans.jsonl").read_bytes() == data
    assert run.path("seconds.json").exists()


def javas() -> set[int]:
    """The Java machines below this process, whoever started them."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.name().startswith("java"):
                found.add(process.pid)
    return found


def test_scienceworld_on_two_nodes_leaves_no_java(cluster: Cluster, models: Path, tmp_path: Path):
    pytest.importorskip("scienceworld", reason="ScienceWorld is not installed")
    run, before = started(models, tmp_path, "scienceworld", collect_tasks=17, samples=1), javas()
    nodes = scale.run_stage(run, "collect")
    assert len(nodes) == 2  # groups of 16 tasks and of 1, each with simulators of its node
    kept = collect.load(run.path("trajectories.jsonl"))
    assert {t.task.id for t in kept} == {t.id for t in run.train_tasks}
    assert all(t.steps and not t.failure for t in kept)
    one = min(kept, key=lambda t: len(t.steps))
    with run.env:  # what a worker wrote down can be done again here
        again = run.env.replay(one.task, one.actions)
    assert again.done == one.done
    deadline = time.monotonic() + 30
    while javas() - before and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not javas() - before
