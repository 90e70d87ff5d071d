"""Any Gymnasium environment as a world: replayed by seed, checked first, and its reward kept for the judge."""

import random
import re
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
from armap_lite.envs.gymnasium import GymnasiumEnvironment, GymnasiumJudge
from armap_lite.episode import Episode
from armap_lite.evaluate import score_plans
from armap_lite.planners.base import Budget, PlanResult, Sample


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
    assert env.fork().reset(task) == start and len(env._idle) == 2  # one of the three is in use again
    env.close()
    env.close()
    assert not env._open and all(simulator.closed for simulator in simulators)


class OtherOrder(Shelves, GymnasiumJudge):
    """A judge whose bases stand the other way round."""


@pytest.mark.parametrize("kind", [ShelvesJudge, OtherOrder])
def test_the_judge_adds_up_the_rewards_of_a_replay(kind: Any):
    judge, tried = kind(), walks(Shelves(), "train")
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


def world(simulator: Any = Shelf, **words: Any) -> Any:
    return type("World", (Shelves,), {"make": lambda self: simulator(), **words})()


class Fixed(Shelf):
    """It ignores seeds that are small."""

    below = 1000

    def reset(self, *, seed: int | None = None) -> Any:
        return super().reset(seed=7 if int(seed or 0) < self.below else seed)


def test_a_simulator_that_ignores_its_seed_is_refused():
    for below, split, n in ((1000, "train", 12), (1000, "dev", 4), (12, "train", 12)):
        with pytest.raises(ValueError, match=rf"shelves: all {n} tasks of '{split}' are the same one; .*the seed"):
            world(type("Low", (Fixed,), {"below": below})).tasks(split)
    assert world(type("Low", (Fixed,), {"below": 12})).tasks("dev") and world().tasks("train")
    assert len(world(Fixed, seeds={"train": [1]}).tasks("train")) == 1
    hidden = {"describe": lambda self, observation, info: observation["held"] or "a shelf"}  # alike at first only
    words = {"instruction": GymnasiumEnvironment.instruction, "actions": lambda *_: {"take": "take"}}
    assert world(**hidden, **words).tasks("train")


def test_a_seed_is_one_task_in_one_split():
    seeds: dict[str, Any] = {"train": range(3), "dev": np.arange(3, 5), "test": [7, 9]}
    assert [task.setup for task in world(seeds=seeds).tasks("dev")] == [{"seed": 3}, {"seed": 4}]
    with pytest.raises(ValueError, match="seed 2 occurs 2 times; each is one task, in one split"):
        world(seeds={**seeds, "test": [7, 2]}).tasks("dev")
    with pytest.raises(ValueError, match="seed 7 occurs 2 times"):
        world(seeds={**seeds, "test": [7, 8, 7]}).tasks("dev")


@pytest.mark.parametrize(
    "picture",
    [None, [np.zeros((4, 6, 3), np.uint8)], np.zeros((4, 6, 3)), np.zeros((3, 40, 60), np.uint8), np.zeros((0, 6, 3))],
)
def test_what_is_no_picture_is_one_error(picture: Any):
    shelf = type("Drawn", (Shelf,), {"render": lambda self: picture})
    with pytest.raises(ValueError, match="shelves: render failed with "):
        world(lambda: shelf("rgb_array")).tasks("test")


def test_the_last_of_a_list_of_frames_is_the_picture():
    frames = type("Frames", (Shelf,), {"render": lambda self: [np.zeros((4, 6, 3), np.uint8), Shelf.render(self)]})
    one, many = world(lambda: Shelf("rgb_array")), world(lambda: frames("rgb_array_list"))
    task = one.tasks("test")[0]
    assert one.reset(task).picture == many.reset(task).picture is not None


WORDS = [
    ("describe", lambda *_: 1 / 0, "describe failed with ZeroDivisionError: division by zero, for the observation {'j"),
    ("describe", lambda *_: None, "describe failed with TypeError: it returned None; expected a text"),
    ("instruction", lambda *_: {}, "instruction failed with TypeError: it returned {}; expected a text"),
    ("actions", lambda *_: ["take"], "actions failed with TypeError: it returned ['take']; expected a mapping of each"),
    ("actions", lambda *_: {0: "take"}, "actions failed with TypeError: it returned {0: 'take'}; expected a mapping"),
    ("actions", lambda *_: None, "actions failed with TypeError: it returned None; expected a mapping"),
]


@pytest.mark.parametrize(("method", "code", "said"), WORDS)
def test_wrong_words_are_a_value_error_at_first_and_then_a_failure_of_the_episode(method: str, code: Any, said: str):
    with pytest.raises(ValueError, match=re.escape(f"shelves: {said}")):
        world(**{method: code}).tasks("test")
    env = world()
    episode = Episode(env, env.tasks("test")[0])
    state = episode.start()
    if method != "instruction":
        setattr(env, method, code)
        assert str(episode.step(state, state.admissible[0]).trajectory.failure).startswith(f"shelves: {said}") or (
            method == "actions"  # which is not asked at the end
        )
        assert str(Episode(env, env.tasks("test")[1]).start().trajectory.failure).startswith(f"shelves: {said}")


def test_answers_of_another_form_are_one_error():
    short = type("Short", (Shelf,), {"step": lambda self, action: Shelf.step(self, action)[:4]})
    with pytest.raises(ValueError, match=r"step failed .* not \(observation, reward, terminated, trunc"):
        world(short).tasks("test")
    bare = type("Bare", (Shelf,), {"reset": lambda self, seed: Shelf.reset(self, seed=seed)[0]})
    with pytest.raises(ValueError, match=r"reset failed .* not \(observation, info\)"):
        world(bare).tasks("test")


@pytest.mark.parametrize("reward", [float("nan"), "much", [1.0, 2.0]])
def test_a_score_that_is_no_number_names_the_task(reward: Any, monkeypatch: pytest.MonkeyPatch):
    env, judge = Shelves(), ShelvesJudge()
    task = env.tasks("test")[0]
    walk = random_trajectory(env, task, random.Random(0))
    plan = PlanResult(f"greedy/{task.id}", task.id, "greedy", (Sample(walk),), 0, Budget())
    before = Shelf.step
    monkeypatch.setattr(Shelf, "step", lambda self, action: (before(self, action)[0], reward, True, False, {}))
    said = f"gave nan for task '{task.id}'" if isinstance(reward, float) else "gave the reward .*; expected a number"
    with pytest.raises(ValueError, match=said):
        score_plans([plan], judge)


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


@pytest.mark.slow
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
