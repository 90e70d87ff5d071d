"""What the exercises of 04 · Train the reward model ask for."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace
from typing import Any

import torch

from armap_lite.course import equal, exercise, expect, puzzle, toy_reward
from armap_lite.envs.game24 import Game24
from armap_lite.trajectory import Trajectory


@exercise(
    "04-1", 1, "section 3: the margin is chosen less rejected; only a margin above 0 is a pair in the right order"
)
def accuracy(answer: Any) -> str:
    """one number: the share of the six pairs that this model puts in the right order"""
    good = not isinstance(answer, (str, bytes)) and 0 <= float(answer) <= 1
    expect(good, f"Expected a share between 0 and 1, found {answer!r}.")
    expect(not math.isclose(float(answer), 5 / 6), "The pair with equal rewards is not in the right order: a tie.")
    equal(answer, 4 / 6, "Margins 1.0, -0.2, 2.0, 5.0, 0.0, 0.1; the share above 0", reveal=False)
    return "The margin of 5 counts no more than that of 0.1: accuracy sees the order, the loss sees the size too."


@exercise(
    "04-2", 2, "the formula in section 3; `torch.nn.functional.logsigmoid` is exact where `log(sigmoid(m))` is not"
)
def pair_loss(answer: Any) -> str:
    """`pair_loss(chosen, rejected)`: the mean of -log sigmoid(chosen - rejected), for two tensors [B]"""
    for margin in (-4.0, -0.5, 0.0, 1.0, 3.0):
        m = torch.tensor([margin])
        equal(answer(m, torch.zeros(1)), math.log1p(math.exp(-margin)), f"One pair with margin {margin:+g}")
        equal(answer(m + 7, torch.full((1,), 7.0)), math.log1p(math.exp(-margin)), f"Margin {margin:+g}, both 7 higher")
    batch = answer(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0]))
    equal(batch, (math.log1p(math.exp(-1)) + math.log1p(math.exp(2))) / 2, "Margins 1 and -2: the mean of two losses")
    equal(
        answer(torch.tensor([-900.0]), torch.tensor([100.0])), 1000.0, "Margin -1000 (log of a sigmoid that became 0?)"
    )
    chosen = torch.zeros(3, requires_grad=True)
    loss = answer(chosen, torch.tensor([0.0, 1.0, -1.0]))
    learns = isinstance(loss, torch.Tensor) and loss.requires_grad
    expect(learns, "The loss has no gradient: use torch functions alone, not `.item()`, `float` or `math`.")
    loss.backward()
    slopes = [-float(torch.sigmoid(-m)) / 3 for m in torch.tensor([0.0, -1.0, 1.0])]
    equal([float(g) for g in chosen.grad], slopes, "The gradient of the rewards of chosen")  # type: ignore[union-attr]
    return "Its pull is strongest on pairs in the wrong order, and never quite 0."


@exercise("04-3", 2, "the two masks in section 2, and what is printed below them")
def last_token(answer: Any) -> str:
    """`last_token(attention_mask)`: for each row of the mask [B, T] the position of its last 1, as a tensor [B]"""
    rows = {
        "padded on the right": ([1, 1, 1, 0, 0], 2),
        "padded on the left": ([0, 0, 1, 1, 1], 4),
        "padded on both sides": ([0, 1, 1, 1, 0], 3),
        "a single token at the front": ([1, 0, 0, 0, 0], 0),
        "no padding": ([1, 1, 1, 1, 1], 4),
    }
    for case, (row, wanted) in rows.items():
        found = answer(torch.tensor([row]))
        kind = f"a {type(found).__name__}: {found!r}"
        expect(tuple(getattr(found, "shape", ())) == (1,), f"Expected a tensor of shape [1], found {kind}.")
        equal(found.tolist(), [wanted], f"{row}, {case}")
    together = answer(torch.tensor([row for row, _ in rows.values()]))
    equal(together.tolist(), [wanted for _, wanted in rows.values()], "The same five rows as one batch")
    return "Whoever takes position -1 instead asks a padding token for its opinion of the trajectory."


@exercise("04-4", 2, "section 4: draw *tasks*, then let every pair go where its `task_id` goes")
def split(answer: Any) -> str:
    """`split(pairs, share, rng)`: (to learn from, held out), with `share` of the tasks held out with all their pairs"""
    sizes = random.Random(0)
    pairs = [SimpleNamespace(task_id=f"t{t}", id=f"t{t}/{i}") for t in range(20) for i in range(sizes.randint(1, 9))]
    sizes.shuffle(pairs)
    drawn = set()
    for share, seed in ((0.2, 0), (0.2, 1), (0.33, 2), (0.5, 3)):
        learn, aside = answer(list(pairs), share, random.Random(seed))
        equal(sorted(p.id for p in [*learn, *aside]), sorted(p.id for p in pairs), "All pairs together, each once")
        held = {p.task_id for p in aside}
        both = sorted(held & {p.task_id for p in learn})
        expect(not both, f"{len(both)} tasks have pairs on both sides, {both[:3]} for example: expected none.")
        equal(len(held), round(share * 20), f"share = {share} of 20 tasks: tasks held out")
        drawn.add(frozenset(held))
    expect(len(drawn) == 4, "Two different rng gave the same tasks: draw them with `rng`.")
    return "A model that knows a task's numbers by heart can no longer pass for one that reads."


@exercise("04-5", 3, "a target that comes up twice on the way, and is left again; there are few walks: try them all")
def fool(answer: Any) -> str:
    """`fool(env, right, reward)`: a finished trajectory of `right.task` that ends elsewhere and has a higher reward"""
    reward, _ = toy_reward()
    env, cases = Game24(), {
        (1, 1, 4, 6): ("4 * 1 = 4", "6 * 1 = 6", "6 * 4 = 24"),
        (3, 3, 8, 8): ("8 / 3 = 8/3", "3 - 8/3 = 1/3", "8 / 1/3 = 24"),
        (1, 1, 3, 8): ("3 * 1 = 3", "8 * 1 = 8", "8 * 3 = 24"),
    }  # fmt: skip
    for numbers, actions in cases.items():
        right = env.replay(puzzle(*numbers), actions)
        found = answer(Game24(), right, reward)
        expect(isinstance(found, Trajectory), f"{numbers}: expected a Trajectory, found {found!r}.")
        equal(found, env.replay(right.task, found.actions), f"{numbers}: what its actions really lead to")
        expect(found.done, f"{numbers}: {found.actions} is not finished.")
        end = found.steps[-1].observation
        expect(end != "left: 24", f"{numbers}: {found.actions} is right, so nobody is fooled.")
        high, low = reward(found), reward(right)
        expect(high > low, f"{numbers}: {found.actions} has the reward {high:.2f}; expected more than {low:.2f}.")
    return (
        "All held-out pairs in the right order, and fooled all the same: a search will find what training never showed."
    )
