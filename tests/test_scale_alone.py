"""`pipeline/scale.py` with a stand-in for Ray that runs each task in this process: what needs no cluster to be seen."""

import asyncio
import contextlib
import importlib
import itertools
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from test_export import saved
from test_finished import classifier
from tiny import tiny_folder

import armap_lite.pipeline
from armap_lite.pipeline.run import Run

SIZES: dict[str, Any] = {"collect_tasks": 2, "samples": 2, "num_proposals": 1, "test_tasks": 3, "group": 1}
SEARCH: dict[str, Any] = {"sampling": {}, "best_of_n": {"n": 2}}
SCALE = "armap_lite.pipeline.scale"


class Ref:
    """What an object of Ray's store, or the result of a task, is known by."""

    def __init__(self, value: Any):
        self.data = pickle.dumps(value)


def remote(function: Any) -> Any:
    return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda *given: Ref(function(*given))))


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    nodes = itertools.cycle("ab")
    fake = ModuleType("ray")
    fake.put, fake.get, fake.remote = Ref, lambda ref: pickle.loads(ref.data), remote  # type: ignore[attr-defined]  # noqa: S301
    fake.wait = lambda refs: (refs[:1], refs[1:])  # type: ignore[attr-defined]
    fake.init = lambda **_: contextlib.nullcontext()  # type: ignore[attr-defined]
    fake.exceptions = SimpleNamespace(RayTaskError=RuntimeError)  # type: ignore[attr-defined]
    fake.get_runtime_context = lambda: SimpleNamespace(get_node_id=lambda: next(nodes))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", fake)
    before = sys.modules.pop(SCALE, None)
    yield importlib.import_module(SCALE)
    del sys.modules[SCALE]
    if before:
        sys.modules[SCALE] = armap_lite.pipeline.scale = before
    else:
        del armap_lite.pipeline.scale


@pytest.mark.parametrize("kind", ["ours", "classifier"])
def test_workers_plan_with_a_finished_reward_model(kind: str, scale: ModuleType, tmp_path: Path):
    policy = tiny_folder(tmp_path / "policy", layers=1)
    if kind == "ours":
        spec = str(saved(tmp_path / "model", backbone=policy, num_layers=1, trainable="top:1"))
    else:
        spec = classifier(tmp_path / "finished")
    alone, spread = (
        Run("game24", "fast", tmp_path / name, policy=policy, reward=spec, planners=SEARCH, **SIZES)
        for name in ("alone", "spread")
    )
    with contextlib.closing(alone.env):
        asyncio.run(alone.plan())
    scale.run_stages(spread)
    assert not spread.path("reward_model").exists()
    assert spread.path("plans.jsonl").read_bytes() == alone.path("plans.jsonl").read_bytes()
    assert "best_of_n" in spread.path("plans.jsonl").read_text(encoding="utf-8")
