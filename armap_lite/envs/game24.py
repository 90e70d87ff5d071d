"""Game of 24: combine four numbers with + - * / until one is left; it should be 24.

The 1,362 solvable puzzles of Tree of Thoughts (arXiv 2305.10601), ranked by how long people take.
Arithmetic is exact (fractions); text is matched against a grammar, never evaluated.
"""

from __future__ import annotations

import copy
import csv
import dataclasses
import itertools
import json
import operator
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from armap_lite.envs.base import Environment, Judge, Term
from armap_lite.envs.hindsight import Goal, Hindsight
from armap_lite.envs.prompts import example
from armap_lite.storage import assets
from armap_lite.trajectory import Observation, Task, Trajectory

NUMBER = r"-?\d{1,12}(?:/\d{1,12})?"
STEP = re.compile(rf"\s*({NUMBER}) ([-+*/]) ({NUMBER})(?: = ({NUMBER}))?(?: \(left: [^)]*\))?\s*")
OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
TEST, DEV = range(900, 1000), range(800, 900)  # the paper's test puzzles; dev just before them, as hard
OWN = ("train", "train", "train", "dev", "test")  # the splits of a user's puzzles, in turn
# Examples solved by hand (puzzles of the training split), instructions for the data LLM, a look back, words.
DATA = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
TARGET = re.compile(rf"\b(?:{DATA['target_words']}) ({NUMBER})\b", re.IGNORECASE)
# Decimals, divisions by 0, negations, bounds and alternatives state no goal.
OTHER = re.compile(rf"\d\.\d|/\s*0|n['’]t\b|\b(?:{DATA['other_words']})\b", re.IGNORECASE)


def moves(numbers: Sequence[Fraction]) -> Iterator[tuple[Fraction, str, Fraction, Fraction]]:
    """The listed steps (a, operator, b, value): each pair once, the larger number first if order does not matter.

    Of a difference only the non-negative value is listed; all 1,362 puzzles stay solvable (there is a test).
    """
    for low, high in dict.fromkeys(tuple(sorted(pair)) for pair in itertools.combinations(numbers, 2)):
        steps = [(high, op, low) for op in OPERATORS] + ([(low, "/", high)] if low != high else [])
        for a, op, b in steps:
            if b or op != "/":
                yield a, op, b, OPERATORS[op](a, b)


class Game24Hindsight(Hindsight):
    """A goal is `{"numbers": "1 4 8 8", "result": "36"}`."""

    few_shot = tuple((goal, text) for goal, text in DATA["few_shot"])

    def achieved(self, trajectory: Trajectory) -> Goal:
        if not trajectory.done:
            return {}
        result = trajectory.steps[-1].observation.removeprefix("left: ")
        if "/" in result or int(result) > 999:  # nobody would ask for 7/3 or 13 * 13 * 13
            return {}
        return {"numbers": _canonical(trajectory.task.setup["numbers"]), "result": result}

    def to_text(self, goal: Goal) -> str:
        return instruction(goal["numbers"].split(), goal["result"])

    def parse(self, instruction: str) -> Goal | None:
        numbers = re.findall(rf"(?<![\d./]){NUMBER}(?![\d/]|\.\d)", instruction)
        targets = TARGET.findall(instruction)
        if OTHER.search(instruction) or len(numbers) != 5 or len(targets) != 1:
            return None
        numbers.remove(targets[0])
        return {"numbers": _canonical(numbers), "result": targets[0]}

    def retarget(self, task: Task, instruction: str) -> Task | None:
        goal = self.parse(instruction)
        if goal is None or goal["numbers"] != _canonical(task.setup["numbers"]) or "/" in goal["result"]:
            return None
        setup = {**task.setup, "target": int(goal["result"])}
        return dataclasses.replace(task, instruction=instruction, setup=setup)

    def start_text(self, goal: Goal) -> str:
        return f"left: {goal['numbers']}"


def largest_on_the_way(trajectory: Trajectory) -> float:
    """A tenth of the largest result but the last: small numbers are easy to follow. 0 if there is none."""
    results = (STEP.fullmatch(action) for action in trajectory.actions[: Game24.max_steps - 1])
    return max((float(Fraction(found[4])) / 10 for found in results if found and found[4]), default=0.0)


class Game24(Environment):
    """`Task.setup` = {"numbers": [4, 5, 6, 10], "target": 24}; actions read `10 - 4 = 6`."""

    name = "game24"
    version = "tot-24.csv"
    metric = "success"
    max_steps = 3
    variable_length = False  # each puzzle takes three steps
    guide = "Combine two of the numbers that are left with + - * / until one number is left."
    # Every finished puzzle has three steps, so length decides nothing here; how hard the arithmetic is does.
    terms: Mapping[str, Term] = {"largest number on the way, in tens": largest_on_the_way}
    hindsight = Game24Hindsight()
    look_back_examples = tuple(example(**one) for one in DATA["look_back_examples"])

    def __init__(self, puzzles: Path | str | None = None):
        """`puzzles`: a CSV as `read_puzzles` takes it; by default the 24.csv of Tree of Thoughts (an asset).

        In a user's file, a repeated puzzle counts once, and one puzzle in five each goes to dev and test.
        """
        self._left: list[Fraction] = []
        self._puzzles: list[tuple[str, list[int]]] | None = None  # split, numbers
        if puzzles is not None:
            self._puzzles = own_puzzles(Path(puzzles))
            self.version = Path(puzzles).name

    def tasks(self, split: str) -> list[Task]:
        if split not in ("train", "dev", "test"):
            raise ValueError(f"split {split!r} is not known; use 'train', 'dev' or 'test'")
        if self._puzzles is None:
            ranked = enumerate(read_puzzles(assets.fetch("game24-puzzles")))
            self._puzzles = [("test" if i in TEST else "dev" if i in DEV else "train", n) for i, n in ranked]
        mine = [(i, numbers) for i, (where, numbers) in enumerate(self._puzzles) if where == split]
        return [self._task(f"{self.name}-{i}", split, numbers) for i, numbers in mine]

    def _task(self, id: str, split: str, numbers: list[int]) -> Task:
        return Task(id, self.name, split, instruction(numbers, 24), {"numbers": numbers, "target": 24})

    def examples(self) -> list[tuple[Task, tuple[str, ...]]]:
        shown = enumerate(DATA["examples"])
        return [(self._task(f"example-{i}", "train", numbers), tuple(actions)) for i, (numbers, actions) in shown]

    def fork(self) -> Game24:
        return copy.copy(self)

    def reset(self, task: Task) -> Observation:
        self.at = None
        self._left = [Fraction(n) for n in task.setup["numbers"]]
        return self._observe()

    def step(self, action: str) -> Observation:
        try:
            self._left = _combine(self._left, action)
        except ValueError as error:
            return self._observe(f"Nothing happens: {error}.")
        return self._observe()

    def admissible(self) -> tuple[str, ...]:
        return tuple(f"{a} {op} {b} = {value}" for a, op, b, value in moves(self._left))

    def _observe(self, note: str = "") -> Observation:
        left = f"left: {' '.join(map(str, self._left))}"
        # An action says all that its observation would ("12 * 2 = 24"). With two numbers left (32 states), SmolLM2-135M
        # gives the right last step 0.60 of the probability without observations and 0.50 with them.
        return Observation(f"{note} {left}".strip(), self.admissible(), done=len(self._left) == 1, show="never")


def _combine(left: Sequence[Fraction], action: str) -> list[Fraction]:
    """The numbers that `action` leaves of `left`. Raises ValueError with the reason if it is impossible."""
    if len(left) < 2:
        raise ValueError("only one number is left")
    if not (match := STEP.fullmatch(action)):
        raise ValueError(f"{action[:80]!r} is not a step like '8 * 3 = 24'")
    rest = list(left)
    try:
        a, b = Fraction(match[1]), Fraction(match[3])
        claimed = Fraction(match[4]) if match[4] else None
        for number in (a, b):
            if number not in rest:
                raise ValueError(f"{number} is not left")
            rest.remove(number)
        value = OPERATORS[match[2]](a, b)
    except ZeroDivisionError:
        raise ValueError("a number cannot be divided by 0") from None
    if claimed not in (None, value):
        raise ValueError(f"{match[1]} {match[2]} {match[3]} is not {claimed}")
    return [*rest, value]


def _canonical(numbers: Sequence[int | str]) -> str:
    return " ".join(map(str, sorted(map(Fraction, numbers))))


def instruction(numbers: Sequence[int | str], target: int | str) -> str:
    return f"Use the numbers {' '.join(map(str, numbers))} to obtain {target}."


def read_puzzles(path: Path) -> list[list[int]]:
    """The puzzles of a CSV file in UTF-8 with a column "Puzzles", each four whole numbers: "4 5 6 10".

    Columns are separated by commas, semicolons or tabs. Raises ValueError if the file has another format.
    """
    expected = 'expected a CSV file in UTF-8 with a column "Puzzles" of numbers like "4 5 6 10"'
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines() or [""]  # Excel begins with a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {path} ({error}); {expected}") from error
    rows = csv.reader(lines, delimiter=max(",;\t", key=lines[0].count))
    names = [name.strip().lower() for name in next(rows)]
    if "puzzles" not in names:
        raise ValueError(f"{path} has the columns {', '.join(names) or 'of an empty file'}; {expected}")
    puzzles, column = [], names.index("puzzles")
    for row in rows:
        numbers = row[column].split() if len(row) > column else []
        if any(cell.strip() for cell in row):  # a spreadsheet may save its empty rows
            if len(numbers) != 4 or not all(re.fullmatch(r"\d{1,6}", n, re.ASCII) for n in numbers):
                raise ValueError(f"{path}, line {rows.line_num}: {' '.join(numbers)!r} is no puzzle; {expected}")
            puzzles.append([int(n) for n in numbers])
    return puzzles


def own_puzzles(path: Path) -> list[tuple[str, list[int]]]:
    """(split, numbers) of each different puzzle in `path`; examples of the prompt go to training.

    Raises ValueError if a split would be empty.
    """
    puzzles, split = read_puzzles(path), itertools.cycle(OWN)
    different: dict[str, list[int]] = {}
    for numbers in puzzles:
        different.setdefault(_canonical(numbers), numbers)
    shown = {_canonical(numbers) for numbers, _ in DATA["examples"]}
    found = [("train" if key in shown else next(split), numbers) for key, numbers in different.items()]
    if missing := {*OWN} - {where for where, _ in found}:
        raise ValueError(
            f"{path} has {len(found)} different puzzles and leaves {', '.join(sorted(missing))} without any; "
            f"at least {len(OWN)} are needed that are no examples of the prompt ({'; '.join(sorted(shown))})"
        )
    if len(found) < len(puzzles):
        again = f"{len(puzzles) - len(found)} of {len(puzzles)} puzzles"
        print(f"{path}: {again} repeat an earlier one and are left out", file=sys.stderr)
    return found


class Game24Judge(Judge):
    """1 if the four numbers of the task were combined into its target, else 0."""

    def __init__(self, puzzles: Path | str | None = None):
        """`puzzles`: as given to the environment; a task holds its own numbers."""

    def score(self, trajectory: Trajectory) -> float:
        env = Game24()
        done = env.replay(trajectory.task, trajectory.actions)
        return float(done.done and env._left == [Fraction(trajectory.task.setup["target"])])
