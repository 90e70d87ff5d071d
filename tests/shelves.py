"""The words of the shelf of shelf.py for both adapters, and all stages with a reward that only the judge may read."""

import asyncio
import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from shelf import Shelf
from tiny import ScriptedLM, tiny_folder

from armap_lite import synthesize
from armap_lite.envs import prompts
from armap_lite.envs.gymnasium import GymnasiumEnvironment, GymnasiumJudge
from armap_lite.pipeline.run import Run
from armap_lite.reward.config import TrainingConfig
from armap_lite.trajectory import Trajectory


class Words:
    """What a reader writes of the shelf, for either adapter. There is no code that looks back."""

    name, version, max_steps = "shelves", "1", 4
    guide = "Walk along the shelf and take a jar."
    seeds: Mapping[str, range] = {"train": range(12), "dev": range(100, 104), "test": range(200, 206)}

    def instruction(self, observation: Any, info: Any) -> str:
        return observation["mission"]

    def describe(self, observation: Any, info: Any) -> str:
        held, jar = observation["held"], observation["jar"]
        return f"You hold the {held} jar." if held else f"You stand before the {jar} jar."

    def actions(self, observation: Any, info: Any) -> dict[str, Any]:
        at = observation["at"]
        found = {f"take the {observation['jar']} jar": "take"}
        return found | ({"go left": "-1"} if at else {}) | ({"go right": "1"} if at < 2 else {})


class Shelves(Words, GymnasiumEnvironment):
    def make(self) -> Shelf:
        return Shelf()


class ShelvesJudge(GymnasiumJudge, Shelves):
    pass


class RewardReadError(AssertionError):
    """Somebody read the reward of a step."""


class Poison:
    """A reward that raises whatever is done with it."""

    def __getattribute__(self, name: str) -> Any:
        raise RewardReadError(name)

    def raises(self, *args: Any) -> Any:
        raise RewardReadError

    __float__ = __int__ = __bool__ = __add__ = __radd__ = __mul__ = __lt__ = __gt__ = __eq__ = raises  # type: ignore
    __hash__ = __repr__ = raises  # type: ignore


def look_back(prompt: str, seed: int) -> str:
    """A data LLM that reads what the agent held in the end."""
    if "=== The trajectory to look back at" not in prompt:
        return ""
    shown = prompt.rpartition("=== The trajectory to look back at\n")[2]
    held = re.search(r"You hold the (\w+) jar", shown)
    steps = len(re.findall(r"^\d+\. ", shown, re.MULTILINE))
    text = f"Take the {held[1]} jar." if held else ""
    fulfilled = str(bool(held) and f"Instruction: {text}" in shown).lower()
    return f'{{"did": "", "fulfilled": {fulfilled}, "instruction": "{text}", "change": [{steps}]}}'


def prefers(prompt: str, choice: str) -> float:
    """Weights of the same LLM: of two trajectories the one that does what the text says, else always the same one."""
    if choice not in prompts.PAIR:
        return 1.0
    wanted = re.search(r"Instruction: Take the (\w+) jar", prompt)
    sides = re.split(r"=== (?:Trajectory [AB]|Which)[^\n]*\n", prompt)[1:3]
    does = [bool(wanted) and f"You hold the {wanted[1]} jar." in side for side in sides]
    right = does.index(True) if sum(does) == 1 else sides.index(min(sides))
    return 9.0 if choice == prompts.PAIR[right] else 1.0


SIZES: dict[str, Any] = {"collect_tasks": 8, "samples": 2, "dev_tasks": 2, "test_tasks": 3, "num_negatives": 1}
PLANNERS: dict[str, Any] = {
    "sampling": {},
    "greedy": {},
    "best_of_n": {"n": 2},
    "reflexion": {"trials": 2, "threshold": 1e9},
    "mcts": {"rollouts": 2},
}


def small_run(name: str, out: Path, **models: Any) -> Run:
    """A run of the registered world `name` in which a scripted LLM acts and looks back, where `models` name no other"""
    training = TrainingConfig(batch_size=4, num_validations=1, val_fraction=0.5)
    reward = tiny_folder(out / "model", layers=16)
    run = Run(name, "fast", out / "runs", reward=reward, **models, **SIZES, planners=PLANNERS, training=training)
    if not models:
        run.__dict__["lm"] = ScriptedLM(prefers, look_back)
    return run


async def stages_one_to_five(run: Run) -> None:
    """All that is done before the judge is asked."""
    assert (await run.collect())["failures"] == 0
    counts = await run.synthesize()
    assert counts["looked back at"] > 0 and counts["pairs"] == counts["blind check passed"] > 1
    await run.train(accelerator="cpu", enable_progress_bar=False)
    plans = await run.plan()
    assert {(p.planner, p.task_id) for p in plans} == {(name, t.id) for name in PLANNERS for t in run.test_tasks}
    assert await run.control() and await run.margins()


def check_no_reward_is_read(run: Run, monkeypatch: pytest.MonkeyPatch, poison: Any) -> dict[str, Any]:
    """Stages 1 to 5 pass while `poison(True)` makes every reward raise and the judge does; then the evaluation."""

    def asked(*args: Any) -> None:
        raise RewardReadError

    async def stages() -> dict[str, Any]:
        with monkeypatch.context() as patch:
            patch.setattr(GymnasiumJudge, "score", asked)
            poison(True)
            await stages_one_to_five(run)
            with pytest.raises(RewardReadError):
                await run.evaluate()
        with pytest.raises(RewardReadError):  # the judge does read it
            await run.evaluate()
        poison(False)
        return await run.evaluate()

    with contextlib.closing(run.env):
        result = asyncio.run(stages())
    for pair in synthesize.load(run.path("pairs.jsonl")):
        assert pair.rejected == run.env.replay(pair.rejected.task, pair.rejected.actions)
    run.env.close()
    assert {row["planner"] for row in result["rows"]} >= set(PLANNERS)
    assert all(row["failures"] == 0 for row in result["rows"])
    return result


def right(trajectory: Trajectory) -> float:
    """The true score, read from the text."""
    wanted = trajectory.task.instruction.removeprefix("Take the ").removesuffix(" jar.")
    return float(trajectory.done and trajectory.steps[-1].observation == f"You hold the {wanted} jar.")
