"""Looking back at a trajectory: by code that reads what it achieved (`Hindsight`), or by an LLM (`LLMHindsight`)."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from armap_lite.envs import prompts
from armap_lite.rng import derive_seed
from armap_lite.trajectory import Task, Trajectory

Goal = dict[str, str]  # what one can ask for: the world's own keys, each value in one canonical spelling


class Hindsight(ABC):
    """What stage 2 knows of a world beyond how to act in it. It reads text and actions, never a score.

    Three methods suffice. They must agree: `parse(to_text(goal)) == goal`, and a trajectory satisfies what it achieved.
    """

    few_shot: tuple[tuple[Goal, str], ...] = ()  # (goal, instruction): how tasks are worded here, for the data LLM

    @abstractmethod
    def achieved(self, trajectory: Trajectory) -> Goal:
        """The goal that `trajectory` reached; empty where it reached nothing that one could ask for."""

    @abstractmethod
    def to_text(self, goal: Goal) -> str:
        """A plain instruction that states `goal`: the fallback where no text of the data LLM passes the check."""

    @abstractmethod
    def parse(self, instruction: str) -> Goal | None:
        """The goal that `instruction` states, spelled as `achieved` spells it; None where it cannot be read."""

    def satisfied(self, trajectory: Trajectory, goal: Goal) -> bool:
        """Whether `trajectory` does what an instruction with `goal` asks for, whatever else it does."""
        return self.achieved(trajectory) == goal

    def similar_actions(self, trajectory: Trajectory, action: str, others: Sequence[str]) -> list[str]:
        """Actions in `others` that are easily confused with `action` after `trajectory`, used as hard negatives."""
        return []

    def continuation(self, trajectory: Trajectory, seed: int) -> tuple[int, Sequence[str]] | None:
        """How an attempt can be continued until it achieved more; None where there is no way or no need.

        The number of its steps to keep, and regular expressions for the actions that follow, in order. Each is matched
        by a whole admissible action, or passed over. `<name>` stands for what the group `(?P<name>...)` of an earlier
        expression matched.
        """
        return None

    def retarget(self, task: Task, instruction: str) -> Task | None:
        """`task` with `instruction` in place of its own, or None if it cannot be parsed or is infeasible here."""
        return dataclasses.replace(task, instruction=instruction) if self.parse(instruction) else None

    def start_text(self, goal: Goal) -> str:
        """The first observation of a task with `goal`, for the few-shot prompt that proposes instructions."""
        return "; ".join(f"{key} {value}" for key, value in goal.items())


class BatchedLM(Protocol):
    """What is used of a `Batcher`: single requests, answered in batches by the data LLM."""

    async def generate(
        self, prompt: str, n: int, max_tokens: int, temperature: float, seed: int, stop: str, schema: Any
    ) -> list[Any]: ...

    async def choose(
        self, prompt: str, choices: Sequence[str], n: int | None, temperature: float, seed: int
    ) -> list[Any]: ...


@dataclass(frozen=True)
class Assessment:
    """What a data LLM says of one trajectory."""

    instruction: str  # what the trajectory does; "" where it did nothing that anyone would ask for
    fulfilled: bool  # whether that is the instruction that the agent was given
    change: tuple[int, ...]  # indices of the steps that decide it, the most decisive first


class LLMHindsight:
    """The paper's own stage 2: a data LLM that can read looks back at a whole trajectory.

    It says whether the instruction was fulfilled and otherwise refines it (`look_back`), names the step to change, and
    chooses another admissible action for that step (`replacement`). Where no code can check a pair, it is also asked
    which of the two trajectories does what the text says (`prefers`).
    """

    MOST = 3  # steps that are taken from one answer
    LONGEST = 500  # characters of an instruction

    def __init__(
        self,
        examples: Sequence[prompts.Example] = (),
        *,
        max_chars: int = 12_000,
        max_tokens: int = 400,
        retries: int = 2,
        temperature: float = 0.7,
        max_options: int = 100,
    ):
        """`examples`: the world's own (`Environment.look_back_examples`), shown after `prompts.EXAMPLES`.

        `max_chars`: of a trajectory in a prompt; a longer one is shortened in the middle (`prompts.format_steps`).
        `max_tokens`: of an answer. `retries`: further questions after one that cannot be read, drawn at `temperature`;
        the first is greedy. `max_options`: actions to choose a replacement from; of more, so many are drawn.
        """
        if max_chars < 1000:
            raise ValueError(f"max_chars={max_chars}: expected at least 1000, room for a few steps")
        self.examples = tuple(examples)
        self.max_chars, self.max_tokens, self.max_options = max_chars, max_tokens, max_options
        self.retries, self.temperature = retries, temperature

    async def look_back(
        self, lm: BatchedLM, trajectory: Trajectory, seed: int
    ) -> tuple[Assessment | None, Counter[str]]:
        """The LLM's reading of `trajectory`, None where no answer could be read, and what was counted on the way."""
        prompt, shortened = prompts.look_back(trajectory, self.examples, self.max_chars)
        counts = Counter({"looked back at": 1, "shortened": int(shortened)})
        for attempt in range(1 + self.retries):
            heat = self.temperature if attempt else 0.0
            [answer] = await lm.generate(
                prompt, 1, self.max_tokens, heat, derive_seed(seed, attempt), prompts.MARK, prompts.SCHEMA
            )
            reading = read_answer(answer.text, trajectory)
            if reading is not None:
                counts["fulfilled as asked" if reading.fulfilled else "refined"] += bool(reading.instruction)
                return reading, +counts
            counts["malformed" if "{" in answer.text else "refused"] += 1
            counts["retried"] += attempt < self.retries
        counts["gave up"] += 1
        return None, +counts

    async def replacement(
        self, lm: BatchedLM, trajectory: Trajectory, at: int, admissible: Sequence[str], instruction: str, seed: int
    ) -> str:
        """One of `admissible` other than action `at` of `trajectory`: a plausible mistake. At least one is needed."""
        options = [action for action in dict.fromkeys(admissible) if action != trajectory.actions[at]]
        if len(options) > self.max_options:
            drawn = sorted(random.Random(derive_seed(seed, "options")).sample(range(len(options)), self.max_options))
            options = [options[i] for i in drawn]
        prompt = prompts.replace(trajectory, at, instruction, options, self.max_chars)
        [choice] = await lm.choose(prompt, options, 1, 0.0, seed)
        return str(choice.text)

    async def prefers(
        self, lm: BatchedLM, instruction: str, chosen: Trajectory, rejected: Trajectory, seed: int
    ) -> bool | None:
        """Whether the LLM, not told which is which, says that `chosen` and not `rejected` does what `instruction` says.

        It is asked in both orders. None: the answer depends on the order.
        """
        orders = ((chosen, rejected), (rejected, chosen))
        asked = [prompts.comparison(instruction, a, b, self.max_chars) for a, b in orders]
        said = await asyncio.gather(
            *(lm.choose(prompt, prompts.PAIR, 1, 0.0, derive_seed(seed, k)) for k, prompt in enumerate(asked))
        )
        first, second = (choice.index for [choice] in said)
        return None if first == second else first == 0


def read_answer(text: str, trajectory: Trajectory) -> Assessment | None:
    """The reading in `text`: the first JSON object with the types and ranges asked for, whatever is written around it.

    Nothing is guessed: an object with another type, a step that `trajectory` does not have, or a broken object is not
    read. None where there is none.
    """
    decoder, at = json.JSONDecoder(), text.find("{")
    for _ in range(20):  # a thousand open braces are no answer
        if at < 0:
            return None
        try:
            found, _ = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):  # ValueError: no JSON, or an integer of thousands of digits
            found = None
        if isinstance(found, dict) and (reading := _reading(found, trajectory)):
            return reading
        at = text.find("{", at + 1)
    return None


def _reading(answer: Mapping[str, Any], trajectory: Trajectory) -> Assessment | None:
    fulfilled, text, steps = (answer.get(name) for name in ("fulfilled", "instruction", "change"))
    if not isinstance(fulfilled, bool) or not isinstance(text, str) or not isinstance(steps, list):
        return None
    if not all(type(step) is int and 1 <= step <= len(trajectory.steps) for step in steps):
        return None
    text, asked = prompts.one_line(text), trajectory.task.instruction
    readable = len(text) <= LLMHindsight.LONGEST and text.isprintable()  # no control character, no half a character
    if not fulfilled and (not readable or text == prompts.one_line(asked)):
        return None
    text = asked if fulfilled else text
    if text and not steps:
        return None
    return Assessment(text, fulfilled, tuple(dict.fromkeys(step - 1 for step in steps))[: LLMHindsight.MOST])
