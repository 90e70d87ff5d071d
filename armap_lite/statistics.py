"""Statistics of scores and margins. The unit is the task.

Several seeds or pairs of one task are not independent, so intervals come from a percentile bootstrap that draws whole
tasks with replacement; where a benchmark consists of fixed families of tasks, within each family.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

LEVEL, RESAMPLES = 0.95, 10_000


def bootstrap_mean(
    values: ArrayLike, *, strata: Sequence[str] | None = None, resamples: int = RESAMPLES
) -> tuple[float, float, float]:
    """Mean and the ends of its interval. `values`: [tasks] or [tasks, seeds]; seeds are averaged within a task.

    `strata`: the family of each task, where the benchmark fixes the families, so that their differences are no source
    of uncertainty. A single task is its own interval. Raises ValueError if there is no value, or a NaN.
    """
    scores = _per_task(values)
    draws = np.clip(_resample(scores, resamples, strata=strata) / len(scores), scores.min(), scores.max())
    mean, low, high = map(float, _interval(scores.mean(), draws))
    return mean, low, high


def paired_difference(
    a: Any, b: Any, *, strata: Sequence[str] | None = None, resamples: int = RESAMPLES
) -> dict[str, float]:
    """How much planner `a` is better than `b` on the same tasks: difference, ci_low, ci_high, p_value, n.

    `a`, `b`: scores by task id, or arrays [tasks] or [tasks, seeds] in one order of tasks. `p_value`: of a two-sided
    sign-flip test (without a difference between planners, each task's difference has either sign with equal
    probability); exact for up to 12 differing tasks, else from `resamples` random flips.
    """
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        check_same_tasks({"a": a, "b": b})
        a, b = list(a.values()), [b[task] for task in a]
    if len(a) != len(b):
        raise ValueError(f"{len(a)} tasks against {len(b)}; a paired difference needs the same tasks")
    delta = _per_task(a) - _per_task(b)
    interval = dict(zip(("difference", "ci_low", "ci_high"), bootstrap_mean(delta, strata=strata, resamples=resamples)))
    return {**interval, "p_value": _sign_flip(delta, resamples), "n": len(delta)}


def _sign_flip(delta: np.ndarray, resamples: int) -> float:
    delta = delta[np.abs(delta) > 1e-12]  # a zero stays zero under any flip
    k = len(delta)
    if exact := k <= 12:
        signs = 1 - 2 * (np.arange(2**k)[:, None] >> np.arange(k) & 1)  # [2^k, k]
    else:
        signs = 1 - 2 * np.random.default_rng(0).integers(0, 2, (resamples, k), dtype=np.int8)
    hits = int((np.abs(signs @ delta) >= abs(delta.sum()) - 1e-9).sum())
    return hits / len(signs) if exact else (hits + 1) / (resamples + 1)  # the observed signs count as one draw


def check_same_tasks(scores: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises ValueError unless all of `scores`, name -> {task id: score}, are of the same tasks."""
    tasks = set().union(*scores.values())
    for name, by_task in scores.items():
        if missing := tasks - by_task.keys():
            n, one = len(missing), min(missing)
            raise ValueError(f"{name!r} lacks {n} of {len(tasks)} tasks, e.g. {one!r}; run all on one task list")


def best_of_n_curve(
    rewards: Sequence[Sequence[float | None]], golds: Sequence[Sequence[float]], strata: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Score of Best-of-N for every N: exact means over all subsets of N of a task's M samples, then over tasks.

    `rewards`, `golds`: [tasks, M], or lists of different lengths: a task with fewer than N samples uses all it has.
    A reward of None (not scored) ranks last. Samples with the same reward share their weight evenly.
    Returns arrays [max M]: `n`, and for each of `mean` (a random sample: the floor), `selected` (the highest reward)
    and `oracle` (the highest gold: the ceiling) also `<name>_low` and `<name>_high`. `strata`: see `bootstrap_mean`.
    """
    if not len(golds) or [len(r) for r in rewards] != [len(g) for g in golds] or not all(len(g) for g in golds):
        raise ValueError(f"{len(rewards)} tasks with rewards, {len(golds)} with golds: expected as many of both, not 0")
    longest = max(len(g) for g in golds)
    curves: dict[str, list[np.ndarray]] = {"mean": [], "selected": [], "oracle": []}
    for reward, gold in zip(rewards, golds, strict=True):
        r = np.array([-np.inf if value is None else value for value in reward], dtype=float)  # [M]
        g = _per_task(gold)  # [M]
        if np.isnan(r).any():
            raise ValueError("a reward is NaN; expected a number, or None where a sample was never scored")
        of_n = {"mean": np.full(len(g), g.mean()), "selected": _expected_best(r, g), "oracle": _expected_best(g, g)}
        for name, curve in of_n.items():
            curves[name].append(np.pad(curve, (0, longest - len(g)), mode="edge"))  # [max M]
    out = {"n": np.arange(1, longest + 1)}
    for name, rows in curves.items():
        curve = np.stack(rows)  # [tasks, max M]
        draws = np.clip(_resample(curve, RESAMPLES, strata=strata) / len(curve), curve.min(axis=0), curve.max(axis=0))
        interval = _interval(curve.mean(axis=0), draws)
        out |= dict(zip((name, f"{name}_low", f"{name}_high"), interval, strict=True))
    return out


@cache
def _best_weights(m: int) -> np.ndarray:
    """[M, M], row N-1, column i: probability C(M-1-i, N-1) / C(M, N) that the best of N drawn is the i-th best of all.

    As a product of factors in [0, 1], so that no binomial overflows: from column i to i+1, (M-N-i) / (M-1-i).
    """
    n, i = np.arange(1, m + 1)[:, None], np.arange(m - 1)
    factors = np.clip((m - n - i) / (m - 1 - i), 0, None)  # [M, M-1]
    return n / m * np.cumprod(np.hstack([np.ones((m, 1)), factors]), axis=1)


def _expected_best(keys: np.ndarray, golds: np.ndarray) -> np.ndarray:
    """Expected gold of the sample with the highest key, for each subset size: [M], [M] -> [M]."""
    _, group = np.unique(keys, return_inverse=True)
    shared = (np.bincount(group, golds) / np.bincount(group))[group]  # the mean of samples with equal keys
    return _best_weights(len(keys)) @ shared[np.argsort(-keys)]


def gap_closed(mean: float, selected: float, oracle: float) -> float:
    """Share of the gap between floor and ceiling that selection closed; NaN if there is none."""
    return (selected - mean) / (oracle - mean) if oracle > mean else math.nan


def pair_metrics(margins: ArrayLike, task_ids: Sequence[str]) -> dict[str, float]:
    """pair_accuracy, ci_low, ci_high, n_pairs, n_tasks from margins R(chosen) - R(rejected), [pairs].

    A margin of exactly 0 counts half. The interval draws whole tasks.
    """
    margin = _per_task(margins)
    if len(task_ids) != len(margin):
        raise ValueError(f"{len(margin)} margins, {len(task_ids)} task ids: expected one task id for each pair")
    _, task = np.unique(task_ids, return_inverse=True)
    right, pairs = np.bincount(task, (np.sign(margin) + 1) / 2), np.bincount(task)  # [tasks], [tasks]
    draws = _resample(np.stack([right, pairs], axis=1), RESAMPLES)  # [resamples, 2]
    interval = map(float, _interval(right.sum() / pairs.sum(), draws[:, 0] / draws[:, 1]))
    found = dict(zip(("pair_accuracy", "ci_low", "ci_high"), interval))
    return {**found, "n_pairs": len(margin), "n_tasks": len(pairs)}


def order_accuracy(
    rewards: Sequence[Sequence[float | None]], golds: Sequence[Sequence[float]], task_ids: Sequence[str]
) -> dict[str, float] | None:
    """Does the reward put attempts at one task in the order of their gold scores? The measure of what planning needs.

    `rewards`, `golds`: [tasks, attempts]. Each two attempts at a task whose golds differ are a pair, the better one
    chosen; one with a reward of None (not scored) is in no pair.
    Returns order_accuracy, ci_low, ci_high, n_pairs, n_tasks as `pair_metrics` does; None if there is no pair.
    """
    margins, ids = [], list[str]()
    for rewards_of_task, golds_of_task, task in zip(rewards, golds, task_ids, strict=True):
        scored = [(r, g) for r, g in zip(rewards_of_task, golds_of_task, strict=True) if r is not None]
        reward, gold = np.array(scored).reshape(-1, 2).T  # [attempts] each
        better, worse = np.nonzero(gold[:, None] > gold + 1e-9)  # [pairs] each
        margins.append(reward[better] - reward[worse])
        ids += [task] * len(better)
    if not ids:
        return None
    found = pair_metrics(np.concatenate(margins), ids)
    return {"order_accuracy": found.pop("pair_accuracy"), **found}


def _per_task(values: ArrayLike) -> np.ndarray:
    """[tasks] or [tasks, seeds] -> [tasks]."""
    array = np.asarray(values, dtype=float)
    if array.ndim not in (1, 2) or not array.size:
        raise ValueError(f"scores of shape {array.shape}: expected [tasks] or [tasks, seeds] with at least one task")
    if not np.isfinite(array).all():
        raise ValueError(f"{int((~np.isfinite(array)).sum())} of {array.size} scores are not finite numbers")
    return array if array.ndim == 1 else array.mean(axis=1)


def _resample(values: np.ndarray, resamples: int, seed: int = 0, strata: Sequence[str] | None = None) -> np.ndarray:
    """Sums over tasks drawn with replacement: [T, ...] -> [resamples, ...]."""
    if strata is not None:
        _, label, size = np.unique(strata, return_inverse=True, return_counts=True)
        label = np.where(size[label] > 1, label, -1)  # families of one task are drawn together
        out = np.zeros((resamples, *values.shape[1:]))
        for i, one in enumerate(np.unique(label)):
            part = values[label == one]
            total, n = part.sum(axis=0), len(part)
            # A few tasks drawn among themselves vary too little, by (n - 1) / n in variance (Rao and Wu, 1988).
            out += total + math.sqrt(n / max(n - 1, 1)) * (_resample(part, resamples, seed + i) - total)
        return out
    rng, n = np.random.default_rng(seed), len(values)
    blocks = (min(1000, resamples - start) for start in range(0, resamples, 1000))  # to save memory
    return np.concatenate([rng.multinomial(n, np.full(n, 1 / n), size) @ values for size in blocks])


def _interval(mean: Any, draws: np.ndarray) -> tuple[Any, Any, Any]:
    """Mean and the ends of its interval, from `draws` [resamples, ...] of it."""
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return mean, np.minimum(low, mean), np.maximum(high, mean)  # equal scores: rounding must not move the ends
