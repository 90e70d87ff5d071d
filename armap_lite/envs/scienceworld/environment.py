"""ScienceWorld (arXiv 2203.07540): elementary-school science in a text world of ten rooms.

The original simulator of the package `scienceworld`, in one Java virtual machine. It cannot save a state: a state is a
task and actions, reached again by replay. A replay has the same texts, actions and scores (`java.SAME_ORDER`).

An episode is over when it is completed (score 1, as the simulator's getCompleted would say in one more call) or has
failed for good (score below zero). That one bit, `done`, is all that `step` reveals of the score.
"""

from __future__ import annotations

import copy
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
from armap_lite.envs.scienceworld import data, goals
from armap_lite.envs.scienceworld.continuations import plan
from armap_lite.envs.scienceworld.data import DATA, MAX_STEPS
from armap_lite.envs.scienceworld.java import Simulators
from armap_lite.storage.assets import cache_dir, how_to_install
from armap_lite.storage.store import write_memo
from armap_lite.trajectory import Observation, Task, Trajectory

SIMPLIFICATION = "easy"
PER_FAMILY = 10  # variations for test and dev: the first ten of each family, or all there are
Place = tuple[str, int]  # family, variation

# Numbers of the simulator's action templates that are listed: open, go/teleport, activate, deactivate, move, pour,
# focus, use, read, connect, pick up, mix. Left out: looking (the listed actions name the objects), closing, eating,
# flushing, waiting one step, and actions that only repeat the task or end it.
USEFUL_TEMPLATES = {0, 2, 6, 7, 9, 10, 11, 13, 14, 16, 19, 21, 23}
USELESS = re.compile(
    rf"go to .*|(?!teleport).*\b(?:{'|'.join(DATA['rooms'])})|.*\b(?:door|agent|air|drain|inventory)\b.*"
    r"|wait1|use (?!thermometer|lighter|axe|shovel).*"
)
REPEATABLE = re.compile(r"wait|teleport|activate")  # listed again after they were done
MEANING = re.compile(r"^(\d+):\s*(.+?)\s*$", re.MULTILINE)  # of an ambiguous command, with its number


is_useless = functools.lru_cache(100_000)(USELESS.fullmatch)  # most states list the same hundreds of actions


class ScienceWorldHindsight(Hindsight):
    """`goals` reads what happened, `data` words and parses it, `continuations` extends attempts."""

    few_shot = data.FEW_SHOT
    achieved = staticmethod(goals.achieved)
    satisfied = staticmethod(goals.satisfied)
    to_text = staticmethod(data.to_text)
    parse = staticmethod(data.parse)
    continuation = staticmethod(plan)

    def start_text(self, goal: Goal) -> str:
        nearby = goal.get("room") or goal.get("at") or "art studio"
        return f"This room is called the hallway. Nearby: the {nearby}."


class ScienceWorld(Environment):
    """`Task.setup` = {"variation": 225}, `Task.family` = "find-animal"; actions are the simulator's commands.

    `families`: only these of the 24; `heap_mb`: memory of the Java virtual machine; `simulators`: how many run in it
    at once (if there are more episodes, they take turns and are replayed).
    """

    name = "scienceworld"
    metric = "ScienceWorld score"
    max_steps = max(MAX_STEPS.values())
    decoding = "token"
    guide = "Do the task in the house, one action in each line."
    hindsight = ScienceWorldHindsight()
    hindsight_version = 2  # what code reads has changed: pairs of an earlier version do not mix with these
    look_back_examples = tuple(example(**one) for one in DATA["look_back_examples"])

    def __init__(self, families: Sequence[str] | None = None, heap_mb: int = 512, simulators: int = 16):
        if odd := sorted(set(families or ()) - set(MAX_STEPS)):
            raise ValueError(f"task family {odd[0]!r} is not known; there is {', '.join(MAX_STEPS)}")
        self.families = tuple(families or MAX_STEPS)
        try:
            self.version = metadata.version("scienceworld")
        except metadata.PackageNotFoundError:
            raise RuntimeError(f"ScienceWorld is not installed: {how_to_install('scienceworld')}") from None
        self._owner, self._key, self.max_concurrent_episodes = True, object(), simulators
        self._pool = Simulators(heap_mb, simulators)
        self._forget()

    def _forget(self) -> None:
        self.at = None
        self._task: Task | None = None
        self._actions: list[str] = []  # since the start of the task
        self._text = ""  # the simulator's last answer

    def tasks(self, split: str) -> Sequence[Task]:  # type: ignore[override]
        if split not in ("train", "dev", "test"):
            raise ValueError(f"split {split!r} is not known; use 'train', 'dev' or 'test'")
        places = [(family, v) for family in self.families for v in self._variations(family, split)]
        return Tasks(split, places, self._describe)

    def _variations(self, family: str, split: str) -> list[int]:
        getter = f"getVariations{split.title()}"
        found = self._cached(f"{family}/{split}", lambda sim: [int(v) for v in getattr(sim, getter)()])
        return found if split == "train" else found[:PER_FAMILY]

    def _describe(self, family: str, variation: int) -> str:
        return self._cached(f"{family}/{variation}/task", lambda sim: str(sim.getTaskDescription()))

    def _cached(self, key: str, read: Callable[[Any], Any]) -> Any:
        """What the simulator says about a task (0.1 s to load each), cached on disk."""
        file = cache_dir() / f"scienceworld-{self.version}-tasks.json"
        known = _memo(file)
        if key not in known:
            family, variation = key.split("/")[:2]
            reader = object()  # not `self._key`: an episode may be running
            try:
                sim = self._pool.of(reader)[0]
                sim.load(family, int(variation) if variation.isdigit() else 0, SIMPLIFICATION, False)
                known[key] = read(sim)
            finally:
                self._pool.release(reader)
            write_memo(file, json.dumps(known))
        return known[key]

    def draw(self, n: int, seed: int) -> list[Task]:
        """As many of each family as possible: some have a thousand training variations, some have ten."""
        rng = random.Random(seed)
        families = rng.sample(self.families, len(self.families))
        by_family = [[(family, v) for v in self._variations(family, "train")] for family in families]
        for variations in by_family:
            rng.shuffle(variations)
        drawn = [place for round_ in itertools.zip_longest(*by_family) for place in round_ if place]
        return list(Tasks("train", drawn[:n], self._describe))

    def examples(self) -> list[tuple[Task, tuple[str, ...]]]:
        shown = [(Tasks("train", [(f, v)], self._describe)[0], tuple(actions)) for f, v, actions in DATA["examples"]]
        return [(dataclasses.replace(task, id=f"example-{task.family}"), actions) for task, actions in shown]

    def fork(self) -> ScienceWorld:
        other = copy.copy(self)
        other._owner, other._key = False, object()
        other._forget()
        return other

    def reset(self, task: Task) -> Observation:
        self._forget()
        self._task = task
        self._pool.release(self._key)
        self._call(lambda sim: sim)
        return self._observe()

    def step(self, action: str) -> Observation:
        """Execute `action`. The observation lists no actions, as that costs more than the step: ask `admissible()`."""
        if self._task is None:
            raise ValueError("step before reset: start a task first")
        self._text, done = self._call(lambda sim: self._step(sim, action))
        self._actions.append(action)
        return self._observe(done)

    def _observe(self, done: bool = False) -> Observation:
        # Not shown to the policy: small models do best with the actions alone.
        return Observation(" ".join(self._text.split()), done=done, show="never")

    def admissible(self) -> tuple[str, ...]:
        """Useful actions; `step` takes any other command of the simulator, too.

        Not listed: actions done before in this episode (a small policy would go in circles) and a second teleport in a
        row. After an ambiguous command: its possible meanings.
        """
        if meanings := self._meanings():
            return tuple(meanings)
        listed = json.loads(self._call(lambda sim: str(sim.getValidActionObjectCombinationsJSON())))["validActions"]
        useful = {a["action"] for a in listed if a["template_id"] in USEFUL_TEMPLATES and not is_useless(a["action"])}
        useful -= {a for a in self._actions if not REPEATABLE.match(a)}
        if self._actions and self._actions[-1].startswith("teleport"):
            useful = {a for a in useful if not a.startswith("teleport")}
        return tuple(sorted(useful))

    def _meanings(self) -> dict[str, str]:
        """After an ambiguous command: each meaning and the number to answer with. Of equal meanings, the first.

        Trajectories hold the meaning, since the numbers may be in another order in a replay.
        """
        found = MEANING.findall(self._text) if self._text.startswith("Ambiguous") else []
        return {text: number for number, text in reversed(found)}

    def release(self) -> None:
        self._pool.release(self._key)

    def _call(self, function: Callable[[Any], Any]) -> Any:
        """`function(simulator)`; if the JVM died, once more in a new one, after a replay to the same state."""
        for attempt in range(2):
            try:
                return function(self._simulator())
            except Exception as error:
                if attempt or not self._pool.died():
                    if isinstance(error, (KeyError, TypeError, ValueError)):
                        raise
                    self._pool.release(self._key)
                    self._forget()
                    broken = f"the simulator broke off: {type(error).__name__}: {str(error)[:200]}"
                    raise SimulatorError(broken) from error

    def _simulator(self) -> Any:
        """A simulator in the state of this environment."""
        sim, mine = self._pool.of(self._key)
        if not mine:
            self._load(sim)
            for action in self._actions:
                self._text, _ = self._step(sim, action)
        return sim

    def _load(self, sim: Any) -> None:
        task: Any = self._task
        sim.load(task.family, int(task.setup["variation"]), SIMPLIFICATION, False)
        self._text = str(sim.step("look around"))

    def _step(self, sim: Any, action: str) -> tuple[str, bool]:
        text = str(sim.step(self._meanings().get(action, action)))
        return text, not 0 <= sim.getScore() < 1  # 1: completed; below 0: failed for good

    def close(self) -> None:
        if self._owner:
            self._pool.close()

    def __del__(self) -> None:
        if pool := self.__dict__.get("_pool"):
            pool.release(self._key)


class ScienceWorldJudge(Judge):
    """The highest score that the simulator gave during the episode, in [0, 1]."""

    def __init__(self, **options: Any):
        self._env = ScienceWorld(**options)

    def score(self, trajectory: Trajectory) -> float:
        self._env.reset(trajectory.task)
        highest = 0.0
        for action in trajectory.actions:
            done = self._env.step(action).done
            highest = max(highest, float(self._env._call(lambda sim: sim.getScore())))
            if done:
                break
        return min(1.0, highest)

    def close(self) -> None:
        self._env.close()


class Tasks(Sequence[Task]):
    """The tasks of a split. A task's instruction is read from the simulator when the task is accessed."""

    def __init__(self, split: str, places: Sequence[Place], describe: Callable[[str, int], str]):
        self._split, self._places, self._describe = split, places, describe

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return Tasks(self._split, self._places[at], self._describe)
        family, variation = self._places[at]
        asked, setup = self._describe(family, variation), {"variation": variation}
        return Task(f"{family}-{variation}", ScienceWorld.name, self._split, asked, setup, family, MAX_STEPS[family])


@functools.cache
def _memo(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
