"""Stage 4: planners by name, and the run of them over many tasks."""

import dataclasses
import inspect
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from armap_lite.agent import Agent
from armap_lite.batching import Batcher, chunks, gather_or_cancel
from armap_lite.envs.base import Environment
from armap_lite.episode import Episode
from armap_lite.planners.base import Budget, PlanResult, Sample, Search
from armap_lite.planners.best_of_n import best_of_n
from armap_lite.planners.mcts import MCTSConfig, mcts
from armap_lite.planners.reflexion import reflexion
from armap_lite.planners.sampling import greedy, sampling
from armap_lite.storage.store import JsonlStore, has_ids, read_jsonl
from armap_lite.trajectory import Task

PLANNERS: dict[str, Callable[..., Awaitable[PlanResult]]] = {
    planner.__name__: planner for planner in (sampling, greedy, best_of_n, reflexion, mcts)
}

__all__ = ["PLANNERS", "Budget", "PlanResult", "Sample", "Search", "complete", "load", "plan", *PLANNERS]


def check(planners: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises ValueError for an unknown planner or option, or a planner before the one whose budget it takes."""
    if unknown := sorted(set(planners) - set(PLANNERS)):
        raise ValueError(f"planner {unknown[0]!r} is not known; there is {', '.join(PLANNERS)}")
    for i, (name, settings) in enumerate(planners.items()):
        known = _options(name)
        for option, value in settings.items():
            if option not in known:
                raise ValueError(f"planner {name} has no option {option!r}; it has {', '.join(known) or 'none'}")
            if isinstance(value, Mapping) and value.get("spent_by") not in list(planners)[:i]:
                said = f"{name} takes the budget of {value.get('spent_by')!r}, which has to be planned before it"
                raise ValueError(said)


def _options(name: str) -> list[str]:
    """The options of planner `name`."""
    if PLANNERS[name] is mcts:
        return [field.name for field in dataclasses.fields(MCTSConfig)]
    parameters = inspect.signature(PLANNERS[name]).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]


async def plan(
    env: Environment,
    agent: Agent,
    reward: Any,
    tasks: Sequence[Task],
    out: Path,
    planners: Mapping[str, Mapping[str, Any]],
    *,
    seed: int = 0,
    group: int = 32,
    progress: Any = lambda n: None,
    timed: Callable[[dict[str, float]], None] = lambda seconds: None,
) -> None:
    """Run each planner (name -> its options) on each task and write one `PlanResult` a line to `out`.

    An option `{"spent_by": planner}` becomes what that planner spent of it on the same task (`llm_tokens`,
    `env_steps`): equal budgets. Servers that do not report tokens are compared by steps instead. Lines already in `out`
    are kept. The planners of a group of tasks run one after the other on the same caches; an interrupted group runs
    again as a whole. After each group, `progress` gets its number of tasks, and `timed` the seconds of each planner.
    """
    check(planners)
    batch = Batcher(agent.lm, reward, env.max_concurrent_episodes)
    budgets: dict[tuple[str, str], Budget] = {}
    with JsonlStore(out) as store:

        async def one(name: str, task: Task) -> None:
            search = Search(name, Episode(env.fork(), task), agent, batch, seed)
            options = {}
            for option, value in planners[name].items():
                if isinstance(value, Mapping):
                    used = budgets[value["spent_by"], task.id]
                    option = option if getattr(used, option) else "env_steps"
                    value = getattr(used, option)
                options[option] = value
            result = await PLANNERS[name](search, **options)
            budgets[name, task.id] = result.budget
            store.extend([result.to_json()])

        for some in chunks(tasks, group):
            if not store.ids.issuperset(_ids(some, planners)):
                agent.lm.reset()
                reward.reset()
                seconds = {}
                for name in planners:
                    start = time.perf_counter()
                    await gather_or_cancel([one(name, task) for task in some])
                    seconds[name] = time.perf_counter() - start
                timed(seconds)
            progress(len(some))


def _ids(tasks: Sequence[Task], planners: Iterable[str]) -> list[str]:
    return [f"{name}/{task.id}" for name in planners for task in tasks]


def complete(path: Path, tasks: Sequence[Task], planners: Iterable[str]) -> bool:
    """Whether the file `path` holds a plan of each of `tasks` by each of `planners`."""
    return has_ids(path, _ids(tasks, planners))


def load(path: Path) -> list[PlanResult]:
    """The plans that `plan` wrote."""
    return [PlanResult.from_json(line) for line in read_jsonl(path)]
