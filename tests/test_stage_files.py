"""What the stages write, pinned: tiny models make the three stage files in every world, and their hashes are known.

A change that only moves or renames code leaves the hashes as they are. One that changes behaviour says in its commit
which file changed and why.
"""

import asyncio
import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import WORLDS, ScriptedReward, tiny_lm

from armap_lite import collect, envs, planners, synthesize
from armap_lite.agent import Agent
from armap_lite.trajectory import Trajectory

# The first 16 hexadecimal digits of sha256.
PINNED = {
    "game24": {"trajectories": "68f591acf3ca5c7c", "pairs": "ebc9cfd87e8ab4a9", "plans": "c4fa9cb65ff8be8c"},
    "scienceworld": {"trajectories": "d3ccd2dd0e81fbf5", "pairs": "c1d53eb28d6946a3", "plans": "26f1554e0d7d1f3e"},
    "webshop": {"trajectories": "5b7fb00c091494b6", "pairs": "b32b29e737fe434d", "plans": "a56774c6f1df7a6a"},
}
OPTIONS = {"scienceworld": {"families": ("lifespan-longest-lived", "lifespan-shortest-lived"), "simulators": 4}}


def value(trajectory: Trajectory) -> float:
    """A reward that any machine computes alike: the actions' checksum, in [0, 1)."""
    return zlib.crc32("\n".join(trajectory.actions).encode()) % 1024 / 1024


def stages(name: str, folder: Path) -> dict[str, Path]:
    """Stages 1, 2 and 4 of world `name` with tiny models, in fp32; training is left out, as its last bits differ."""
    files = {stage: folder / f"{stage}.jsonl" for stage in ("trajectories", "pairs", "plans")}
    listed = name == "game24"  # elsewhere there are too many actions to list
    search: dict[str, dict[str, Any]] = {
        "sampling": {},
        "greedy": {},
        "best_of_n": {"n": 3},
        "reflexion": {"trials": 2, "threshold": 9.0},
        "mcts": {"rollouts": 3, "expand_terminal_siblings": listed, "num_action_samples": None if listed else 3},
    }
    with envs.make(name, **OPTIONS.get(name, {})) as env:
        lm = tiny_lm(0)
        agent = Agent(lm, env, examples=1)

        async def run() -> None:
            tasks = env.draw(4, seed=5)
            await collect.collect(env, agent, tasks, files["trajectories"], samples=3, num_proposals=1, seed=5)
            kept = collect.load(files["trajectories"])
            kinds = {"num_negatives": 2, "num_attempt_negatives": 1}
            await synthesize.synthesize(env, lm, kept, files["pairs"], **kinds, num_drafts=1, seed=5)
            test = env.tasks("test")[:2]
            await planners.plan(env, agent, ScriptedReward(value), list(test), files["plans"], search, seed=5)

        asyncio.run(run())
    return files


def digest(file: Path) -> str:
    """The file's hash without what differs between machines: folders of pictures."""

    def plain(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {k: plain(v, k) for k, v in value.items() if k != "llm_tokens_without_reuse"}  # see test_planners.py
        if isinstance(value, list):
            return [plain(v, key) for v in value]
        if isinstance(value, float):
            return round(value, 4)
        if key == "picture":
            return Path(value).name
        return value

    lines = [
        json.dumps(plain(json.loads(line)), sort_keys=True)
        for line in file.read_text(encoding="utf-8").split("\n")
        if line
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", WORLDS)
def test_the_stage_files_of_tiny_models_are_the_known_ones(name, tmp_path, monkeypatch):
    if name == "scienceworld":
        pytest.importorskip("scienceworld", reason="the simulator is an extra")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        files = stages(name, tmp_path)
    finally:
        torch.set_num_threads(threads)
    assert {stage: digest(file) for stage, file in files.items()} == PINNED[name]
