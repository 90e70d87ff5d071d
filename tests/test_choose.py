"""`choose` and `generate` of `LocalLM`: what they promise, against plain forward passes of the same model."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_lm, tiny_tokenizer
from transformers import LlamaForCausalLM

from armap_lite import llms
from armap_lite.agent import Agent
from armap_lite.envs.game24 import Game24
from armap_lite.llms.local import LocalLM

LM = tiny_lm()
NEVER = "<never>"  # a stop that does not come

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["", "8 * 3 = 24", "8 * 3", "8", "ü\u2028ü", "a\nb", " ", "24 24 24"]
)
prompts = st.lists(texts, max_size=4).map("\n".join)
option_lists = (
    st.lists(texts, min_size=1, max_size=4)
    .flatmap(lambda some: st.lists(st.sampled_from(some), max_size=2).map(lambda again: [*some, *again]))  # duplicates
    .flatmap(lambda some: st.integers(0, 5).map(lambda k: [*some, some[0][:k], some[0] + "1"]))  # prefixes
)
questions = st.lists(st.tuples(prompts, option_lists, st.integers(0, 9)), min_size=1, max_size=4)


def brute_force(lm: LocalLM, prompt: str, options: list[str], temperature: float = 1.0) -> np.ndarray:
    """The definition, string by string: one plain forward pass for each, no cache, no batch."""
    head = [lm.lines.start, *lm.lines(prompt)]
    logp = []
    for option in options:
        tail = [*lm.lines(option), lm.lines.newline]
        with torch.inference_mode():
            table = lm.model(torch.tensor([head + tail]), use_cache=False).logits[0].double().log_softmax(-1)
        logp.append(sum(float(table[len(head) - 1 + i, token]) for i, token in enumerate(tail)))
    scaled = np.array(logp) / temperature - np.log([options.count(option) for option in options])  # equal ones share
    return scaled - np.logaddexp.reduce(scaled)


def logprobs(choices) -> list[float]:
    return [choice.logprob for choice in choices]


def ask(lm: LocalLM, items, n: int | None = None, temperature: float = 1.0):
    return lm.choose(*zip(*[item[:2] for item in items]), n, temperature=temperature, seeds=[i[2] for i in items])


@settings(max_examples=60)
@given(prompts, option_lists, st.sampled_from([0.5, 1.0, 2.0]))
def test_choose_is_the_models_own_distribution_given_the_admissible_strings(prompt, options, temperature):
    LM.reset()
    [choices] = LM.choose([prompt], [options], None, temperature=temperature)
    assert [(c.text, c.index) for c in choices] == [(option, i) for i, option in enumerate(options)]
    np.testing.assert_allclose(logprobs(choices), brute_force(LM, prompt, options, temperature), atol=1e-3)


@settings(max_examples=30)
@given(questions, questions)
def test_neither_batch_nor_cache_changes_an_answer(items, others):
    LM.reset()
    together = ask(LM, items)
    drawn = ask(LM, items, 5)
    LM.reset()
    ask(LM, others, 2)
    after_others = ask(LM, items)
    alone, drawn_alone, squeezed = [], [], []
    crowded = tiny_lm(capacity=120, pack=16)  # too small for what all items need: tokens are dropped and read again
    for item in reversed(items):
        LM.reset()
        alone += ask(LM, [item])
        drawn_alone += ask(LM, [item], 5)
        squeezed += ask(crowded, [item])
    for answers in (alone[::-1], after_others, squeezed[::-1]):
        for first, second in zip(together, answers, strict=True):
            assert [c.tokens for c in first] == [c.tokens for c in second]
            np.testing.assert_allclose(logprobs(first), logprobs(second), atol=1e-4)
    assert [[c.index for c in item] for item in drawn] == [[c.index for c in item] for item in drawn_alone[::-1]]


@given(prompts, prompts)
def test_text_is_tokenised_line_by_line_so_that_a_grown_prompt_keeps_its_tokens(text, more):
    assert LM.tokenizer.decode(LM.lines(text)) == text
    head = LM.lines(text + "\n")
    assert LM.lines(f"{text}\n{more}")[: len(head)] == head


def test_temperature_zero_takes_the_most_probable_choice_and_the_first_of_equals():
    options = ["8 * 3 = 24", "8 - 3 = 5", "b", "b"]
    for prompt in ("x\n", "y\n", "Use the numbers 1 4 8 8\n"):
        [warm] = LM.choose([prompt], [options], None)
        [cold] = LM.choose([prompt], [options], None, temperature=0)
        top = int(np.argmax(logprobs(warm)))
        assert logprobs(cold) == [0.0 if i == top else -np.inf for i in range(len(options))]
        assert [c.index for c in LM.choose([prompt], [options], 3, temperature=0, seeds=[1])[0]] == [top] * 3
    [cold] = LM.choose(["x\n"], [["b", "b"]], None, temperature=0)
    assert logprobs(cold) == [0.0, -np.inf]


def test_draws_come_as_often_as_their_logprob_says():
    options = ["a", "ab", "8 * 3 = 24", "ü", "a"]
    for temperature in (0.5, 1.0, 3.0):
        [table] = LM.choose(["Use\n"], [options], None, temperature=temperature)
        [draws] = LM.choose(["Use\n"], [options], 4000, temperature=temperature, seeds=[7])
        p = np.exp(logprobs(table))
        assert p.sum() == pytest.approx(1)
        counts = np.bincount([c.index for c in draws], minlength=len(options))
        assert np.all(np.abs(counts - 4000 * p) <= 4 * np.sqrt(4000 * p * (1 - p)) + 1)
        assert {c.index: c.logprob for c in draws}.items() <= {c.index: c.logprob for c in table}.items()


def test_a_seed_belongs_to_its_item_wherever_it_stands():
    items = [(prompt, ["a", "b", "c", "ab"], seed) for prompt in ("x\n", "y\n") for seed in range(4)]
    expected = dict(zip(items_key(items), ask(LM, items, 6, 5.0)))
    for order in itertools.islice(itertools.permutations(items), 0, 5000, 997):
        assert dict(zip(items_key(order), ask(LM, order, 6, 5.0))) == expected
    assert len({tuple(c.index for c in expected["x\n", seed]) for seed in range(4)}) > 1


def items_key(items):
    return [(prompt, seed) for prompt, _, seed in items]


def test_tokens_are_what_the_call_reads_whatever_the_cache_holds():
    prompt, options = "Use\nthe numbers\n", ["8 * 3 = 24", "8 * 3", "8 * 3", "+"]
    paths = {tuple(p) for o in options for p in itertools.accumulate([[t] for t in tail(o)])}
    expected = 1 + len(LM.lines(prompt)) + len(paths)
    for _ in range(2):
        assert {c.tokens for c in LM.choose([prompt], [options], None)[0]} == {expected}


def tail(option: str) -> list[int]:
    return [*LM.lines(option), LM.lines.newline]


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="2 prompts but 1 lists of choices"):
        LM.choose(["a", "b"], [["c"]])
    with pytest.raises(ValueError, match="no choices for the prompt ending in 'b'"):
        LM.choose(["a", "b"], [["c"], []])
    assert LM.choose([], []) == [] and LM.generate([]) == []


# generate


def test_greedy_generation_is_that_of_transformers():
    for prompt in ("Use the numbers 1 4 8 8", "", "8 * 3 = 24\nü"):
        ids = torch.tensor([[LM.lines.start, *LM.lines(prompt)]])
        [[free]] = LM.generate([prompt], max_tokens=24, temperature=0, stop=NEVER)
        told = LM.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False)
        new = told[0, ids.shape[1] :].tolist()
        assert len(new) == 24  # no end of text by chance; the next test has one
        assert free.text == LM.tokenizer.decode(new, skip_special_tokens=True)
        assert free.tokens == ids.shape[1] + 24


def test_generation_ends_at_the_end_of_text():
    [[free]] = LM.generate(["Use"], max_tokens=12, temperature=0, stop=NEVER)
    ids = [LM.lines.start, *LM.lines("Use")]
    told = LM.model.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)[0, len(ids) :].tolist()
    end = next(t for i, t in enumerate(told) if i >= 3 and t not in told[:i])
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    assert tokenizer.eos_token_id == end
    [[cut]] = LocalLM(LM.model, tokenizer).generate(["Use"], max_tokens=12, temperature=0, stop=NEVER)
    place = told.index(end)
    assert cut.text == tokenizer.decode(told[:place]) and free.text.startswith(cut.text)
    assert cut.tokens == len(ids) + place


@pytest.mark.slow
@settings(max_examples=15)
@given(st.lists(st.tuples(prompts, st.integers(0, 9)), min_size=1, max_size=3), st.sampled_from([0.7, 1.5]))
def test_generation_alone_or_in_a_batch_is_the_same(items, temperature):
    options = {"max_tokens": 8, "temperature": temperature}
    LM.reset()
    together = LM.generate([p for p, _ in items], 2, seeds=[s for _, s in items], **options)
    crowded = tiny_lm(capacity=128, pack=8)
    for lm in (LM, crowded):
        for (prompt, seed), expected in zip(items, together):
            lm.reset()
            assert lm.generate([prompt], 2, seeds=[seed], **options) == [expected]
            assert lm.generate([prompt], 1, seeds=[seed], **options) == [expected[:1]]  # sample k depends on k alone


def test_each_sample_has_its_own_stream():
    [samples] = LM.generate(["Use"], 6, max_tokens=6, stop=NEVER, seeds=[3])
    assert len({s.text for s in samples}) == 6
    [[other]] = LM.generate(["Use"], 1, max_tokens=6, stop=NEVER, seeds=[4])
    assert other != samples[0]


@pytest.mark.parametrize("stop", ["\n", "t", "he", "1 4", "a"])
def test_a_completion_ends_before_the_first_stop(stop):
    head = "Use the numbers 1 4 8 8"
    [free] = LM.generate([head], 40, max_tokens=24, stop=NEVER, seeds=[5], temperature=1.2)
    [cut] = LM.generate([head], 40, max_tokens=24, stop=stop, seeds=[5], temperature=1.2)
    assert [c.text for c in cut] == [f.text.split(stop)[0] for f in free]
    stopped = [(c, f) for c, f in zip(cut, free) if stop in f.text]
    assert bool(stopped) == (stop != "1 4")
    late = [f.text.index(stop) + len(stop) + 3 >= len(f.text) for _, f in stopped]  # it came with the last token
    assert all(c.tokens < f.tokens or last for (c, f), last in zip(stopped, late))  # and no token is spent after it
    assert all(c == f for c, f in zip(cut, free) if stop not in f.text)


def test_generated_tokens_come_as_often_as_the_model_says():
    ids = [LM.lines.start, *LM.lines("Use")]
    with torch.inference_mode():
        p = (LM.model(torch.tensor([ids])).logits[0, -1].double() / 0.7).softmax(-1)
    [samples] = LM.generate(["Use"], 3000, max_tokens=1, temperature=0.7, stop=NEVER, seeds=[0])
    spelled = [LM.tokenizer.decode([t], skip_special_tokens=True) for t in range(len(p))]
    for text in {spelled[t] for t in p.topk(5).indices}:
        share = sum(float(p[t]) for t in range(len(p)) if spelled[t] == text)
        hits = sum(s.text == text for s in samples)
        assert abs(hits - 3000 * share) <= 4 * (3000 * share * (1 - share)) ** 0.5
    assert all(s.tokens == len(ids) + 1 or s.text == "" for s in samples)


# The embedded model, where the definition matters


@pytest.fixture(scope="module")
def smol() -> LocalLM:
    lm = llms.load("smollm2-135m-instruct", dtype="float32", device="cpu")
    assert isinstance(lm, LocalLM) and isinstance(lm.model, LlamaForCausalLM) and lm.model.dtype == torch.float32
    return lm


def test_choose_agrees_with_brute_force_on_the_embedded_model_and_real_states(smol):
    env = Game24()
    agent = Agent(smol, env, examples=1)
    task = env.tasks("test")[0]
    items = []
    for actions, stride in ((), 9), ((env.replay(task, ()) and first(env, task),), 5):
        trajectory = env.replay(task, actions)
        items.append((agent.prompt(trajectory), list(env.admissible()[::stride]), 0))
    together = ask(smol, items)
    for (prompt, options, _), choices in zip(items, together):
        assert len(options) >= 3
        np.testing.assert_allclose(logprobs(choices), brute_force(smol, prompt, options), atol=1e-3)
    smol.reset()
    alone = [ask(smol, [item])[0] for item in reversed(items)][::-1]
    for first_answer, second in zip(together, alone):
        np.testing.assert_allclose(logprobs(first_answer), logprobs(second), atol=1e-4)
    assert ask(smol, items, 8) == [ask(smol, [item], 8)[0] for item in items]


def first(env: Game24, task) -> str:
    return env.reset(task).admissible[0]


def token_by_token(lm: LocalLM, prompt: str, options: list[str], temperature: float = 1.0) -> np.ndarray:
    """The second definition, string by string: each token against those with which some option goes on."""
    head = [lm.lines.start, *lm.lines(prompt)]
    tails = [[*lm.lines(option), lm.lines.newline] for option in options]
    logp = []
    for tail in tails:
        with torch.inference_mode():
            table = lm.model(torch.tensor([head + tail]), use_cache=False).logits[0].double()
        total = 0.0
        for i, token in enumerate(tail):
            open_ = sorted({other[i] for other in tails if len(other) > i and other[:i] == tail[:i]})
            row = table[len(head) - 1 + i, open_] / temperature
            total += float(row.log_softmax(-1)[open_.index(token)])
        logp.append(total - np.log(tails.count(tail)))
    return np.array(logp)


@settings(max_examples=60)
@given(prompts, option_lists, st.sampled_from([0.5, 1.0, 2.0]))
def test_by_token_each_token_is_weighed_against_those_that_lead_on(prompt, options, temperature):
    options = [option.replace("\n", " ") for option in options]
    LM.reset()
    [choices] = LM.choose([prompt], [options], None, temperature=temperature, decoding="token")
    assert [c.text for c in choices] == options
    np.testing.assert_allclose(logprobs(choices), token_by_token(LM, prompt, options, temperature), atol=1e-3)
    assert sum(np.exp(logprobs(choices))) == pytest.approx(1.0)


def test_draws_by_token_follow_the_table_read_one_path_and_do_not_depend_on_the_batch():
    options = ["8 * 3 = 24", "8 * 4", "8 + 3", "2", "24 - 2", "2"]
    [table] = LM.choose(["Use\n"], [options], None, decoding="token")
    [draws] = LM.choose(["Use\n"], [options], 4000, seeds=[7], decoding="token")
    for text in set(options):
        expected = sum(np.exp(c.logprob) for c in table if c.text == text)
        assert sum(d.text == text for d in draws) / 4000 == pytest.approx(expected, abs=0.03)
    assert {d.index for d in draws} <= {0, 1, 2, 3, 4}, "of equal options the first stands for both"
    LM.reset()
    [[alone]] = LM.choose(["Use\n"], [options], 1, seeds=[3], decoding="token")
    LM.reset()
    together = LM.choose(["Go\n", "Use\n"], [["a", "b"], options], 1, seeds=[1, 3], decoding="token")
    assert [c.text for c in together[1]] == [alone.text]
    assert together[1][0].logprob == pytest.approx(alone.logprob, abs=1e-5)
    assert alone.tokens < table[0].tokens
    assert LM.choose(["Use\n"], [options], 2, temperature=0, seeds=[1], decoding="token")[0][0].logprob == 0.0
    with pytest.raises(ValueError, match="single lines"):
        LM.choose(["Use\n"], [["0\n1", "0"]], decoding="token")
    with pytest.raises(ValueError, match="decoding='word'"):
        LM.choose(["Use\n"], [options], decoding="word")


lines = st.lists(st.text("ab 8", max_size=5), min_size=1, max_size=8)
asked = st.lists(
    st.tuples(st.sampled_from(["", "x\n", "Use\n", "x\ny\n"]), lines, st.integers(0, 3)), min_size=1, max_size=4
)


def by_token(lm: LocalLM, items, n: int = 1, temperature: float = 1.5):
    prompts, options, seeds = zip(*items)
    rows = lm.choose(prompts, options, n, temperature=temperature, seeds=seeds, decoding="token")
    return [[(choice.index, choice.tokens) for choice in row] for row in rows]


@pytest.mark.slow
@settings(max_examples=40)
@given(st.lists(asked, min_size=1, max_size=4), st.sampled_from([1, 3]), st.sampled_from([0.0, 1.5]))
def test_guesses_do_not_change_what_is_drawn_by_token(rounds, n, temperature):
    guessing, plain = tiny_lm(pack=64), tiny_lm(pack=64)
    guessing.forest.spare, plain.forest.spare = 16, 0
    for items in rounds:  # from the second round on there is something to guess by
        found = by_token(guessing, items, n, temperature)
        assert found == by_token(plain, items, n, temperature)
        for (prompt, options, seed), row in zip(items, found):
            assert row == by_token(LM, [(prompt, options, seed)], n, temperature)[0]


def test_draws_by_token_take_their_numbers_as_numpys_choice_does():
    [table] = LM.choose(
        ["Use\n"], [["a", "b", "8", "ü"]], None, decoding="token"
    )  # one fork: a, b, 8 or ü's first byte
    p = np.exp(logprobs(table))
    rng = np.random.default_rng(5)
    expected = [int(rng.choice(4, p=p / p.sum())) for _ in range(50)]
    [draws] = LM.choose(["Use\n"], [["a", "b", "8", "ü"]], 50, seeds=[5], decoding="token")
    assert [choice.index for choice in draws] == expected


def passes_of(lm: LocalLM, items) -> int:
    before = lm.forest._tick
    by_token(lm, items)
    return lm.forest._tick - before


def test_a_prompt_like_one_before_is_answered_in_one_pass():
    options = ["aa", "ab", "ba", "bb", "8a", "8b"]
    lm, plain = tiny_lm(), tiny_lm()
    lm.forest.spare, plain.forest.spare = 64, 0
    assert passes_of(plain, [("Use\n", options, 1)]) == passes_of(lm, [("Use\n", options, 1)]) == 2
    again = [("x\nUse\n", options, 1)]
    assert (passes_of(lm, again), passes_of(plain, again)) == (1, 2)
    assert passes_of(lm, [("y\nUse\n", ["a"], 1)]) == 0  # one option: nothing is drawn
    lm.reset()
    assert passes_of(lm, [("x\nUse\n", options, 1)]) == 2


@pytest.mark.parametrize("room", range(6))
def test_guesses_never_need_more_room_than_the_draws(room):
    """The pool, and the texts that the model reads, end `room` tokens behind the prompt."""
    options = ["a", "b", "8abababab", "8babababa"]
    prompts = ["x" * 20 + "\n", "y" * 20 + "\n"]
    size = 1 + len(LM.lines(prompts[0]))
    lm, plain = tiny_lm(capacity=size + room, pack=64), tiny_lm(capacity=size + room, pack=64)
    lm.forest.spare, plain.forest.spare = 64, 0
    for prompt in prompts:
        for seed in range(8):
            outcomes = []
            for one in (plain, lm):
                try:
                    outcomes.append(by_token(one, [(prompt, options, seed)]))
                except ValueError as error:
                    outcomes.append(str(error))
            assert outcomes[0] == outcomes[1]
    assert lm.forest._tick <= plain.forest._tick
