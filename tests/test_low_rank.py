"""Reward models small enough to ship: what is kept of them, and a run that plans with one beside its own."""

import asyncio
import contextlib
import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from test_reward_model import trained, walk
from tiny import tiny_folder

from armap_lite import envs, reward
from armap_lite.exchange.export import shrink
from armap_lite.pipeline import profiles
from armap_lite.pipeline.commands import main
from armap_lite.pipeline.run import Run
from armap_lite.storage import low_rank

KINDS = ["top:2", "lora:4", "all"]
WALKS = [walk(["8 * 3 = 24"]), walk(["8 - 3 = 5", "5 + 4 = 9"]), walk([])]
TEXTS = [t.task.instruction for t in WALKS]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_folder(tmp_path_factory.mktemp("backbone"))


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
@settings(max_examples=25)
def test_a_difference_of_low_rank_is_kept_and_of_others_the_largest_part(rank: int, true: int, seed: int):
    random = torch.Generator().manual_seed(seed)
    before = {"w": torch.randn(24, 16, generator=random), "b": torch.randn(16, generator=random)}
    difference = torch.randn(24, true, generator=random) @ torch.randn(true, 16, generator=random)
    learned = {"w": before["w"] + difference, "b": before["b"] + 1, "new": torch.randn(24, 16, generator=random)}
    small = low_rank.split(learned, before, rank)
    assert {tensor.dtype for tensor in small.values()} == {torch.float16}
    back = low_rank.join(small, before)
    assert back.keys() == learned.keys()
    assert torch.allclose(back["b"].float(), learned["b"], atol=1e-2)
    assert torch.equal(back["new"], learned["new"].half())  # nothing was there before it
    lost = float((back["w"] - learned["w"]).norm())
    dropped = float(torch.linalg.svdvals(difference)[rank:].norm())  # no matrix of that rank comes closer
    assert lost == pytest.approx(dropped, abs=0.05)


def test_numbers_beyond_half_precision_are_refused():
    with pytest.raises(ValueError, match="w has numbers that half precision cannot hold"):
        low_rank.split({"w": torch.full((3,), 1e6)}, {}, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_whose_differences_are_of_low_rank_scores_as_before(kind: str, backbone: str, tmp_path: Path):
    trained(backbone, kind).save(tmp_path / "whole")
    shrink(tmp_path / "whole", tmp_path / "small", 3)
    expected = reward.load(tmp_path / "small").score(TEXTS, WALKS)
    assert np.ptp(expected) > 0.05
    shrink(tmp_path / "small", tmp_path / "again", 5)
    assert reward.load(tmp_path / "again").score(TEXTS, WALKS) == pytest.approx(expected, abs=5e-3)
    shrink(tmp_path / "small", tmp_path / "smaller", 1)
    size = {file.parent.name: file.stat().st_size for file in tmp_path.glob("*/weights.safetensors")}
    assert size["smaller"] <= size["small"] < size["whole"]
    other = reward.load(tmp_path / "smaller").score(TEXTS, WALKS)
    assert kind == "lora:4" or np.abs(other - expected).max() > 1e-2  # adapters are of low rank already


def test_a_half_that_is_missing_is_one_error(backbone: str, tmp_path: Path):
    trained(backbone, "top:2").save(tmp_path / "whole")
    shrink(tmp_path / "whole", tmp_path / "small", 2)
    file = tmp_path / "small/weights.safetensors"
    tensors = load_file(file)
    del tensors[next(name for name in tensors if name.endswith(low_rank.DOWN))]
    save_file(tensors, file)
    with pytest.raises(ValueError, match="its tensors do not fit backbone"):
        reward.load(tmp_path / "small")


def test_the_command_writes_a_model_and_its_card(backbone: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    trained(backbone, "top:2").save(tmp_path / "game24/reward_model")
    (tmp_path / "game24/run.json").write_text(
        '{"env": "\'game24\'", "profile": "\'laptop\'", "seed": "3"}', encoding="utf-8"
    )
    source, out = str(tmp_path / "game24/reward_model"), tmp_path / "out"
    assert main(["export", source, str(out), "--low-rank", "2"]) == 0
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "make reproduce ENV=game24 PROFILE=laptop SEED=3" in card and "by rank 2," in card
    assert hashlib.sha256((out / "weights.safetensors").read_bytes()).hexdigest() in card
    assert "| pair accuracy | not measured |" in card
    capsys.readouterr()
    for arguments, said in (
        ([str(out), "--low-rank", "2"], "exists already"),
        (["new", "--low-rank", "0"], "at least 1"),
    ):
        assert main(["export", source, *arguments]) == 1
        assert said in capsys.readouterr().err
    assert reward.load(out).score(TEXTS, WALKS).shape == (3,)


@pytest.mark.slow
def test_a_run_plans_with_the_shipped_model_and_shows_its_own(
    backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    trained(backbone, "top:1").save(tmp_path / "shipped")
    monkeypatch.setattr(envs, "reward_model", lambda name: tmp_path / "shipped")
    sizes: dict[str, Any] = {"collect_tasks": 4, "samples": 3, "num_proposals": 0, "dev_tasks": 3, "test_tasks": 3}
    search = {"sampling": {}, "best_of_n": {"n": 4, "temperature": 2.0}}
    config = reward.RewardConfig(backbone=backbone, num_layers=1, trainable="top:1")
    options = {"policy": backbone, "planners": search, **sizes, "reference": True}
    run = Run("game24", "fast", tmp_path / "run", **options)
    run.settings = dataclasses.replace(run.settings, reward=config)
    with contextlib.closing(run.env):
        result = asyncio.run(run.evaluate())
        plans = asyncio.run(run.plans())
    assert [row["model"] for row in result["reward_model"]] == ["reference", "own"]
    attempts = [s for plan in plans if plan.planner == "best_of_n" for s in plan.samples]
    texts, walks = [s.trajectory.task.instruction for s in attempts], [s.trajectory for s in attempts]
    assert [s.reward for s in attempts] == pytest.approx(
        reward.load(tmp_path / "shipped").score(texts, walks), abs=1e-3
    )
    rows = {row["planner"]: row for row in result["rows"]}
    assert rows["own_best_of_n"]["reward_model"] == backbone and rows["best_of_n"]["reward_model"].endswith(", shipped")
    own = reward.load(run.path("reward_model")).score(texts, walks).reshape(3, 4)
    golds = np.array([result["golds"][plan.id] for plan in plans if plan.planner == "best_of_n"])
    assert rows["own_best_of_n"]["mean"] == pytest.approx(golds[np.arange(3), own.argmax(1)].mean())


def test_a_run_made_with_another_shipped_model_is_not_continued(
    backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    trained(backbone, "top:1").save(tmp_path / "one")
    trained(backbone, "top:2").save(tmp_path / "two")
    options = {"policy": backbone, "reference": True}
    monkeypatch.setattr(envs, "reward_model", lambda name: tmp_path / "one")
    Run("game24", "fast", tmp_path / "run", **options).path("pairs.jsonl").write_text("", encoding="utf-8")
    Run("game24", "fast", tmp_path / "run", **options)
    monkeypatch.setattr(envs, "reward_model", lambda name: tmp_path / "two")
    with pytest.raises(ValueError, match="was made with reference="):
        Run("game24", "fast", tmp_path / "run", **options)


def test_a_reader_s_own_model_or_files_are_not_judged_by_the_shipped_one(backbone: str, tmp_path: Path):
    spec = str(tmp_path / "mine")
    trained(backbone, "top:1").save(tmp_path / "mine")
    assert Run("game24", "fast", tmp_path / "one", policy=backbone, reward=spec, reference=True).reference is None
    assert Run("game24", "fast", tmp_path / "two", policy=backbone, data_llm=backbone, reference=True).reference is None
    file = tmp_path / "puzzles.csv"
    file.write_text("Puzzles\n1 1 4 6\n", encoding="utf-8")
    options = {"env_options": {"puzzles": str(file)}, "reference": True}
    assert Run("game24", "fast", tmp_path / "three", policy=backbone, **options).reference is None
    assert Run("game24", "fast", tmp_path / "four", policy=backbone, reference=False).reference is None


SHIPPED = sorted(name for name in envs.ENVIRONMENTS if envs.reward_model(name))


@pytest.mark.parametrize("name", SHIPPED)
def test_what_the_kit_ships_is_small_and_what_its_card_says(name: str):
    folder = envs.reward_model(name)
    weights, card = folder / "weights.safetensors", (folder / "README.md").read_text(encoding="utf-8")
    assert weights.stat().st_size < 12e6
    assert hashlib.sha256(weights.read_bytes()).hexdigest() in card and f"make reproduce ENV={name} " in card
    assert {tensor.dtype for tensor in load_file(weights).values()} == {torch.float16}
    assert profiles.get("fast", name).reference
    assert reward.RewardConfig.read(folder / "reward.json") == profiles.get("laptop", name).reward
