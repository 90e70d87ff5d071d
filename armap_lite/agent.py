"""Prompts an LLM into an action. The only file that knows prompt wording for acting.

A prompt is a few worked examples, then the task at hand as far as it has gone. It grows by whole lines only,
so that a language model with a prefix cache reads each line once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from armap_lite.envs.base import Environment
from armap_lite.llms.base import LanguageModel
from armap_lite.trajectory import Trajectory


class Agent:
    """A language model with worked examples of one environment.

    >>> agent.prompt(trajectory)     # the text after which the next action is chosen
    """

    def __init__(self, lm: LanguageModel, env: Environment, examples: int | None = None):
        """`examples`: how many of the environment's worked examples to show (all by default)."""
        self.lm = lm
        shown = [env.replay(task, actions) for task, actions in env.examples()[:examples]]
        env.rest()
        self.head = env.guide + "\n\n" + "".join(f"{transcript(t)}\n" for t in shown)

    def prompt(self, trajectory: Trajectory, lessons: Sequence[str] = ()) -> str:
        """`lessons`: what earlier trials taught (Reflexion); they stand before the task, after the examples."""
        notes = "".join(f"Lesson: {lesson}\n" for lesson in lessons)
        return f"{self.head}{notes}{transcript(trajectory)}"


# Where an action says all that its observation would ("12 * 2 = 24"), the observation is left out: measured with
# SmolLM2-135M on 32 two-number states, the right last step gets 0.60 of the probability without it, 0.50 with it.
ACTIONS_SAY_ALL = {"game24", "scienceworld"}


# Pages that only list what can be chosen: shown while it is chosen, left out of what comes after. The agent has picked
# by then, and a page of search results is 400 tokens.
LISTINGS = {"webshop": re.compile(r".*\(Total results: ")}


def transcript(trajectory: Trajectory, instruction: str | None = None) -> str:
    """Instruction, then what was seen and done, a line each: what the policy and the reward model both read."""
    terse = trajectory.task.env in ACTIONS_SAY_ALL
    lines = [instruction or trajectory.task.instruction] + ([] if terse else [trajectory.start])
    listing = LISTINGS.get(trajectory.task.env)
    for left, step in zip(range(len(trajectory.steps))[::-1], trajectory.steps):
        told = not terse and not (left and listing and listing.match(step.observation))
        lines += [step.action, step.observation] if told else [step.action]
    # WebShop's mark between the parts of a page is four tokens of SmolLM2's, a bar is one.
    return "".join(" ".join(line.split()).replace(" [SEP] ", " | ") + "\n" for line in lines)
