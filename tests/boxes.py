"""A world without any hindsight of its own, and a data LLM that reads it: for the tests of `LLMHindsight`."""

import json
import random
import re
from typing import Any

from armap_lite.envs import prompts
from armap_lite.envs.base import Environment, Judge
from armap_lite.trajectory import Observation, Task, Trajectory

THINGS, COLOURS = ("ball", "coin", "key"), ("blue", "red")


class Boxes(Environment):
    """Two of three things go into boxes. There is no code that looks back."""

    name, version, metric, max_steps = "boxes", "1", "success", 2
    guide = "Put things into boxes."
    variable_length = False

    def tasks(self, split: str) -> list[Task]:
        wanted = [(thing, colour) for thing in THINGS for colour in COLOURS]
        return [
            Task(f"{split}-{i}", self.name, split, f"Put the {t} into the {c} box.", {"wanted": f"{t} {c}"})
            for i, (t, c) in enumerate(wanted)
        ]

    def reset(self, task: Task) -> Observation:
        self.at, self.held = None, list(THINGS)
        return self._seen("You hold a ball, a coin and a key.\nThere is a blue box and a red box.")

    def step(self, action: str) -> Observation:
        found = re.fullmatch(r"put the (\w+) into the (\w+) box", action)
        if not found or found[1] not in self.held or found[2] not in COLOURS:
            return self._seen("Nothing happens.")
        self.held.remove(found[1])
        return self._seen(f"The {found[1]} is in the {found[2]} box.")

    def admissible(self) -> tuple[str, ...]:
        return tuple(f"put the {t} into the {c} box" for t in self.held for c in COLOURS) if len(self.held) > 1 else ()

    def _seen(self, text: str) -> Observation:
        return Observation(text, self.admissible(), done=len(self.held) == 1, show="never")


class BoxesJudge(Judge):
    def score(self, trajectory: Trajectory) -> float:
        env = Boxes()
        replayed = env.replay(trajectory.task, trajectory.actions)
        return float(did(trajectory.task.setup["wanted"], [step.observation for step in replayed.steps]))


def did(wanted: str, seen: Any) -> bool:
    thing, colour = wanted.split()
    return any(f"The {thing} is in the {colour} box." in text for text in seen)


def walks(env: Environment, tasks: list[Task], n: int) -> list[Trajectory]:
    """`n` random trajectories of each task, all different within a task."""
    rng, found = random.Random(0), {}
    for task in tasks:
        for _ in range(n):
            walk = env.replay(task, ())
            while not walk.done:
                action = rng.choice(env.admissible())
                walk = walk.then(action, env.step(action))
            found[task.id, walk.actions] = walk
    return list(found.values())


WALKS = walks(Boxes(), Boxes().tasks("train"), 4)
FIRST = WALKS[0]


def shown(prompt: str) -> str:
    """The trajectory that a prompt asks about, after all examples."""
    return prompt.rpartition("=== The trajectory to look back at\n")[2]


def good(prompt: str, seed: int = 0) -> str:
    """A data LLM that reads: the last thing put into a box is what the trajectory did, unless it did what was asked."""
    asked = re.search(r"Instruction: Put the (\w+ into the \w+) box", shown(prompt))[1].replace(" into the ", " ")
    seen = re.findall(r"^   (The \w+ is in the \w+ box\.)$", shown(prompt), re.MULTILINE)
    fulfilled = did(asked, seen)
    at = next((k for k, text in enumerate(seen) if did(asked, [text])), len(seen) - 1)
    thing, colour = re.fullmatch(r"The (\w+) is in the (\w+) box\.", seen[at]).groups()
    text = f"Put the {thing} into the {colour} box."
    return " " + json.dumps({"did": seen[at], "fulfilled": fulfilled, "instruction": text, "change": [at + 1]})


def sees(prompt: str, choice: str) -> float:
    """Weights of the same LLM: the right one of two trajectories; another box for the thing that was put away."""
    if choice not in prompts.PAIR:
        old = re.search(r'Its next action was "put the (\w+) into', prompt)[1]
        return 5.0 if f"the {old} " in choice else 1.0
    asked = re.search(r"Instruction: Put the (\w+) into the (\w+) box", prompt)
    sides = re.split(r"=== Trajectory [AB]\n", prompt)[1:]
    if not asked:  # a text that asks for nothing that can be seen
        return 1.0 + (choice == prompts.PAIR[0])
    return 1.0 + did(f"{asked[1]} {asked[2]}", [sides[prompts.PAIR.index(choice)]])
