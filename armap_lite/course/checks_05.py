"""What the exercises of 05 · Plan ask for."""

from __future__ import annotations

import dataclasses
import math
import random
from typing import Any

from armap_lite.course import as_list, equal, exercise, expect, puzzle, random_trajectory
from armap_lite.course.toys import step_results
from armap_lite.envs.game24 import Game24
from armap_lite.planners.mcts import Node, select
from armap_lite.trajectory import Trajectory


@exercise("05-1", 1, "sections 3 and 4; attempts are counted from 0, and of equal rewards the first one counts")
def answers(answer: Any) -> str:
    """three numbers: the answer of Best-of-N for n = 4 and for n = 8, and the trial at which Reflexion stops"""
    asked = ("Best of the first 4", "Best of all 8", "Reflexion's last trial")
    for found, wanted, what in zip(as_list(answer, 3), (3, 3, 1), asked):
        equal(found, wanted, what, reveal=False)
    return (
        "Four more attempts brought nothing new. And Reflexion stopped at the first reward above 0, better ones ahead."
    )


@exercise("05-2", 2, "section 3; a dictionary with `attempt.actions` as key remembers what was asked before")
def best_of_n(answer: Any) -> str:
    """`best_of_n(attempts, reward)`: index of the attempt with the highest reward, asked for once for each walk"""
    env = Game24()
    for seed in range(5):
        rng = random.Random(seed)
        asked: list[tuple[str, ...]] = []
        different = [random_trajectory(env, puzzle(2, 5, 7, 9), rng) for _ in range(6)]
        attempts = [different[0], *(dataclasses.replace(rng.choice(different)) for _ in range(12))]
        value = {t.actions: rng.uniform(-3, 3) - 4 * (seed % 2) for t in different}
        value[different[0].actions] = -9.0
        attempts[1] = dataclasses.replace(different[0])  # a repeat before the best one

        def reward(trajectory: Trajectory, asked: list = asked, value: dict = value) -> float:
            asked.append(trajectory.actions)
            return value[trajectory.actions]

        rewards = [value[attempt.actions] for attempt in attempts]
        equal(
            answer(attempts, reward),
            rewards.index(max(rewards)),
            f"Rewards {[round(r, 1) for r in rewards]}: the index",
        )
        equal(
            len(asked),
            len(set(rewards)),
            f"{len(attempts)} attempts, {len(set(rewards))} of them different: calls of `reward`",
        )
    return "All rewards negative, or all positive: only their order counts."


@exercise(
    "05-3", 2, "the formula in section 5 and the list below it: v is scaled by `low` and `high`, N is `node.visits`"
)
def uct(answer: Any) -> str:
    """`uct(child, node, c, low, high)`: value + c * prior * (number of children) * sqrt(ln(N + 1)) / (1 + n)"""
    rng = random.Random(0)
    for _ in range(20):
        low, high, c = rng.uniform(-5, 0), rng.uniform(0.5, 5), rng.choice((0.2, 1.0, 6.4))
        node = Node()
        node.children = [Node(prior=rng.random(), parent=node) for _ in range(rng.randint(2, 6))]
        for child in node.children[1:]:
            child.visits, child.value = rng.randint(1, 9), rng.uniform(low, high)
        node.visits = sum(child.visits for child in node.children) + rng.randint(0, 1)
        new, old = node.children[:2]
        about = f"{len(node.children)} children, N = {node.visits}, c = {c}, prior {old.prior:.2f}"
        wonder = c * old.prior * len(node.children) * math.sqrt(math.log(node.visits + 1)) / (1 + old.visits)
        value = (old.value - low) / (high - low)
        known = f"value {old.value:.2f} between {low:.2f} and {high:.2f}, n = {old.visits}, {about}"
        equal(answer(old, node, c, low, high), value + wonder, f"A child with {known}")
        equal(answer(old, node, 0.0, low, high), value, "With c = 0 only the scaled value is left")
        wonder = c * new.prior * len(node.children) * math.sqrt(math.log(node.visits + 1))
        equal(answer(new, node, c, low, high), wonder, "A child never visited (value -inf) counts as the lowest, 0")
        equal(answer(old, node, 0.0, old.value, old.value), 0.0, "One reward so far, low = high: there is no scale, 0")
        chosen = max(node.children, key=lambda child: answer(child, node, c, low, high))
        expect(chosen is select(node, c, low, high), "Your rule does not take the child that `select` takes.")
    return "Two wishes in one number; `c` is the exchange rate."


@exercise("05-4", 2, "section 5, `backward`: `node.parent` leads up, and is None above the root")
def carried(answer: Any) -> str:
    """`carry_up(leaf, reward, gamma)`: each node from leaf to root counts a visit and keeps its highest value"""
    for gamma in (1.0, 0.9, 0.5):
        root = Node()
        left, right = (Node(parent=root) for _ in range(2))
        leaves = [Node(parent=left), Node(parent=left), Node(parent=right)]
        for leaf, reward in zip(leaves, (1.0, -2.0, 3.0)):
            answer(leaf, reward, gamma)
        equal(
            [n.visits for n in (*leaves, left, right, root)], [1, 1, 1, 2, 1, 3], "Visits of 3 leaves, 2 parents, root"
        )
        equal([n.value for n in leaves], [1.0, -2.0, 3.0], "Values of the leaves, after rewards 1, -2 and 3")
        equal(
            (left.value, right.value),
            (gamma, 3 * gamma),
            f"gamma = {gamma}: the parents, one discount up (the maximum)",
        )
        equal(root.value, 3 * gamma**2, f"gamma = {gamma}: the root, two discounts up")
    return "The maximum, not the mean: one good end is enough to make a beginning worth while."


@exercise("05-5", 3, "section 5: walk down by `select`, give a node without children its actions, then `backward`")
def tree_search(answer: Any) -> str:
    """`tree_search(env, task, reward, rollouts)`: the trajectory with the highest reward in a search like MCTS"""
    env, asked = Game24(), []

    def watched(value: Any) -> Any:
        def reward(trajectory: Trajectory) -> float:
            asked.append(trajectory)
            return value(trajectory)

        asked.clear()
        return reward

    def near(trajectory: Trajectory) -> float:
        return -abs(float(step_results(trajectory)[-1]) - trajectory.task.setup["target"])

    for numbers, rollouts in (((2, 3, 4), 500), ((2, 5, 7, 9), 20)):
        task = puzzle(*numbers)
        try:
            found = answer(Game24(), task, watched(near), rollouts)
        except ValueError as error:
            empty = "max()" in str(error) or "empty" in str(error)
            expect(not empty, f"{error}: {numbers} was tried out after {len(asked)} rewards; `root.exhausted` says so.")
            raise
        expect(isinstance(found, Trajectory), f"{numbers}: expected a Trajectory, found {found!r}.")
        expect(len(asked) <= rollouts, f"{numbers}: {len(asked)} rewards asked for, {rollouts} rollouts allowed.")
        odd = [t.actions for t in asked if not t.done or t != env.replay(task, t.actions)]
        expect(not odd, f"{numbers}: only finished trajectories get a reward; found {odd[:1]}.")
        different = len({t.actions for t in asked})
        again = (
            f"{numbers}: {different} different walks in {len(asked)} attempts; an exhausted node is not walked again."
        )
        expect(different == len(asked), again)
        equal(near(found), max(map(near, asked)), f"{numbers}: the reward of the answer (the highest of all asked for)")
    answer(Game24(), puzzle(2, 3, 4), watched(near), 500)
    equal(len(asked), 75, "2 3 4 with 500 rollouts: there are 75 walks, and a search that closes branches tries each")
    first = "7 + 2 = 9"
    answer(Game24(), puzzle(2, 5, 7, 9), watched(lambda t: 0.01 * (t.actions[0] == first)), 60)
    share = sum(t.actions[0] == first for t in asked) / len(asked)
    tell = f"Only walks that begin with {first!r} have a reward (0.01), and {share:.0%} of yours do"
    expect(share > 0.3, f"{tell}: use `select`, with the lowest and the highest reward so far.")
    return "Sixty attempts at random would have begun with it twice. Each of yours told the next one where to look."
