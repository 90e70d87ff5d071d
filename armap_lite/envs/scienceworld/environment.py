"""ScienceWorld (arXiv 2203.07540): a text world of ten rooms in which elementary-school science is done.

The real simulator, from the package `scienceworld`, in one Java virtual machine. It cannot save a state: a state is its
task and actions, and is reached again by replay. A replay has the same score, while the *text* may list objects in
another order. Two exceptions are known: thermometers (`use thermometer …`, in tasks that freeze something) may read
differently, and a circuit (`power-component`) may light up one action sooner or later, and so end sooner.

An episode is over where it is completed (a score of 1; the simulator's own getCompleted says the same, and would be one
call more) or was failed for good (a score below zero). That one bit, `done`, is all that `step` passes on of the score.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import random
import re
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from armap_lite.envs.base import Environment, Judge, SimulatorError
from armap_lite.envs.hindsight import Goal, Hindsight
from armap_lite.envs.prompts import example
from armap_lite.envs.scienceworld.events import ROOMS
from armap_lite.envs.scienceworld.goals import achieved, satisfied
from armap_lite.envs.scienceworld.java import Simulators, find_java
from armap_lite.envs.scienceworld.made import plan
from armap_lite.envs.scienceworld.tasks import EXAMPLES, PER_FAMILY, STEPS, read_index
from armap_lite.envs.scienceworld.wording import PHRASINGS, parse, to_text
from armap_lite.storage.assets import cache
from armap_lite.storage.store import write_memo
from armap_lite.trajectory import Observation, Task, Trajectory

SIMPLIFICATION = "easy"

# Templates of the simulator's actions that are worth a step, by number: open, go/teleport, activate, deactivate, move,
# pour, focus, use, read, connect, pick up, mix. Left out: looking (an action's list of objects says what is there),
# closing, eating, flushing, waiting one step, and what only repeats the task or ends it.
WORTH = {0, 2, 6, 7, 9, 10, 11, 13, 14, 16, 19, 21, 23}
IDLE = re.compile(
    rf"go to .*|(?!teleport).*\b(?:{ROOMS.replace(', ', '|')})|.*\b(?:door|agent|air|drain|inventory)\b.*"
    r"|wait1|use (?!thermometer|lighter|axe|shovel).*"
)
AGAIN = re.compile(r"wait|teleport|activate")  # worth doing more than once
NUMBERED = re.compile(r"^(\d+):\s*(.+?)\s*$", re.MULTILINE)  # the meanings of an ambiguous command


@functools.lru_cache(100_000)  # the same hundreds of actions are listed in state after state
def idle(action: str) -> bool:
    return bool(IDLE.fullmatch(action))


class ScienceWorldHindsight(Hindsight):
    """Goals as `science_facts.py` reads and words them."""

    few_shot = PHRASINGS

    def achieved(self, trajectory: Trajectory) -> Goal:
        return achieved(trajectory)

    def to_text(self, goal: Goal) -> str:
        return to_text(goal)

    def parse(self, instruction: str) -> Goal | None:
        return parse(instruction)

    def satisfied(self, trajectory: Trajectory, goal: Goal) -> bool:
        return satisfied(trajectory, goal)

    def start_text(self, goal: Goal) -> str:
        nearby = goal.get("room") or goal.get("at") or "art studio"
        return f"This room is called the hallway. Nearby: the {nearby}."

    def carry_on(self, trajectory: Trajectory, seed: int) -> tuple[int, Sequence[str]] | None:
        return plan(trajectory, seed)


class ScienceWorld(Environment):
    """`Task.setup` = {"variation": 225}, `Task.family` = "find-animal"; actions are the simulator's commands.

    `families`: play only these of the 24; `heap_mb`: memory of the Java virtual machine; `simulators`: how many run
    in it at once (more episodes than that take turns, and are replayed when their turn comes); `index`: a JSON file
    {"dev": [["find-animal", 151], …], …} that replaces the variations of a split.
    """

    name = "scienceworld"
    metric = "ScienceWorld score"
    max_steps = max(STEPS.values())
    choose_by = "token"
    guide = "Do the task in the house, one action in each line."
    hindsight = ScienceWorldHindsight()
    look_back_examples = (
        example(
            "Your task is to find a(n) animal. First, focus on the thing. Then, move it to the red box in the kitchen.",
            "This room is called the hallway. In it, you see: the agent. You also see: A door to the greenhouse.",
            [
                ("teleport to greenhouse", "You teleport to the greenhouse."),
                ("focus on apple tree", "You focus on the apple tree."),
            ],
            did="The agent focused on an apple tree, a plant, in the greenhouse.",
            fulfilled=False,
            instruction="Your task is to find a(n) plant around the greenhouse. Focus on the thing.",
            change=[2, 1],
        ),
    )

    def __init__(
        self,
        families: Sequence[str] | None = None,
        heap_mb: int = 512,
        simulators: int = 16,
        index: str | Path | None = None,
    ):
        if odd := sorted(set(families or ()) - set(STEPS)):
            raise ValueError(f"task family {odd[0]!r} is not known; there is {', '.join(STEPS)}")
        self.families = tuple(families or STEPS)
        self.version = _version()
        self._index = read_index(Path(index)) if index else {}
        self._owner, self._key, self.max_concurrent_episodes = True, object(), simulators
        from scienceworld.constants import JAR_PATH

        self._pool = Simulators(find_java(heap_mb), str(JAR_PATH), _interface, heap_mb, simulators)
        self._forget()

    def _forget(self) -> None:
        self.at = None
        self._task: Task | None = None
        self._done: list[str] = []  # actions since the start of the task
        self._seen = ""

    # Tasks.

    def tasks(self, split: str) -> Sequence[Task]:  # type: ignore[override]
        if split not in ("train", "dev", "test"):
            raise ValueError(f"split {split!r} is not known; use 'train', 'dev' or 'test'")
        places = self._index.get(split) or [(f, v) for f in self.families for v in self._variations(f, split)]
        return Tasks(split, places, self._describe)

    def _variations(self, family: str, split: str) -> list[int]:
        found = self._cached(
            f"{family}/{split}", lambda sim: [int(v) for v in getattr(sim, f"getVariations{split.title()}")()]
        )
        taken = {v for name, places in self._index.items() if name != split for f, v in places if f == family}
        if split == "train":
            return [v for v in found if v not in taken]
        if lost := taken & set(found[:PER_FAMILY]):
            raise ValueError(f"the index takes {family} {min(lost)} from {split!r}: let it list {split!r}, too")
        return found[:PER_FAMILY]

    def _describe(self, family: str, variation: int) -> str:
        return self._cached(f"{family}/{variation}/task", lambda sim: str(sim.getTaskDescription()))

    def _cached(self, key: str, read: Any) -> Any:
        """What the simulator says of a task (a load of 0.1 s each), kept on disk from one run to the next."""
        file = cache() / f"scienceworld-{self.version}-tasks.json"
        known = _notes(file)
        if key not in known:
            family, _, variation = key.partition("/")
            number = variation.split("/")[0]
            reader = object()  # not this environment's own: an episode may be under way
            try:
                sim = self._pool.of(reader)[0]
                sim.load(family, int(number) if number.isdigit() else 0, SIMPLIFICATION, False)
                known[key] = read(sim)
            finally:
                self._pool.release(reader)
            write_memo(file, json.dumps(known))
        return known[key]

    def draw(self, n: int, seed: int) -> list[Task]:
        """As many of each family as can be: some have a thousand variations to train on, some have ten."""
        rng = random.Random(seed)
        places: list[tuple[str, int]] = list(self.tasks("train")._places)  # type: ignore[attr-defined]
        left = [[p for p in places if p[0] == family] for family in rng.sample(self.families, len(self.families))]
        for some in left:
            rng.shuffle(some)
        rounds = itertools.zip_longest(*left)
        places = [place for round_ in rounds for place in round_ if place]
        return list(Tasks("train", places[:n], self._describe))

    # The world.

    def fork(self) -> ScienceWorld:
        other = object.__new__(ScienceWorld)
        other.__dict__.update(self.__dict__, _owner=False, _key=object())
        other._forget()
        return other

    def reset(self, task: Task) -> Observation:
        self._forget()
        self._task = task
        self._pool.release(self._key)
        self._do(lambda sim: sim)
        return self._observe()

    def step(self, action: str) -> Observation:
        """Do `action`. Listing the admissible actions costs more than the step: ask `admissible()` where it matters."""
        if self._task is None:
            raise ValueError("step before reset: start a task first")
        self._seen, done = self._do(lambda sim: self._step(sim, action))
        self._done.append(action)
        return self._observe(done)

    def _observe(self, done: bool = False) -> Observation:
        # Never shown to a model: one of this size does best with the actions alone.
        return Observation(" ".join(self._seen.split()), done=done, show="never")

    def admissible(self) -> tuple[str, ...]:
        """Actions worth a step here; any other command of the simulator may be given to `step` as well.

        Not listed: what `WORTH` and `IDLE` leave out, what was done before in this episode (a small policy goes in
        circles otherwise), and a second teleport in a row. After an ambiguous command: what it may mean.
        """
        if meanings := self._meanings():
            return tuple(meanings)
        listed = self._do(lambda sim: str(sim.getValidActionObjectCombinationsJSON()))
        found = json.loads(listed)["validActions"]
        wanted = {a["action"] for a in found if a["template_id"] in WORTH and not idle(a["action"])}
        wanted -= {a for a in self._done if not AGAIN.match(a)}
        if self._done and self._done[-1].startswith("teleport"):
            wanted -= {a for a in wanted if a.startswith("teleport")}
        return tuple(sorted(wanted))

    def release(self) -> None:
        self._pool.release(self._key)

    def _do(self, call: Callable[[Any], Any]) -> Any:
        """`call(simulator)`; where the JVM died, once more in a new one, which reaches the state by replay."""
        for attempt in range(2):
            try:
                return call(self._here())
            except Exception as error:
                if attempt or not self._pool.died():
                    raise self._failed(error) from error

    def _meanings(self) -> dict[str, str]:
        """After an ambiguous command: what it may mean, and the number to answer with. Of equal ones, the first.

        Trajectories hold the meaning: the numbers could come in another order when they are replayed.
        """
        found = NUMBERED.findall(self._seen) if self._seen.startswith("Ambiguous") else []
        return {text: number for number, text in reversed(found)}

    def _step(self, sim: Any, action: str) -> tuple[str, bool]:
        seen = str(sim.step(self._meanings().get(action, action)))
        return seen, not 0 <= sim.getScore() < 1  # 1: completed; below 0: failed for good

    def _begin(self, sim: Any) -> None:
        task: Any = self._task
        sim.load(task.family, int(task.setup["variation"]), SIMPLIFICATION, False)
        self._seen = str(sim.step("look around"))

    def _here(self) -> Any:
        """This environment's simulator, in this environment's state."""
        sim, mine = self._pool.of(self._key)
        if not mine:
            self._begin(sim)
            for action in self._done:
                self._seen, _ = self._step(sim, action)
        return sim

    def _failed(self, error: Exception) -> Exception:
        if isinstance(error, (KeyError, TypeError, ValueError)):
            return error
        self._pool.release(self._key)
        self._forget()
        return SimulatorError(f"the simulator broke off: {type(error).__name__}: {str(error)[:200]}")

    def close(self) -> None:
        if self._owner:
            self._pool.close()

    def __del__(self) -> None:
        if pool := self.__dict__.get("_pool"):
            pool.release(self._key)

    def examples(self) -> list[tuple[Task, tuple[str, ...]]]:
        out: list[tuple[Task, tuple[str, ...]]] = []
        for family, variation, actions in EXAMPLES:
            task = Tasks("train", [(family, variation)], self._describe)[0]
            out.append((dataclasses.replace(task, id=f"example-{family}"), actions))
        return out


class ScienceWorldJudge(Judge):
    """The highest score the simulator gave during the episode, in [0, 1]."""

    def __init__(self, **options: Any):
        self._env = ScienceWorld(**options)

    def score(self, trajectory: Trajectory) -> float:
        env = self._env
        env.reset(trajectory.task)
        highest = 0.0
        for action in trajectory.actions:
            done = env.step(action).done
            highest = max(highest, float(env._do(lambda sim: sim.getScore())))
            if done:
                break
        return min(1.0, highest)

    def close(self) -> None:
        self._env.close()


class Tasks(Sequence[Task]):
    """The tasks of a split. What one says is asked of the simulator when it is looked at, not before."""

    def __init__(self, split: str, places: Sequence[tuple[str, int]], describe: Callable[[str, int], str]):
        self._split, self._places, self._describe = split, places, describe

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return Tasks(self._split, self._places[at], self._describe)
        family, variation = self._places[at]
        told = self._describe(family, variation)
        setup = {"variation": variation}
        return Task(f"{family}-{variation}", ScienceWorld.name, self._split, told, setup, family, STEPS[family])


@functools.cache
def _notes(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _version() -> str:
    try:
        return metadata.version("scienceworld")
    except metadata.PackageNotFoundError:
        raise RuntimeError("ScienceWorld is not installed: pip install 'armap-lite[scienceworld]'") from None


def _interface(gateway: Any) -> Any:
    return gateway.jvm.scienceworld.runtime.pythonapi.PythonInterface()
