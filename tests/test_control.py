"""Stage 5: what a customised reward says of a trajectory, and which sample it makes the answer."""

import asyncio
import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import puzzle

from armap_lite.control import Objective, Weighted
from armap_lite.envs.base import actions_like, length
from armap_lite.envs.game24 import Game24
from armap_lite.envs.webshop import WebShop
from armap_lite.pipeline.run import Run
from armap_lite.planners import Budget, PlanResult, Sample
from armap_lite.trajectory import Step, Task, Trajectory

ACTIONS = ["8 * 3 = 24", "8 / 4 = 2", "9 - 3 = 6", "3 - 9 = -6", "1/2 + 1/2 = 1"]
walks = st.lists(st.sampled_from(ACTIONS), max_size=6).map(lambda actions: walk(*actions))
rewards = st.floats(-50, 50)
weights = st.floats(-5, 5)


def walk(*actions: str) -> Trajectory:
    return Trajectory(puzzle(1, 3, 4, 8), "left: 1 3 4 8", tuple(Step(action, "8 * 8") for action in actions), True)


@given(walks, rewards)
def test_without_terms_the_objective_is_the_learned_reward(trajectory: Trajectory, learned: float):
    assert Objective()(trajectory, learned) == learned


@given(walks, rewards, weights, weights)
def test_terms_add_up_in_any_order(trajectory: Trajectory, learned: float, a: float, b: float):
    slashes = actions_like("/")
    both = Objective() - a * Weighted(length) - b * Weighted(slashes)
    assert both(trajectory, learned) == pytest.approx(learned - a * length(trajectory) - b * slashes(trajectory))
    turned = Objective() - b * Weighted(slashes) - a * Weighted(length)
    assert turned(trajectory, learned) == pytest.approx(both(trajectory, learned))
    scaled = Objective() - 2 * (a * Weighted(length))
    assert scaled(trajectory, learned) == pytest.approx(learned - 2 * a * length(trajectory))


def test_taking_off_a_term_leaves_the_objective_it_came_from():
    plain = Objective()
    short = plain - 0.5 * Weighted(length)
    assert (plain(walk(*ACTIONS), 1.0), short(walk(*ACTIONS), 1.0)) == (1.0, -1.5)
    assert (plain - Weighted(length))(walk("8 * 3 = 24"), 0.0) == -1.0  # a weight of 1 where none is said


def test_what_the_terms_count():
    assert length(walk()) == 0.0
    assert length(walk(*ACTIONS)) == 5.0
    twice = actions_like("=.*=|8")
    assert twice(walk("8 * 8 = 64", "9 - 3 = 6")) == 1.0  # actions in which it occurs, not how often
    assert actions_like(r"\*")(walk("9 - 3 = 6")) == 0.0  # observations do not count
    [(label, term)] = Game24.terms.items()
    assert label == "largest number on the way, in tens"
    assert term(walk("10 / 4 = 5/2", "9 - 3 = 6", "4 * 6 = 24")) == 0.6  # the last result is no step on the way
    assert term(walk("10 / 4 = 5/2")) == 0.25 and term(walk()) == 0.0


@given(st.lists(st.tuples(walks, rewards), min_size=1, max_size=8), st.lists(st.floats(0, 9), min_size=2, max_size=5))
def test_a_heavier_term_never_buys_an_answer_with_more_of_it(samples: list, heavier: list[float]):
    [term] = Game24.terms.values()
    costs = []
    for weight in sorted(heavier):
        objective = Objective() - weight * Weighted(term)
        best = max(objective(t, r) for t, r in samples)
        costs.append([term(t) for t, r in samples if objective(t, r) == pytest.approx(best, abs=1e-9)])
    assert all(min(after) <= max(before) for before, after in itertools.pairwise(costs))


@pytest.mark.parametrize(("paid", "cost"), [("$12.50", 0.125), ("$612.50", 5.0)])
def test_what_buys_nothing_is_no_bargain(paid: str, cost: float):
    receipt = f"Thank you for shopping with us! [SEP] Purchased [SEP] B01 [SEP] mug [SEP] {paid}"
    bought = Trajectory(Task("t", "webshop", "test", ""), "", (Step("click[buy now]", receipt),), done=True)
    price = WebShop.terms["price paid, in 100 $"]
    assert price(bought) == cost and price(walk("click[description]")) == 5.0


def test_the_stage_picks_among_the_samples_of_both_searches_and_goes_on_where_it_stopped(tmp_path: Path):
    products, sums = walk("8 * 3 = 24", "8 / 4 = 2"), walk("9 - 3 = 6", "9 - 3 = 6")
    samples = (Sample(sums, 1.0), Sample(products, 2.5))
    planners: dict[str, dict[str, int]] = {"sampling": {}, "best_of_n": {}, "mcts": {}}
    weights = {"largest number on the way, in tens": (0.0, 0.5, 1.0)}
    run = Run("game24", "fast", tmp_path, control_weights=weights, planners=planners)
    run.test_tasks = [sums.task]  # stage 4 is complete: its task was planned by all three
    plans = [PlanResult(f"{name}/t", "t", name, samples, 1, Budget()) for name in ("mcts", "sampling", "best_of_n")]
    run.path("plans.jsonl").write_text("".join(json.dumps(plan.to_json()) + "\n" for plan in plans), encoding="utf-8")

    both = asyncio.run(run.control())
    assert [line["planner"] for line in both] == ["best_of_n"] * 3 + ["mcts"] * 3
    lines = both[:3]
    answers = [Trajectory.from_json(line["trajectory"]) for line in lines]
    assert answers == [products, products, sums]  # 2.5 - 2.4 * 0.5 > 1.0 - 0.6 * 0.5, but 2.5 - 2.4 < 1.0 - 0.6
    assert [(line["weight"], line["cost"], line["steps"]) for line in lines] == [
        (0, 2.4, 2),
        (0.5, 2.4, 2),
        (1, 0.6, 2),
    ]

    whole = run.path("control.jsonl").read_bytes()
    run.path("control.jsonl").write_bytes(whole[: whole.index(b"\n") + 9])  # one line, and a torn one
    assert asyncio.run(run.control()) == both
    assert run.path("control.jsonl").read_bytes() == whole
