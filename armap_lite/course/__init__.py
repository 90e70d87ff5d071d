"""The exercises of the notebooks 01 to 08: `check` says whether an answer is right, and if not, what to look at.

`check("05-3", lambda: uct)` calls the one function for exercise 05-3 in `checks_05.py`. It tries the answer on several
inputs, never reads its text, and returns a `Result` with points and a message. See `notebooks.py` for stubs and
solutions, `grade.py` for the marks of a whole class.
"""

from __future__ import annotations

import functools
import importlib
import math
import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from armap_lite.course.toys import LampsBase, puzzle, random_trajectory, toy_reward
from armap_lite.trajectory import Trajectory

__all__ = ["LampsBase", "Result", "check", "puzzle", "random_trajectory", "toy_reward"]

GAP = "YOUR CODE HERE"  # in the one line of a stub that the solution takes the place of


class WrongAnswerError(Exception):
    """What is wrong with an answer, in a sentence that says what was expected and what was found."""


@dataclass(frozen=True)
class Exercise:
    """`test(answer)` raises `WrongAnswerError`, or returns a closing remark; its docstring says what is asked."""

    points: int  # as many as the exercise has stars
    hint: str  # where to look when it does not work out
    test: Callable[[Any], str | None]


EXERCISES: dict[str, Exercise] = {}

SHOWN = (bool, int, float, str, list, tuple, Trajectory)  # of what a function was called with


@dataclass(frozen=True, repr=False)
class Result:
    """What `check` found. A notebook shows the message."""

    id: str
    points: int
    of: int
    message: str

    def __repr__(self) -> str:
        head = f"{'✓' if self.points == self.of else '✗'} {self.id}: {self.points} of {self.of} points"
        return f"{head}\n{self.message}".strip()


def check(id: str, answer: Callable[[], Any]) -> Result:
    """Points and a message for the answer to exercise `id`. Raises ValueError for an exercise that is not known.

    `answer` is a function, so that a name that does not exist yet is a message too and not an error.
    """
    known = find(id)
    given: list[str] = []
    try:
        value, given = _watched(answer())
        if value is ...:
            raise NotImplementedError
        return Result(id, known.points, known.points, known.test(value) or "")
    except WrongAnswerError as wrong:
        why = str(wrong)
    except NotImplementedError:
        why = f"Not solved yet. Put your own code where {GAP} is, run that cell, then this one again."
    except Exception as error:
        why = _stopped(error, given)
    return Result(id, 0, known.points, f"{why}\nAsked for: {known.test.__doc__}\nLook at: {known.hint}")


def find(id: str) -> Exercise:
    """The exercise `id`, e.g. "05-3". Raises ValueError where there is none."""
    try:
        importlib.import_module(f"{__name__}.checks_{id[:2]}")
        return EXERCISES[id]
    except (ImportError, KeyError):
        raise ValueError(f"exercise {id!r} is not known; an exercise is named like '05-3'") from None


def exercise(id: str, points: int, hint: str) -> Callable[[Callable[[Any], str | None]], Callable[[Any], str | None]]:
    """Makes the function below it the test of exercise `id`."""

    def keep(test: Callable[[Any], str | None]) -> Callable[[Any], str | None]:
        EXERCISES[id] = Exercise(points, hint, test)
        return test

    return keep


def expect(good: Any, message: str) -> None:
    """Raise `WrongAnswerError` with `message` unless `good`."""
    if not good:
        raise WrongAnswerError(message)


def equal(found: Any, wanted: Any, case: str, reveal: bool = True) -> None:
    """Raise `WrongAnswerError` unless `found` is `wanted`; numbers to six digits, a list may be a tuple or an array.

    `reveal`: say what was expected. Not where the exercise is to find just that one number, which may then be rounded.
    """
    if reveal:
        expect(_same(found, wanted), f"{case}: expected {_short(wanted)}, found {_short(found)}.")
    else:
        expect(_same(found, wanted, 0.005), f"{case}: {_short(found)} is not right.")


def as_list(answer: Any, n: int) -> list[Any]:
    """`answer` as a list of `n` things, be it a list, a tuple, an array or a tensor; else `WrongAnswerError`."""
    found = answer.tolist() if hasattr(answer, "tolist") else answer
    good = isinstance(found, (tuple, list)) and len(found) == n
    expect(good, f"Expected {n} things, ({', '.join('.' * n)}), found {_short(answer)}.")
    return list(found)


def _same(found: Any, wanted: Any, near: float = 1e-6) -> bool:
    if hasattr(found, "tolist"):  # of NumPy or torch
        found = found.tolist()
    if isinstance(wanted, (list, tuple)):
        return isinstance(found, (list, tuple)) and len(found) == len(wanted) and all(map(_same, found, wanted))
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and dict(found) == dict(wanted)
    if isinstance(wanted, (int, float)):
        if isinstance(found, str):
            return False
        try:
            return math.isclose(float(found), wanted, rel_tol=1e-6, abs_tol=near)
        except (TypeError, ValueError):
            return False
    return bool(found == wanted)


def _short(value: Any) -> str:
    text = " ".join(_plain(value).split())
    return text if len(text) <= 160 else f"{text[:150]} …"


def _plain(value: Any) -> str:
    """A value as a learner wants to see it: no more than four digits, and of a trajectory what was done and seen."""
    if isinstance(value, float):
        return f"{value + 0.0:.4g}"  # -0.0 is 0
    if isinstance(value, Trajectory):
        return f"({'; '.join(f'{step.action} -> {step.observation}' for step in value.steps)})"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_plain, value))}]"
    return repr(value)


def _watched(value: Any) -> tuple[Any, list[str]]:
    """A learner's function, and a list that holds what it was last called with. Other values as they are."""
    given: list[str] = []
    if not isinstance(value, FunctionType):
        return value, given
    expect(
        not str(value.__module__).startswith("armap_lite."), f"`{value.__name__}` is the package's own: write yours."
    )

    @functools.wraps(value)
    def call(*args: Any, **options: Any) -> Any:
        given[:] = [_short(argument) for argument in args if isinstance(argument, SHOWN)]
        return value(*args, **options)

    return call, given


def _stopped(error: Exception, given: Sequence[str]) -> str:
    """An exception as a sentence, with the learner's own line: a cell lies in no file, or in one of its kernel's."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.line]
    lines = [f.line for f in frames if "ipykernel" in f.filename or not os.path.exists(f.filename)]
    where = f" in the line `{lines[-1]}`" if lines else ""
    first = " Did you run the cell above?" if isinstance(error, NameError) else ""
    tried = f" It was called with {', '.join(given)}." if given else ""
    stop = f"stopped with {type(error).__name__}: {error}{where}."
    return f"Your code, or what was done with its answer, {stop}{tried}{first}"
