"""What the exercises of 04 · Train the reward model ask for."""

import math
import random
from types import SimpleNamespace
from typing import Any

import torch

from armap_lite.course import exercise, puzzle, toy_reward
from armap_lite.course.answers import equal, expect, numbers, replayable
from armap_lite.envs.game24 import Game24


def rewards_of_pairs(rng: random.Random) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The rewards of both sides of six pairs, one of them a tie."""
    chosen = [round(rng.uniform(-2, 3), 1) for _ in range(6)]
    rejected = [round(plus - rng.choice((-2.0, -0.4, 0.1, 0.6, 3.0)), 1) for plus in chosen]
    at = rng.randrange(6)
    rejected[at] = chosen[at]
    return tuple(chosen), tuple(rejected)


@exercise("04-1", ((2.0, 0.5, -1.0, 3.0, 0.0, 1.5), (1.0, 0.7, -3.0, -2.0, 0.0, 1.4)), rewards_of_pairs)
def accuracy(answer: Any, given: Any) -> None:
    """one number: the share of the six pairs that this model puts in the right order"""
    good = not isinstance(answer, (str, bytes)) and 0 <= float(answer) <= 1
    expect(good, f"Expected a share between 0 and 1, found {answer!r}.")
    margins = [round(plus - minus, 1) for plus, minus in zip(*given)]
    ties = sum(margin >= 0 for margin in margins) / 6
    expect(not math.isclose(float(answer), ties), "The pair with equal rewards is not in the right order: a tie.")
    right = sum(margin > 0 for margin in margins) / 6
    numbers([answer], {f"Margins {', '.join(map(str, margins))}; the share above 0": right})


@exercise("04-2")
def pair_loss(answer: Any) -> None:
    """`pair_loss(chosen, rejected)`: the mean of -log sigmoid(chosen - rejected), for two tensors [B]"""
    for margin in (-4.0, -0.5, 0.0, 1.0, 3.0):
        m = torch.tensor([margin])
        equal(answer(m, torch.zeros(1)), math.log1p(math.exp(-margin)), f"One pair with margin {margin:+g}")
        equal(answer(m + 7, torch.full((1,), 7.0)), math.log1p(math.exp(-margin)), f"Margin {margin:+g}, both 7 higher")
    batch = answer(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0]))
    equal(batch, (math.log1p(math.exp(-1)) + math.log1p(math.exp(2))) / 2, "Margins 1 and -2: the mean of two losses")
    steep = answer(torch.tensor([-900.0]), torch.tensor([100.0]))
    equal(steep, 1000.0, "Margin -1000 (log of a sigmoid that became 0?)")
    chosen = torch.zeros(3, requires_grad=True)
    loss = answer(chosen, torch.tensor([0.0, 1.0, -1.0]))
    learns = isinstance(loss, torch.Tensor) and loss.requires_grad
    expect(learns, "The loss has no gradient: use torch functions alone, not `.item()`, `float` or `math`.")
    loss.backward()
    slopes = [-float(torch.sigmoid(-m)) / 3 for m in torch.tensor([0.0, -1.0, 1.0])]
    equal([float(g) for g in chosen.grad], slopes, "The gradient of the rewards of chosen")  # type: ignore[union-attr]


@exercise("04-3")
def last_token(answer: Any, cases: Any) -> None:
    """`last_token(attention_mask)`: for each row of the mask [B, T] the position of its last 1, as a tensor [B]"""
    for case, (row, wanted) in cases.items():
        found = answer(torch.tensor([row]))
        kind = f"a {type(found).__name__}: {found!r}"
        expect(tuple(getattr(found, "shape", ())) == (1,), f"Expected a tensor of shape [1], found {kind}.")
        equal(found.tolist(), [wanted], f"{row}, {case}")
    rows, places = zip(*cases.values())
    equal(answer(torch.tensor(rows)).tolist(), places, "The same five rows as one batch")


class TaskId(str):
    """A text with another place in a set each time Python starts, as all texts have; here, when `salt` changes."""

    salt = 0

    def __hash__(self) -> int:
        return hash((TaskId.salt, str(self)))


@exercise("04-4")
def split(answer: Any) -> None:
    """`split(pairs, share, rng)`: (to learn from, held out), with `share` of the tasks held out with all their pairs"""
    sizes = random.Random(0)
    ids = [TaskId(f"t{t}") for t in range(20)]
    pairs = [SimpleNamespace(task_id=id, id=f"{id}/{i}") for id in ids for i in range(sizes.randint(1, 9))]
    sizes.shuffle(pairs)
    drawn = set()
    for share, seed in ((0.2, 0), (0.21, 1), (0.33, 2), (0.5, 3)):
        random.seed(seed)
        learn, aside = answer(list(pairs), share, random.Random(seed))
        equal(sorted(p.id for p in [*learn, *aside]), sorted(p.id for p in pairs), "All pairs together, each once")
        held = {p.task_id for p in aside}
        both = sorted(held & {p.task_id for p in learn})
        expect(not both, f"{len(both)} tasks have pairs on both sides, {both[:3]} for example: expected none.")
        equal(len(held), round(share * 20), f"share = {share} of 20 tasks: tasks held out")
        drawn.add(frozenset(map(str, held)))
        faults = {
            0: "The same `rng` twice gave two splits: draw with `rng` alone, not with `random`.",
            1: "The same `rng` held out other tasks when Python kept its set in another order: sort the tasks first.",
        }
        for salt, fault in faults.items():
            TaskId.salt += salt
            again = answer(list(pairs), share, random.Random(seed))[1]
            expect({p.id for p in again} == {p.id for p in aside}, fault)
    expect(len(drawn) == 4, "Two different rng gave the same tasks: draw them with `rng`.")


@exercise("04-5")
def fool(answer: Any, cases: Any) -> None:
    """`fool(env, right, reward)`: a finished trajectory of `right.task` that ends elsewhere and has a higher reward"""
    env, (reward, _) = Game24(), toy_reward()
    for case, (four, actions) in cases.items():
        right = env.replay(puzzle(*four), actions)
        found = answer(Game24(), right, reward)
        replayable(found, env, right.task, case)
        solved = found.steps[-1].observation == "left: 24"
        expect(not solved, f"{case}: {found.actions} is right, so nobody is fooled.")
        high, low = reward(found), reward(right)
        expect(high > low, f"{case}: {found.actions} has the reward {high:.2f}; expected more than {low:.2f}.")
