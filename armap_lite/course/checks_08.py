"""What the exercises of 08 · Your own environment ask for."""

import math
import random
from typing import Any

from armap_lite.course import LampsBase, exercise, random_trajectory
from armap_lite.course.answers import equal, expect, numbers
from armap_lite.course.toys import LAMPS, LampHindsight
from armap_lite.synthesize import change
from armap_lite.trajectory import Observation, Trajectory


class Words(LampsBase):
    """The lamps without their world; `faults` take the place of methods of their hindsight."""

    reset = step = admissible = None  # type: ignore[assignment]

    def __init__(self, **faults: Any):
        self.hindsight = LampHindsight()
        vars(self.hindsight).update(faults)


@exercise("08-1", (6, 3), lambda rng: (rng.randint(5, 9), rng.randint(2, 4)))  # on the table, and in the bag
def bags_and_walks(answer: Any, given: Any) -> None:
    """two numbers: how many different bags such a table allows, and how many sequences of actions"""
    things, packed = given
    bags = f"Bags of {packed} out of {things} things (the order in the bag does not matter)"
    walks = f"Sequences: {things} things to choose from first, then {things - 1}, and so on"
    numbers(answer, {bags: math.comb(things, packed), walks: math.perm(things, packed)})


@exercise("08-2")
def parse(answer: Any, cases: Any) -> None:
    """`parse(instruction, things)`: {"bag": three things, sorted}; what comes after `not` or `without` is not asked"""
    things = ("apple", "book", "coat", "knife", "map", "radio", "rope", "soap", "tent", "torch")
    for text, wanted in cases.items():
        equal(answer(text, things), wanted, repr(text))


@exercise("08-3")
def misread(answer: Any) -> None:
    """`misread(env)`: texts of `few_shot` that `parse` reads as another goal, then tasks' texts it cannot read"""
    right = LampHindsight()
    blind = Words(parse=lambda instruction: right.parse(instruction.replace("red", "")))
    mumbling = Words(to_text=lambda goal: "Do the usual." if goal["lit"] == "white" else right.to_text(goal))
    deaf = Words(parse=lambda instruction: None)
    shown = [text for _, text in right.few_shot]
    equal(list(answer(Words())), [], "A world in which all is well")
    unseen = [shown[0], shown[2], "Light these lamps and no other: red."]
    equal(list(answer(blind)), unseen, "One that is blind to red")
    equal(list(answer(mumbling)), ["Do the usual."], "One whose tasks mumble once")
    asked = [task.instruction for split in ("train", "dev", "test") for task in deaf.tasks(split)]
    equal(list(answer(deaf)), shown + asked, "One that reads nothing")


@exercise("08-4")
def lamps(answer: Any) -> None:
    """`Lamps`: `reset`, `step` and `admissible` of a world of four lamps in which three switches end the episode"""
    missing = ", ".join(sorted(getattr(answer, "__abstractmethods__", ())))
    expect(not missing, f"Not solved yet. Your class has no {missing}: expected the three methods that make a world.")
    env, task = answer(), Words().tasks("train")[0]
    switches = [f"switch {lamp}" for lamp in LAMPS]
    expect(isinstance(env.reset(task), Observation), f"`reset` should show an Observation, found {env.reset(task)!r}.")
    env.step(switches[0])
    fresh = env.reset(task).text
    expect(fresh == "lit: none", f"After a step and another `reset`, it shows {fresh!r}: `reset` has to start afresh.")
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
    for odd_action in ("switch pink", "red", "switch red and white", ""):
        env.reset(task)
        equal(env.step(odd_action).text, "lit: none", f"{odd_action!r}, which is not admissible: what is seen")
        for action in switches[:3]:
            end = env.step(action)
        what = f"Three switches after {odd_action!r}: over, and what is seen"
        equal((end.done, end.text), (True, "lit: blue green red"), what)
    after = env.step(switches[3])
    equal((after.done, after.text), (True, "lit: blue green red"), "A switch after the end: over, and what is seen")
    equal(list(env.admissible()), [], "A switch after the end: admissible then")
    one, other = answer(), answer()
    one.reset(task), one.step(switches[0]), other.reset(task)
    seen = one.step(switches[1]).text
    expect(seen == "lit: blue green", f"Of two worlds at once the first shows {seen!r}: keep the state on `self`.")
    walk = random_trajectory(env, task, random.Random(0))
    goal = env.hindsight.achieved(walk)
    equal(env.hindsight.parse(env.hindsight.to_text(goal)), goal, "What was achieved, put into words and read again")
    expect(isinstance(change(env, walk, random.Random(0)), Trajectory), "Stage 2 found no negative in your world.")
