"""Trajectories that stage 2 makes from an attempt by executing other actions: one step changed, or carried on."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Any

from armap_lite.envs.base import Environment
from armap_lite.episode import Episode, State
from armap_lite.trajectory import Trajectory

CARRIED = 0.5  # of the attempts are carried on, and all those from which nothing else comes
ALIKE = 0.7  # of the changes go to what is like the old action, where anything is


def carried_on(env: Environment, attempt: Trajectory, episode: Episode, seed: int) -> Trajectory | None:
    """`attempt` carried on as `env` says, where that does something which the attempt did not; else None."""
    hindsight: Any = env.hindsight
    rng = random.Random(seed)
    if hindsight.achieved(attempt) and rng.random() >= CARRIED:
        return None
    if (way := hindsight.continuation(attempt, seed)) is None:
        return None
    kept, patterns = way
    state, known = episode.start(), dict[str, str]()
    for action in attempt.actions[:kept]:
        state = episode.step(state, action)
    for pattern in patterns:
        pattern = re.sub(r"(?<!\?P)<(\w+)>", lambda name: re.escape(known.get(name[1], name[0])), pattern)
        fitting = [match for action in state.admissible if (match := re.fullmatch(pattern, action))]
        if fitting:
            match = rng.choice(fitting)
            known.update((name, value) for name, value in match.groupdict().items() if value)
            state = episode.step(state, match[0])
    made = state.trajectory
    goal = hindsight.achieved(made)
    return made if goal and not made.failure and not hindsight.satisfied(attempt, goal) else None


def change(
    env: Environment,
    trajectory: Trajectory,
    rng: random.Random,
    tries: int = 8,
    episode: Episode | None = None,
    wrong: Callable[[Trajectory], bool] | None = None,
) -> Trajectory | None:
    """`trajectory` with one action changed at random, the rest carried out again; None where it always ends the same.

    `episode`: of this task, where several changes share what is known of it. `wrong`: whether a trajectory does not do
    what was asked; by default, whether code says that it does not do what `trajectory` achieved.
    """
    hindsight: Any = env.hindsight
    if wrong is None:
        goal = hindsight.achieved(trajectory)
        wrong = lambda other: not hindsight.satisfied(other, goal)  # noqa: E731
    episode = episode or Episode(env, trajectory.task)

    def instead(state: State, old: str) -> list[str]:
        options = [a for a in state.admissible if a != old]
        alike = hindsight.similar_actions(state.trajectory, old, options) if hindsight else []
        return alike if alike and rng.random() < ALIKE else options

    for _ in range(tries):
        other = carry_out(env, trajectory, rng.randrange(len(trajectory.steps)), instead, rng, episode)
        if other is not None and wrong(other):
            return other
    return None


def carry_out(
    env: Environment,
    trajectory: Trajectory,
    at: int,
    instead: Callable[[State, str], Sequence[str]],
    rng: random.Random,
    episode: Episode,
) -> Trajectory | None:
    """`trajectory` with one of `instead(state, old action)` at step `at` and the rest carried out again.

    After the change the old actions are kept wherever they are still admissible, else one is drawn. Where episodes
    differ in length (`env.variable_length`), old actions that no longer fit are passed over: a buyer who took another
    product goes on to the buying, and does not wander until the steps are used up, which would give the negative away.
    None where there is no other action, the simulator fails, or the actions are those of `trajectory` after all.
    """
    state = episode.start()
    ahead = 0  # the next of the old actions
    for i in range(trajectory.task.max_steps or env.max_steps):
        if state.over:
            break
        if env.variable_length and i > at:
            left = range(ahead, len(trajectory.steps))
            ahead = next((k for k in left if trajectory.actions[k] in state.admissible), len(trajectory.steps))
        old = trajectory.actions[ahead] if ahead < len(trajectory.steps) else ""
        ahead += 1
        if i == at:
            options = instead(state, old)
        else:
            options = [old] if old in state.admissible else list(state.admissible)
        if not options:
            break
        state = episode.step(state, rng.choice(options))
    other = state.trajectory
    return other if state.over and not other.failure and other.actions != trajectory.actions else None


def part(one: Trajectory, other: Trajectory) -> int | None:
    """Index of the first action in which two trajectories differ; None where one goes on from the other."""
    return next((i for i, (x, y) in enumerate(zip(one.actions, other.actions)) if x != y), None)
