"""What the exercises of 03 · Synthesize pairs ask for."""

import collections
import random
from typing import Any

from armap_lite.course import exercise, puzzle, random_trajectory
from armap_lite.course.answers import equal, expect, replayable
from armap_lite.course.toys import four_numbers
from armap_lite.envs.game24 import OTHER, Game24
from armap_lite.synthesize import change
from armap_lite.trajectory import Observation, PreferencePair

ENDS_AT_36 = ("10 - 4 = 6", "6 * 5 = 30", "30 + 6 = 36")


def failed(rng: random.Random) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Four numbers and a walk to something else than 24 that one can ask for."""
    while True:
        walk = random_trajectory(Game24(), puzzle(*four_numbers(rng)), rng)
        if Game24.hindsight.achieved(walk).get("result") not in (None, "0", "24"):
            return tuple(walk.task.setup["numbers"]), walk.actions


@exercise("03-1", ((4, 5, 6, 10), ENDS_AT_36), failed)
def refined(answer: Any, given: Any) -> None:
    """an instruction, in your own words, for which `failed` is exactly right: its four numbers and where it ended"""
    env, (four, actions) = Game24(), given
    goal = env.hindsight.achieved(env.replay(puzzle(*four), actions))
    expect(isinstance(answer, str), f"Expected a text, found {answer!r}.")
    denial = OTHER.search(answer)
    expect(not denial, f"{denial and denial[0]!r} denies or weakens what is asked: say what to do, and nothing else.")
    read = env.hindsight.parse(answer)
    expect(read, f"No clear goal can be read in {answer!r}: name the four numbers, and 'to obtain' the fifth.")
    equal(read, goal, "The goal that is read in your text")


@exercise("03-2")
def word(answer: Any, cases: Any) -> None:
    """`word(env, trajectory, drafts)`: (the first draft that states the goal, "llm"), else (a plain one, "plain")"""
    env = Game24()
    walk = env.replay(puzzle(4, 5, 6, 10), ENDS_AT_36)
    plain = (env.hindsight.to_text(env.hindsight.achieved(walk)), "plain")
    for case, (drafts, right) in cases.items():
        equal(answer(Game24(), walk, list(drafts)), (right, "llm") if right else plain, case)


@exercise("03-3")
def mirror(answer: Any) -> None:
    """`mirror(env, pair)`: the pair with roles exchanged and an instruction for its new chosen one, or None"""
    env, task, achieved = Game24(), puzzle(4, 5, 6, 10), Game24.hindsight.achieved
    walk = env.replay(task, ENDS_AT_36)
    text = env.hindsight.to_text(achieved(walk))
    for end in ("30 - 6 = 24", "30 * 6 = 180"):
        other = env.replay(task, (*ENDS_AT_36[:2], end))
        pair = PreferencePair("p", task.id, text, walk, other, "llm", 2)
        twin = answer(Game24(), pair)
        expect(isinstance(twin, PreferencePair), f"Expected a PreferencePair, found {twin!r}.")
        equal((twin.chosen, twin.rejected), (other, walk), "Chosen and rejected, exchanged")
        equal(env.hindsight.parse(twin.instruction), achieved(other), "What the new instruction asks for")
        equal(twin.origin, "plain", "The origin of a sentence that no LLM wrote")
        for name in ("id", "task_id", "changed_at"):
            equal(getattr(twin, name), getattr(pair, name), f"`{name}`, which says where the pair comes from, stays")
        back = answer(Game24(), twin)
        equal((back.chosen, back.rejected), (walk, other), "The mirror of the mirror: chosen and rejected")
    fraction = env.replay(task, (*ENDS_AT_36[:1], "6 / 5 = 6/5", "6/5 * 6 = 36/5"))
    pair = PreferencePair("p", task.id, text, walk, fraction, "llm", 1)
    expect(answer(Game24(), pair) is None, "The rejected one ends at 36/5; nobody asks for that: expected None.")


class Tired(Game24):
    """Puts an end to a search that would never give up."""

    steps = 0

    def step(self, action: str) -> Observation:
        self.steps += 1
        expect(self.steps < 5000, "0 0 0 0 ends at 0 whatever one does, and you try for ever: give up after a while.")
        return super().step(action)


@exercise("03-4")
def negative(answer: Any) -> None:
    """`negative(env, trajectory, rng)`: one action changed, the rest carried out again, another end; or None"""
    env, achieved, places = Game24(), Game24.hindsight.achieved, set()
    walks = [random_trajectory(env, puzzle(2, 5, 7, 9), random.Random(seed)) for seed in range(24)]
    walks = [walk for walk in walks if achieved(walk)]  # did something one can ask for
    # Of 5 5 5 5: whatever comes of the first two, the other two are still there.
    ends = (("5 + 5 = 10", "10 + 10 = 20"), ("5 * 5 = 25", "25 + 10 = 35"))
    walks += [env.replay(puzzle(5, 5, 5, 5), ("5 + 5 = 10", *end)) for end in ends] * 12
    replaced, first = collections.defaultdict(set), []
    for seed, walk in enumerate(walks):
        random.seed(seed)
        other = answer(Game24(), walk, random.Random(seed))
        replayable(other, env, walk.task, f"{walk.actions}")
        wrong = achieved(other) != achieved(walk)
        expect(wrong, f"{other.actions} ends where the good one ends, so it is not wrong.")
        at = next(i for i, (a, b) in enumerate(zip(other.actions, walk.actions)) if a != b)
        places.add(at)
        replaced[walk.actions, at].add(other.actions[at])
        for i in range(at + 1, 3):
            env.replay(walk.task, other.actions[:i])
            if other.actions[i] != walk.actions[i]:
                kept = f"{walk.actions[i]!r} was still possible and should be kept, found {other.actions}."
                expect(walk.actions[i] not in env.admissible(), kept)
                first.append(other.actions[i] == env.admissible()[0])
        again = answer(Game24(), walk, random.Random(seed))
        expect(again == other, "The same `rng` twice gave two results: draw with `rng` alone, not with `random`.")
    expect(len(places) > 1, f"The change is always at action {min(places) + 1}; draw its place with `rng`.")
    for at, name in ((0, "first"), (2, "last")):
        expect(at in places, f"You never change the {name} action; draw among all places.")
    few = "Of one walk, a place is always given the same other action; draw among all that are possible, with `rng`."
    expect(max(map(len, replaced.values())) > 1, few)
    expect(not all(first), "A later action that cannot be kept is always the first possible one: draw it with `rng`.")
    zeros, stubborn = random_trajectory(env, puzzle(0, 0, 0, 0), random.Random(0)), Tired()
    expect(change(env, zeros, random.Random(0)) is None, "a puzzle of zeros ends at 0")
    expect(answer(stubborn, zeros, random.Random(0)) is None, "0 0 0 0 ends at 0 whatever one does: expected None.")
