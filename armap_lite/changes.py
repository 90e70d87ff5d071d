"""Trajectories that stage 2 makes by executing other actions than the agent: one step changed, or a continuation."""

import random
import re
from collections.abc import Callable, Sequence
from typing import Any

from armap_lite.envs.base import Environment
from armap_lite.episode import Episode, State
from armap_lite.trajectory import Trajectory

TRIES = 8  # changes that are tried until one makes the trajectory fail
CONTINUED = 0.5  # share of attempts that are continued; those that achieved nothing always are
SIMILAR = 0.7  # share of changes that take an action similar to the old one, if there is one


def change(
    env: Environment,
    trajectory: Trajectory,
    rng: random.Random,
    episode: Episode | None = None,
    wrong: Callable[[Trajectory], bool] | None = None,
) -> Trajectory | None:
    """`trajectory` with one action changed at random so that it fails, and the rest executed again; None if none does.

    `episode`: of this task, to share states between several changes. `wrong`: whether a trajectory fails to do what was
    asked; by default, whether code says that it does not satisfy what `trajectory` achieved.
    """
    hindsight: Any = env.hindsight
    if wrong is None:
        goal = hindsight.achieved(trajectory)
        wrong = lambda other: not hindsight.satisfied(other, goal)  # noqa: E731
    episode = episode or Episode(env, trajectory.task)

    def alternatives(state: State, old: str) -> list[str]:
        options = [action for action in state.admissible if action != old]
        similar = hindsight.similar_actions(state.trajectory, old, options) if hindsight else []
        return similar if similar and rng.random() < SIMILAR else options

    for _ in range(TRIES):
        other = execute_change(trajectory, rng.randrange(len(trajectory.steps)), alternatives, rng, episode)
        if other is not None and wrong(other):
            return other
    return None


def execute_change(
    trajectory: Trajectory,
    at: int,
    alternatives: Callable[[State, str], Sequence[str]],
    rng: random.Random,
    episode: Episode,
) -> Trajectory | None:
    """`trajectory` with one of `alternatives(state, old action)` at step `at`, and the rest executed again.

    After the change, old actions are kept where they are admissible, and others are drawn where not. Where episodes
    vary in length, old actions that no longer fit are skipped: a negative that ran to the step limit would be revealed
    by its length alone. None if there is no other action, the simulator fails, or the actions are the old ones.
    """
    env, old_actions, state = episode.env, trajectory.actions, episode.start()
    position = 0  # in the old actions
    for i in range(trajectory.task.max_steps or env.max_steps):
        if state.over:
            break
        if env.variable_length and i > at:
            fitting = (k for k in range(position, len(old_actions)) if old_actions[k] in state.admissible)
            position = next(fitting, len(old_actions))
        old = old_actions[position] if position < len(old_actions) else ""
        position += 1
        if i == at:
            options = alternatives(state, old)
        else:
            options = [old] if old in state.admissible else state.admissible
        if not options:
            break
        state = episode.step(state, rng.choice(options))
    other = state.trajectory
    return other if state.over and not other.failure and other.actions != old_actions else None


def continued(env: Environment, attempt: Trajectory, episode: Episode, seed: int) -> Trajectory | None:
    """`attempt` continued as `Hindsight.continuation` says; None if nothing new was achieved.

    Of attempts that achieved something already, `CONTINUED` are, at random; for the others the result is None, too.
    """
    hindsight: Any = env.hindsight
    rng = random.Random(seed)
    if hindsight.achieved(attempt) and rng.random() >= CONTINUED:
        return None
    if (continuation := hindsight.continuation(attempt, seed)) is None:
        return None
    kept, patterns = continuation
    state, names = episode.start(), dict[str, str]()
    for action in attempt.actions[:kept]:
        state = episode.step(state, action)
    for pattern in patterns:
        pattern = re.sub(r"(?<!\?P)<(\w+)>", lambda name: re.escape(names.get(name[1], name[0])), pattern)
        fitting = [match for action in state.admissible if (match := re.fullmatch(pattern, action))]
        if fitting:
            match = rng.choice(fitting)
            names.update((name, value) for name, value in match.groupdict().items() if value)
            state = episode.step(state, match[0])
    longer = state.trajectory
    goal = hindsight.achieved(longer)
    return longer if goal and not longer.failure and not hindsight.satisfied(attempt, goal) else None


def first_difference(one: Trajectory, other: Trajectory) -> int | None:
    """Index of the first action in which two trajectories differ; None if one continues the other."""
    return next((i for i, (x, y) in enumerate(zip(one.actions, other.actions)) if x != y), None)
