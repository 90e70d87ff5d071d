"""The last stage: scores, intervals, the Best-of-N curve, result files."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armap_lite import evaluate, statistics
from armap_lite.display.tables import results_table
from armap_lite.envs.base import Judge
from armap_lite.envs.game24 import Game24, Game24Judge
from armap_lite.pipeline import results
from armap_lite.planners.base import Budget, PlanResult, Sample
from armap_lite.trajectory import Task, Trajectory

SOLVED = ("10 - 4 = 6", "5 * 6 = 30", "30 - 6 = 24")
MISSED = ("10 - 4 = 6", "6 + 6 = 12", "12 + 5 = 17")
ROW = ["env", "env_version", "split", "metric", "planner", "policy", "reward_model", "profile", "seed", "n"]
ROW += ["mean", "ci_low", "ci_high", *evaluate.COSTS[:2], "env_steps", "reward_calls", "failures", "seconds", "device"]
RUN = {"env": "game24", "env_version": "1", "split": "test", "metric": "success", "policy": "p", "reward_model": "r"}
RUN |= {"profile": "fast", "seed": 3, "device": "cpu"}


def walk(task: str, actions: tuple[str, ...], failure: str | None = None) -> Trajectory:
    puzzle = Task(task, "game24", "test", "", {"numbers": [4, 5, 6, 10], "target": 24})
    return dataclasses.replace(Game24().replay(puzzle, actions), failure=failure)


def plan(
    planner: str, task: str, samples: list[Trajectory], chosen: int = 0, budget: Budget | None = None
) -> PlanResult:
    found = tuple(Sample(trajectory, float(i)) for i, trajectory in enumerate(samples))
    return PlanResult(f"{planner}/{task}", task, planner, found, chosen, budget or Budget())


class Counting(Judge):
    """The real judge, and how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[Trajectory] = []

    def score(self, trajectory: Trajectory) -> float:
        self.asked.append(trajectory)
        return Game24Judge().score(trajectory)


@pytest.fixture
def plans() -> list[PlanResult]:
    """Two tasks: `sampling` solves none, `best_of_n` picks the solution of b, and misses that of a."""
    broken = walk("a", SOLVED[:1], failure="the server went away")
    return [
        plan("best_of_n", "b", [walk("b", MISSED), walk("b", SOLVED)], 1, Budget(200, 6, 2)),
        plan("best_of_n", "a", [walk("a", SOLVED), broken], 1, Budget(100, 4, 1)),
        plan("sampling", "a", [walk("a", MISSED)], 0, Budget(10, 3, 0)),
        plan("sampling", "b", [walk("b", MISSED)], 0, Budget(11, 3, 0)),
    ]


# scores


def test_every_sample_is_judged_and_no_trajectory_twice(plans):
    judge = Counting()
    golds = evaluate.score_plans(plans, judge)
    assert golds == {"best_of_n/b": [0, 1], "best_of_n/a": [1, 0], "sampling/a": [0], "sampling/b": [0]}
    assert len(judge.asked) == 5  # of six: best_of_n and sampling walked the same way in b


def test_the_same_actions_asked_for_something_else_are_judged_anew():
    solved = walk("a", SOLVED)
    other = dataclasses.replace(solved.task, setup={"numbers": [4, 5, 6, 10], "target": 25})
    both = [plan("mcts", "a", [solved, dataclasses.replace(solved, task=other)])]
    assert evaluate.score_plans(both, Game24Judge()) == {"mcts/a": [1, 0]}


def test_a_judge_out_of_range_is_an_error(plans):
    class Percent(Counting):
        def score(self, trajectory: Trajectory) -> float:
            return -100.0

    with pytest.raises(ValueError, match=r"-100.0 for task 'b'.*\[0, 1\]"):
        evaluate.score_plans(plans, Percent())


def test_floor_and_ceiling_come_from_the_samples_of_best_of_n(plans):
    scores = evaluate.task_scores(plans, evaluate.score_plans(plans, Game24Judge()))
    assert list(scores) == ["sampling", "best_of_n", "random_best_of_n", "oracle_best_of_n"]
    assert all(list(by_task) == ["a", "b"] for by_task in scores.values())  # one order, whatever that of the plans
    assert scores["sampling"] == {"a": 0, "b": 0}
    assert scores["best_of_n"] == {"a": 0, "b": 1}
    assert scores["random_best_of_n"] == {"a": 0.5, "b": 0.5}
    assert scores["oracle_best_of_n"] == {"a": 1, "b": 1}


def test_another_key_chooses_among_the_attempts_of_best_of_n_and_equal_ones_share_the_choice(plans):
    golds = evaluate.score_plans(plans, Counting())
    some = [plan for plan in plans if plan.planner == "best_of_n"]
    assert evaluate.choose_by(plans, golds, {p.id: [1, 0] for p in some}) == {"b": 0, "a": 1}
    assert evaluate.choose_by(plans, golds, {p.id: [-2, -1] for p in some}) == {"b": 1, "a": 0}
    single = [plan for plan in plans if plan.planner == "sampling"]  # of any planner
    assert evaluate.choose_by(plans, golds, {p.id: [0] for p in single}) == {p.task_id: golds[p.id][0] for p in single}
    floor = evaluate.choose_by(plans, golds, {p.id: [0, 0] for p in some})
    assert floor == evaluate.task_scores(plans, golds)["random_best_of_n"] == {"b": 0.5, "a": 0.5}


def test_planners_on_different_tasks_are_not_compared(plans):
    golds = evaluate.score_plans(plans, Game24Judge())
    with pytest.raises(ValueError, match="'sampling' lacks 1 of 2 tasks, e.g. 'b'"):
        evaluate.task_scores(plans[:3], golds)
    with pytest.raises(ValueError, match="'sampling' has two plans for task 'b'"):
        evaluate.task_scores([*plans, plans[-1]], golds)
    with pytest.raises(ValueError, match="'beam' is not known"):
        evaluate.task_scores([dataclasses.replace(plans[-1], planner="beam")], golds)


# intervals


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_a_mean_lies_in_its_interval_and_the_interval_in_the_data(values):
    mean, low, high = statistics.bootstrap_mean(values, resamples=200)
    assert mean == pytest.approx(np.mean(values))
    assert low <= mean <= high
    assert min(values) - 1e-12 <= low and high <= max(values) + 1e-12
    assert (mean, low, high) == statistics.bootstrap_mean(values, resamples=200)  # the same seed, the same ends


def test_the_interval_has_the_textbook_width():
    values = np.random.default_rng(1).random(200)
    mean, low, high = statistics.bootstrap_mean(values)
    half = 1.96 * values.std() / math.sqrt(200)
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.05 * half)


@pytest.mark.parametrize(("solved", "n"), [(6, 100), (50, 100), (1, 40), (199, 200)])
def test_the_interval_of_a_success_rate_is_the_binomial_one(solved, n):
    # tasks drawn with replacement from `solved` ones and n - solved zeros: their sum is Binomial(n, solved / n)
    rate = solved / n
    below = np.cumsum([math.comb(n, k) * rate**k * (1 - rate) ** (n - k) for k in range(n + 1)])
    low, high = (int(np.searchsorted(below, q)) for q in (0.025, 0.975))
    found = statistics.bootstrap_mean([1.0] * solved + [0.0] * (n - solved))
    assert found == pytest.approx((rate, low / n, high / n), abs=1.01 / n)  # one step: the draws are random


def test_the_unit_is_the_task_not_the_seed():
    tasks = np.random.default_rng(2).random(40)
    seeds = np.stack([tasks] * 25, axis=1)  # 25 seeds that agree say no more about other tasks than one does
    assert statistics.bootstrap_mean(seeds) == pytest.approx(statistics.bootstrap_mean(tasks))


def test_families_of_a_benchmark_are_no_chance():
    rng = np.random.default_rng(3)
    strata = [family for family in "abcdefgh" for _ in range(4)]
    level = np.repeat(np.linspace(0.1, 0.9, 8), 4)  # families differ much, the tasks of one little
    values = level + rng.uniform(-0.02, 0.02, 32)
    mean, low, high = statistics.bootstrap_mean(values, strata=strata)
    within = np.concatenate([(values[i : i + 4] - values[i : i + 4].mean()) ** 2 for i in range(0, 32, 4)])
    half = 1.96 * math.sqrt(4 * within.sum() / 3) / 32  # textbook: each family of 4 has its unbiased variance
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.1 * half)
    plain = statistics.bootstrap_mean(values)
    assert plain[0] == pytest.approx(mean) and plain[2] - plain[1] > 10 * (high - low)
    # families with one task each tell nothing apart: their tasks are drawn together, as without families
    alone = statistics.bootstrap_mean(values, strata=[str(i) for i in range(32)])
    assert alone[2] - alone[1] == pytest.approx(plain[2] - plain[1], rel=0.05)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 1)), min_size=1, max_size=12))
def test_an_interval_within_families_lies_in_the_data(tasks):
    strata, values = zip(*tasks, strict=True)
    mean, low, high = statistics.bootstrap_mean(values, strata=strata, resamples=200)
    assert min(values) - 1e-12 <= low <= mean <= high <= max(values) + 1e-12


def test_one_task_is_its_own_interval():
    assert statistics.bootstrap_mean([0.3]) == (0.3, 0.3, 0.3)
    assert statistics.bootstrap_mean([[0.2, 0.4]]) == pytest.approx((0.3, 0.3, 0.3))


@pytest.mark.parametrize("values", [[], [[]], [0.1, math.nan], [[[0.1]]]])
def test_nothing_to_average_is_an_error(values):
    with pytest.raises(ValueError, match="at least one task|not finite"):
        statistics.bootstrap_mean(values)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9))
def test_the_exact_sign_flip_test_agrees_with_all_sign_flips(delta):
    flips = [abs(np.dot(signs, delta)) for signs in itertools.product((-1, 1), repeat=len(delta))]
    found = statistics.paired_difference(delta, [0] * len(delta), resamples=10)
    assert found["p_value"] == pytest.approx(np.mean([flip >= abs(sum(delta)) - 1e-9 for flip in flips]))


def test_random_sign_flips_come_close_to_all_of_them():
    delta = np.array([1] * 11 + [-1] * 4)  # McNemar's exact test: 2 P(Binomial(15, 1/2) >= 11)
    exact = 2 * sum(math.comb(15, k) for k in range(11, 16)) / 2**15
    assert statistics.paired_difference(delta, delta * 0)["p_value"] == pytest.approx(exact, abs=0.015)
    assert 0 < statistics.paired_difference(np.ones(60), np.zeros(60))["p_value"] < 0.001  # never 0 by chance


def test_planners_are_paired_by_task_id_and_the_difference_changes_sign_with_them():
    a, b = {"x": 1.0, "y": 0.0, "z": 1.0}, {"z": 0.0, "y": 0.0, "x": 1.0}
    found = statistics.paired_difference(a, b)
    assert found["difference"] == pytest.approx(1 / 3) and found["n"] == 3 and found["p_value"] == 1
    assert statistics.paired_difference(b, a)["difference"] == pytest.approx(-1 / 3)
    uneven = {"x": 0.0, "y": 0.25, "z": 1.0}
    same = statistics.paired_difference(uneven, dict(reversed(uneven.items())))
    assert same == {"difference": 0, "ci_low": 0, "ci_high": 0, "p_value": 1, "n": 3}
    with pytest.raises(ValueError, match="'b' lacks 1 of 3 tasks, e.g. 'z'"):
        statistics.paired_difference(a, {"x": 1.0, "y": 0.0})
    with pytest.raises(ValueError, match="2 tasks against 3"):
        statistics.paired_difference([0, 1], [0, 1, 1])


def test_pairing_sees_what_two_intervals_do_not():
    rng = np.random.default_rng(0)
    hardness = rng.random(80)
    a, b = hardness + 0.05 + rng.normal(0, 0.05, 80), hardness
    assert statistics.bootstrap_mean(a)[1] < statistics.bootstrap_mean(b)[2]  # the intervals overlap
    found = statistics.paired_difference(a, b)
    assert found["ci_low"] > 0 and found["p_value"] < 0.01


# Best-of-N


def by_hand(rewards: list[int], golds: list[float], n: int) -> tuple[float, float, float]:
    """Mean, selected and oracle as averages over every subset of size n, one by one."""
    means, picks, bests = [], [], []
    for subset in itertools.combinations(range(len(golds)), n):
        top = max(rewards[i] for i in subset)
        picks.append(np.mean([golds[i] for i in subset if rewards[i] == top]))
        means.append(np.mean([golds[i] for i in subset]))
        bests.append(max(golds[i] for i in subset))
    return float(np.mean(means)), float(np.mean(picks)), float(np.mean(bests))


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.25, 1.0])), min_size=1, max_size=7))
def test_the_curve_is_the_mean_over_all_subsets(samples):
    rewards, golds = map(list, zip(*samples, strict=True))
    curve = statistics.best_of_n_curve([rewards], [golds])
    for n in range(1, len(golds) + 1):
        expected = by_hand(rewards, golds, n)
        assert [curve[name][n - 1] for name in ("mean", "selected", "oracle")] == pytest.approx(expected)


@settings(max_examples=40)
@given(
    st.lists(st.lists(st.tuples(st.floats(-5, 5), st.floats(0, 1)), min_size=1, max_size=20), min_size=1, max_size=6)
)
def test_what_holds_for_every_curve(tasks):
    curve = statistics.best_of_n_curve(
        [[r for r, _ in task] for task in tasks], [[g for _, g in task] for task in tasks]
    )
    assert list(curve["n"]) == list(range(1, max(map(len, tasks)) + 1))
    assert curve["mean"][0] == pytest.approx(curve["selected"][0]) == pytest.approx(curve["oracle"][0])
    assert np.allclose(curve["mean"], curve["mean"][0])
    assert (curve["oracle"] >= curve["selected"] - 1e-9).all()
    assert (curve["oracle"] >= curve["mean"] - 1e-9).all()
    assert (np.diff(curve["oracle"]) >= -1e-9).all()
    assert curve["oracle"][-1] == pytest.approx(np.mean([max(g for _, g in task) for task in tasks]))
    best = [np.mean([g for r, g in task if r == max(r for r, _ in task)]) for task in tasks]
    assert curve["selected"][-1] == pytest.approx(np.mean(best))
    for name in ("mean", "selected", "oracle"):
        assert (curve[f"{name}_low"] <= curve[name]).all() and (curve[name] <= curve[f"{name}_high"]).all()


def test_weights_of_many_samples_neither_overflow_nor_vanish():
    weights = statistics._best_weights(2000)  # C(2000, 1000) is no float
    assert np.allclose(weights.sum(axis=1), 1) and weights.min() >= 0
    assert weights[0] == pytest.approx(1 / 2000) and weights[-1, 0] == 1
    assert weights[999, :3] == pytest.approx([1 / 2, 1 / 2 * 1000 / 1999, 1 / 2 * 1000 / 1999 * 999 / 1998])


def test_a_useless_reward_gains_nothing_and_a_wrong_one_loses():
    golds = [[0, 0, 1, 1]] * 3
    assert np.allclose(statistics.best_of_n_curve([[7, 7, 7, 7]] * 3, golds)["selected"], 0.5)
    assert statistics.best_of_n_curve([[3, 2, 1, 0]] * 3, golds)["selected"][-1] == 0


def test_a_sample_never_scored_is_picked_last():
    curve = statistics.best_of_n_curve([[None, -50.0, None]], [[1.0, 0.0, 1.0]])
    assert curve["selected"][-1] == 0
    assert statistics.best_of_n_curve([[None, None]], [[1.0, 0.0]])["selected"][-1] == 0.5


def test_a_short_task_stays_at_all_it_has():
    curve = statistics.best_of_n_curve([[1.0], [0.0, 1.0, 2.0]], [[0.25], [0.0, 0.5, 1.0]])
    assert curve["selected"][-1] == pytest.approx((0.25 + 1) / 2)


@pytest.mark.parametrize(
    ("rewards", "golds"),
    [([], []), ([[1.0]], [[1.0, 0.0]]), ([[]], [[]]), ([[math.nan]], [[1.0]]), ([[1.0]], [[math.nan]])],
)
def test_a_curve_of_broken_data_is_an_error(rewards, golds):
    with pytest.raises(ValueError, match="expected|not finite"):
        statistics.best_of_n_curve(rewards, golds)


def test_gap_closed():
    assert statistics.gap_closed(0.1, 0.3, 0.5) == pytest.approx(0.5)
    assert statistics.gap_closed(0.2, 0.1, 0.4) == pytest.approx(-0.5)  # worse than chance is shown as it is
    assert math.isnan(statistics.gap_closed(0.2, 0.2, 0.2))


# the reward model


def test_pair_accuracy_counts_a_tie_half():
    found = statistics.pair_metrics([2.0, -1.0, 0.0, 0.0], ["a", "b", "c", "c"])
    assert found["pair_accuracy"] == 0.5 and found["n_pairs"] == 4 and found["n_tasks"] == 3
    with pytest.raises(ValueError, match="2 margins, 1 task ids"):
        statistics.pair_metrics([1.0, 2.0], ["a"])


def test_the_pairs_of_one_task_stay_together():
    rng = np.random.default_rng(0)
    right = np.where(rng.random(40) < 0.7, 1.0, -1.0)
    tasks = [f"t{i}" for i in range(40)]
    single = statistics.pair_metrics(right, tasks)
    copies = statistics.pair_metrics(np.repeat(right, 25), np.repeat(tasks, 25).tolist())
    alone = statistics.pair_metrics(np.repeat(right, 25), [f"p{i}" for i in range(1000)])
    for end in ("pair_accuracy", "ci_low", "ci_high"):
        assert copies[end] == pytest.approx(single[end])  # 25 copies of each pair add no knowledge
    assert (alone["ci_high"] - alone["ci_low"]) < 0.3 * (copies["ci_high"] - copies["ci_low"])


def test_a_task_with_many_pairs_weighs_as_many():
    assert statistics.pair_metrics([1, 1, 1, -1], ["a", "a", "a", "b"])["pair_accuracy"] == 0.75


def test_order_accuracy_asks_of_attempts_at_one_task_whose_scores_differ():
    rewards, golds = [[3.0, 1.0, 2.0], [0.0, 5.0], [1.0, 2.0]], [[1.0, 0.0, 0.5], [0.5, 0.5], [0.25, 0.0]]
    found = statistics.order_accuracy(rewards, golds, ["a", "b", "c"])
    assert (found["order_accuracy"], found["n_pairs"], found["n_tasks"]) == (0.75, 4, 2)  # b has no better attempt
    assert found["ci_low"] == 0 and found["ci_high"] == 1
    assert statistics.order_accuracy(rewards[1:2], golds[1:2], ["b"]) is None
    tie = statistics.order_accuracy([[1.0, 1.0]], [[0.0, 1.0]], ["a"])
    assert tie["order_accuracy"] == 0.5


def test_the_order_of_attempts_is_that_of_best_of_n_where_it_was_scored(plans):
    golds = evaluate.score_plans(plans, Game24Judge())
    found = evaluate.order_of_attempts(plans, golds)  # b's solution has the higher reward, a's the lower one
    assert (found["order_accuracy"], found["n_pairs"], found["n_tasks"]) == (0.5, 2, 2)
    unscored = [dataclasses.replace(p, samples=tuple(Sample(s.trajectory) for s in p.samples)) for p in plans[:1]]
    found = evaluate.order_of_attempts([*unscored, *plans[1:]], golds)
    assert (found["order_accuracy"], found["n_pairs"]) == (0, 1)
    alone = evaluate.order_of_attempts([p for p in plans if p.planner == "sampling"], golds)
    assert alone["order_accuracy"] is None and alone["n_pairs"] == 0


# results.json


def result_rows(plans: list[PlanResult]) -> list[dict]:
    golds = evaluate.score_plans(plans, Game24Judge())
    return evaluate.rows(plans, golds, **RUN, seconds={"best_of_n": 20, "sampling": 1.5})


def test_rows_carry_totals_and_count_failures(plans):
    rows = {row["planner"]: row for row in result_rows(plans)}
    assert all(sorted(row) == sorted(ROW) for row in rows.values())
    assert all(row[key] == value for row in rows.values() for key, value in RUN.items())
    best = rows["best_of_n"]
    assert (best["n"], best["mean"], best["llm_tokens"], best["env_steps"], best["reward_calls"]) == (
        2,
        0.5,
        300,
        10,
        3,
    )
    assert best["failures"] == 1 and rows["sampling"]["failures"] == 0
    assert rows["sampling"]["llm_tokens"] == 21 and rows["sampling"]["seconds"] == 1.5
    for derived in ("random_best_of_n", "oracle_best_of_n"):
        same = ("llm_tokens", "env_steps", "reward_calls", "failures", "seconds")
        assert [rows[derived][key] for key in same] == [best[key] for key in same]
    assert [rows[p]["mean"] for p in ("random_best_of_n", "oracle_best_of_n")] == [0.5, 1]


def test_a_weight_of_zero_has_the_interval_of_the_planners_row():
    tasks = [f"{i * 7 % 30:02}" for i in range(30)]  # not in order
    some = [plan("best_of_n", t, [walk(t, SOLVED)]) for t in tasks]
    golds = {one.id: [math.sqrt(i) % 1] for i, one in enumerate(some)}
    [row, *_] = evaluate.rows(some, golds, {"best_of_n": 1.0})
    line = {"planner": "best_of_n", "term": "steps", "weight": 0.0, "cost": 3.0, "steps": 3}
    lines = [{**line, "trajectory": one.answer.to_json()} for one in some]
    [point] = evaluate.control_points(lines, some, golds, "game24", {"steps": lambda t: float(len(t.steps))})
    assert [point["score"], point["ci_low"], point["ci_high"]] == [row["mean"], row["ci_low"], row["ci_high"]]
    assert point["terms"] == {"steps": 3}


def test_a_planner_without_seconds_is_an_error(plans):
    with pytest.raises(ValueError, match="no seconds for planner 'best_of_n'"):
        evaluate.rows(plans, evaluate.score_plans(plans, Game24Judge()), **RUN, seconds={"sampling": 1})


QUALITY = {
    "env": "game24",
    "model": "own",
    "pair_accuracy": 0.9,
    "ci_low": 0.8,
    "ci_high": 1.0,
    "n_pairs": 9,
    "n_tasks": 3,
    "baseline": 0.5,
    "order_accuracy": 0.75,
    "order_ci_low": 0.5,
    "order_ci_high": 1.0,
    "order_n_pairs": 4,
    "order_n_tasks": 2,
    "shortened": 0.25,
    "shortened_planned": 0.5,
}


def compared(plans: list[PlanResult]) -> list[dict]:
    return evaluate.differences(plans, evaluate.score_plans(plans, Game24Judge()), "game24")


def test_planners_that_ran_are_compared_task_by_task(plans):
    found = compared(plans)
    assert [(row["planner"], row["versus"]) for row in found] == [
        ("best_of_n", "sampling"),
        ("best_of_n", "random_best_of_n"),
    ]
    rows = {row["planner"]: row["mean"] for row in result_rows(plans)}
    for row in found:
        assert row["difference"] == pytest.approx(rows[row["planner"]] - rows[row["versus"]])
        assert row["n"] == 2 and row["env"] == "game24"


def test_results_are_written_and_read_back(plans, tmp_path):
    path, rows = tmp_path / "results.json", result_rows(plans)
    control = [{"weight": 0.5, "score": 0.25, "steps": 3.0}]
    lists = {"rows": rows, "differences": compared(plans), "reward_model": [QUALITY], "control": control}
    results.write(path, results.versions(), **lists)
    found = json.loads(path.read_text(encoding="utf-8"))
    assert list(found) == ["schema", "versions", *lists] and found["differences"] == lists["differences"]
    assert found["schema"] == 1 and found["rows"] == rows and found["reward_model"] == [QUALITY]
    assert found["control"] == control
    results.validate(found)


def test_invalid_results_leave_the_old_file_alone(plans, tmp_path):
    path = tmp_path / "results.json"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(ValueError, match="rows\\[0\\]: mean is nan"):
        bad = [{**result_rows(plans)[0], "mean": math.nan}]
        results.write(path, {}, rows=bad, differences=[], reward_model=[], control=[])
    assert path.read_text(encoding="utf-8") == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(schema=2), "schema 2"),
        (lambda r: r.pop("control"), "missing fields \\['control'\\]"),
        (lambda r: r.update(extra=1), "unknown fields \\['extra'\\]"),
        (lambda r: r["rows"][1].pop("seed"), "rows\\[1\\]: missing fields \\['seed'\\]"),
        (lambda r: r["rows"][0].update(score=1), "rows\\[0\\]: .*unknown fields \\['score'\\]"),
        (lambda r: r["rows"][0].update(planner="beam"), "planner 'beam' is not known"),
        (lambda r: r["rows"][0].update(n="100"), "n is '100', str; expected int"),
        (lambda r: r["rows"][0].update(n=True), "n is True, bool; expected int"),
        (lambda r: r["rows"][0].update(seconds=math.inf), "seconds is inf"),
        (lambda r: r["rows"][0].update(failures=-1), "failures is -1"),
        (lambda r: r["rows"][0].update(mean=0.1, ci_low=0.2, ci_high=0.3), "ci_low 0.2 <= mean 0.1"),
        (lambda r: r["rows"][0].update(mean=2, ci_low=2, ci_high=2), "<= 1 does not hold"),
        (lambda r: r["reward_model"][0].update(ci_high=0.85), "pair_accuracy 0.9 <= ci_high 0.85"),
        (lambda r: r["reward_model"][0].update(baseline="half"), "baseline is 'half', str"),
        (lambda r: r["reward_model"][0].update(order_ci_low=0.8), "ci_low 0.8 <= order_accuracy 0.75"),
        (lambda r: r["reward_model"][0].update(order_accuracy=-1), "order_accuracy is -1; expected .* not negative"),
        (lambda r: r["differences"][0].update(ci_high=-2), "ci_high -2 <= 1 does not hold"),
        (lambda r: r["differences"][0].update(difference=-math.inf), "difference is -inf; expected a finite number$"),
        (lambda r: r["differences"][0].update(versus="beam"), "differences.*'beam' is not known"),
        (lambda r: r["control"].append({"score": math.nan}), "control: .*finite"),
    ],
)
def test_validation_names_what_is_wrong(plans, change, message):
    found = {"schema": 1, "versions": {}, "rows": result_rows(plans), "differences": compared(plans)}
    found |= {"reward_model": [dict(QUALITY)], "control": []}
    results.validate(found)
    change(found)
    with pytest.raises(ValueError, match=message):
        results.validate(found)


def test_versions_name_the_machine_and_what_ran():
    found = results.versions()
    assert {"python", "platform", "cpu", "gpu", "armap_lite", "transformers", "lightning", "datasets", "peft"} <= set(
        found
    )
    assert found["cpu"] and found["torch"].startswith("2.")
    json.dumps(found)


def test_table(plans):
    rows = result_rows(plans)
    head, line, *body = results_table(rows).splitlines()
    assert "seed" not in head and "LLM tokens / task" in head and len(body) == 4
    assert line.count("|") == head.count("|") == body[0].count("|")
    assert body[1].startswith("| `best_of_n` | 0.500 [0.000, 1.000] | 2 | 150 | 5.0 | 1.5 |")
    assert "| seed |" in results_table([*rows, {**rows[0], "seed": 4}])
    pooled = results_table([{"planner": "mcts", "mean": 0.5, "ci_low": 0.5, "ci_high": 0.5, "n": 1, "seeds": 2}])
    assert pooled.splitlines()[-1] == "| `mcts` | 0.500 [0.500, 0.500] | 1 | 2 |"
