"""Prompts an LLM into an action. The only file that knows prompt wording for acting.

A prompt is a few worked examples, then the task at hand as far as it has gone. It grows by whole lines only,
so that a language model with a prefix cache reads each line once.
"""

from __future__ import annotations

from collections.abc import Sequence

from armap_lite.envs.base import Environment
from armap_lite.llms.base import LanguageModel
from armap_lite.trajectory import Trajectory, transcript


class Agent:
    """A language model with worked examples of one environment.

    >>> agent.prompt(trajectory)     # the text after which the next action is chosen
    """

    def __init__(self, lm: LanguageModel, env: Environment, examples: int | None = None):
        """`examples`: how many of the environment's worked examples to show (all by default)."""
        self.lm = lm
        shown = [env.replay(task, actions) for task, actions in env.examples()[:examples]]
        env.release()
        self.head = env.guide + "\n\n" + "".join(f"{transcript(t)}\n" for t in shown)

    def prompt(self, trajectory: Trajectory, lessons: Sequence[str] = ()) -> str:
        """`lessons`: what earlier trials taught (Reflexion); they stand before the task, after the examples."""
        notes = "".join(f"Lesson: {lesson}\n" for lesson in lessons)
        return f"{self.head}{notes}{transcript(trajectory)}"
