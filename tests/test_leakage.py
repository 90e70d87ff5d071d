"""Nothing before the evaluation can read the true score."""

import ast
import asyncio
import contextlib
from pathlib import Path

import pytest
from tiny import WORLDS, ScriptedLM, puzzle, tiny_folder, train_here

import armap_lite
from armap_lite import envs
from armap_lite.envs.game24 import Game24, Game24Judge
from armap_lite.envs.scienceworld.environment import ScienceWorldJudge
from armap_lite.envs.webshop import WebShopJudge
from armap_lite.pipeline import profiles, training_process
from armap_lite.pipeline.run import Run
from armap_lite.reward.config import TrainingConfig

PACKAGE = Path(armap_lite.__file__).parent
JUDGES = {"Game24Judge", "ScienceWorldJudge", "WebShopJudge", "GymnasiumJudge", "OpenEnvJudge"}
JUDGING = {"make_judge", "Judge", "score_plans", "getScore", *JUDGES}


class JudgeAskedError(AssertionError):
    """Somebody asked for the true score."""


def poison(*args, **kwargs):
    raise JudgeAskedError(f"the judge was asked: {args}, {kwargs}")


SHORT = ("lifespan-longest-lived", "lifespan-shortest-lived")  # of ten steps


@pytest.mark.parametrize("env", WORLDS)
def test_stages_one_to_five_pass_with_a_judge_that_raises_and_the_evaluation_does_not(env, tmp_path, monkeypatch):
    """Published pairs were ranked by the environment's own reward."""
    if env == "scienceworld":
        pytest.importorskip("scienceworld", reason="the simulator is an extra")
    monkeypatch.setattr(envs, "make_judge", poison)
    for judge in (Game24Judge, ScienceWorldJudge, WebShopJudge):
        monkeypatch.setattr(judge, "score", poison)
        monkeypatch.setattr(judge, "__init__", poison)
    monkeypatch.setattr("armap_lite.envs.webshop.judge.reward", poison)
    monkeypatch.setattr(training_process, "train", train_here)  # where the judge is poisoned too
    model = tiny_folder(tmp_path / "model", layers=16)
    sizes = {"collect_tasks": 4, "samples": 3, "num_proposals": 1, "dev_tasks": 2, "test_tasks": 3, "group": 2}
    planners = {
        "sampling": {},
        "greedy": {},
        "best_of_n": {"n": 3},
        "reflexion": {"trials": 2, "threshold": 1e9},
        "mcts": {"rollouts": 3, "expand_terminal_siblings": True, "num_action_samples": None if env == "game24" else 3},
    }
    training = TrainingConfig(batch_size=4, num_validations=1, val_fraction=0.5)
    if env == "scienceworld":
        sizes["env_options"] = {"families": SHORT, "simulators": 4}
    run = Run(env, "fast", tmp_path / "run", policy=model, reward=model, **sizes, planners=planners, training=training)
    if env != "game24":  # their pages or lists of actions are long: what acts there is no network
        run.__dict__["lm"] = ScriptedLM(lambda prompt, choice: 9.0 if choice == "click[buy now]" else 1.0)

    async def stages():
        assert (await run.collect())["kept"] > 0
        assert (await run.synthesize())["pairs"] > 0
        assert (await run.train(accelerator="cpu", enable_progress_bar=False))["steps"] > 0
        plans = await run.plan()
        assert {(p.planner, p.task_id) for p in plans} == {(name, t.id) for name in planners for t in run.test_tasks}
        weights, terms = run.settings.control_weights, run.env.terms
        assert weights.keys() <= terms.keys()
        each = sum(len(weights.get(label, profiles.DEFAULT_CONTROL_WEIGHTS)) for label in terms)
        assert len(await run.control()) == 2 * len(run.test_tasks) * each
        with pytest.raises(JudgeAskedError):
            await run.evaluate()

    with contextlib.closing(run.env):
        asyncio.run(stages())
    for file in (
        "trajectories.jsonl",
        "pairs.jsonl",
        "reward_model/weights.safetensors",
        "plans.jsonl",
        "control.jsonl",
    ):
        assert run.path(file).stat().st_size > 0
    assert not run.path("evaluation.json").exists()


def parsed() -> dict[str, ast.Module]:
    return {
        str(p.relative_to(PACKAGE)): ast.parse(p.read_text(encoding="utf-8")) for p in sorted(PACKAGE.rglob("*.py"))
    }


def named(tree: ast.AST) -> set[str]:
    """Every name in `tree`, be it used, defined, imported, an attribute or a string."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.alias):
            found |= {node.name.rpartition(".")[2], node.asname or ""}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return found


def test_only_the_evaluation_names_a_judge():
    trees = parsed()
    assert len(trees) > 25
    home = {name for name in trees if name.startswith("envs/")} | {"evaluate.py", "pipeline/evaluation.py"}
    assert {n for name in home for n in named(trees[name])} >= JUDGING  # the names are still the right ones
    for name in trees.keys() - home:
        assert not named(trees[name]) & JUDGING, name


TRAJECTORY = Game24().replay(puzzle(1, 4, 8, 8), ("8 / 4 = 2", "2 + 1 = 3", "8 * 3 = 24"))


@pytest.mark.parametrize(
    "thing", [Game24(), Game24().reset(TRAJECTORY.task), TRAJECTORY, TRAJECTORY.steps[-1]], ids=type
)
def test_what_the_agent_sees_has_no_reward(thing):
    words = ("reward", "score", "judge", "success", "gold")
    assert not [name for name in dir(thing) if any(word in name.lower() for word in words)]
