"""For each notebook a quiz of three questions, and how to mark its two open tasks; the texts are in questions.json."""

import html
import json
import random
from dataclasses import dataclass
from importlib import resources
from typing import Any

QUESTIONS: dict[str, Any] = json.loads((resources.files(__package__) / "questions.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Quiz:
    """A notebook shows it as HTML that needs no kernel: an option that is opened says why it is right or wrong."""

    questions: list[dict[str, Any]]
    first: int = 0  # where the right option of the question before these stands

    def _repr_html_(self) -> str:
        page = ""
        for number, one in enumerate(self.questions, 1):
            page += f"<p><b>{number}. {html.escape(one['question'])}</b></p>"
            # Shuffled, always in the same order; the right option takes each place equally often.
            wrong = [option for option in one["options"] if not option[1]]
            [right] = [option for option in one["options"] if option[1]]
            options = random.Random(one["question"]).sample(wrong, len(wrong))
            options.insert((self.first + number) % len(one["options"]), right)
            options.sort(key=lambda option: option[0].startswith(("neither", "none", "Neither", "None")))  # these last
            for text, fits, why in options:
                explained = f"{'✓' if fits else '✗'} {html.escape(why)}"
                page += f"<details><summary>{html.escape(text)}</summary><p>{explained}</p></details>"
        return page

    def __repr__(self) -> str:
        return "\n".join(f"{i}. {one['question']}" for i, one in enumerate(self.questions, 1))


def quiz(number: str) -> Quiz:
    """The quiz of notebook `number`, e.g. "03". Raises KeyError where there is none."""
    return Quiz(QUESTIONS[number]["quiz"], int(number))


def rubric(number: str, task: str = "rubric") -> str:
    """How to mark the open question of notebook `number`, as Markdown: points, and what they are given for.

    With `task="in_world"` its task in a world.
    """
    return "\n".join(f"- {points}: {text}" for points, text in QUESTIONS[number][task])


def points(number: str, task: str = "rubric") -> int:
    """What the open question of notebook `number` is worth, or that `task`."""
    return sum(points for points, _ in QUESTIONS[number][task])
