"""Whatever the architecture, the engines say what the model's own forward pass says."""

import functools
from typing import Any

import numpy as np
import pytest
import torch
from architectures import SETTINGS, WINDOW, backbone, bert_config, causal_lm
from hypothesis import given, settings
from hypothesis import strategies as st
from test_choose import brute_force, logprobs, token_by_token
from tiny import puzzle, seeded, tiny_tokenizer
from transformers import BertModel

from armap_lite.llms.device import load_to
from armap_lite.llms.forest import Forest, LogitForest
from armap_lite.llms.local import LocalLM
from armap_lite.llms.plain import Plain
from armap_lite.reward.config import RewardConfig
from armap_lite.reward.data import pad
from armap_lite.reward.model import RewardNetwork
from armap_lite.reward.scorer import RewardModel
from armap_lite.trajectory import Step, Trajectory

PLAIN = {"gemma2", "bloom", "lfm2", "qwen3_next", "mamba2", "gpt_oss"}  # all others share prefixes
HEAD = "Solve this puzzle: use the numbers 1 4 8 8 to obtain 36.\n"
OPTIONS = ["8 * 4 = 32", "8 / 2 = 4", "8 * 4", "ü"]


@functools.cache
def policy(name: str) -> LocalLM:
    return LocalLM(causal_lm(name), tiny_tokenizer(), name=name, capacity=80, pack=48)


@pytest.mark.parametrize("name", SETTINGS)
def test_choose_and_generate_are_those_of_the_model(name: str):
    lm = policy(name)
    assert isinstance(lm.forest, Plain if name in PLAIN else Forest)
    assert len(lm.lines(HEAD)) > 2 * WINDOW
    prompts = [HEAD, HEAD + "8 * 4 = 32\n", HEAD + "8 * 4 = 32\n3 + 3 = 6\n6 * 4 = 24\n", "8 / 2 = 4\n" * 6, HEAD]
    for prompt in prompts:  # it grows, another one takes its place in the pool, and it comes back
        [by_string] = lm.choose([prompt], [OPTIONS], None)
        [by_token] = lm.choose([prompt], [OPTIONS], None, decoding="token")
        np.testing.assert_allclose(logprobs(by_string), brute_force(lm, prompt, OPTIONS), atol=1e-3)
        np.testing.assert_allclose(logprobs(by_token), token_by_token(lm, prompt, OPTIONS), atol=1e-3)
        assert np.ptp(logprobs(by_string)) > 0.1  # so that a wrong context would show
    together = lm.choose(prompts[:3], [OPTIONS] * 3, None)  # and in a batch
    for prompt, choices in zip(prompts, together):
        np.testing.assert_allclose(logprobs(choices), brute_force(lm, prompt, OPTIONS), atol=1e-3)
    assert name in PLAIN or dropped(lm.forest)
    written = lm.generate(prompts[:2], max_tokens=WINDOW + 2, temperature=0, stop="<never>")
    assert [text.text for [text] in written] == [greedy(lm, prompt, WINDOW + 2) for prompt in prompts[:2]]


def dropped(forest: Forest) -> bool:
    """Whether the pool could not hold all that was read."""
    nodes, some = 0, [forest.root]
    while some:
        node = some.pop()
        nodes += bool(node.parent and node.children)
        some += node.children.values()
    return nodes > forest.capacity


def greedy(lm: LocalLM, prompt: str, count: int) -> str:
    """Token by token, each from a forward pass of the whole text."""
    ids = [lm.lines.start, *lm.lines(prompt)]
    start = len(ids)
    for _ in range(count):
        with torch.inference_mode():
            ids.append(int(lm.model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        if ids[-1] == lm.tokenizer.eos_token_id:
            break
    return lm.tokenizer.decode(ids[start:], skip_special_tokens=True)


def walk(actions: list[str]) -> Trajectory:
    steps = tuple(Step(action, "left", show="never") for action in actions)
    return Trajectory(puzzle(1, 3, 4, 8), "left: 1 3 4 8", steps, True, show="never")


WALKS = [walk(["8 * 3 = 24"] * k) for k in (1, 2, 3)] + [walk(["1 + 3 = 4"] * 4), walk(["8 * 3 = 24"] * 4)]


@pytest.mark.parametrize("train", ["top:1", "lora:2"])
@pytest.mark.parametrize("name", SETTINGS)
def test_scores_are_those_of_the_plain_backbone(name: str, train: str):
    body = backbone(name)
    if name == "mamba2" and train == "lora:2":
        with pytest.raises(ValueError, match="trainable='lora:2' does not fit this backbone; use 'top:8' or 'all'"):
            RewardNetwork(body, RewardConfig(num_layers=2, trainable=train))
        return
    whole = len(list(body.parameters()))
    network = RewardNetwork(body, RewardConfig(num_layers=2, trainable=train))
    assert sum("lora" not in n for n, _ in network.backbone.named_parameters()) < whole  # it was cut
    learned = network.learned()
    assert {n.partition("layers.")[2][:2] for n in learned if "layers." in n} <= {"0.", "1."}
    if train == "lora:2":
        shaken = torch.Generator().manual_seed(1)
        for n, tensor in learned.items():
            if "lora_B" in n:
                tensor.normal_(std=0.3, generator=shaken)
        assert any("lora_B" in n for n in learned) and not any("embed" in n for n in learned)
    with torch.no_grad():
        network.head.weight.mul_(50)  # rewards of the size of 1
    model = RewardModel(network, tiny_tokenizer(), capacity=45, pack=32)
    assert isinstance(model.forest, Plain if name in PLAIN else Forest)
    for order in (WALKS, WALKS[::-1]):  # more tokens than the pool holds
        rows = [model.encode(t.task.instruction, t)[0] for t in order]
        assert max(map(len, rows)) > 4 * WINDOW
        expected = [by_definition(network, row) for row in rows]
        assert model.score([t.task.instruction for t in order], order) == pytest.approx(expected, abs=1e-3)
    assert name in PLAIN or dropped(model.forest)
    with torch.inference_mode():
        trained_as = network(**padded(rows)).tolist()
    assert trained_as == pytest.approx(expected, abs=1e-3)
    assert np.ptp(expected) > 0.1


def by_definition(network: RewardNetwork, row: list[int]) -> float:
    with torch.inference_mode():
        hidden = network.backbone(input_ids=torch.tensor([row]), use_cache=False).last_hidden_state
        return float(network.head(hidden[0, -1].float()))


def padded(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    return pad(rows, tiny_tokenizer().pad_token_id)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_backbone_that_reads_from_both_sides_scores_what_it_scores_alone(dtype: str, capsys: pytest.CaptureFixture):
    network = seeded(
        0, lambda: RewardNetwork(BertModel(bert_config()).eval(), RewardConfig(num_layers=2, trainable="top:1"))
    )
    network.head.weight.data.mul_(50)
    model = RewardModel(load_to("cpu", dtype, lambda _: network), tiny_tokenizer())
    assert model.forest is None
    assert dtype != "float32" or "BertModel reads text from both sides" in capsys.readouterr().err
    rows = [model.encode(t.task.instruction, t)[0] for t in WALKS]
    assert len({*map(len, rows)}) > 2
    expected = [by_definition(network, row) for row in rows]
    close = 1e-3 if dtype == "float32" else 0.05 * np.ptp(expected)
    assert model.score([t.task.instruction for t in WALKS], WALKS) == pytest.approx(expected, abs=close)
    model.reset()
    assert np.ptp(expected) > 0.1


# Windows, in any tree.

few = st.lists(st.lists(st.integers(10, 12), min_size=1, max_size=30), min_size=1, max_size=4)


@settings(max_examples=40)
@given(st.sampled_from(["mistral", "qwen2", "gemma3", "cohere2"]), st.lists(few, min_size=1, max_size=3), st.data())
def test_windows_in_any_tree(name: str, asked: list[list[list[int]]], data: Any):
    model = policy(name).model
    forest = LogitForest(model, capacity=data.draw(st.integers(30, 80)), pack=data.draw(st.integers(3, 40)))
    for some in asked:
        nodes = {tuple(s): forest.add(s) for s in some}
        table = forest.logprobs(list(nodes.values()))
        for sequence, node in nodes.items():
            with torch.inference_mode():
                expected = model(torch.tensor([sequence]), use_cache=False).logits[0, -1].log_softmax(-1)
            torch.testing.assert_close(table[node], expected, atol=1e-3, rtol=0)
