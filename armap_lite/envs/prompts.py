"""The prompts of `LLMHindsight`, and how answers to them are read; the texts are in `prompts.json`.

They name no world; a world can add examples.

A prompt shows the whole trajectory: the first observation, then each action by number and the observation after it.
Every text is put on one line, so that no observation can imitate a part of the prompt.
"""

import contextlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from armap_lite.trajectory import Step, Task, Trajectory

Example = tuple[Trajectory, Mapping[str, Any]]  # a trajectory and the right answer in `SCHEMA`

MARK = "\n==="  # begins each part of a prompt, so it also ends a completion
PAIR = ("Trajectory A", "Trajectory B")
MAX_CHANGES, MAX_CHARS = 3, 500  # steps used from one answer; characters of an instruction


class Assessment(NamedTuple):
    """What a data LLM says about one trajectory."""

    instruction: str  # what the trajectory does; "" if it did nothing that anyone would ask for
    fulfilled: bool  # whether that is the agent's own instruction
    change: tuple[int, ...]  # indices of the steps that decide it, the most decisive first


def example(asked: str, start: str, steps: Sequence[tuple[str, str]], **answer: Any) -> Example:
    """An example for `look_back`: what was `asked`, (action, observation) pairs, and the fields of `SCHEMA`."""
    shown = tuple(Step(action, observation) for action, observation in steps)
    return Trajectory(Task("example", "", "train", asked), start, shown), answer


_DATA = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
TEXT = {name: "\n".join(_DATA[name]) for name in ("look_back", "restate", "replace", "compare")}
# Only features that every server's structured output supports; `read_answer` checks lengths and ranges.
SCHEMA: dict[str, Any] = _DATA["schema"]
EXAMPLES = tuple(example(**one) for one in _DATA["examples"])


def look_back(trajectory: Trajectory, examples: Sequence[Example], limit: int) -> tuple[str, bool]:
    """The prompt that asks for an answer in `SCHEMA`, and whether `trajectory` was shortened to `limit` characters."""
    parts = [TEXT["look_back"]]
    for number, (shown, answer) in enumerate((*EXAMPLES, *examples), 1):
        steps, _ = _asked(shown, limit)
        parts.append(f"=== Example {number}\n{steps}\nAnswer: {json.dumps(answer, ensure_ascii=False)}\n")
    steps, shortened = _asked(trajectory, limit)
    return "\n".join([*parts, f"=== The trajectory to look back at\n{steps}\nAnswer:"]), shortened


def replace(trajectory: Trajectory, at: int, instruction: str, options: Sequence[str], limit: int) -> str:
    """The prompt after which one of `options` is chosen in place of action `at` of `trajectory` (counted from 0)."""
    steps, _ = format_steps(trajectory, limit, at)
    old, listed = json.dumps(trajectory.actions[at]), "\n".join(options)
    return TEXT["replace"].format(instruction=one_line(instruction), steps=steps, old=old, options=listed)


def comparison(instruction: str, a: Trajectory, b: Trajectory, limit: int) -> str:
    """The prompt after which one of `PAIR` is chosen; each trajectory gets half of `limit` characters."""
    sides = {name: format_steps(side, limit // 2)[0] for name, side in (("a", a), ("b", b))}
    return TEXT["compare"].format(instruction=one_line(instruction), **sides)


def format_steps(trajectory: Trajectory, limit: int, end: int | None = None) -> tuple[str, bool]:
    """The start and the first `end` steps of `trajectory` (all by default), and whether anything was left out.

    If they have more than `limit` characters, each text longer than a fifth of `limit` loses its middle. If that is
    not enough, half of `limit` is filled with the first steps and half with the last ones.
    """
    for size in (limit, limit // 5):
        blocks = [f"Start: {_clip(trajectory.start, size)}"]
        for number, step in enumerate(trajectory.steps[:end], 1):
            blocks.append(f"{number}. {_clip(step.action, size)}\n   {_clip(step.observation, size)}")
        sizes = [len(block) + 1 for block in blocks]
        if sum(sizes) <= limit:
            return "\n".join(blocks), size < limit
    first, last = _fitting(sizes, limit // 2), _fitting(sizes[::-1], limit // 2)
    left = len(blocks) - first - last
    return "\n".join([*blocks[:first], f"({left} steps left out)", *blocks[-last:]]), True


def restate(did: str, examples: Sequence[Example]) -> str:
    """The prompt that an instruction follows which asks for what was `did`, shown by examples of something done.

    A small LLM often says rightly what was done, and then repeats the instruction that it was to refine.
    """
    shown = [(answer["did"], answer["instruction"]) for _, answer in (*EXAMPLES, *examples)]
    parts = [TEXT["restate"].format(did=one, instruction=text) for one, text in shown if text]
    return "\n".join([*parts, TEXT["restate"].format(did=one_line(did)[:MAX_CHARS], instruction="").rstrip()])


def read_answer(text: str, trajectory: Trajectory) -> Assessment | None:
    """The first JSON object in `text` that has the required types and ranges, whatever surrounds it.

    Nothing is guessed: an object that is broken, of another type, or names a missing step is skipped.
    """
    return next(filter(None, (_checked(answer, trajectory) for answer in _objects(text))), None)


def repeated(text: str, trajectory: Trajectory) -> dict[str, Any] | None:
    """An answer that says what was done and repeats the instruction that was not fulfilled; None if there is none."""
    for answer in _objects(text) if read_answer(text, trajectory) is None else ():
        match answer:
            case {"did": str(did), "fulfilled": False, "instruction": str(asked)} if did.strip():
                if one_line(asked) == one_line(trajectory.task.instruction):
                    return dict(answer)
    return None


def with_instruction(answer: Mapping[str, Any], instruction: str) -> str:
    """`answer` as JSON with another `instruction`, where that is not empty."""
    return json.dumps({**answer, "instruction": one_line(instruction) or answer["instruction"]})


def _objects(text: str) -> Iterator[Any]:
    """The JSON objects in `text`, whatever surrounds them; of a text full of braces, the first 20 are tried."""
    for brace in itertools.islice(re.finditer("{", text), 20):
        with contextlib.suppress(ValueError, RecursionError):  # no JSON, or an integer of thousands of digits
            yield json.JSONDecoder().raw_decode(text, brace.start())[0]


def _checked(answer: Any, trajectory: Trajectory) -> Assessment | None:
    match answer:
        case {"fulfilled": bool(fulfilled), "instruction": str(text), "change": [*steps]}:
            asked, text = trajectory.task.instruction, one_line(text)
        case _:
            return None
    in_range = all(type(step) is int and 1 <= step <= len(trajectory.steps) for step in steps)
    refined = len(text) <= MAX_CHARS and text.isprintable() and text != one_line(asked)
    text = asked if fulfilled else text
    if not in_range or not (fulfilled or refined) or (text and not steps):
        return None
    return Assessment(text, fulfilled, tuple(dict.fromkeys(step - 1 for step in steps))[:MAX_CHANGES])


def one_line(text: str) -> str:
    return " ".join(text.split())


def _asked(trajectory: Trajectory, limit: int) -> tuple[str, bool]:
    steps, shortened = format_steps(trajectory, limit)
    return f"Instruction: {one_line(trajectory.task.instruction)}\n{steps}", shortened


def _fitting(sizes: Sequence[int], limit: int) -> int:
    """How many of the first `sizes` add up to at most `limit`; at least one."""
    return max(1, sum(total <= limit for total in itertools.accumulate(sizes)))


def _clip(text: str, limit: int) -> str:
    text = one_line(text)
    half = (limit - len(" (999999 characters left out) ")) // 2
    return text if len(text) <= limit else f"{text[:half]} ({len(text) - 2 * half} characters left out) {text[-half:]}"
