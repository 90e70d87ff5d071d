"""What the exercises of 08 · Your own environment ask for."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from armap_lite.course import LampsBase, as_list, equal, exercise, expect, random_trajectory
from armap_lite.course.toys import LAMPS, LampHindsight
from armap_lite.envs.hindsight import Goal, Hindsight
from armap_lite.synthesize import change
from armap_lite.trajectory import Observation, Trajectory


class Words(LampsBase):
    """The lamps without their world, and with another `hindsight` where one is given."""

    reset = step = admissible = None  # type: ignore[assignment]

    def __init__(self, hindsight: Hindsight = LampsBase.hindsight):
        self.hindsight = hindsight


class Deaf(LampHindsight):
    def parse(self, instruction: str) -> Goal | None:
        return None


class BlindToRed(LampHindsight):
    def parse(self, instruction: str) -> Goal | None:
        return super().parse(instruction.replace("red", ""))


class Mumbling(LampHindsight):
    def to_text(self, goal: Goal) -> str:
        return super().to_text(goal) if goal["lit"] != "white" else "Do the usual."


@exercise("08-1", 1, "`math.comb(6, 3)` counts without order, `math.perm(6, 3)` with it; which is which here?")
def bags_and_walks(answer: Any) -> str:
    """two numbers: how many different bags a table of six things allows, and how many sequences of actions"""
    bags, walks = as_list(answer, 2)
    equal(bags, 20, "Bags of three out of six things (the order in the bag does not matter)", reveal=False)
    equal(walks, 120, "Sequences: six things first, then five, then four", reveal=False)
    return "Six walks for each bag, and only one bag is right: luck packs it once in twenty times."


@exercise("08-2", 2, "`parse` of `PackingHindsight`; `re.split` at the words not and without leaves what is asked for")
def parse(answer: Any) -> str:
    """`parse(instruction, things)`: {"bag": three things, sorted}; what comes after `not` or `without` is not asked"""
    things = ("apple", "book", "coat", "knife", "map", "radio", "rope", "soap", "tent", "torch")
    cases = {
        "Pack the book, the apple and the tent.": {"bag": "apple book tent"},
        "We need a torch, a map and a coat in the bag.": {"bag": "coat map torch"},
        "Pack the book, the apple and the tent, but not the rope.": {"bag": "apple book tent"},
        "Soap, rope and radio please, without the knife and the map!": {"bag": "radio rope soap"},
        "Pack the book and the apple, not the tent.": None,
        "Pack the book, the apple, the tent and the map.": None,
        "Pack another rope, the book and a knife.": {"bag": "book knife rope"},
        "Pack the bookcase, the apple and the tent.": None,
        "Pack the tent and again the tent, and the map.": None,
        "Do not pack a thing.": None,
    }
    for text, wanted in cases.items():
        equal(answer(text, things), wanted, f"{text!r}")
    return "A sentence that is read wrongly becomes a wrong lesson; one that cannot be read is merely left out."


@exercise("08-3", 2, "section 2: the loop over `few_shot`; a task's instruction must be readable too, not None")
def misread(answer: Any) -> str:
    """`misread(env)`: texts of `few_shot` that `parse` reads as another goal, then tasks' texts it cannot read"""

    def told(env: Any) -> Iterator[str]:
        return (task.instruction for split in ("train", "dev", "test") for task in env.tasks(split))

    equal(list(answer(Words())), [], "A world in which all is well")
    shown = [text for _, text in LampHindsight.few_shot]
    blind = [shown[0], shown[2], "Light these lamps and no other: red."]
    equal(list(answer(Words(BlindToRed()))), blind, "One that is blind to red")
    equal(list(answer(Words(Mumbling()))), ["Do the usual."], "One whose tasks mumble once")
    deaf = Words(Deaf())
    equal(list(answer(deaf)), shown + list(told(deaf)), "One that reads nothing")
    return "Keep this check: it costs a second. Where it finds something, good drafts are lost, or bad ones kept."


@exercise("08-4", 3, "the class `Table` in section 1; `set.symmetric_difference_update` switches a lamp")
def lamps(answer: Any) -> str:
    """`Lamps`: `reset`, `step` and `admissible` of a world of four lamps in which three switches end the episode"""
    missing = ", ".join(sorted(getattr(answer, "__abstractmethods__", ())))
    expect(not missing, f"Not solved yet. Your class has no {missing}: expected the three methods that make a world.")
    env, task = answer(), Words().tasks("train")[0]
    switches = [f"switch {lamp}" for lamp in LAMPS]
    expect(isinstance(env.reset(task), Observation), f"`reset` should show an Observation, found {env.reset(task)!r}.")
    env.step(switches[0])
    fresh = env.reset(task).text
    expect(fresh == "lit: none", f"After a step and another `reset` one sees {fresh!r}: `reset` has to start afresh.")
    for plan in (switches[:3], ["switch red"] * 3, ["switch red", "switch white", "switch red"], switches[:1], []):
        over = len(plan) == 3
        lit = [" ".join(lamp for lamp in LAMPS if plan[:i].count(f"switch {lamp}") % 2) for i in range(len(plan) + 1)]
        found = env.replay(task, plan)
        seen = [found.start, *(step.observation for step in found.steps)]
        equal(seen, [f"lit: {lamps or 'none'}" for lamps in lit], f"{plan}: what is seen, the start first")
        equal(found.done, over, f"{plan}: the episode is over")
        equal(sorted(env.admissible()), [] if over else switches, f"{plan}: admissible then")
        odd = env.replay(task, ["fly to the moon", *plan])
        equal([step.observation for step in odd.steps], seen, f"{plan} after an action without sense: what is seen")
        equal(odd.done, over, f"{plan} after an action without sense: the episode is over")
    walk = random_trajectory(env, task, random.Random(0))
    goal = env.hindsight.achieved(walk)
    equal(env.hindsight.parse(env.hindsight.to_text(goal)), goal, "What was achieved, put into words and read again")
    expect(isinstance(change(env, walk, random.Random(0)), Trajectory), "Stage 2 found no negative in your world.")
    return "Stage 2 has just made its first negative here: your world can be learned from."
