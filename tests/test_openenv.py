"""Any OpenEnv server as a world, by its URL: replayed by seed, checked first, and its reward kept for the judge."""

import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openenv_server import serving
from shelf import COLOURS
from shelves import Poison, Words, check_no_reward_is_read, right, small_run

from armap_lite import envs
from armap_lite.course import random_trajectory
from armap_lite.envs.base import SimulatorError
from armap_lite.envs.openenv import OpenEnvironment, OpenEnvJudge, Session
from armap_lite.episode import Episode

pytest.importorskip("websockets", reason="the extra openenv is not installed")
PACKAGE = os.environ.get("ARMAP_LITE_OPENENV")  # a folder with the package `openenv`: see openenv_server.py


class Remote(Words, OpenEnvironment):
    def actions(self, observation: Any, info: Any) -> dict[str, Any]:
        return {text: {"move": move} for text, move in super().actions(observation, info).items()}


class RemoteJudge(Remote, OpenEnvJudge):  # in either order
    pass


@pytest.fixture(scope="module", params=["protocol", "package"])
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "package" and not PACKAGE:
        pytest.skip("ARMAP_LITE_OPENENV names no folder with the package openenv")
    with serving(PACKAGE if request.param == "package" else None) as url:
        yield url


@pytest.fixture
def world(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    monkeypatch.setattr(Remote, "url", server, raising=False)
    with Remote() as env:
        yield env


def test_it_acts_as_the_contract_says(world: Remote):
    tasks = world.tasks("train")
    assert len(tasks) == 12 and {task.instruction for task in tasks} == {f"Take the {c} jar." for c in COLOURS}
    for task in tasks[:4]:
        walk = random_trajectory(world, task, random.Random(0))
        assert walk.steps and world.replay(task, walk.actions) == walk
    start = world.reset(tasks[0])
    assert world.step("fly to the moon").admissible == world.admissible() == start.admissible
    assert not any("reward" in str(observation) for observation in (start, world.step("go left")))


def test_one_session_serves_all_worlds_in_turn_as_the_server_has_no_more(world: Remote):
    tasks = world.tasks("train")
    episode = Episode(world, tasks[0])
    first = episode.step(episode.start(), "go left")
    judge = RemoteJudge()
    tried = [random_trajectory(world, task, random.Random(0)) for task in tasks]
    first_again = Episode(world, tasks[0])
    assert first_again.step(first_again.start(), "go left") == first
    found = [judge.score(walk) for walk in tried]
    assert found == [right(walk) for walk in tried] and set(found) == {0.0, 1.0}
    later = first_again.step(first, "go right")  # its session has ended: it is replayed on another
    assert later.trajectory == world.replay(tasks[0], ["go left", "go right"])
    judge.close()


def test_a_world_that_was_dropped_without_close_gives_its_session_to_the_next(world: Remote):
    again = Remote()
    again.reset(again.tasks("test")[0])
    del again
    assert world.tasks("dev")
    one, two = Remote(), Remote()  # and one that is in use is taken over
    start = one.reset(world.tasks("test")[0])
    assert two.reset(world.tasks("test")[0]) == start and one.simulator is None
    two.close()


def test_a_malformed_answer_ends_its_session_and_is_quoted(world: Remote, monkeypatch: pytest.MonkeyPatch):
    task = world.tasks("test")[0]
    for odd in ({}, [], {"data": {}}, {"data": {"observation": {}, "reward": 1}}):
        episode = Episode(world, task)
        state, ask = episode.start(), Session._ask
        session = world.simulator
        with monkeypatch.context() as patch:
            patch.setattr(Session, "_ask", lambda *args, ask=ask, odd=odd: odd if ask(*args) else None)
            failure = episode.step(state, "go left").trajectory.failure
        assert f"with {odd}; expected observation, reward, done" in str(failure) and world.simulator is None
        assert session.socket.state.name == "CLOSED"
        assert Episode(world, world.tasks("test")[1]).start().trajectory.failure is None


def test_spellings_of_a_url_are_one_server_and_one_without_scheme_is_refused(world: Remote):
    world.reset(world.tasks("test")[0])
    other = type("Spelt", (Remote,), {"url": Remote.url.replace("http", "HTTP") + "//"})()
    assert other.tasks("test") == world.tasks("test") and world.simulator is None
    other.close()
    for url, said in ((Remote.url.removeprefix("http://"), Remote.url), ("", "http://localhost:8000")):
        with pytest.raises(ValueError, match=f"url {url!r} is no server's address; write '{said}'"):
            type("Spelt", (Remote,), {"url": url})().tasks("test")


def test_a_token_in_the_url_goes_with_the_request_and_is_in_no_message(world: Remote):
    spelt = type("Spelt", (Remote,), {"url": f"{Remote.url}/?token=secret"})()
    assert spelt.tasks("test") == world.tasks("test")
    spelt.close()
    with pytest.raises(SimulatorError, match="no OpenEnv server answers") as caught:
        Session("http://127.0.0.1:9/x?token=secret")
    assert "secret" not in str(caught.value)


FIRST = ([], None, {}, {"data": []}, {"data": None}, {"type": "error", "data": {"message": "no"}})


@pytest.mark.parametrize("answer", FIRST)
def test_a_first_answer_of_another_form_is_one_error_that_quotes_it(
    world: Remote, monkeypatch: pytest.MonkeyPatch, answer: Any
):
    ask = Session._ask
    with monkeypatch.context() as patch:
        patch.setattr(Session, "_ask", lambda *args: answer if ask(*args) else None)
        with pytest.raises(SimulatorError, match=f"server at {world.url} answered .* with {re.escape(repr(answer))}"):
            world.tasks("test")
        patch.setattr(Session, "_ask", lambda *_: {"type": "error", "data": {"code": "CAPACITY_REACHED"}})
        with pytest.raises(SimulatorError, match=f"{world.url} is at capacity: it answered .*REACHED.*; end other"):
            Session(world.url, seconds=0.1)
    assert world.tasks("test")


def test_what_the_server_does_not_understand_is_a_failure_of_the_episode(world: Remote):
    task = world.tasks("test")[0]
    episode = Episode(world, task)
    state = episode.start()
    world._actions = {"jump": {"move": "up"}}
    broken = episode.step(state, "jump")
    assert broken.trajectory.failure and broken.trajectory.failure.startswith(
        "shelves: step failed with SimulatorError"
    )
    assert "EXECUTION_ERROR" in broken.trajectory.failure
    assert episode.step(state, "go left").trajectory.failure is None


def test_a_server_that_ends_is_a_failure_and_none_at_all_is_one_line(monkeypatch: pytest.MonkeyPatch):
    with serving() as url:
        monkeypatch.setattr(Remote, "url", url, raising=False)
        env = Remote()
        episode = Episode(env, env.tasks("test")[0])
        state = episode.start()
    broken = episode.step(state, "go left")
    assert broken.trajectory.failure and "step failed with ConnectionClosed" in broken.trajectory.failure
    with pytest.raises(SimulatorError, match=rf"no OpenEnv server answers at {url} \(.*\); is it running\?"):
        Remote().tasks("test")


def test_a_server_that_cannot_be_replayed_is_refused(monkeypatch: pytest.MonkeyPatch):
    with serving(noise=True) as url:
        monkeypatch.setattr(Remote, "url", url, raising=False)
        with Remote() as env, pytest.raises(ValueError, match="'shelves' cannot be replayed"):
            env.tasks("train")


def test_a_full_server_is_said_to_be_full():
    with serving() as url:
        other = Session(url)
        with pytest.raises(SimulatorError, match="at capacity.*; end other clients, or start .* max_concurrent_envs"):
            Session(url, seconds=0.3)
        other.close()
        Session(url).close()


@pytest.mark.slow
def test_stages_one_to_five_run_while_any_reading_of_a_reward_raises(
    server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(Remote, "url", server, raising=False)
    monkeypatch.setitem(envs.ENVIRONMENTS, "shelves", (Remote, RemoteJudge))
    before = Session._play

    def play(self: Session, message: Any, *needed: str) -> Any:
        return {**before(self, message, *needed), "reward": Poison()}

    def poison(on: bool) -> None:
        monkeypatch.setattr(Session, "_play", play if on else before)

    result = check_no_reward_is_read(small_run("shelves", tmp_path), monkeypatch, poison)
    assert max(row["mean"] for row in result["rows"]) > 0
