"""Stage 1: an LLM proposes instructions, an LLM agent acts on them, and diverse trajectories are kept.

Nothing here knows how well a trajectory did: no score and no reward is within reach.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from armap_lite.agent import Agent, rollout
from armap_lite.batching import Batcher, run_groups
from armap_lite.envs.base import Environment, SimulatorError
from armap_lite.episode import Episode
from armap_lite.rng import derive_seed
from armap_lite.storage.store import has_ids, read_jsonl
from armap_lite.trajectory import Task, Trajectory


async def collect(
    env: Environment,
    agent: Agent,
    tasks: Sequence[Task],
    out: Path,
    *,
    samples: int = 8,
    temperature: float = 1.0,
    num_proposals: int = 2,
    seed: int = 0,
    group: int = 16,
    progress: Any = lambda n: None,
) -> Counter[str]:
    """Write `samples` trajectories for each of `tasks` to `out`, and return `summary(out)`.

    Each task gets the first of `num_proposals` instructions drafted by the LLM that fits its start state, else its own.
    A trajectory that repeats an earlier one of its task is replaced by the other's id. Lines already in `out` are kept.
    """
    batch = Batcher(agent.lm, max_concurrent_episodes=env.max_concurrent_episodes)

    async def work(task: Task) -> list[dict[str, Any]]:
        target, origin = await propose(env, batch, task, num_proposals, derive_seed(seed, task.id, "propose"))
        policies = [agent.policy(batch, temperature, derive_seed(seed, task.id, k)) for k in range(samples)]
        trajectories = await asyncio.gather(*(rollout(Episode(env.fork(), target), batch, p) for p in policies))
        first: dict[tuple[str, ...], str] = {}  # actions -> id
        lines = []
        for k, trajectory in enumerate(trajectories):
            line: dict[str, Any] = {"id": f"{task.id}#{k}", "task_id": task.id, "instruction_by": origin}
            same = trajectory.actions if trajectory.failure is None else (line["id"],)  # an aborted one is no duplicate
            original = first.setdefault(same, line["id"])
            new = original == line["id"]
            lines.append(line | ({"trajectory": trajectory.to_json()} if new else {"duplicate_of": original}))
        return lines

    await run_groups(
        tasks, work, out, lambda task: record_ids([task], samples), group=group, fresh=agent.lm.reset, progress=progress
    )
    return summary(out)


async def propose(env: Environment, batch: Batcher, task: Task, tries: int, seed: int) -> tuple[Task, str]:
    """`task` with an instruction that an LLM drafted for its start state, and who wrote it: "llm" or "plain"."""
    hindsight = env.hindsight
    if hindsight is None or not tries:
        return task, "plain"
    try:
        start = env.reset(task).text
    except SimulatorError:  # the rollouts will report it
        return task, "plain"
    env.release()
    shown = "".join(f"State: {hindsight.start_text(g)}\nInstruction: {text}\n\n" for g, text in hindsight.few_shot)
    for draft in await batch.generate(f"{shown}State: {start}\nInstruction:", tries, 48, 0.7, seed):
        if target := hindsight.retarget(task, draft.text.strip()):
            return target, "llm"
    return task, "plain"


def record_ids(tasks: Sequence[Task], samples: int) -> list[str]:
    """The ids of all records that stage 1 makes of `tasks`."""
    return [f"{task.id}#{k}" for task in tasks for k in range(samples)]


def complete(path: Path, tasks: Sequence[Task], samples: int) -> bool:
    """Whether the file `path` holds all that stage 1 makes of `tasks`."""
    return has_ids(path, record_ids(tasks, samples))


def load(path: Path) -> list[Trajectory]:
    """The trajectories that stage 1 kept."""
    return [Trajectory.from_json(line["trajectory"]) for line in read_jsonl(path) if "trajectory" in line]


def summary(path: Path) -> Counter[str]:
    """Counts of stage 1: kept, duplicates, failures, instructions by who wrote them."""
    counts: Counter[str] = Counter()
    for line in read_jsonl(path):
        counts["kept" if "trajectory" in line else "duplicates"] += 1
        counts[f"instructions by {line['instruction_by']}"] += 1
        counts["failures"] += bool(line.get("trajectory", {}).get("failure"))
    return counts
