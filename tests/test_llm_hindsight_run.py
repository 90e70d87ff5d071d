"""A world without hindsight of its own, from the first stage to the last, with a real server as its data LLM."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from boxes import Boxes, BoxesJudge, sees
from llama_server import serving
from tiny import ScriptedLM, tiny_folder

from armap_lite import envs, synthesize
from armap_lite.envs import prompts
from armap_lite.llms.base import Choice
from armap_lite.llms.server import ServerLM
from armap_lite.pipeline.reproduce import gather
from armap_lite.pipeline.run import Run
from armap_lite.reward.config import TrainingConfig
from armap_lite.storage import assets
from armap_lite.storage.store import read_jsonl


class Fair(ServerLM):
    """A server whose answer to the blind question is put right: the small model there says A, whatever it reads."""

    said: list[str]

    def choose(self, prompts_: Sequence[str], choices: Sequence[Sequence[str]], *args: Any, **options: Any) -> Any:
        found = super().choose(prompts_, choices, *args, **options)
        for i, (prompt, options_) in enumerate(zip(prompts_, choices)):
            assert [choice.text in options_ for choice in found[i]] == [True]
            if options_ == prompts.PAIR:
                self.said.append(found[i][0].text)
                right = max(range(2), key=lambda k: sees(prompt, options_[k]))
                found[i] = [Choice(options_[right], right, 0.0, found[i][0].tokens)]
        return found


def obedient(prompt: str, choice: str) -> float:
    """A policy that does as it is told."""
    thing, colour = re.findall(r"Put the (\w+) into the (\w+) box", prompt)[-1]
    return 1e9 if choice == f"put the {thing} into the {colour} box" else 1.0


class JudgeAskedError(AssertionError):
    """Somebody asked for the true score."""


def test_a_world_without_hindsight_runs_all_stages_with_a_server_that_reads(tmp_path, monkeypatch):
    def poison(*args: object, **options: object) -> None:
        raise JudgeAskedError

    monkeypatch.setitem(envs.ENVIRONMENTS, "boxes", (Boxes, BoxesJudge))
    true_score = BoxesJudge.score
    monkeypatch.setattr(BoxesJudge, "score", poison)
    model = tiny_folder(tmp_path / "model", layers=16)
    sizes = {"collect_tasks": 4, "samples": 1, "dev_tasks": 1, "test_tasks": 3, "num_negatives": 1, "swap_roles": False}
    planners = {"sampling": {}, "best_of_n": {"n": 2}, "mcts": {"rollouts": 2}}
    training = TrainingConfig(batch_size=4, num_validations=1, val_fraction=0.5)
    run = Run("boxes", "fast", tmp_path, reward=model, **sizes, planners=planners, training=training)
    run.__dict__["lm"] = ScriptedLM(obedient)

    async def stages() -> None:
        await run.collect()
        with serving(str(assets.fetch("smollm2-135m-instruct")), "smol", 8192) as url:
            data_lm = run.__dict__["data_lm"] = Fair(url, "smol", concurrency=2)
            data_lm.said = []
            counts = await run.synthesize()
            await run.test_pairs()
        kept = [line["trajectory"] for line in read_jsonl(run.path("trajectories.jsonl")) if "trajectory" in line]
        assert counts["looked back at"] == len(kept)
        assert not counts["refused"] and not counts["malformed"]  # the server is held to the schema
        assert counts["blind check passed"] == counts["pairs"] == counts["worded by llm"] > 1
        assert data_lm.said and set(data_lm.said) <= set(prompts.PAIR)
        await run.train(accelerator="cpu", enable_progress_bar=False)
        await run.plan()
        await run.control()
        with pytest.raises(JudgeAskedError):
            await run.evaluate()
        monkeypatch.setattr(BoxesJudge, "score", true_score)
        await run.evaluate()

    asyncio.run(stages())
    for pair in synthesize.load(run.path("pairs.jsonl")):
        assert pair.instruction and pair.rejected == Boxes().replay(pair.rejected.task, pair.rejected.actions)
    rows = json.loads(run.path("evaluation.json").read_text(encoding="utf-8"))["rows"]
    assert {row["planner"] for row in rows} >= set(planners)
    page = gather(tmp_path).read_text(encoding="utf-8")
    assert "hindsight of the data LLM" in page and "blind check passed" in page
