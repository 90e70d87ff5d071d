"""The token forest: right after any eviction, and no token read twice."""

import asyncio

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import puzzle, tiny_lm
from torch.nn import functional

from armap_lite.agent import Agent
from armap_lite.batching import Batcher
from armap_lite.envs.game24 import Game24
from armap_lite.episode import Episode
from armap_lite.llms import forest
from armap_lite.llms.forest import LogitForest
from armap_lite.llms.local import LocalLM

LM = tiny_lm()
LONG = 8  # tokens in a sequence of the property test

tokens = st.integers(10, 13)  # few different ones, so that sequences share beginnings
sequences = st.lists(tokens, min_size=1, max_size=LONG)
rounds = st.lists(st.lists(sequences, min_size=1, max_size=4), min_size=1, max_size=5)


def plain(sequence: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return LM.model(torch.tensor([sequence]), use_cache=False).logits[0, -1].log_softmax(-1)


@settings(max_examples=60)
@given(rounds, st.integers(1, 4))
def test_any_tree_in_any_order_gives_what_a_plain_pass_gives(asked, pack):
    forest = LogitForest(LM.model, capacity=pack * LONG, pack=pack)  # less than the tree needs: tokens come and go
    for some in asked:
        nodes = {tuple(s): forest.add(s) for s in some}
        table = forest.logprobs(list(nodes.values()))
        for sequence, node in nodes.items():
            torch.testing.assert_close(table[node], plain(list(sequence)), atol=1e-4, rtol=0)
    held = [node for node in walk(forest.root) if node.slot >= 0]
    assert len({node.slot for node in held}) == len(held) <= forest.capacity


def walk(node):
    yield node
    for child in node.children.values():
        yield from walk(child)


@pytest.mark.slow
@settings(max_examples=40)
@given(rounds, st.integers(1, 8))
def test_with_room_each_token_is_read_once(asked, pack):
    forest = LogitForest(LM.model, capacity=1000, pack=pack)
    for some in asked:
        for sequence in some:
            forest.add(sequence)
    inner = [node for node in walk(forest.root) if node.parent and node.children]
    order = sorted(inner, key=lambda node: (len(node.path()) * 7) % 5)  # neither top down nor bottom up
    for node in order:
        forest.fill("logprob", [node])
    needed = {up for node in inner for up in node.path()}
    again = sum(node.slot >= 0 for node in inner)  # a token read before its own turn came is read for its logits
    assert len(needed) <= forest.tokens_computed <= len(needed) + again
    before = forest.tokens_computed
    forest.fill("logprob", inner)
    assert forest.tokens_computed == before
    together = LogitForest(LM.model, capacity=1000, pack=pack)
    twins = {}
    for node in inner:
        path = [up.token for up in node.path()]
        for child in node.children.values():
            together.add([*path, child.token])
        twins[node] = together.add(path)
    together.fill("logprob", twins.values())
    assert together.tokens_computed == len(needed)
    for node, twin in twins.items():
        for token, child in node.children.items():
            assert child.logprob == pytest.approx(twin.children[token].logprob, abs=1e-4)


def test_an_episode_costs_its_new_tokens_only():
    """Prompts as the agent makes them, several walks through one puzzle: what is computed are the distinct prefixes."""
    lm = tiny_lm()
    agent, episode = Agent(lm, Game24()), Episode(Game24(), puzzle(1, 4, 8, 8))
    prefixes: set[tuple[int, ...]] = set()
    for picks in ((0, 0, 0), (5, 1, 2), (0, 3, 1), (0, 0, 0)):
        state = episode.start()
        for pick in picks:
            prompt = agent.prompt(state.trajectory)
            lm.choose([prompt], [state.admissible], 1, seeds=[0])
            head = [lm.lines.start, *lm.lines(prompt)]
            for action in state.admissible:
                path = [*head, *lm.lines(action)]  # the newline after it is only predicted
                prefixes |= {tuple(path[:i]) for i in range(1, len(path) + 1)}
            assert lm.forest.tokens_computed == len(prefixes)
            state = episode.step(state, state.admissible[pick])


def test_prompts_of_one_batch_share_their_head_and_it_is_read_once():
    lm = tiny_lm()
    head = "Use the numbers 1 4 8 8 to obtain 24.\n" * 5
    lm.choose([head + "8\n", head + "4\n", head + "8\n"], [["1", "2"]] * 3, None)
    size = 1 + len(lm.lines(head))
    assert lm.forest.tokens_computed == size + sum(len(lm.lines(t)) for t in ("8\n", "4\n")) + 2 * 2
    lm.reset()
    lm.forest.tokens_computed = 0
    lm.generate([head], 4, max_tokens=1, seeds=[0])
    assert lm.forest.tokens_computed == size


def test_a_text_longer_than_one_pass_is_read_in_several():
    forest = LogitForest(LM.model, capacity=200, pack=7)
    sequence = [10 + i * i % 13 for i in range(100)]
    early, late = forest.add(sequence[:60]), forest.add(sequence)
    table = forest.logprobs([late, early])
    torch.testing.assert_close(table[late], plain(sequence), atol=1e-4, rtol=0)
    torch.testing.assert_close(table[early], plain(sequence[:60]), atol=1e-4, rtol=0)
    assert forest.tokens_computed == 100


def test_what_was_dropped_is_read_again_and_nothing_else():
    forest = LogitForest(LM.model, capacity=40, pack=40)
    head = [10, 11, 12, 13] * 4
    first, second = forest.add([*head, *[20] * 20]), forest.add([*head, *[21] * 20])
    before = forest.logprobs([first])[first]
    forest.logprobs([second])  # 16 + 20 + 20 > 40: some of the first's own tail goes, deepest first; the head stays
    assert all(node.slot >= 0 for node in first.path()[:16]) and first.slot < 0
    lost = sum(node.slot < 0 for node in first.path())
    assert forest.tokens_computed == 16 + 20 + 20
    torch.testing.assert_close(forest.logprobs([first])[first], before, atol=1e-4, rtol=0)
    assert forest.tokens_computed == 16 + 20 + 20 + lost


def test_a_pool_too_small_is_a_clear_error_and_leaves_the_forest_usable():
    forest = LogitForest(LM.model, capacity=30, pack=10)
    short = forest.add([10, 11, 12])
    before = forest.logprobs([short])[short]
    long = forest.add([12] * 31)
    with pytest.raises(ValueError, match="pool holds 30 tokens, and one pass needs more: raise `capacity`"):
        forest.logprobs([long])
    torch.testing.assert_close(forest.logprobs([short])[short], before, atol=1e-4, rtol=0)
    fits = forest.add([12] * 30)
    torch.testing.assert_close(forest.logprobs([fits])[fits], plain([12] * 30), atol=1e-4, rtol=0)


def test_clear_forgets_everything():
    lm = tiny_lm()
    first = lm.choose(["Use\n"], [["a", "b"]], None)
    cost = lm.forest.tokens_computed
    lm.choose(["Use\n"], [["a", "b"]], None)
    assert lm.forest.tokens_computed == cost
    lm.reset()
    assert lm.choose(["Use\n"], [["a", "b"]], None) == first
    assert lm.forest.tokens_computed == 2 * cost
    assert sum(node.slot >= 0 for node in walk(lm.forest.root)) == cost


def test_prompts_that_do_not_fit_the_pool_together_are_read_in_turns():
    forest = LogitForest(LM.model, capacity=30, pack=100)
    texts = [[10 + k] * 20 for k in range(3)]
    some = [forest.add(text) for text in texts]
    found = forest.logprobs([*some, some[0].parent])
    for text, node in zip(texts, some):
        torch.testing.assert_close(found[node], plain(text), atol=1e-4, rtol=0)
    forest.clear()
    head = forest.add([14] * 20)  # in the pool already, and needed by all that follow
    forest.logprobs([head])
    tails = [forest.add([k] * 6, head) for k in range(4)]
    found = forest.logprobs(tails)
    for k, node in enumerate(tails):
        torch.testing.assert_close(found[node], plain([14] * 20 + [k] * 6), atol=1e-4, rtol=0)


@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention_of_long_bf16_passes_rounds_about_as_pytorchs(scale):
    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).bfloat16()

    query, keys, values = random(3, 300, 16), random(3, 500, 16), random(3, 500, 8)
    mask = torch.where(random(300, 500) > 0, 0.0, torch.finfo(torch.bfloat16).min).bfloat16()
    exact = functional.scaled_dot_product_attention(
        query.double(), keys.double(), values.double(), mask.double(), scale=scale
    )
    usual = functional.scaled_dot_product_attention(query, keys, values, mask, scale=scale)
    ours = forest._attend(query, keys, values, mask, scale)
    assert ours.dtype == torch.bfloat16
    assert (ours - exact).abs().mean() <= 2.5 * (usual - exact).abs().mean()
    assert torch.get_float32_matmul_precision() == "highest"


@settings(max_examples=40)
@given(st.lists(sequences, min_size=1, max_size=12))
def test_a_pass_is_cut_where_that_costs_least(some):
    tree = LogitForest(LM.model, capacity=200, pack=200)
    for sequence in some:
        tree.add(sequence)
    batch = [node for node in walk(tree.root) if node.parent]

    def cost(parts: list[list]) -> int:
        return sum(len({up for node in part for up in node.path()}) * (len(part) + forest.GATHER) + 5 for part in parts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forest, "GATHER", 1)
        patch.setitem(forest.BLOCK, "cpu", 5)
        groups = tree._groups(batch)
        parts = [batch[group.start :][: len(group.paths)] for group in groups]
        assert [node for part in parts for node in part] == batch
        for part, group in zip(parts, groups):
            assert set(group.columns) == {up for node in part for up in node.path()}
            names = list(group.columns)
            assert [[names[c] for c in path] for path in group.paths] == [node.path() for node in part]
        least = [0, *[10**9] * len(batch)]
        for end in range(len(batch)):
            for start in range(end + 1):
                least[end + 1] = min(least[end + 1], least[start] + cost([batch[start : end + 1]]))
        assert cost(parts) == least[-1]
        patch.setattr(forest, "CUTS", 3)
        coarse = tree._groups(batch)
        assert len(coarse) <= 3
        assert [len(group.paths) for group in coarse] == np.diff([*(g.start for g in coarse), len(batch)]).tolist()


def test_walks_that_the_pool_does_not_hold_together_are_not_read_anew_at_each_step():
    async def walk(batch: Batcher, k: int) -> str:
        text = f"Corridor {k}.\n"
        for step in range(24):
            [choice] = await batch.choose(text, ["open the left door", "open the right door"], 1, 1.0, 100 * k + step)
            text += f"{choice.text}\n"
        return text

    async def walks(lm: LocalLM) -> list[str]:
        batch = Batcher(lm)
        return await asyncio.gather(*(walk(batch, k) for k in range(8)))

    roomy, small = tiny_lm(), tiny_lm(capacity=1500)
    assert asyncio.run(walks(small)) == asyncio.run(walks(roomy))
    assert small.forest.tokens_computed < 1.5 * roomy.forest.tokens_computed  # else 3.6 times as many


def test_texts_that_the_pool_does_not_hold_together_are_written_one_part_after_the_other():
    prompts = [f"Puzzle {k}: {'8 * 4 = 32; ' * 8}" for k in range(10)]
    roomy, small = tiny_lm(), tiny_lm(capacity=600)
    written = [lm.generate(prompts, 2, max_tokens=12, stop="", seeds=range(10)) for lm in (roomy, small)]
    assert written[0] == written[1]
    assert small.forest.tokens_computed < 1.2 * roomy.forest.tokens_computed
    assert small.fits(prompts, 24) < len(prompts) == roomy.fits(prompts, 24) and small.fits(["long " * 900]) == 1
