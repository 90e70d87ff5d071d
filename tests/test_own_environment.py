"""Notebook 08: the worlds that it adds keep the contract, and every stage runs on the one that others made."""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import ScriptedLM, tiny_folder

from armap_lite import envs, synthesize
from armap_lite.course import notebooks, random_trajectory
from armap_lite.display.cells import NOTEBOOKS
from armap_lite.pipeline.run import Run

pytest.importorskip("minigrid", reason="the extra gymnasium is not installed")
[BOOK] = NOTEBOOKS.glob("08_*.ipynb")
CELLS = notebooks.read(BOOK)["cells"]


def sources(tag: str) -> list[str]:
    return [cell["source"] for cell in CELLS if tag in cell["metadata"].get("tags", [])]


def run(data_llm: str | None) -> dict[str, Any]:
    """The cells that make the two worlds, in the order of the notebook, as the kernel would run them."""
    scope: dict[str, Any] = {"DATA_LLM": data_llm}
    for source in [*sources("imports"), *sources("packing"), *sources("minigrid")]:
        exec(compile(source, "<cell>", "exec"), scope)  # noqa: S102
    return scope


@pytest.fixture(scope="module")
def scope() -> Iterator[dict[str, Any]]:
    known = dict(envs.ENVIRONMENTS)
    yield run(None)
    envs.ENVIRONMENTS.clear()
    envs.ENVIRONMENTS.update(known)


@pytest.fixture
def game(scope: dict[str, Any]) -> Iterator[Any]:
    with envs.make("minigrid") as env:
        yield env


def walks(env: Any, split: str, n: int) -> list[Any]:
    return [random_trajectory(env, task, random.Random(i)) for i, task in enumerate(env.tasks(split)[:n])]


def test_cells_fit_on_a_page_and_the_world_of_others_is_as_short_as_promised():
    blocks = [cell["source"] for cell in CELLS if cell["cell_type"] == "code"]
    code = {sum(bool(line.strip()) for line in block.splitlines()): block for block in blocks}
    assert max(code) <= 25, code[max(code)]
    start = next(i for i, cell in enumerate(CELLS) if cell["source"].startswith("## 3"))
    end = next(i for i, cell in enumerate(CELLS) if cell["source"].startswith("## Exercises"))
    section = [cell["source"] for cell in CELLS[start:end] if cell["cell_type"] == "code"]
    assert "class Fetch(" in section[0] and "every_stage" in section[-1]
    assert sum(bool(line.strip()) for block in section for line in block.splitlines()) < 40


def keeps_its_words(env: Any, solved: list[Any]) -> None:
    """What was achieved, put into words and read again, is what was achieved; and the trajectory satisfies it."""
    hindsight = env.hindsight
    for walk in [env.replay(*example) for example in solved] + [w for w in walks(env, "train", 8) if w.done]:
        goal = hindsight.achieved(walk)
        assert goal and hindsight.parse(hindsight.to_text(goal)) == goal and hindsight.satisfied(walk, goal)
        assert hindsight.achieved(env.replay(walk.task, walk.actions[:-1])) == {}
    for goal, text in hindsight.few_shot:
        assert hindsight.parse(text) == goal


def test_the_first_world_keeps_the_contract(scope: dict[str, Any]):
    env, judge = envs.make("mine"), envs.make_judge("mine")
    for task, actions in env.examples():
        assert judge.score(env.replay(task, actions)) == 1.0 and judge.score(env.replay(task, actions[:-1])) == 0.0
    for walk in walks(env, "train", 5):
        assert env.fork().replay(walk.task, walk.actions) == walk
        asked = env.hindsight.parse(walk.task.instruction)
        assert asked == {"bag": walk.task.setup["bag"]}
        assert judge.score(walk) == env.hindsight.satisfied(walk, asked)
    keeps_its_words(env, env.examples())


def test_three_methods_of_hindsight_are_enough_and_with_a_data_llm_none_is_needed(scope: dict[str, Any]):
    for name in ("PackingHindsight", "FetchHindsight"):
        own = {key for key in vars(scope[name]) if not key.startswith("_")} - {"few_shot"}
        assert own == {"achieved", "to_text", "parse"}
    assert envs.make("mine").hindsight is not None
    known = dict(envs.ENVIRONMENTS)
    other = run("http://localhost:8000/v1#a-model")
    envs.ENVIRONMENTS.update(known)
    assert other["Packing"].hindsight is other["Fetch"].hindsight is None


def test_the_world_of_others_keeps_the_contract(game: Any):
    keeps_its_words(game, game.examples())
    rng, negatives = random.Random(0), 0
    for walk in walks(game, "train", 12):
        assert game.fork().replay(walk.task, walk.actions) == walk
        assert walk.done == walk.actions[-1].startswith("pick up ") and (
            not walk.done or walk.steps[-1].observation == f"you hold {walk.actions[-1].removeprefix('pick up ')}"
        )
        before = game.reset(walk.task).admissible
        assert not game.step("fly to the moon").done and game.admissible() == before
        if game.hindsight.achieved(walk):
            other = synthesize.change(game, walk, rng)
            negatives += other is not None
            assert other is None or game.hindsight.achieved(other) != game.hindsight.achieved(walk)
    assert negatives >= 3
    for text in ("fetch a blue key and a red ball", "go to the door", ""):
        assert game.hindsight.parse(text) is None


def test_the_simulators_reward_agrees_with_what_was_asked_for(game: Any):
    judge, found = envs.make_judge("minigrid"), []
    for walk in [*walks(game, "test", 60), *(game.replay(*example) for example in game.examples())]:
        asked = game.hindsight.parse(walk.task.instruction)
        found.append(judge.score(walk))
        assert asked and found[-1] == game.hindsight.satisfied(walk, asked)
    assert set(found) == {0.0, 1.0} and found[-1] == 1.0
    judge.close()


@pytest.mark.slow
def test_every_stage_and_every_planner_runs_on_it(game: Any, tmp_path: Path):
    sizes = {"collect_tasks": 4, "samples": 3, "num_proposals": 1, "dev_tasks": 2, "test_tasks": 2}
    planners = {"sampling": {}, "greedy": {}, "best_of_n": {"n": 2}, "reflexion": {"trials": 2}}
    planners["mcts"] = {"rollouts": 2}
    model = tiny_folder(tmp_path / "model", layers=16)
    small = Run("minigrid", "fast", tmp_path / "runs", reward=model, **sizes, planners=planners)
    small.__dict__["lm"] = ScriptedLM(lambda prompt, choice: 4.0 if choice.startswith("pick up") else 1.0)

    async def stages() -> dict[str, Any]:
        await small.collect()
        assert (await small.synthesize())["pairs"] > 2
        await small.train(enable_progress_bar=False)
        await small.plan()
        return await small.evaluate()

    with small.env:
        result = asyncio.run(stages())
    assert {row["planner"] for row in result["rows"]} >= set(planners)
    assert all(row["failures"] == 0 for row in result["rows"])
