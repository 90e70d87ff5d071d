"""Stage 1: an LLM proposes instructions, an LLM agent acts on them, and diverse trajectories are kept.

Nothing here knows how well a trajectory did: no score and no reward is within reach.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

from armap_lite.agent import Agent
from armap_lite.batching import Batcher, run_groups
from armap_lite.envs.base import Environment, SimulatorError
from armap_lite.episode import Episode
from armap_lite.rng import derive_seed
from armap_lite.storage.store import JsonlStore, known_ids, read_jsonl
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
    """Write `samples` trajectories for each of `tasks` to `out` and return what was counted.

    Each task gets one instruction proposed by the LLM (the first of `num_proposals` texts that fits its start state;
    where none fits, the task's own). A trajectory that repeats an earlier one of its task is left out, and counted.
    What is in `out` already is kept as it is.
    """
    batch = Batcher(agent.lm, max_concurrent_episodes=env.max_concurrent_episodes)

    async def work(task: Task) -> list[dict[str, Any]]:
        target, origin = await propose(env, batch, task, num_proposals, derive_seed(seed, task.id, "propose"))
        found: dict[tuple[str, ...], str] = {}
        lines = []
        seeds = [derive_seed(seed, task.id, k) for k in range(samples)]
        episodes = [Episode(env.fork(), target) for _ in seeds]
        drafts = await asyncio.gather(*(rollout(w, agent, batch, temperature, s) for w, s in zip(episodes, seeds)))
        for k, trajectory in enumerate(drafts):
            line: dict[str, Any] = {"id": f"{task.id}#{k}", "task_id": task.id, "instruction_by": origin}
            same = trajectory.actions if trajectory.failure is None else (line["id"],)  # no repeat where it broke off
            first = found.setdefault(same, line["id"])
            lines.append(
                {**line, "duplicate_of": first} if first != line["id"] else {**line, "trajectory": trajectory.to_json()}
            )
        return lines

    with JsonlStore(out) as store:
        await run_groups(
            tasks,
            work,
            lambda _, lines: store.extend(lines),
            lambda task: done(task, samples, store.ids),
            group=group,
            fresh=agent.lm.reset,
            progress=progress,
        )
    return summary(out)


def done(task: Task, samples: int, ids: Set[str]) -> bool:
    """Whether all `samples` of `task` are among the `ids` of a file of stage 1."""
    return all(f"{task.id}#{k}" in ids for k in range(samples))


def complete(path: Path, tasks: Sequence[Task], samples: int) -> bool:
    """Whether the file `path` holds all that stage 1 has to find for `tasks`."""
    ids = known_ids(path) if path.exists() else None
    return ids is not None and all(done(task, samples, ids) for task in tasks)


async def propose(env: Environment, batch: Batcher, task: Task, tries: int, seed: int) -> tuple[Task, str]:
    """`task` with an instruction an LLM wrote for its start state, and who wrote it: "llm" or "plain"."""
    hindsight = env.hindsight
    if hindsight is None or not tries:
        return task, "plain"
    try:
        start = env.reset(task).text
    except SimulatorError:  # the rollouts will tell
        return task, "plain"
    env.release()
    # Few-shot: states like this one and how their tasks were worded.
    shown = "".join(
        f"State: {hindsight.start_text(goal)}\nInstruction: {text}\n\n" for goal, text in hindsight.few_shot
    )
    for draft in await batch.generate(f"{shown}State: {start}\nInstruction:", tries, 48, 0.7, seed):
        target = hindsight.retarget(task, draft.text.strip())
        if target is not None:
            return target, "llm"
    return task, "plain"


async def rollout(episode: Episode, agent: Agent, batch: Batcher, temperature: float, seed: int) -> Trajectory:
    """One trajectory of the agent in `episode`."""
    async with batch.episode_slots:
        state = episode.start()
        while not state.over:
            prompt = agent.prompt(state.trajectory)
            here = derive_seed(seed, len(state.trajectory.steps))
            [choice] = await batch.choose(prompt, state.admissible, 1, temperature, here, episode.env.decoding)
            state = episode.step(state, choice.text)
        episode.release()
    return state.trajectory


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
