"""A finished sequence-classification reward model is used as it is."""

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_export import TEXTS, WALKS, saved
from tiny import seeded, tiny_config, tiny_folder, tiny_tokenizer
from tokenizers import processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Gemma3TextConfig,
    Gemma3TextForSequenceClassification,
    LlamaForSequenceClassification,
)

from armap_lite import reward
from armap_lite.exchange.export import export
from armap_lite.pipeline.run import Run
from armap_lite.trajectory import transcript

CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}<eos>{% endfor %}"


def classifier(folder: Path, kind: str = "llama", template: str | None = None, labels: int = 1) -> str:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    if kind == "llama":
        config = tiny_config(2)
        config.num_labels = labels
        model = seeded(3, lambda: LlamaForSequenceClassification(config))
    else:
        shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        size = {"vocab_size": len(tokenizer), "max_position_embeddings": 128, "initializer_range": 0.3}
        model = seeded(3, lambda: BertForSequenceClassification(BertConfig(**shape, **size, num_labels=labels)))
        ends = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<bos>", "<eos>")]
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing("<bos> $A <eos>", None, ends)
        tokenizer.bos_token = tokenizer.eos_token = None  # as BERT's: it knows only where its own marks go
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("kind", ["llama", "bert"])
@pytest.mark.parametrize("template", [None, CHAT], ids=["plain", "chat"])
def test_scores_are_those_of_the_model_itself(kind: str, template: str | None, tmp_path: Path):
    folder = classifier(tmp_path, kind, template)
    loaded = reward.load(folder)
    tokenizer, model = loaded.network.tokenizer, loaded.network.model
    expected, lengths = [], []
    for text, trajectory in zip(TEXTS, WALKS, strict=True):
        whole = transcript(trajectory, text)
        if template:
            asked, done = whole.split("\n", 1)
            whole = f"<user>{asked}<eos><assistant>{done.removesuffix(chr(10))}<eos>"
        ids = tokenizer(whole, add_special_tokens=not template)["input_ids"]
        lengths.append(len(ids))
        limit = 128 if kind == "bert" else 8192
        ids = ids if len(ids) <= limit else ids[:64] + ids[-64:]
        with torch.inference_mode():
            expected.append(model(torch.tensor([ids])).logits.item())
    assert loaded.score(TEXTS, WALKS) == pytest.approx(expected, abs=1e-4)
    assert loaded.score(TEXTS[::-1], WALKS[::-1]) == pytest.approx(expected[::-1], abs=1e-4)
    assert np.ptp(expected) > 1e-3
    cut = [loaded.encode(text, trajectory)[1] for text, trajectory in zip(TEXTS, WALKS)]
    assert cut == [kind == "bert" and length > 128 for length in lengths]
    assert max(lengths) > 128 > min(lengths)
    if kind == "llama":
        read = loaded.forest.tokens_computed
        loaded.score(TEXTS, WALKS)
        assert loaded.forest.tokens_computed == read  # prefixes are shared, as with a trained one


def test_one_that_reads_from_both_sides_is_run_as_a_whole(tmp_path: Path):
    """It has a linear head at the last token, as decoders have; its attention is not theirs."""
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    size = {"vocab_size": 340, "intermediate_size": 64, "head_dim": 8, "pad_token_id": 2, "initializer_range": 0.3}
    config = Gemma3TextConfig(**shape, **size, use_bidirectional_attention=True, num_labels=1)
    seeded(3, lambda: Gemma3TextForSequenceClassification(config)).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    loaded = reward.load(tmp_path)
    assert loaded.network.head is not None and loaded.forest is None
    rows = [loaded.encode(text, trajectory)[0] for text, trajectory in zip(TEXTS, WALKS)]
    with torch.inference_mode():
        expected = [loaded.network.model(torch.tensor([row])).logits.item() for row in rows]
    assert loaded.score(TEXTS, WALKS) == pytest.approx(expected, abs=1e-4)
    assert np.ptp(expected) > 1e-3


def test_an_exported_model_is_taken_back(tmp_path: Path):
    backbone = tiny_folder(tmp_path / "backbone")
    model = saved(tmp_path / "model", backbone=backbone, num_layers=2, trainable="lora:4", max_tokens=64)
    export(model, tmp_path / "out")
    kit, back = reward.load(model), reward.load(tmp_path / "out")
    assert [back.encode(x, t) for x, t in zip(TEXTS, WALKS)] == [kit.encode(x, t) for x, t in zip(TEXTS, WALKS)]
    assert back.score(TEXTS, WALKS) == pytest.approx(kit.score(TEXTS, WALKS), abs=1e-4)


def test_what_is_finished_and_what_is_not(tmp_path: Path):
    backbone = tiny_folder(tmp_path / "backbone")
    trained = saved(tmp_path / "model", backbone=backbone, num_layers=2, trainable="top:1")
    assert reward.is_finished(str(trained)) and reward.is_finished(classifier(tmp_path / "finished"))
    assert not reward.is_finished(backbone) and not reward.is_finished("smollm2-135m-instruct")
    with pytest.raises(ValueError, match="finished has 3 labels; a reward model has one"):
        reward.load(classifier(tmp_path / "finished", labels=3))
    with pytest.raises(FileNotFoundError, match="holds no reward model"):
        reward.load(backbone)


@pytest.mark.parametrize("kind", ["classifier", "bert", "ours"])
def test_a_run_uses_it_without_training(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    policy = tiny_folder(tmp_path / "policy", layers=1)
    if kind == "ours":
        spec = str(saved(tmp_path / "model", backbone=policy, num_layers=1, trainable="top:1"))
    else:
        spec = classifier(tmp_path / "finished", "bert" if kind == "bert" else "llama")
    sizes: dict[str, Any] = {"collect_tasks": 2, "samples": 2, "num_proposals": 1, "dev_tasks": 3, "test_tasks": 3}
    search = {"sampling": {}, "best_of_n": {"n": 2}, "mcts": {"rollouts": 2}}
    run = Run("game24", "fast", tmp_path / "run", policy=policy, reward=spec, planners=search, **sizes)
    with contextlib.closing(run.env):
        asyncio.run(run.plan())
        result = asyncio.run(run.evaluate())
        direct = reward.load(spec)
        plan = next(p for p in asyncio.run(run.plans()) if p.planner == "best_of_n")
    assert capsys.readouterr().err.count(f"{spec} is a finished reward model") == 1
    assert not run.path("reward_model").exists() and not run.path("trajectories.jsonl").exists()
    assert json.loads(run.path("training.json").read_text(encoding="utf-8"))["trained"] is False
    assert {row["reward_model"] for row in result["rows"] if row["planner"] == "best_of_n"} == {spec}
    [quality] = result["reward_model"]
    assert quality["baseline"] is None and 0 <= quality["pair_accuracy"] <= 1
    trajectories = [sample.trajectory for sample in plan.samples]
    expected = direct.score([t.task.instruction for t in trajectories], trajectories)
    assert [sample.reward for sample in plan.samples] == pytest.approx(expected, abs=1e-4)
