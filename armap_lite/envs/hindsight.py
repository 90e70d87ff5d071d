"""What a trajectory achieved, read by code (`Hindsight`) or by a language model (`LLMHindsight`)."""

import asyncio
import dataclasses
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Any

from armap_lite.envs import prompts
from armap_lite.envs.prompts import Assessment
from armap_lite.rng import derive_seed
from armap_lite.trajectory import Task, Trajectory

Goal = dict[str, str]  # keys that each world defines, with one spelling for each value


def facts(goal: Goal) -> str:
    """`goal` as plain text for a prompt."""
    return "; ".join(f"{key} {value}" for key, value in goal.items())


class Hindsight(ABC):
    """What stage 2 knows of a world: which goal a trajectory achieved. It reads text and actions, never a score.

    Three methods suffice. They must agree: `parse(to_text(goal)) == goal`; a trajectory satisfies its achieved goal.
    """

    few_shot: tuple[tuple[Goal, str], ...] = ()  # (goal, instruction): examples of wording for the data LLM

    @abstractmethod
    def achieved(self, trajectory: Trajectory) -> Goal:
        """The goal that `trajectory` reached; empty if it reached nothing that anyone would ask for."""

    @abstractmethod
    def to_text(self, goal: Goal) -> str:
        """A plain instruction that states `goal`, used if no draft of the data LLM passes the check."""

    @abstractmethod
    def parse(self, instruction: str) -> Goal | None:
        """The goal that `instruction` states, spelled as `achieved` spells it; None if it cannot be parsed."""

    def satisfied(self, trajectory: Trajectory, goal: Goal) -> bool:
        """Whether `trajectory` does what an instruction with `goal` asks for; it may do more."""
        return self.achieved(trajectory) == goal

    def count(self, trajectory: Trajectory, goal: Goal) -> int:
        """How many of the things that `goal` asks for `trajectory` did; here all of them, or none."""
        return int(self.satisfied(trajectory, goal))

    def similar_actions(self, trajectory: Trajectory, action: str, others: Sequence[str]) -> list[str]:
        """Actions in `others` that are easily confused with `action` after `trajectory`, used as hard negatives."""
        return []

    def continuation(self, trajectory: Trajectory, seed: int) -> tuple[int, Sequence[str]] | None:
        """How to continue an attempt so that it achieves more; None if there is no way or no need.

        The number of steps to keep, and regular expressions for the actions that follow: each is matched by a whole
        admissible action, or skipped. `<name>` stands for what an earlier group `(?P<name>...)` matched.
        """
        return None

    def retarget(self, task: Task, instruction: str) -> Task | None:
        """`task` with `instruction` in place of its own; None if `instruction` cannot be parsed.

        A world overrides this to reject instructions that are infeasible in `task`, too.
        """
        return dataclasses.replace(task, instruction=instruction) if self.parse(instruction) else None

    def start_text(self, goal: Goal) -> str:
        """The first observation of a task with `goal`, for the few-shot prompt that proposes instructions."""
        return facts(goal)


@dataclasses.dataclass(frozen=True)
class LLMHindsight:
    """Stage 2 as in the paper: a data LLM reads the instruction and the whole trajectory.

    It says whether the instruction was fulfilled, refines it otherwise (from what was done, where it only repeats it),
    and names the step to change (`look_back`) and another admissible action there (`replacement`). If no code can check
    a pair, it is also asked which trajectory does what the text says (`prefers`). `lm`: a `Batcher` of the data LLM.
    """

    examples: Sequence[prompts.Example] = ()  # of the world, shown after `prompts.EXAMPLES`
    max_chars: int = 12_000  # of a trajectory in a prompt; the middle of longer ones is cut
    max_tokens: int = 400  # of an answer
    retries: int = 2  # after an answer that cannot be parsed
    temperature: float = 0.7  # of the retries; the first answer is greedy
    max_options: int = 100  # candidates for a replacement, if there are more, a random sample

    def __post_init__(self) -> None:
        if self.max_chars < 1000:
            raise ValueError(f"max_chars={self.max_chars}: expected at least 1000, room for a few steps")

    async def look_back(self, lm: Any, trajectory: Trajectory, seed: int) -> tuple[Assessment | None, Counter[str]]:
        """The assessment of `trajectory`, None if no answer could be parsed, and counts of what happened."""
        prompt, shortened = prompts.look_back(trajectory, self.examples, self.max_chars)
        counts = Counter({"looked back at": 1, "shortened": int(shortened)})
        for attempt in range(1 + self.retries):
            temperature, drawn = self.temperature if attempt else 0.0, derive_seed(seed, attempt)
            options = {"stop": prompts.MARK, "schema": prompts.SCHEMA}
            text = (await lm.generate(prompt, 1, self.max_tokens, temperature, drawn, **options))[0].text
            if answered := prompts.repeated(text, trajectory):
                restate = prompts.restate(answered["did"], self.examples)
                [again] = await lm.generate(restate, 1, self.max_tokens, temperature, drawn)
                text, counts["asked again"] = prompts.with_instruction(answered, again.text), counts["asked again"] + 1
            if (found := prompts.read_answer(text, trajectory)) is not None:
                counts["fulfilled as asked" if found.fulfilled else "refined"] += bool(found.instruction)
                return found, +counts
            counts["malformed" if "{" in text else "refused"] += 1
            counts["retried"] += attempt < self.retries
        counts["gave up"] += 1
        return None, +counts

    async def replacement(
        self, lm: Any, trajectory: Trajectory, at: int, admissible: Sequence[str], instruction: str, seed: int
    ) -> str:
        """One of `admissible` other than action `at` of `trajectory`: a plausible mistake. Needs at least one."""
        options = [action for action in dict.fromkeys(admissible) if action != trajectory.actions[at]]
        if len(options) > self.max_options:
            rng = random.Random(derive_seed(seed, "options"))
            options = sorted(rng.sample(options, self.max_options), key=options.index)
        prompt = prompts.replace(trajectory, at, instruction, options, self.max_chars)
        [choice] = await lm.choose(prompt, options, 1, 0.0, seed)
        return str(choice.text)

    async def prefers(self, lm: Any, text: str, chosen: Trajectory, rejected: Trajectory, seed: int) -> bool | None:
        """Whether the LLM, asked blind in both orders, prefers `chosen` for `text`; None if the orders disagree."""
        asked = [prompts.comparison(text, a, b, self.max_chars) for a, b in ((chosen, rejected), (rejected, chosen))]
        answers = [lm.choose(prompt, prompts.PAIR, 1, 0.0, derive_seed(seed, k)) for k, prompt in enumerate(asked)]
        first, second = (choice.index for [choice] in await asyncio.gather(*answers))
        return None if first == second else first == 0
