"""The exercises of the notebooks: `check` says whether an answer is right, and if not, what to look at.

`check("05-3", lambda: uct)` calls the one function for exercise 05-3 in `checks_05.py`. It tries the answer on several
inputs, never reads its text, and returns a `Result` with points and a message. The first exercise of a
notebook has variants, for exams: each seed gives other numbers. See `notebooks.py` for stubs and solutions, `grade.py`
for the grades of a whole class.
"""

import functools
import importlib
import json
import os
import random
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from types import FunctionType
from typing import Any

from armap_lite.course.answers import WrongAnswerError, expect, short
from armap_lite.course.toys import LampsBase, puzzle, random_trajectory, toy_reward
from armap_lite.trajectory import Trajectory

__all__ = ["LampsBase", "Result", "check", "puzzle", "random_trajectory", "toy_reward", "variant"]

GAP = "YOUR CODE HERE"  # in the one line of a stub that the solution takes the place of
UNSOLVED = "Not solved yet"
SHOWN = (bool, int, float, str, list, tuple, Trajectory)  # arguments that a message shows

Test = Callable[..., None]
Draw = Callable[[random.Random], Any]


@dataclass(frozen=True)
class Exercise:
    """`test(answer)` raises `WrongAnswerError` for a wrong answer; its docstring says what is asked.

    Where there are cases or variants, it is `test(answer, given)`.
    """

    test: Test
    points: int  # as many as the exercise has stars
    hint: str  # where to look when it does not work out
    remark: str  # shown with a right answer
    cases: Any = None  # what the answer is tried on, from exercises.json
    first: Any = None  # the variant of the notebooks, seed 0
    draw: Draw | None = None  # draws another one


TEXTS = json.loads((resources.files(__name__) / "exercises.json").read_text(encoding="utf-8"))
EXERCISES: dict[str, Exercise] = {}


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

    def require(self) -> None:
        """Print a right answer's remark; raise AssertionError with the message for another one, as nbgrader expects."""
        if self.points < self.of:
            raise AssertionError(repr(self))
        print(self)


def exercise(id: str, first: Any = None, draw: Draw | None = None) -> Callable[[Test], Test]:
    """Make the function below it the test of exercise `id` in exercises.json; see `Exercise` for `first` and `draw`."""

    def register(test: Test) -> Test:
        EXERCISES[id] = Exercise(test, **TEXTS[id], first=first, draw=draw)
        return test

    return register


def find(id: str) -> Exercise:
    """The exercise `id`, e.g. "05-3". Raises ValueError where there is none."""
    try:
        importlib.import_module(f"{__name__}.checks_{id[:2]}")
        return EXERCISES[id]
    except (ImportError, KeyError):
        raise ValueError(f"exercise {id!r} is not known; an exercise is named like '05-3'") from None


def variant(id: str, seed: int = 0) -> Any:
    """What exercise `id` is about, drawn from `seed`; 0: as in the notebooks. None where there are no variants."""
    known = find(id)
    return known.draw(random.Random(f"{id}/{seed}")) if seed and known.draw else known.first


def check(id: str, answer: Callable[[], Any], seed: int = 0) -> Result:
    """Points and a message for the answer to exercise `id`. Raises ValueError for an exercise that is not known.

    `answer` is a function, so that a name that does not exist yet is a message too and not an error. `seed`: of the
    variant, for exercises that have some.
    """
    known = find(id)
    given = [variant(id, seed)] if known.draw else [known.cases] if known.cases else []
    arguments: list[str] = []  # that a learner's function was last called with
    try:
        value = _recorded(answer(), arguments)
        if value is ...:
            raise NotImplementedError
        known.test(value, *given)
        return Result(id, known.points, known.points, known.remark)
    except WrongAnswerError as wrong:
        why = str(wrong)
    except NotImplementedError:
        why = f"{UNSOLVED}. Put your own code where {GAP} is, run that cell, then this one again."
    except Exception as error:
        why = _explain(error, arguments)
    hint = "" if why.startswith(UNSOLVED) else f"\nLook at: {known.hint}"  # for those who tried
    return Result(id, 0, known.points, f"{why}\nAsked for: {known.test.__doc__}{hint}")


def _recorded(value: Any, arguments: list[str]) -> Any:
    """A learner's function that writes what it is called with into `arguments`. Other values as they are."""
    if not isinstance(value, FunctionType):
        return value
    own = not str(value.__module__).startswith("armap_lite.")
    expect(own, f"`{value.__name__}` is the package's own: write yours.")

    @functools.wraps(value)
    def call(*args: Any, **options: Any) -> Any:
        arguments[:] = [short(argument) for argument in args if isinstance(argument, SHOWN)]
        return value(*args, **options)

    return call


def _explain(error: Exception, arguments: Sequence[str]) -> str:
    """An exception as a sentence, with the learner's own line: a cell lies in no file, or in one of its kernel's."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.line]
    lines = [f.line for f in frames if "ipykernel" in f.filename or not os.path.exists(f.filename)]
    where = f" in the line `{lines[-1]}`" if lines else ""
    first = " Did you run the cell above?" if isinstance(error, NameError) else ""
    tried = f" It was called with {', '.join(arguments)}." if arguments else ""
    stop = f"stopped with {type(error).__name__}: {error}{where}."
    return f"Your code, or what was done with its answer, {stop}{tried}{first}"
