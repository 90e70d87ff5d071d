"""What the exercises of 07 · Results ask for."""

import random
from typing import Any

import numpy as np

from armap_lite.course import exercise
from armap_lite.course.answers import as_list, equal, expect, numbers
from armap_lite.statistics import best_of_n_curve, bootstrap_mean, paired_difference


def bounds(rng: random.Random) -> dict[str, float]:
    mean, selected, oracle = sorted(rng.sample(range(5, 90), 3))
    return {"mean": mean / 100, "selected": selected / 100, "oracle": oracle / 100}


@exercise("07-1", {"mean": 0.10, "selected": 0.34, "oracle": 0.42}, bounds)
def lost(answer: Any, given: Any) -> None:
    """three numbers: the gap closed, what was lost without a good attempt, and what by choosing another one"""
    mean, selected, oracle = given["mean"], given["selected"], given["oracle"]
    wanted = {
        "The gap closed, counted from `mean`": (selected - mean) / (oracle - mean),
        "What lies above the ceiling: the policy never did it": 1 - oracle,
        "Between ceiling and choice: the reward model's part": oracle - selected,
    }
    numbers(answer, wanted)


@exercise("07-2")
def interval(answer: Any) -> None:
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
    about = f"The middle 95 % of the means of 200 tasks is {high - low:.3f} wide; found {found[1] - found[0]:.3f}."
    again = as_list(answer(scores, np.random.default_rng(3)), 2)
    expect(again != found, "Another `rng` draws other tasks: use it.")
    np.random.seed(0)  # noqa: NPY002
    same = as_list(answer(scores, np.random.default_rng(3)), 2)
    expect(same == again, "The same `rng` twice gave two intervals: draw with `rng` alone, not with `np.random`.")
    expect(0.92 < (found[1] - found[0]) / (high - low) < 1.08, about)
    some = [answer(scores[:60], np.random.default_rng(seed)) for seed in range(30)]
    _, low, high = bootstrap_mean(scores[:60])
    shaky = np.std(some, axis=0).mean() / (high - low)
    expect(shaky < 0.034, "Your ends differ much from one `rng` to the next: draw two thousand times or more.")
    ends = [end for seed in range(8) for end in answer([1.0] * 3 + [0.0] * 17, np.random.default_rng(seed))]
    means = sum(abs(20 * end - round(20 * end)) < 1e-6 and end >= 0 for end in ends)
    formula = "3 successes in 20 tasks: only 0, 0.05, 0.1, … are means of twenty such scores, and an end of yours is "
    expect(means > 12, f"{formula}{ends[0]:.3f}. Take quantiles of the means you drew, no formula.")
    few, many = (answer([1.0] * n + [0.0] * n, np.random.default_rng(1)) for n in (10, 40))
    wide, narrow = few[1] - few[0], many[1] - many[0]
    expect(1.5 < wide / narrow < 2.6, f"Four times the tasks should halve the width; found {wide} and {narrow}.")
    equal(answer([0.5] * 9, np.random.default_rng(0)), (0.5, 0.5), "Nine tasks that all scored 0.5: no width at all")


@exercise("07-3")
def expected_best(answer: Any) -> None:
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


@exercise("07-4")
def p_value(answer: Any) -> None:
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
