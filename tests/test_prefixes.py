"""Training that computes common beginnings and frozen layers once: the same rewards and gradients as whole texts."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_training import CONFIG, CPU, toy_pairs
from tiny import seeded, tiny_config, tiny_network
from torch import nn
from transformers import LlamaModel, MistralConfig, MistralModel

from armap_lite.llms import prefixes
from armap_lite.llms.prefixes import PrefixTrees, SharedForward, num_frozen, shared_forward
from armap_lite.reward.config import RewardConfig
from armap_lite.reward.data import PairDataModule
from armap_lite.reward.model import RewardNetwork
from armap_lite.reward.training import pairwise_loss, train

KINDS = {"top:1": 2, "top:2": 1, "lora:4": 0, "all": 0}  # of 3 layers, and how many of them are frozen


def texts_of(data: PairDataModule) -> list[tuple[int, ...]]:
    return [tuple(side) for pair in (*data.train_tokens, *data.val_tokens) for side in pair]


def learn(network: Any, forward: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Rewards of a batch, and the gradients of its loss by name."""
    network.zero_grad()
    rewards = forward(**batch)
    pairwise_loss(*rewards.chunk(2), 1e-3).backward()
    return rewards.detach(), {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kept_bytes", [prefixes.KEPT_BYTES, 0])
@pytest.mark.parametrize("kind", KINDS)
def test_rewards_and_gradients_are_those_of_whole_texts(kind: str, kept_bytes: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prefixes, "KEPT_BYTES", kept_bytes)
    network, tokenizer = tiny_network(0, trainable=kind, num_layers=3)
    pairs = toy_pairs(12)
    data = PairDataModule([*pairs, *pairs[:4]], tokenizer, batch_size=4, epochs=2)  # some pairs come twice
    shared = SharedForward(network.train(), texts_of(data))
    assert len(shared.frozen) == (KINDS[kind] if kept_bytes else 0)
    for batch in data.train_dataloader():
        (expected, plain), (rewards, found) = (learn(network, forward, batch) for forward in (network, shared))
        assert torch.allclose(rewards, expected, rtol=0, atol=1e-5)
        assert found.keys() == plain.keys()
        for name, gradient in plain.items():
            assert torch.allclose(found[name], gradient, rtol=0, atol=1e-4 * float(gradient.abs().max())), name


def test_frozen_layers_see_each_token_once_in_all_epochs_and_validations(tmp_path: Path):
    network, tokenizer = tiny_network(0, num_layers=3, trainable="top:1")
    seen = []
    network.backbone.layers[1].mlp.register_forward_pre_hook(
        lambda module, args: seen.append(args[0].shape[:-1].numel())
    )
    config = dataclasses.replace(CONFIG, epochs=2)
    train(toy_pairs(10), tmp_path / "model", training=config, seed=1, network=(network, tokenizer), **CPU)
    data = PairDataModule(toy_pairs(10), tokenizer, seed=1)
    sides = ({tuple(side) for pair in part for side in pair} for part in (data.train_tokens, data.val_tokens))
    nodes = len(PrefixTrees(*sides).tokens)
    attended = sum(map(len, texts_of(data)))
    assert nodes <= sum(seen) < nodes + 100 < attended  # 100: the trial before it


def test_what_learns_or_changes_by_chance_is_not_kept():
    network, _ = tiny_network(0, num_layers=3, trainable="top:1")
    every = list(network.backbone.layers)
    assert num_frozen(network.backbone, every) == 2
    network.backbone.get_input_embeddings().requires_grad_(True)
    assert num_frozen(network.backbone, every) == 0  # all layers depend on it
    network.backbone.get_input_embeddings().requires_grad_(False)
    every[0].mlp.down_proj.weight.requires_grad_(True)
    assert num_frozen(network.backbone, every) == 0


def refused(kind: str) -> RewardNetwork:
    config = tiny_config()
    if kind == "window":
        shape = {k: v for k, v in config.to_dict().items() if k in MistralConfig().to_dict()}
        backbone: Any = MistralModel(MistralConfig(**shape | {"sliding_window": 3}))
    else:
        backbone = LlamaModel(config)
        if kind == "dropout":
            backbone.layers[0].mlp = nn.Sequential(backbone.layers[0].mlp, nn.Dropout(0.5))
        if kind == "looks ahead":
            backbone.layers[-1].mlp.register_forward_pre_hook(lambda module, args: (args[0] + args[0].mean(1),))
    return RewardNetwork(backbone, RewardConfig(backbone=kind, num_layers=3, trainable="top:1"))


@pytest.mark.parametrize("kind", ["window", "dropout", "looks ahead"])
def test_a_backbone_that_would_compute_something_else_trains_on_whole_texts(kind: str, capsys: pytest.CaptureFixture):
    network = seeded(0, lambda: refused(kind)).train()
    state = torch.random.get_rng_state()
    assert shared_forward(network, [(3, 4, 5)]) is None
    assert torch.equal(torch.random.get_rng_state(), state)
    assert f"{kind}: " in capsys.readouterr().err


def test_a_plain_backbone_is_accepted_and_left_as_it_was():
    network, _ = tiny_network(0, num_layers=3)
    shared = shared_forward(network.train(), [(3, 4, 5), (3, 4, 6)])
    assert shared is not None
    ids = torch.tensor([[3, 4, 5], [3, 4, 6]])
    shared(ids, torch.ones_like(ids))
    assert not any("forward" in vars(module) for module in network.modules())
    assert network.backbone.config._attn_implementation == "sdpa"


some_texts = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=9).map(tuple), min_size=1, max_size=20)


@given(some_texts, st.integers(0, 20))
def test_nodes_are_shared_by_equal_beginnings_only(texts: list[tuple[int, ...]], first: int):
    trees = PrefixTrees(texts[:first], texts[first:])
    assert all(len({text in texts[:first] for text in block}) == 1 for block in trees.blocks)  # of one part
    assert sorted(text for block in trees.blocks for text in block) == sorted(set(texts))
    for text in texts:
        path = trees.paths[text]
        assert trees.tokens[path].tolist() == list(text)
        assert trees.depths[path].tolist() == list(range(len(text)))
    for one, other in itertools.combinations(set(texts), 2):
        same = sum(1 for _ in itertools.takewhile(lambda both: both[0] == both[1], zip(one, other)))
        common = set(trees.paths[one].tolist()) & set(trees.paths[other].tolist())
        assert common in (set(), set(trees.paths[one][:same].tolist()))
    batch = trees.batch(texts)
    assert trees.tokens[batch.nodes][batch.ends].tolist() == [text[-1] for text in texts]
    sees = torch.zeros(len(batch.nodes), len(batch.nodes), dtype=torch.bool)  # [N, N]
    for place, mask in batch.trees:
        sees[place, place] = mask
    for end, text in zip(batch.ends.tolist(), texts):
        assert batch.nodes[sees[end]].tolist() == trees.paths[text].tolist()  # its ancestors, and nothing else
