"""What the exercises of 05 · Plan ask for."""

import dataclasses
import math
import random
from typing import Any
from unittest.mock import Mock

from armap_lite.course import exercise, puzzle, random_trajectory
from armap_lite.course.answers import equal, expect, numbers
from armap_lite.course.toys import step_results
from armap_lite.envs.game24 import Game24
from armap_lite.planners.mcts import Node, select
from armap_lite.trajectory import Trajectory


def eight_rewards(rng: random.Random) -> tuple[float, ...]:
    """The first is below 0, and the highest of all comes twice."""
    rewards = [round(rng.uniform(-2, 2), 1) for _ in range(8)]
    rewards[0] = -round(rng.uniform(0.5, 2), 1)
    for at in rng.sample(range(1, 8), 2):
        rewards[at] = 2.1
    return tuple(rewards)


@exercise("05-1", (-1.2, 0.4, -0.3, 2.1, 0.4, 2.1, -2.0, 1.0), eight_rewards)
def answers(answer: Any, given: Any) -> None:
    """three numbers: the answer of Best-of-N for n = 4 and for n = 8, and the trial at which Reflexion stops"""
    last = next(i for i, reward in enumerate(given) if reward > 0)
    best = [given.index(max(given[:n])) for n in (4, 8)]
    numbers(answer, {"Best of the first 4": best[0], "Best of all 8": best[1], "Reflexion's last trial": last})


@exercise("05-2")
def best_of_n(answer: Any) -> None:
    """`best_of_n(attempts, reward)`: index of the attempt with the highest reward, asked for once for each walk"""
    env = Game24()
    for seed in range(5):
        rng = random.Random(seed)
        different = [random_trajectory(env, puzzle(2, 5, 7, 9), rng) for _ in range(6)]
        attempts = [different[0], *(dataclasses.replace(rng.choice(different)) for _ in range(12))]
        rewards = {t.actions: rng.uniform(-3, 3) - 4 * (seed % 2) for t in different}
        rewards[different[0].actions] = -9.0
        rewards[different[1].actions] = 0.0  # false in Python
        attempts[1] = dataclasses.replace(different[0])  # a repeat before the best one
        reward = Mock(side_effect=lambda trajectory: rewards[trajectory.actions])  # noqa: B023 (called in this round)
        found, values = answer(attempts, reward), [rewards[attempt.actions] for attempt in attempts]
        equal(found, values.index(max(values)), f"Rewards {[round(v, 1) for v in values]}: the index")
        n = len(set(values))
        equal(reward.call_count, n, f"{len(attempts)} attempts, {n} of them different: calls of `reward`")


@exercise("05-3")
def uct(answer: Any) -> None:
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


@exercise("05-4")
def carried(answer: Any) -> None:
    """`carry_up(leaf, reward, gamma)`: each node from leaf to root counts a visit, its value is the mean reward"""
    for gamma in (1.0, 0.9, 0.5):
        root = Node()
        left, right = (Node(parent=root) for _ in range(2))
        leaves = [Node(parent=left), Node(parent=left), Node(parent=right)]
        for leaf, reward in zip((*leaves, leaves[2]), (1.0, -2.0, 3.0, -9.0)):
            answer(leaf, reward, gamma)
        visits = [node.visits for node in (*leaves, left, right, root)]
        equal(visits, [1, 1, 2, 2, 2, 4], "Visits of 3 leaves (the third one twice), 2 parents, root")
        equal([n.value for n in leaves], [1.0, -2.0, -3.0], "Values of the leaves, after rewards 1, -2, and 3 then -9")
        parents = (left.value, right.value)
        equal(parents, (-gamma / 2, -3 * gamma), f"gamma = {gamma}: the parents, one discount up (the mean)")
        equal(root.value, -7 * gamma**2 / 4, f"gamma = {gamma}: the root, two discounts up")


@exercise("05-5")
def tree_search(answer: Any) -> None:
    """`tree_search(env, task, reward, rollouts)`: the trajectory with the highest reward in a search like MCTS"""
    env = Game24()

    def near(trajectory: Trajectory) -> float:
        return -abs(float(step_results(trajectory)[-1]) - trajectory.task.setup["target"])

    for start, rollouts in (((2, 3, 4), 500), ((2, 5, 7, 9), 20)):
        task, reward = puzzle(*start), Mock(side_effect=near)
        try:
            found = answer(Game24(), task, reward, rollouts)
        except ValueError as error:
            empty = "max()" in str(error) or "empty" in str(error)
            out = f"{start} was tried out after {reward.call_count} rewards; `root.exhausted` says so."
            expect(not empty, f"{error}: {out}")
            raise
        asked = [trajectory for (trajectory,), _ in reward.call_args_list]
        expect(isinstance(found, Trajectory), f"{start}: expected a Trajectory, found {found!r}.")
        expect(len(asked) <= rollouts, f"{start}: {len(asked)} rewards asked for, {rollouts} rollouts allowed.")
        odd = [t.actions for t in asked if not t.done or t != env.replay(task, t.actions)]
        expect(not odd, f"{start}: only finished trajectories get a reward; found {odd[:1]}.")
        different = len({t.actions for t in asked})
        again = f"{different} different walks in {len(asked)} attempts; an exhausted node is not walked again."
        expect(different == len(asked), f"{start}: {again}")
        equal(near(found), max(map(near, asked)), f"{start}: the reward of the answer (the highest of all asked for)")
    reward = Mock(side_effect=near)
    answer(Game24(), puzzle(2, 3, 4), reward, 500)
    every = "2 3 4 with 500 rollouts: there are 75 walks, and a search that closes branches tries each"
    equal(reward.call_count, 75, every)
    first = "7 + 2 = 9"
    reward = Mock(side_effect=lambda trajectory: 0.01 * (trajectory.actions[0] == first))
    answer(Game24(), puzzle(2, 5, 7, 9), reward, 60)
    share = sum(t.actions[0] == first for (t,), _ in reward.call_args_list) / reward.call_count
    tell = f"Only walks that begin with {first!r} have a reward (0.01), and {share:.0%} of yours do"
    expect(share > 0.3, f"{tell}: use `select`, with the lowest and the highest reward so far.")
