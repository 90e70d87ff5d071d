"""States reached again at will: what is stepped, what is saved, and a simulator that breaks off."""

import asyncio
import json

import pytest

from armap_lite import collect, envs
from armap_lite.agent import Agent
from armap_lite.envs.base import SimulatorError
from armap_lite.envs.game24 import Game24
from armap_lite.episode import Episode
from armap_lite.llms.base import Choice, Completion, LanguageModel
from armap_lite.trajectory import Observation, Task

TASK = Task("t", "game24", "train", "Use the numbers 1 2 3 4 to obtain 24.", {"numbers": [1, 2, 3, 4], "target": 24})


class First(LanguageModel):
    """Always the first admissible action."""

    name = "first"
    has_prefix_cache = True

    def generate(self, prompts, n=1, **options):
        return [[Completion("", 1)] * n for _ in prompts]

    def choose(self, prompts, choices, n=1, **options):
        return [[Choice(options[0], 0, 0.0, 1)] * (n or 1) for options in choices]


class Fragile(Game24):
    """A simulator that dies at the second step of every episode."""

    def step(self, action: str) -> Observation:
        if len(self._left) == 3:
            raise SimulatorError("the simulator is gone")
        return super().step(action)


def test_a_known_state_costs_no_step_and_a_sibling_is_replayed_to() -> None:
    episode = Episode(Game24(), TASK)
    start = episode.start()
    one = episode.step(start, "2 + 1 = 3")
    assert (episode.steps, episode.steps_avoided) == (1, 0)
    assert episode.step(start, "2 + 1 = 3") is one
    assert (episode.steps, episode.steps_avoided) == (1, 1)
    two = episode.step(one, "3 + 3 = 6")  # the live simulator stands there: one step
    assert episode.steps == 2
    other = episode.step(one, "4 + 3 = 7")  # it stands elsewhere now: replay of one action, and the step
    assert episode.steps == 4
    assert two.trajectory.steps[-1].observation != other.trajectory.steps[-1].observation
    assert other.admissible and all("=" in action for action in other.admissible)


def test_two_worlds_over_one_environment_do_not_disturb_each_other() -> None:
    env = Game24()
    a, b = Episode(env, TASK), Episode(env, TASK)
    one = a.step(a.start(), "4 - 3 = 1")
    b.step(b.start(), "4 * 3 = 12")
    assert a.step(one, "1 + 1 = 2").trajectory.steps[-1].observation == "left: 2 2"


def test_a_simulator_that_breaks_off_leaves_a_trajectory_with_its_failure() -> None:
    episode = Episode(Fragile(), TASK)
    one = episode.step(episode.start(), "2 + 1 = 3")
    broken = episode.step(one, "3 + 3 = 6")
    assert broken.over and not broken.trajectory.done
    assert broken.trajectory.failure == "the simulator is gone"
    assert broken.trajectory.actions == ("2 + 1 = 3",)


class Stillborn(Game24):
    """A simulator that does not even start."""

    def reset(self, task: Task) -> Observation:
        raise SimulatorError("no room for another world")


@pytest.mark.parametrize(
    ("env", "failure"), [(Fragile(), "the simulator is gone"), (Stillborn(), "no room for another world")]
)
def test_collection_keeps_and_counts_failures(env: Game24, failure: str, tmp_path) -> None:
    agent = Agent(First(), envs.make("game24"), examples=0)
    counts = asyncio.run(collect.collect(env, agent, [TASK], tmp_path / "t.jsonl", samples=2, num_proposals=0))
    assert counts["failures"] == counts["kept"] == 2  # both began alike, and neither repeats the other
    for line in (tmp_path / "t.jsonl").read_text(encoding="utf-8").splitlines():
        assert json.loads(line)["trajectory"]["failure"] == failure


def test_an_environment_name_that_is_not_known() -> None:
    with pytest.raises(ValueError, match="'chess' is not known; there is game24"):
        envs.make("chess")
