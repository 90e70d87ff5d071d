"""What the exercises of 07 · Results ask for."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from armap_lite.course import as_list, equal, exercise, expect
from armap_lite.statistics import best_of_n_curve, bootstrap_mean, paired_difference


@exercise("07-1", 1, "section 5: the formula of the gap, and below the picture where the points are lost")
def lost(answer: Any) -> str:
    """three numbers: the gap closed, what was lost for want of a good attempt, and what by choosing another one"""
    closed, policy, reward = as_list(answer, 3)
    equal(closed, 0.75, "The gap closed, counted from `mean`", reveal=False)
    equal(policy, 0.58, "What lies above the ceiling: the policy never did it", reveal=False)
    equal(reward, 0.08, "Between ceiling and choice: the reward model's part", reveal=False)
    return "Here a better policy has seven times as much to win as a better reward model."


@exercise("07-2", 2, "section 3: draw as many tasks again *with* repetition, take the mean, two thousand times over")
def interval(answer: Any) -> str:
    """`interval(scores, rng)`: (low, high), the middle 95 % of the means of tasks drawn again from `scores`"""
    for n, successes in ((20, 5), (20, 10), (80, 20)):
        scores = [1.0] * successes + [0.0] * (n - successes)
        found = answer(scores, np.random.default_rng(0))
        _, low, high = bootstrap_mean(scores)
        for end, wanted, name in zip(as_list(found, 2), (low, high), ("low", "high")):
            near = abs(float(end) - wanted) < 0.06
            expect(near, f"{successes} successes in {n} tasks: expected {name} about {wanted:.2f}, found {end:.3f}.")
    scores = [random.Random(i).random() for i in range(200)]
    found, (_, low, high) = as_list(answer(scores, np.random.default_rng(2)), 2), bootstrap_mean(scores)
    wide = f"The middle 95 % of the means of 200 tasks is {high - low:.3f} wide; found {found[1] - found[0]:.3f}."
    again = as_list(answer(scores, np.random.default_rng(3)), 2)
    expect(again != found, "Another `rng` draws other tasks: use it.")
    expect(0.92 < (found[1] - found[0]) / (high - low) < 1.08, wide)
    width = [high - low for low, high in (answer([1.0] * n + [0.0] * n, np.random.default_rng(1)) for n in (10, 40))]
    expect(
        1.5 < width[0] / width[1] < 2.6,
        f"Four times the tasks should halve the width; found {width[0]} and {width[1]}.",
    )
    equal(answer([0.5] * 9, np.random.default_rng(0)), (0.5, 0.5), "Nine tasks that all scored 0.5: no width at all")
    return "Twenty tasks leave a lot of room. Say so whenever you show a mean of twenty."


@exercise("07-3", 2, "section 5; `itertools.combinations(range(len(golds)), n)` lists all ways to take n attempts")
def expected_best(answer: Any) -> str:
    """`expected_best(rewards, golds, n)`: gold score of the highest reward among n attempts, mean over all ways"""
    rng = random.Random(0)
    for m in (1, 4, 7):
        rewards, golds = [rng.uniform(-3, 3) for _ in range(m)], [rng.choice((0.0, 0.5, 1.0)) for _ in range(m)]
        curve = best_of_n_curve([rewards], [golds])["selected"]
        about = f"rewards {[round(r, 1) for r in rewards]}, golds {golds}"
        equal(answer(rewards, golds, 1), sum(golds) / m, f"n = 1 is a random pick; {about}")
        equal(answer(rewards, golds, m), golds[rewards.index(max(rewards))], f"n = {m} takes them all; {about}")
        for n in range(1, m + 1):
            equal(answer(rewards, golds, n), curve[n - 1], f"n = {n}; {about}")
    return "One run with seven attempts tells what every smaller N would have got: no need to run it again."


@exercise("07-4", 3, "section 4; `itertools.product((1, -1), repeat=n)` lists all signs, the real ones among them")
def p_value(answer: Any) -> str:
    """`p_value(a, b)`: of all signs for the differences a - b, the share whose sum is at least as far from 0"""
    rng = random.Random(0)
    cases: list[tuple[list[float], list[float]]] = [
        ([1.0] * 5, [0.0] * 5),
        ([0.0] * 5, [1.0] * 5),
        ([1.0, 0.0, 1.0], [1.0, 0.0, 1.0]),
        ([1.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 0.0]),
        ([0.1, 0.2, 0.0, 0.1], [0.0, 0.0, 0.3, 0.0]),  # sums that are equal but for the last binary digits
        *(([rng.random() for _ in range(8)], [rng.random() for _ in range(8)]) for _ in range(4)),
    ]
    for a, b in cases:
        about = "; ".join(f"{x - y:+.2f}" for x, y in zip(a, b))
        equal(answer(a, b), paired_difference(a, b, resamples=10)["p_value"], f"The differences {about}")
    return "Five wins in five tasks: p = 2 / 32 = 0.06. With so few tasks even a clean sweep may be luck."
