"""The planners on real Game of 24 states, with a policy and a reward that the tests write themselves."""

import asyncio
import inspect
import itertools
import json
from collections.abc import Iterator

import pytest
from tiny import Fragile, ScriptedLM, ScriptedReward, puzzle

from armap_lite import envs, evaluate, planners
from armap_lite.agent import Agent
from armap_lite.batching import Batcher
from armap_lite.control import Objective, Weighted
from armap_lite.envs.base import actions_like
from armap_lite.envs.game24 import Game24, Game24Judge
from armap_lite.episode import Episode
from armap_lite.pipeline import profiles
from armap_lite.pipeline.run import Run
from armap_lite.planners import PLANNERS, Budget, PlanResult, Sample, Search
from armap_lite.planners.mcts import MCTSConfig
from armap_lite.trajectory import Observation, Task, Trajectory

TASK = puzzle(1, 4, 8, 8)
OPTIONS = {
    "sampling": {},
    "greedy": {},
    "best_of_n": {"n": 6},
    "reflexion": {"trials": 4, "threshold": 1e9},
    "mcts": {"rollouts": 12},
}


class CountedGame24(Game24):
    """Game of 24 that counts every step it really carries out, its forks' included."""

    def __init__(self):
        super().__init__()
        self.carried_out: list[str] = []

    def step(self, action: str) -> Observation:
        self.carried_out.append(action)
        return super().step(action)


def end(trajectory: Trajectory) -> float:
    """The number that is left: a reward as good as any."""
    numerator, _, denominator = trajectory.steps[-1].observation.split()[-1].partition("/")
    return int(numerator) / int(denominator or 1)


def fancy(prompt: str, choice: str) -> float:
    """A policy with a taste, the same everywhere."""
    return 1 + (sum(map(ord, choice)) * 7 + len(prompt)) % 11


def search(planner: str, task: Task = TASK, lm=None, reward=None, env=None, seed: int = 0, objective=None) -> Search:
    lm, env = lm or ScriptedLM(fancy), env or Game24()
    batch = Batcher(lm, reward or ScriptedReward(end))
    return Search(planner, Episode(env, task), Agent(lm, env, examples=1), batch, seed, objective)


def play(planner: str, task: Task = TASK, *, lm=None, reward=None, env=None, seed=0, objective=None, **options):
    async def run() -> PlanResult:
        found = PLANNERS[planner](search(planner, task, lm, reward, env, seed, objective), **options)
        return await asyncio.wait_for(found, 60)

    return asyncio.run(run())


def all_walks(task: Task, actions: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every finished action sequence of `task`."""
    env = Game24()
    if env.replay(task, actions).done:
        yield actions
        return
    for action in env.admissible():
        yield from all_walks(task, (*actions, action))


# What holds for every planner


@pytest.mark.parametrize("planner", PLANNERS)
def test_each_choice_is_made_among_the_actions_of_the_state_at_hand(planner):
    """The published search expands every node with the root's actions; here a node expands from its own state."""
    lm = ScriptedLM(fancy, text=lambda prompt, seed: f"lesson {seed % 97}")
    result = play(planner, lm=lm, **OPTIONS[planner] | ({"rollouts": 40} if planner == "mcts" else {}))
    head = Agent(lm, Game24(), examples=1).head
    depths = set()
    for _, prompts, choices in [call for call in lm.calls if call[0] == "choose"]:
        for prompt, options in zip(prompts, choices, strict=True):
            lines = prompt.removeprefix(head).splitlines()
            instruction, *actions = [line for line in lines if not line.startswith("Lesson: ")]
            env = Game24()
            here = env.replay(TASK, actions)
            assert instruction == TASK.instruction and here.actions == tuple(actions)
            assert options == env.admissible() and len(options) > 0
            depths.add(len(actions))
    assert depths == {0, 1, 2}
    for sample in result.samples:
        assert sample.trajectory.done and sample.trajectory == Game24().replay(TASK, sample.trajectory.actions)
        assert not any("Nothing happens" in step.observation for step in sample.trajectory.steps)


@pytest.mark.parametrize("planner", PLANNERS)
def test_the_budget_is_what_was_really_used(planner):
    lm = ScriptedLM(fancy, text=lambda prompt, seed: f"lesson {seed % 97}")
    env, reward = CountedGame24(), ScriptedReward(end)
    run = search(planner, lm=lm, env=env, reward=reward)
    env.carried_out.clear()  # the agent replayed its examples
    result = asyncio.run(PLANNERS[planner](run, **OPTIONS[planner]))
    asked = {prompt: sum(map(len, options)) for _, prompts, c in chooses(lm) for prompt, options in zip(prompts, c)}
    tokens = sum(len(prompt) + size for prompt, size in asked.items())
    asked_to_write = [prompt for kind, prompts, _ in lm.calls if kind == "generate" for prompt in prompts]
    every = sum(len(p) + sum(map(len, options)) for _, prompts, c in chooses(lm) for p, options in zip(prompts, c))
    tokens, every = (n + sum(map(len, asked_to_write)) + sum(map(len, lm.written)) for n in (tokens, every))
    spent = tokens, len(env.carried_out), len(reward.scored), result.budget.steps_avoided, every
    assert result.budget == Budget(*spent) and every >= tokens
    assert (result.budget.steps_avoided > 0) == (planner == "mcts")  # a single try goes forward only
    assert len({t.actions for t in reward.scored}) == len(reward.scored)
    assert (len(reward.scored) == 0) == (planner in ("sampling", "greedy"))
    assert all((sample.reward is None) == (planner in ("sampling", "greedy")) for sample in result.samples)


def chooses(lm: ScriptedLM):
    return [call for call in lm.calls if call[0] == "choose"]


@pytest.mark.parametrize("planner", PLANNERS)
def test_the_same_seed_gives_the_same_plan_and_another_seed_may_not(planner):
    results = [play(planner, seed=seed, **OPTIONS[planner]) for seed in (0, 0, 1, 2)]
    assert results[0] == results[1]
    assert PlanResult.from_json(json.loads(json.dumps(results[0].to_json()))) == results[0]
    draws = {result.samples[0].trajectory.actions for result in results}
    assert len(draws) == 1 if planner == "greedy" else len(draws) > 1


@pytest.mark.parametrize("planner", ["best_of_n", "reflexion", "mcts"])
def test_the_answer_is_what_the_reward_likes_most_wherever_it_came(planner):
    places = set()
    for seed in range(6):
        result = play(planner, seed=seed, **OPTIONS[planner])
        rewards = [sample.reward for sample in result.samples]
        assert rewards == [end(sample.trajectory) for sample in result.samples]
        assert result.answer_index == rewards.index(max(rewards))
        assert result.answer == result.samples[result.answer_index].trajectory
        places.add(
            "first" if result.answer_index == 0 else "last" if result.answer_index == len(rewards) - 1 else "between"
        )
    assert "between" in places


@pytest.mark.parametrize("planner", ["best_of_n", "reflexion", "mcts"])
def test_an_objective_changes_what_is_liked(planner):
    objective = Objective() - 1000 * Weighted(actions_like(r"\*"))
    result = play(planner, objective=objective, **OPTIONS[planner])
    for sample in result.samples:
        assert sample.reward == end(sample.trajectory) - 1000 * sum("*" in a for a in sample.trajectory.actions)
    assert sum("*" in a for a in result.answer.actions) == min(
        sum("*" in a for a in s.trajectory.actions) for s in result.samples
    )


# Sampling, greedy, Best-of-N


def test_greedy_takes_the_most_probable_action_each_time():
    lm = ScriptedLM(fancy)
    result = play("greedy", lm=lm)
    for (_, [prompt], [options]), action in zip(chooses(lm), result.answer.actions, strict=True):
        assert fancy(prompt, action) == max(fancy(prompt, option) for option in options)


def test_best_of_n_keeps_repeats_as_samples_but_scores_each_trajectory_once():
    reward = ScriptedReward(end)
    sure = ScriptedLM(lambda prompt, choice: 1.0 if "+" in choice else 1e-12)
    result = play("best_of_n", puzzle(2, 3), lm=sure, reward=reward, n=7)
    assert len(result.samples) == 7 and len({s.trajectory.actions for s in result.samples}) == 1
    assert result.budget.reward_calls == len(reward.scored) == 1 and result.answer_index == 0
    mixed = play("best_of_n", puzzle(2, 3), reward=reward, n=30)
    assert mixed.budget.reward_calls == len({s.trajectory.actions for s in mixed.samples}) == 5


def test_samples_of_a_larger_n_begin_with_those_of_a_smaller_one():
    small, large = play("best_of_n", n=3), play("best_of_n", n=9)
    assert large.samples[:3] == small.samples


# Reflexion

SCRIPT = (  # what the policy does after 0, 1, 2, 3 lessons: ends at 21, 256, 34, 8
    ("8 + 8 = 16", "16 + 4 = 20", "20 + 1 = 21"),
    ("8 * 8 = 64", "64 * 4 = 256", "256 * 1 = 256"),
    ("8 * 4 = 32", "32 / 1 = 32", "32 + 8 = 40"),
    ("8 / 8 = 1", "4 * 1 = 4", "4 + 1 = 5"),
)


def learner() -> ScriptedLM:
    def weight(prompt: str, choice: str) -> float:
        known = prompt.count("do it otherwise")
        return 1.0 if choice in SCRIPT[known] else 1e-15

    return ScriptedLM(weight, text=lambda prompt, seed: f" do it otherwise, not {prompt.splitlines()[1]} ")


@pytest.mark.parametrize(
    ("rewards", "threshold", "trials", "chosen"),
    [
        ([0.1, 0.9, 0.3, 0.2], 5.0, 4, 1),  # neither the first nor the last
        ([0.1, 0.2, 0.9, 0.3], 5.0, 4, 2),
        ([0.9, 0.1, 0.2, 0.3], 5.0, 4, 0),
        ([0.1, 0.9, 0.95, 0.2], 0.5, 2, 1),  # good enough: stop
        ([0.7, 0.9, 0.95, 0.2], 0.5, 1, 0),
        ([0.1, 0.5, 0.3, 0.2], 0.5, 4, 1),  # as high as the threshold is not above it
        ([-3.0, -1.0, -2.0, -4.0], 0.0, 4, 1),
    ],
)
def test_reflexion_returns_the_trial_that_the_reward_likes_most(rewards, threshold, trials, chosen):
    liked = dict(zip(SCRIPT, rewards))
    lm = learner()
    reward = ScriptedReward(lambda trajectory: liked[trajectory.actions])
    result = play("reflexion", lm=lm, reward=reward, trials=4, threshold=threshold, memory=10)
    assert [sample.trajectory.actions for sample in result.samples] == list(SCRIPT[:trials])
    assert [sample.reward for sample in result.samples] == rewards[:trials]
    assert result.answer_index == chosen and result.budget.reward_calls == trials
    assert sum(kind == "generate" for kind, _, _ in lm.calls) == trials - 1  # nothing is learned after the last


@pytest.mark.parametrize("memory", [0, 1, 2, 10])
def test_the_latest_lessons_stand_in_the_prompt_between_examples_and_task(memory):
    lm = ScriptedLM(fancy, text=lambda prompt, seed: f"lesson after {prompt.splitlines()[1]} ")
    result = play("reflexion", lm=lm, trials=4, threshold=1e9, memory=memory)
    told = [f"Lesson: Next time, lesson after {sample.trajectory.actions[0]}" for sample in result.samples]
    head = Agent(lm, Game24(), examples=1).head
    starts = [p for _, prompts, _ in chooses(lm) for p in prompts if p.endswith(TASK.instruction + "\n")]
    for trial, prompt in enumerate(starts):
        expected = told[:trial][max(0, trial - memory) :]
        assert prompt == head + "".join(f"{line}\n" for line in expected) + TASK.instruction + "\n"
    assert len(starts) == 4
    written = [prompt for kind, prompts, _ in lm.calls if kind == "generate" for prompt in prompts]
    for prompt, sample in zip(written, result.samples):
        assert all(action in prompt for action in sample.trajectory.actions) and TASK.instruction in prompt


# Many tasks

TASKS = [
    puzzle(1, 4, 8, 8, id="a"),
    puzzle(2, 9, 10, 12, id="b"),
    puzzle(4, 4, 6, 8, id="c"),
    puzzle(3, 3, 5, 7, id="d"),
]


def run_plan(path, options=OPTIONS, *, env=None, tasks=TASKS, group=3, seed=0, reward=None, progress=lambda n: None):
    lm = ScriptedLM(fancy, text=lambda prompt, seed: f"lesson {seed % 97}")
    env = env or Game24()
    agent = Agent(lm, env, examples=1)
    reward = reward or ScriptedReward(end)
    asyncio.run(planners.plan(env, agent, reward, tasks, path, options, seed=seed, group=group, progress=progress))
    return planners.load(path)


def rows(plans: list[PlanResult], golds=None):
    golds = golds or evaluate.score_plans(plans, Game24Judge())
    what = {"env": "game24", "env_version": "1", "split": "test", "metric": "success", "policy": "scripted"}
    who = {"reward_model": None, "profile": "fast", "seed": 0, "device": "cpu", "seconds": dict.fromkeys(PLANNERS, 1.0)}
    return evaluate.rows(plans, golds, **what, **who)


def test_all_planners_get_one_task_list_and_report_their_budgets(tmp_path):
    """Published planners were compared on different tasks at different budgets."""
    counts = []
    plans = run_plan(tmp_path / "plans.jsonl", progress=counts.append)
    assert sorted((p.planner, p.task_id) for p in plans) == sorted((n, t.id) for n in PLANNERS for t in TASKS)
    assert sum(counts) == len(TASKS)
    table = {row["planner"]: row for row in rows(plans)}
    assert {row["n"] for row in table.values()} == {len(TASKS)}
    assert set(table) == {*PLANNERS, "random_best_of_n", "oracle_best_of_n"}
    for planner in PLANNERS:
        own = [plan.budget for plan in plans if plan.planner == planner]
        for cost in evaluate.COSTS:
            assert table[planner][cost] == sum(getattr(budget, cost) for budget in own)
        assert table[planner]["llm_tokens"] > 0 and table[planner]["env_steps"] >= 3 * len(TASKS)
    for missing in range(len(plans)):
        with pytest.raises(ValueError, match="lacks 1 of 4 tasks"):
            rows(plans[:missing] + plans[missing + 1 :])


def test_where_a_server_tells_no_tokens_equal_budgets_are_those_of_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(planners.Search, "_count", lambda *_: None)
    options = {
        "best_of_n": {"n": 3},
        "mcts": {"rollouts": 1000, "num_action_samples": 3, "llm_tokens": {"spent_by": "best_of_n"}},
    }
    best, search = ({p.task_id: p for p in run_plan(tmp_path / "p.jsonl", options) if p.planner == n} for n in options)
    for task, plan in search.items():
        most = best[task].budget.env_steps
        longest = max(len(sample.trajectory.steps) for sample in plan.samples)
        assert plan.budget.llm_tokens == 0 and most <= plan.budget.env_steps < most + 2 * longest


def test_the_seconds_of_a_run_that_is_broken_off_are_not_lost(tmp_path, monkeypatch):
    run = Run("game24", "fast", tmp_path, policy="x", reward="x", test_tasks=4, group=1, planners={"sampling": {}})
    run.__dict__ |= {"lm": ScriptedLM(fancy), "own_reward": ScriptedReward(end)}
    run.path("training.json").write_text('{"trained": false}', encoding="utf-8")
    choose, calls = ScriptedLM.choose, itertools.count(1)

    def fails_once(self, *args, **options):
        if next(calls) == 5:
            raise InterruptedError
        return choose(self, *args, **options)

    clock = itertools.count()
    monkeypatch.setattr(planners.time, "perf_counter", lambda: float(next(clock)))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(ScriptedLM, "choose", fails_once)
        asyncio.run(run.plan())
    before = json.loads(run.path("seconds.json").read_text(encoding="utf-8"))
    assert before["sampling"] > 0
    asyncio.run(run.plan())
    assert json.loads(run.path("seconds.json").read_text(encoding="utf-8"))["sampling"] > before["sampling"]


def test_each_task_is_planned_as_if_it_were_alone(tmp_path):
    together = {plan.id: plan for plan in run_plan(tmp_path / "all.jsonl")}
    for task in TASKS[::-1]:
        for plan in run_plan(tmp_path / f"{task.id}.jsonl", tasks=[task], group=1):
            assert plan == together[plan.id]


def test_a_plan_broken_off_anywhere_ends_as_if_it_had_not_been(tmp_path):
    path = tmp_path / "plans.jsonl"
    run_plan(path)
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    assert len(ends) == len(TASKS) * len(PLANNERS)
    for cut in (0, 5, ends[0], ends[3], ends[6] + 9, ends[13], ends[14], ends[17] - 1, len(whole)):
        path.write_bytes(whole[:cut])
        run_plan(path)
        assert path.read_bytes() == whole


def test_a_model_that_forgets_pays_for_every_question(tmp_path):
    for has_prefix_cache in (True, False):
        lm = ScriptedLM(fancy)
        lm.has_prefix_cache = has_prefix_cache
        result = play("best_of_n", lm=lm, n=5)
        asked = [(prompt, sum(map(len, c))) for _, prompts, cs in chooses(lm) for prompt, c in zip(prompts, cs)]
        assert len(asked) == 15
        assert result.budget.llm_tokens == sum(len(p) + size for p, size in (set(asked) if has_prefix_cache else asked))


def test_one_planner_can_be_given_what_another_spent(tmp_path):
    options = {"best_of_n": {"n": 6}, "mcts": {"rollouts": 1000, "llm_tokens": {"spent_by": "best_of_n"}}}
    path = tmp_path / "plans.jsonl"
    plans = {plan.id: plan for plan in run_plan(path, options)}
    for task in TASKS:
        limit = plans[f"best_of_n/{task.id}"].budget.llm_tokens
        own = plans[f"mcts/{task.id}"]
        assert own.budget.llm_tokens >= limit
        assert own == play("mcts", task, rollouts=1000, llm_tokens=limit)
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:5]))
    run_plan(path, options)
    assert path.read_bytes() == whole
    with pytest.raises(ValueError, match="mcts takes the budget of 'best_of_n', which has to be planned before it"):
        run_plan(tmp_path / "other.jsonl", dict(reversed(options.items())))


def test_an_unknown_planner_is_an_error_before_anything_is_done(tmp_path):
    with pytest.raises(ValueError, match="planner 'astar' is not known; there is sampling, greedy"):
        run_plan(tmp_path / "plans.jsonl", {"astar": {}})
    assert not (tmp_path / "plans.jsonl").exists()


# Trajectories that broke off


def test_broken_trajectories_are_counted_and_scored_as_far_as_they_came():
    broken = Trajectory(TASK, "left: 1 4 8 8", failure="the simulator died")
    solved = Game24().replay(TASK, ("8 / 4 = 2", "2 + 1 = 3", "8 * 3 = 24"))
    samples = (Sample(broken, 0.0), Sample(solved, 1.0), Sample(broken, -1.0))
    [*_, row, floor, ceiling] = rows([PlanResult("best_of_n/t", "t", "best_of_n", samples, 1, Budget(1, 1, 1))])
    assert (row["failures"], floor["failures"], ceiling["failures"]) == (2, 2, 2)
    assert (row["mean"], floor["mean"], ceiling["mean"]) == (1, pytest.approx(1 / 3), 1)


def test_a_simulator_that_dies_breaks_off_a_trajectory_not_the_run(tmp_path):
    def reward(trajectory: Trajectory) -> float:
        return 0.0 if trajectory.failure else 1.0

    plans = run_plan(tmp_path / "plans.jsonl", env=Fragile(), reward=ScriptedReward(reward))
    samples = [sample for plan in plans for sample in plan.samples]
    broken = [sample.trajectory for sample in samples if sample.trajectory.failure]
    assert 0 < len(broken) < len(samples)
    assert all("the simulator died" in t.failure and not any("*" in a for a in t.actions[:-1]) for t in broken)
    table = {row["planner"]: row for row in rows(plans)}
    for planner in PLANNERS:
        own = [sample for plan in plans if plan.planner == planner for sample in plan.samples]
        assert table[planner]["failures"] == sum(bool(sample.trajectory.failure) for sample in own)


@pytest.mark.parametrize("env", envs.ENVIRONMENTS)
@pytest.mark.parametrize("profile", profiles.PROFILES)
def test_every_profile_gives_each_planner_options_that_it_has(profile, env):
    settings = profiles.get(profile, env)
    assert list(settings.planners) == list(PLANNERS)
    for name, options in settings.planners.items():
        known = MCTSConfig if name == "mcts" else PLANNERS[name]
        assert options.keys() <= inspect.signature(known).parameters.keys() - {"search"}
    listed = settings.planners["mcts"].get("num_action_samples") is None
    assert listed == (env == "game24"), "where a state has hundreds of actions, children are drawn"
    assert (settings.reward.vision is None) == (env != "webshop" and profile != "paper")


@pytest.mark.parametrize(
    ("env", "lr", "epochs", "batch", "tokens", "n", "threshold", "rollouts", "temperature"),
    [  # the published tables and code
        ("webshop", 2e-5, 3, 4, 8192, 10, 0.0, 10, 1.5),
        ("scienceworld", 1e-5, 10, 128, 4096, 10, 7.25, 10, 1.5),
        ("game24", 1e-5, 10, 64, 4000, 100, 0.0, 100, 0.7),
    ],
)
def test_profile_paper_has_the_published_constants(env, lr, epochs, batch, tokens, n, threshold, rollouts, temperature):
    settings = profiles.get("paper", env)
    t, options = settings.training, settings.planners
    assert (t.lr, t.epochs, t.gradient_clip_val, t.weight_decay, t.schedule) == (lr, epochs, 0.3, 0.0, "constant")
    assert t.batch_size * t.accumulate_grad_batches * t.devices == batch
    assert (settings.reward.max_tokens, settings.reward.trainable) == (tokens, "lora:64")
    assert options["best_of_n"] == {"n": n, "temperature": 0.7 if env == "game24" else 0.5}
    assert (options["reflexion"]["trials"], options["reflexion"]["threshold"]) == (10, threshold)
    tree = options["mcts"]
    assert (tree["rollouts"], tree["temperature"], tree["width"], tree["gamma"]) == (rollouts, temperature, 10, 0.9)
    assert tree["c"] == pytest.approx(6.36396, abs=1e-5) and tree["max_branching_depth"] == 10


def test_a_search_may_be_held_to_the_steps_of_another_planner(tmp_path):
    options = {"best_of_n": {"n": 4}, "mcts": {"rollouts": 1000, "env_steps": {"spent_by": "best_of_n"}}}
    plans = {plan.id: plan for plan in run_plan(tmp_path / "plans.jsonl", options)}
    for task in TASKS:
        limit, tree = plans[f"best_of_n/{task.id}"].budget.env_steps, plans[f"mcts/{task.id}"]
        assert limit <= tree.budget.env_steps < limit + 6  # a simulation that has begun is finished
        assert tree == play("mcts", task, rollouts=1000, env_steps=limit) and tree.budget.steps_avoided > 0
