"""Monte Carlo tree search on real Game of 24 states, with a policy and a reward that the tests write themselves.

The trees in tests/golden are made again by `PYTHONPATH=. python tests/test_mcts.py`.
"""

import asyncio
import json
import math
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_planners import TASK, all_walks, chooses, end, fancy, play
from tiny import ScriptedLM, ScriptedReward, puzzle

from armap_lite.agent import Agent
from armap_lite.batching import Batcher
from armap_lite.envs.base import Environment
from armap_lite.episode import Episode
from armap_lite.planners import PlanResult, Search
from armap_lite.planners.mcts import PAPER, Node, backward, mcts, select
from armap_lite.trajectory import Observation, Task, Trajectory

GOLDEN = Path(__file__).parent / "golden"
SEARCHES: dict[str, dict[str, Any]] = {
    "by_hand": {"rollouts": 3, "width": 2, "gamma": 0.5},
    "all_actions": {"rollouts": 12},
    "terminal_siblings": {"rollouts": 12, "c": 0.2, "expand_terminal_siblings": True},
    "sampled_actions": {"rollouts": 8, "num_action_samples": 4, "max_branching_depth": 2},
    "greedy_rollouts": {"rollouts": 10, "num_action_samples": 8, "greedy_rollouts": True},
    "paper": {"rollouts": 10, "temperature": 0.7, **PAPER},
}


def golden_search(name: str) -> dict[str, Any]:
    """Samples, rewards and the tree of one of `SEARCHES`, with floats rounded so that machines agree."""
    if name == "by_hand":  # additions and multiplications alone, so that width 2 leaves one of each
        lm = ScriptedLM(lambda prompt, choice: 1.0 if " + " in choice or " * " in choice else 1e-9)
        result = play("mcts", puzzle(2, 3, 4), lm=lm, **SEARCHES[name])
    else:
        result = play("mcts", puzzle(1, 2, 3), **SEARCHES[name])
    return summary(result)


def summary(result: PlanResult) -> dict[str, Any]:
    samples = [[*sample.trajectory.actions, sample.reward] for sample in result.samples]
    return rounded({"answer": result.answer_index, "samples": samples, "tree": result.tree})


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


@pytest.mark.parametrize("name", SEARCHES)
def test_a_small_search_is_the_stored_one(name):
    """`by_hand` was worked through: 20 under +, then * without visits, 24 there; 12 > 10 keeps the third under *."""
    assert golden_search(name) == json.loads((GOLDEN / f"mcts_{name}.json").read_text(encoding="utf-8"))


def test_the_search_worked_through_by_hand():
    found = golden_search("by_hand")
    assert [sample[-1] for sample in found["samples"]] == [20, 24, 10] and found["answer"] == 1


eighths = st.integers(0, 8).map(lambda k: k / 8)
children = st.lists(st.tuples(st.integers(0, 4), eighths, st.booleans()), min_size=2, max_size=4).filter(
    lambda some: not all(closed for _, _, closed in some)
)


@settings(max_examples=500)
@given(children, st.sampled_from([0.0, 0.3, 1.0, 3.0, 4.5 * 2**0.5]), st.sampled_from([(0.0, 1.0), (-4.0, 6.0)]))
def test_with_equal_priors_selection_is_the_published_rule(some, c, scale):
    """score = value + c * sqrt(ln N) / (1 + n), with N counting the simulation under way."""
    low, high = scale
    node = Node(visits=sum(visits for visits, _, _ in some))
    for visits, value, closed in some:
        raw = low + value * (high - low) if visits else -math.inf
        node.children.append(Node(prior=1 / len(some), parent=node, visits=visits, value=raw, exhausted=closed))

    def score(child: Node) -> float:
        value = (child.value - low) / (high - low) if child.visits else 0.0
        return value + c * math.sqrt(math.log(node.visits + 1)) / (1 + child.visits)

    picked = select(node, c, low, high)
    assert not picked.exhausted
    assert score(picked) >= max(score(child) for child in node.children if not child.exhausted) - 1e-9


def test_of_two_children_never_visited_the_more_probable_one_comes_first():
    node = Node(visits=1)
    node.children = [Node("a", 0.1, node), Node("b", 0.6, node), Node("c", 0.3, node)]
    assert select(node, 1.0, math.inf, -math.inf).action == "b"


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=4), st.floats(-5, 5)), min_size=1),
    st.floats(0.1, 1),
)
def test_backward_keeps_the_highest_discounted_reward(paths, gamma):
    root = Node()
    reached: dict[tuple[int, ...], Node] = {(): root}
    best: dict[tuple[int, ...], float] = {}
    visits: dict[tuple[int, ...], int] = {}
    for path, reward in paths:
        for i, step in enumerate(path):
            if (here := tuple(path[: i + 1])) not in reached:
                parent = reached[here[:-1]]
                reached[here] = Node(str(step), 1.0, parent)
                parent.children.append(reached[here])
        backward(reached[tuple(path)], reward, gamma)
        for i in range(len(path) + 1):
            here = tuple(path[:i])
            best[here] = max(best.get(here, -math.inf), reward * gamma ** (len(path) - i))
            visits[here] = visits.get(here, 0) + 1
    for path, node in reached.items():
        assert node.value == pytest.approx(best[path], abs=1e-9)
        assert node.visits == visits[path]


def test_mcts_tries_everything_once_and_stops():
    task = puzzle(1, 2, 3)
    everything = set(all_walks(task))
    result = play("mcts", task, rollouts=10_000)
    tried = [sample.trajectory.actions for sample in result.samples]
    assert len(everything) > 50 and len(tried) == len(set(tried)) and set(tried) == everything
    assert result.budget.reward_calls == len(everything) == result.tree["visits"]
    assert end(result.answer) == max(end(sample.trajectory) for sample in result.samples)


def test_a_closed_branch_is_never_entered_again():
    for c in (0.0, 1.0, 4.5 * 2**0.5):
        result = play("mcts", rollouts=60, c=c, width=2)
        tried = [sample.trajectory.actions for sample in result.samples]
        assert len(tried) == len(set(tried)) == 8  # 2 * 2 * 2 is all there is at width 2


def test_below_its_depth_the_tree_no_longer_branches():
    task = puzzle(1, 2, 3)
    first = {actions[:1] for actions in all_walks(task)}
    result = play("mcts", task, rollouts=10_000, max_branching_depth=1)
    tried = [sample.trajectory.actions for sample in result.samples]
    assert {actions[:1] for actions in tried} == first and len(tried) == len(first) < len(set(all_walks(task)))
    everything = play("mcts", task, rollouts=10_000, max_branching_depth=2)
    assert [s.trajectory for s in everything.samples] != [] and len(everything.samples) > len(tried)


def test_finishing_tries_the_siblings_of_the_last_action_without_another_question():
    task = puzzle(1, 2, 3)
    lm, reward = ScriptedLM(fancy), ScriptedReward(end)
    result = play("mcts", task, lm=lm, reward=reward, rollouts=10_000, expand_terminal_siblings=True)
    everything = set(all_walks(task))
    tried = [sample.trajectory.actions for sample in result.samples]
    assert len(tried) == len(set(tried)) and set(tried) == everything
    assert len(chooses(lm)) == 1 + len({actions[:-1] for actions in everything})
    first = len({actions for actions in everything if actions[:-1] == tried[0][:-1]})
    assert {actions[:-1] for actions in tried[:first]} == {tried[0][:-1]}
    few = play("mcts", task, rollouts=first + 2, expand_terminal_siblings=True)
    assert few.samples == result.samples[: first + 2]


def test_a_greedy_rollout_takes_the_most_probable_action_in_each_state_that_is_new():
    lm = ScriptedLM(fancy)
    result = play("mcts", lm=lm, rollouts=30, greedy_rollouts=True)
    favourite = {}
    for _, [prompt], [options] in chooses(lm):
        done = prompt.splitlines()[prompt.splitlines().index(TASK.instruction) + 1 :]
        favourite[tuple(done)] = max(options, key=lambda option: fancy(prompt, option))
    seen, drawn = {()}, 0
    for sample in result.samples:
        actions = sample.trajectory.actions
        entered = [i for i in range(1, len(actions)) if actions[:i] not in seen]  # the first is the leaf that UCT chose
        assert all(actions[i] == favourite[actions[:i]] for i in entered)
        drawn += len(entered)
        seen |= {actions[:i] for i in range(len(actions))}
    assert drawn > 10


@pytest.mark.parametrize(("cached", "draws"), [(True, 8), (False, 2)])
def test_where_each_draw_costs_the_whole_prompt_there_are_fewer(cached, draws):
    asked = set()

    class Counting(ScriptedLM):
        has_prefix_cache = cached

        def choose(self, *args, **options):
            asked.add(options["n"])
            return super().choose(*args, **options)

    result = play("mcts", lm=Counting(fancy), rollouts=4, num_action_samples=8, num_uncached_samples=2)
    assert result.samples and asked == {draws}


def test_no_state_is_read_once_the_tokens_are_spent():
    whole = play("mcts", rollouts=30)
    dearest = max(len(prompts[0]) + sum(map(len, c[0])) for lm in [ScriptedLM(fancy)] for _, prompts, c in asked(lm))
    for limit in (1, whole.budget.llm_tokens // 3, whole.budget.llm_tokens - 1):
        part = play("mcts", rollouts=30, llm_tokens=limit)
        assert part.samples == whole.samples[: len(part.samples)]
        assert part.budget.llm_tokens >= limit
        assert len(part.samples) == 1 or part.budget.llm_tokens < limit + dearest


def asked(lm: ScriptedLM) -> list[Any]:
    """What a long search asks `lm`."""
    play("mcts", lm=lm, rollouts=30)
    return chooses(lm)


def test_width_keeps_the_actions_the_policy_finds_most_probable():
    lm = ScriptedLM(fancy)
    result = play("mcts", lm=lm, rollouts=40, width=3)
    weights = {}
    for _, prompts, choices in chooses(lm):
        [prompt], [options] = prompts, choices
        weights[tuple(prompt.splitlines()[prompt.splitlines().index(TASK.instruction) + 1 :])] = {
            option: fancy(prompt, option) for option in options
        }

    def check(node, path):
        bar = sorted(weights[path].values(), reverse=True)[:3] if path in weights else []
        for child in node["children"]:
            assert weights[path][child["action"]] in bar
            assert child["prior"] == pytest.approx(weights[path][child["action"]] / sum(bar))
            check(child, (*path, child["action"]))

    check(result.tree, ())
    assert len(result.tree["children"]) == 3


def test_the_tree_adds_up():
    result = play("mcts", rollouts=30, gamma=0.5)
    leaves = {}

    def check(node, path):
        assert node["visits"] == sum(child["visits"] for child in node["children"]) + (not node["children"])
        if node["children"]:
            assert node["value"] == pytest.approx(0.5 * max(child["value"] for child in node["children"]))
            assert node["chosen"] == (result.answer.actions[: len(path)] == path)
            for child in node["children"]:
                check(child, (*path, child["action"]))
        else:
            leaves[path] = node["value"]

    check(result.tree, ())
    assert leaves == {sample.trajectory.actions: sample.reward for sample in result.samples}
    json.dumps(result.to_json(), allow_nan=False)


@pytest.mark.parametrize("limit", ["llm_tokens", "env_steps"])
def test_a_search_without_budget_tries_once(limit):
    assert len(play("mcts", rollouts=9, **{limit: 0}).samples) == 1


# Any world


class Branching(Environment):
    """Three actions in each state; a checksum of all actions so far says whether the episode is over."""

    name, version, metric, guide = "branching", "1", "-", "Go."

    def __init__(self, salt: int, max_steps: int):
        self.salt, self.max_steps, self.actions = salt, max_steps, ()

    def tasks(self, split: str) -> list[Task]:
        return [Task("t", self.name, split, "Go on.")]

    def reset(self, task: Task) -> Observation:
        self.at, self.actions = None, ()
        return Observation("")

    def step(self, action: str) -> Observation:
        self.actions += (action,)
        return Observation("", done=checksum(self.salt, self.actions) % 3 == 0)

    def admissible(self) -> tuple[str, ...]:
        return ("a", "b", "c")


def checksum(salt: int, actions: tuple[str, ...]) -> int:
    return zlib.crc32(f"{salt}{actions}".encode()) >> 7


def search_anything(salt: int, seed: int, max_steps: int = 6, **options: Any) -> tuple[PlanResult, ScriptedLM]:
    def taste(trajectory: Trajectory) -> float:
        return checksum(salt + 1, trajectory.actions) % 100 / 10 - 5

    def liking(prompt: str, choice: str) -> float:
        return 1 + checksum(salt + 2, (prompt, choice)) % 5

    lm, env = ScriptedLM(liking), Branching(salt, max_steps)
    search = Search("mcts", Episode(env, env.tasks("dev")[0]), Agent(lm, env), Batcher(lm, ScriptedReward(taste)), seed)
    return asyncio.run(mcts(search, **options)), lm


configs = st.fixed_dictionaries(
    {
        "rollouts": st.integers(1, 40),
        "c": st.sampled_from([0.0, 1.0, 6.0]),
        "num_action_samples": st.sampled_from([None, 1, 2, 5]),
        "expand_terminal_siblings": st.booleans(),
        "greedy_rollouts": st.booleans(),
        "width": st.sampled_from([None, 2]),
        "llm_tokens": st.sampled_from([None, 0, 100, 400]),
    }
)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 3), configs)
def test_whatever_the_world_and_the_options(salt, seed, options):
    result, lm = search_anything(salt, seed, **options)
    assert result == search_anything(salt, seed, **options)[0]  # the same seed, the same tree
    samples = {sample.trajectory.actions: sample.reward for sample in result.samples}
    assert len(samples) == len(result.samples) <= options["rollouts"]  # none twice
    assert result.samples[result.answer_index].reward == max(samples.values()) == result.tree["value"]
    dearest = max(len(prompts[0]) + sum(map(len, choices[0])) for _, prompts, choices in chooses(lm))
    if options["llm_tokens"] is not None and len(samples) > 1 and not options["expand_terminal_siblings"]:
        assert result.budget.llm_tokens < options["llm_tokens"] + dearest

    def check(node: dict[str, Any], path: tuple[str, ...]) -> None:
        below = [leaf for leaf in samples if leaf[: len(path)] == path]
        assert node["visits"] == len(below) == sum(child["visits"] for child in node["children"]) + (path in samples)
        assert node["value"] == max(samples[leaf] for leaf in below)
        for child in node["children"]:
            check(child, (*path, child["action"]))

    check(result.tree, ())


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.booleans(), st.booleans())
def test_a_search_without_limits_tries_all_that_there_is_once(salt, greedy, siblings):
    def ends(actions: tuple[str, ...]) -> int:
        over = len(actions) == 3 or (actions and checksum(salt, actions) % 3 == 0)
        return 1 if over else sum(ends((*actions, action)) for action in "abc")

    options = {"greedy_rollouts": greedy, "expand_terminal_siblings": siblings}
    result, _ = search_anything(salt, 0, max_steps=3, rollouts=1000, **options)
    assert len(result.samples) == len({s.trajectory.actions for s in result.samples}) == ends(())


if __name__ == "__main__":
    for name in SEARCHES:
        (GOLDEN / f"mcts_{name}.json").write_text(json.dumps(golden_search(name), indent=1) + "\n", encoding="utf-8")
