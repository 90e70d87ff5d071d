"""The records every stage reads and writes, and the random streams that make them repeatable."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armap_lite.planners.base import Budget, PlanResult, Sample
from armap_lite.rng import derive_seed
from armap_lite.trajectory import Observation, PreferencePair, Step, Task, Trajectory

text = st.text(max_size=20)
perhaps = st.none() | text
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | text, lambda s: st.lists(s, max_size=3) | st.dictionaries(text, s)
)
tasks = st.builds(Task, text, text, text, text, st.dictionaries(text, plain, max_size=3))
observations = st.builds(Observation, text, st.lists(text, max_size=3).map(tuple), st.booleans(), perhaps)
steps = st.lists(st.builds(Step, text, text, perhaps), max_size=4).map(tuple)
trajectories = st.builds(Trajectory, tasks, text, steps, st.booleans(), perhaps, perhaps)
pairs = st.builds(PreferencePair, text, text, text, trajectories, trajectories, text, st.integers(0))
samples = st.lists(st.builds(Sample, trajectories, st.none() | st.floats(allow_nan=False)), max_size=3).map(tuple)
budgets = st.builds(Budget, st.integers(0), st.integers(0), st.integers(0))
plans = st.builds(PlanResult, text, text, text, samples, st.integers(0), budgets, st.none() | st.just({"visits": 1}))


@given(tasks | observations | trajectories | pairs | plans)
def test_a_record_comes_back_from_json_as_it_was(record):
    data = json.loads(json.dumps(record.to_json()))
    back = type(record).from_json(data)
    assert back == record
    assert back.to_json() == record.to_json()


def test_empty_optional_fields_are_left_out_and_the_rest_is_named_as_in_the_class():
    task = Task("a", "game24", "train", "do it")
    start = Trajectory(task, "here")
    assert start.to_json() == {
        "task": {"id": "a", "env": "game24", "split": "train", "instruction": "do it", "setup": {}},
        "start": "here",
        "done": False,
    }
    broken = dataclasses.replace(start, steps=(Step("go", "fell"),), failure="it fell")
    assert broken.to_json()["steps"] == [{"action": "go", "observation": "fell"}]
    assert broken.to_json()["failure"] == "it fell"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"action": "go", "observation": "here", "reward": 1.0}, r"Step has no field \['reward'\]; it has .*'action'"),
        ({"action": "go"}, "Step: .*observation"),
    ],
)
def test_unknown_and_missing_fields_are_errors_that_name_them(data, message):
    with pytest.raises(ValueError, match=message):
        Step.from_json(data)


@given(trajectories, text, observations)
def test_then_adds_one_step_and_leaves_the_original_alone(trajectory, action, observation):
    before = trajectory.to_json()
    longer = trajectory.then(action, observation)
    assert trajectory.to_json() == before
    assert longer.steps[:-1] == trajectory.steps
    assert longer.steps[-1] == Step(action, observation.text, observation.picture)
    assert longer.actions == (*trajectory.actions, action)
    assert (longer.done, longer.task, longer.start) == (observation.done, trajectory.task, trajectory.start)


def test_records_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Task("a", "game24", "train", "do it").instruction = "else"  # type: ignore[misc]


keys = st.lists(st.integers() | st.text(max_size=5), max_size=4).map(tuple)


@given(st.integers(), keys, keys)
def test_a_stream_depends_on_the_seed_and_on_every_key(seed, some, others):
    assert derive_seed(seed, *some) == derive_seed(seed, *some)
    assert 0 <= derive_seed(seed, *some) < 2**63
    assert (derive_seed(seed, *some) == derive_seed(seed, *others)) == (some == others)
    assert derive_seed(seed, *some) != derive_seed(seed + 1, *some)


def test_streams_are_the_same_on_every_machine():
    assert derive_seed(0, "mcts", "game24-900", 3) == 1615148264031018793
    assert derive_seed(0, "1") != derive_seed(0, 1)
