"""Any Gymnasium environment as a world: replayed by seed, checked first, and its reward kept for the judge."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from shelf import COLOURS, Shelf
from shelves import Poison, Shelves, ShelvesJudge, check_no_reward_is_read, right, small_run

from armap_lite import envs
from armap_lite.course import random_trajectory
from armap_lite.envs.base import SimulatorError
from armap_lite.envs.gymnasium import GymnasiumEnvironment
from armap_lite.episode import Episode


def walks(env: Any, split: str = "test") -> list[Any]:
    return [random_trajectory(env, task, random.Random(i)) for i, task in enumerate(env.tasks(split))]


def test_a_task_is_a_seed_and_its_instruction_is_the_simulators():
    env = Shelves()
    splits = {split: env.tasks(split) for split in ("train", "dev", "test")}
    assert [len(tasks) for tasks in splits.values()] == [12, 4, 6] and Shelves().tasks("train") == splits["train"]
    assert len({task.setup["seed"] for tasks in splits.values() for task in tasks}) == 22
    assert {task.instruction for task in splits["train"]} == {f"Take the {colour} jar." for colour in COLOURS}
    with pytest.raises(ValueError, match="split 'gold' is not known; there is train, dev, test"):
        env.tasks("gold")


def test_it_acts_as_the_contract_says_and_forks_share_simulators():
    env = Shelves()
    for walk in walks(env):
        assert walk.steps and env.fork().replay(walk.task, walk.actions) == walk
    task = env.tasks("train")[0]
    start = env.reset(task)
    odd = env.step("fly to the moon")
    assert odd.text == "'fly to the moon' is not admissible here." and not odd.done
    assert env.admissible() == odd.admissible == start.admissible
    take = next(action for action in start.admissible if action.startswith("take"))
    end = env.step(take)
    assert end.done and end.admissible == env.admissible() == () and env.step(take).done
    forks = [env.fork() for _ in range(3)]
    episodes = [Episode(fork, task) for fork in forks]
    for episode in episodes:
        assert episode.step(episode.start(), take).over
    assert len({id(fork.simulator) for fork in (env, *forks)}) == 4
    simulators = [fork.simulator for fork in (env, *forks)]
    for episode in episodes:
        episode.release()
    assert env.fork().reset(task) == start and len(env._simulators.idle) == 2  # one of the three is in use again
    env.close()
    env.close()
    assert not env._simulators.open and all(simulator.closed for simulator in simulators)


def test_the_judge_adds_up_the_rewards_of_a_replay():
    judge, tried = ShelvesJudge(), walks(Shelves(), "train")
    found = [judge.score(walk) for walk in tried]
    assert found == [right(walk) for walk in tried] and set(found) == {0.0, 1.0}
    judge.value = lambda total: total / 4  # type: ignore[method-assign]
    assert [judge.score(walk) for walk in tried] == [score / 4 for score in found]
    judge.close()


class Rendered(Shelves):
    def make(self) -> Shelf:
        return Shelf("rgb_array")


def test_frames_become_pictures_each_in_one_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("ARMAP_CACHE", str(tmp_path))
    env = Rendered()
    seen = {picture for walk in walks(env, "train") for picture in walk.pictures}
    assert {Path(picture) for picture in seen} == set(tmp_path.rglob("*.png")) and len(seen) == len(COLOURS)
    assert {tuple(np.asarray(Image.open(picture))[0, 0]) for picture in seen} == set(COLOURS.values())
    assert all(step.picture is None for walk in walks(Shelves()) for step in walk.steps)


class Noisy(Shelves):
    def make(self) -> Shelf:
        return Shelf(noise=True)


def test_a_world_that_cannot_be_replayed_is_refused_in_one_line():
    for _ in range(2):  # also the second time
        with pytest.raises(ValueError, match=r"'shelves' cannot be replayed: in task 'shelves-\d+' after \[.*seed"):
            Noisy().tasks("train")
    env = Noisy()
    for _ in range(2):
        with pytest.raises(ValueError, match="cannot be replayed"):
            env.tasks("test")
    envs.check_replay(Shelves(), Shelves().tasks("dev"))


def test_a_world_whose_simulators_differ_from_each_other_is_refused():
    class Various(Shelves):
        made = 0

        def make(self) -> Shelf:
            type(self).made += 1
            shelf, salt = Shelf(), self.made
            before = shelf.reset
            shelf.reset = lambda *, seed: before(seed=7 * seed + salt)  # type: ignore
            return shelf

    with pytest.raises(ValueError, match="cannot be replayed.*whenever it is made"):
        Various().tasks("train")
    env = Shelves()
    tasks = env.tasks("train")
    env.make = Various().make  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="cannot be replayed"):  # a fork's
        envs.check_replay(env, tasks)


def test_close_ends_the_simulators_of_forks_and_an_interrupted_one_is_not_used_again():
    env = Shelves()
    task, forks = env.tasks("test")[0], [env.fork() for _ in range(3)]
    for fork in forks:
        fork.reset(task)
    simulators = [fork.simulator for fork in forks]
    env.close()
    assert [simulator.closed for simulator in simulators] == [1, 1, 1]
    with pytest.raises(SimulatorError, match="step failed with .*closed"):
        forks[0].step("go left")
    assert env.reset(task) == forks[1].reset(task) and forks[1].simulator not in simulators

    def interrupted(action: str) -> None:
        raise KeyboardInterrupt

    broken = env.simulator
    broken.step = interrupted
    with pytest.raises(KeyboardInterrupt):
        env.step("go left")
    assert broken.closed and env.simulator is None
    env.close()


def test_a_simulator_that_breaks_is_a_failure_of_the_episode_and_not_used_again():
    class Breaking(Shelves):
        def actions(self, observation: Any, info: Any) -> dict[str, Any]:
            return {**super().actions(observation, info), "break": "hammer"}

    env, task = Breaking(), Shelves().tasks("test")[0]
    episode = Episode(env, task)
    broken = episode.step(episode.start(), "break")
    assert broken.trajectory.failure == "shelves: step failed with KeyError: 'hammer'" and env.simulator is None
    fine = episode.step(episode.start(), "go left")  # on a new simulator
    assert fine.trajectory.failure is None and fine.trajectory.actions == ("go left",)
    with pytest.raises(TypeError, match="abstract"):
        GymnasiumEnvironment()
    assert SimulatorError.__mro__[1] is RuntimeError


def test_stages_one_to_five_run_while_any_reading_of_a_reward_raises(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(envs.ENVIRONMENTS, "shelves", (Shelves, ShelvesJudge))
    before = Shelf.step

    def step(self: Shelf, action: str) -> Any:
        observation, _, *rest = before(self, action)
        return observation, Poison(), *rest

    def poison(on: bool) -> None:
        monkeypatch.setattr(Shelf, "step", step if on else before)

    result = check_no_reward_is_read(small_run("shelves", tmp_path), monkeypatch, poison)
    assert max(row["mean"] for row in result["rows"]) > 0
