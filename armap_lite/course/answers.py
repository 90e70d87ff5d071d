"""What the checks of the exercises say of an answer: whether it is as expected, and what was found instead."""

import math
from collections.abc import Mapping
from typing import Any

from armap_lite.envs.base import Environment
from armap_lite.trajectory import Task, Trajectory


class WrongAnswerError(Exception):
    """What is wrong with an answer, in a sentence that says what was expected and what was found."""


def expect(good: Any, message: str) -> None:
    """Raise `WrongAnswerError` with `message` unless `good`."""
    if not good:
        raise WrongAnswerError(message)


def equal(found: Any, wanted: Any, case: str) -> None:
    """Raise `WrongAnswerError` unless `found` is `wanted`; numbers to six digits, a list may be a tuple or an array."""
    expect(_same(found, wanted), f"{case}: expected {short(wanted)}, found {short(found)}.")


def numbers(answer: Any, wanted: Mapping[str, float]) -> None:
    """Expect `answer` to be these numbers, which may be rounded to two digits. The message does not give them away."""
    for found, (case, number) in zip(as_list(answer, len(wanted)), wanted.items()):
        expect(_same(found, number, 0.0051), f"{case}: {short(found)} is not right.")


def as_list(answer: Any, n: int) -> list[Any]:
    """`answer` as a list of `n` things, be it a list, a tuple, an array or a tensor; else `WrongAnswerError`."""
    found = answer.tolist() if hasattr(answer, "tolist") else answer
    good = isinstance(found, (tuple, list)) and len(found) == n
    expect(good, f"Expected {n} things, ({', '.join('.' * n)}), found {short(answer)}.")
    return list(found)


def replayable(found: Any, env: Environment, task: Task, case: str) -> None:
    """Expect `found` to be a finished trajectory, and just what its actions lead to in `task`."""
    expect(isinstance(found, Trajectory), f"{case}: expected a Trajectory, found {found!r}.")
    equal(found, env.replay(task, found.actions), f"{case}: what its actions lead to when they are replayed")
    expect(found.done, f"{case}: {found.actions} stops before the episode is over.")


def _same(found: Any, wanted: Any, near: float = 1e-6) -> bool:
    if hasattr(found, "tolist"):  # of NumPy or torch
        found = found.tolist()
    if isinstance(wanted, (list, tuple)):
        return isinstance(found, (list, tuple)) and len(found) == len(wanted) and all(map(_same, found, wanted))
    if isinstance(wanted, (int, float)) and not isinstance(found, str):
        try:
            return math.isclose(float(found), wanted, rel_tol=1e-6, abs_tol=near)
        except (TypeError, ValueError):
            return False
    return bool(found == wanted)


def short(value: Any) -> str:
    """`value` in at most 160 characters, as a learner wants to see it."""
    text = " ".join(_plain(value).split())
    return text if len(text) <= 160 else f"{text[:150]} …"


def _plain(value: Any) -> str:
    """No more than four digits, and of a trajectory what was done and seen."""
    if isinstance(value, float):
        return f"{value + 0.0:.4g}"  # -0.0 is 0
    if isinstance(value, Trajectory):
        return f"({'; '.join(f'{step.action} -> {step.observation}' for step in value.steps)})"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_plain, value))}]"
    return repr(value)
