"""A Gymnasium world without hindsight, from first to last stage, with a real server that acts and looks back."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from llama_server import serving
from shelves import Shelves, ShelvesJudge, prefers
from tiny import tiny_folder, train_here

from armap_lite import envs, synthesize
from armap_lite.envs import prompts
from armap_lite.llms.base import Choice, Completion
from armap_lite.llms.server import ServerLM
from armap_lite.pipeline import training_process
from armap_lite.pipeline.reproduce import gather
from armap_lite.pipeline.run import Run
from armap_lite.reward.config import TrainingConfig
from armap_lite.storage import assets
from armap_lite.storage.store import read_jsonl


class Fair(ServerLM):
    """A server whose small model says A to every blind question: these answers are put right, it takes the jar that it
    was asked for, and of what it writes every third text is cut off."""

    said: list[str]
    written = 0

    def choose(self, prompts_: Sequence[str], choices: Sequence[Sequence[str]], *args: Any, **options: Any) -> Any:
        found = super().choose(prompts_, choices, *args, **options)
        for i, (prompt, options_) in enumerate(zip(prompts_, choices)):
            assert found[i] and all(choice.text in options_ for choice in found[i])
            if options_ == prompts.PAIR:
                self.said.append(found[i][0].text)
                right = max(range(2), key=lambda k: prefers(prompt, options_[k]))
                found[i] = [Choice(options_[right], right, 0.0, found[i][0].tokens)]
            elif len(found[i]) == 1 and "plausible mistake" not in prompt:
                asked = "take " + prompt.rpartition("Take ")[2].split(".")[0]
                better = options_.index(asked) if asked in options_ else 1  # the first way along the shelf
                found[i] = [Choice(options_[better], better, 0.0, found[i][0].tokens)]
        return found

    def generate(self, *args: Any, **options: Any) -> Any:
        found = super().generate(*args, **options)
        self.written += len(found)
        first = self.written - len(found)
        return [
            [Completion(one.text[:-3], one.tokens) for one in answers] if (first + i) % 3 == 0 else answers
            for i, answers in enumerate(found)
        ]


class JudgeAskedError(AssertionError):
    """Somebody asked for the true score."""


@pytest.mark.slow
def test_a_world_without_hindsight_runs_all_stages_with_a_server_that_acts_and_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def poison(*args: object, **options: object) -> None:
        raise JudgeAskedError

    monkeypatch.setitem(envs.ENVIRONMENTS, "shelves", (Shelves, ShelvesJudge))
    true_score = ShelvesJudge.score
    monkeypatch.setattr(ShelvesJudge, "score", poison)
    monkeypatch.setattr(training_process, "train", train_here)
    model = tiny_folder(tmp_path / "model", layers=16)
    sizes = {"collect_tasks": 4, "samples": 1, "dev_tasks": 1, "test_tasks": 1, "num_negatives": 1}
    planners = {"sampling": {}, "best_of_n": {"n": 2}, "mcts": {"rollouts": 2}}
    training = TrainingConfig(batch_size=4, num_validations=1, val_fraction=0.5)

    async def stages(run: Run, data_lm: Fair) -> None:
        assert (await run.collect())["failures"] == 0
        counts = await run.synthesize()
        kept = [line["trajectory"] for line in read_jsonl(run.path("trajectories.jsonl")) if "trajectory" in line]
        assert counts["looked back at"] == len(kept) and run.settings.hindsight == "code"  # there is no code
        assert counts["malformed"] == counts["retried"] + counts["gave up"] > 0 and not counts["refused"]
        assert counts["blind check passed"] == counts["pairs"] == counts["worded by llm"] > 1
        await run.test_pairs()
        assert data_lm.said and set(data_lm.said) <= set(prompts.PAIR)
        await run.train(accelerator="cpu", enable_progress_bar=False)
        await run.plan()
        await run.control()
        with pytest.raises(JudgeAskedError):
            await run.evaluate()
        monkeypatch.setattr(ShelvesJudge, "score", true_score)
        await run.evaluate()

    with serving(str(assets.fetch("smollm2-135m-instruct")), "smol", 8192) as url:
        models = dict.fromkeys(("policy", "data_llm"), f"{url}#smol concurrency=2 timeout=600")
        run = Run(
            "shelves",
            "fast",
            tmp_path,
            reward=model,
            **models,
            **sizes,
            swap_roles=False,
            planners=planners,
            training=training,
        )
        data_lm = run.__dict__["lm"] = run.__dict__["data_lm"] = Fair(url, "smol", concurrency=2, timeout=600)
        data_lm.said = []
        asyncio.run(stages(run, data_lm))
    run.env.close()
    for pair in synthesize.load(run.path("pairs.jsonl")):
        assert pair.instruction and pair.rejected == Shelves().replay(pair.rejected.task, pair.rejected.actions)
    rows = json.loads(run.path("evaluation.json").read_text(encoding="utf-8"))["rows"]
    assert {row["planner"] for row in rows} >= set(planners)
    page = gather(tmp_path).read_text(encoding="utf-8")
    assert "hindsight of the data LLM" in page and "blind check passed" in page and "malformed" in page
