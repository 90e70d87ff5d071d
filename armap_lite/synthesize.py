"""Stage 2: from a trajectory to preference pairs, by hindsight and by executed change.

Positive: the instruction is rewritten so that the trajectory is exactly what it asks for. A small LLM is handed the
facts that code read from the trajectory and puts them into words; a text that names another fact, or leaves one out,
is rejected, and where none passes a plain sentence is used. Negative: one action is changed and the rest is carried
out again in the environment, so that it really ends differently; and an attempt of the agent's own at the same task
that came to nothing, if there is one. Some attempts are first carried on in the environment, where it knows how to
(`Environment.carry_on`), so that instructions of several steps have chosen examples. No score is read anywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from armap_lite.batching import Batcher, run_groups
from armap_lite.envs.base import Environment
from armap_lite.envs.hindsight import Goal, Hindsight
from armap_lite.llms.base import LanguageModel
from armap_lite.rng import stream
from armap_lite.store import JsonlStore, known_ids, read_jsonl
from armap_lite.trajectory import PreferencePair, Trajectory
from armap_lite.world import World

CARRIED = 0.5  # of the attempts are carried on, and all those from which nothing else comes
ALIKE = 0.7  # of the changes go to what is like the old action, where anything is


async def synthesize(
    env: Environment,
    lm: LanguageModel,
    trajectories: Sequence[Trajectory],
    out: Path,
    *,
    negatives: int = 2,
    texts: int = 2,
    mirror: bool = True,
    temperature: float = 0.7,
    seed: int = 0,
    group: int = 32,
    share: slice = slice(None),
    progress: Any = lambda n: None,
) -> Counter[str]:
    """Write up to `negatives` + 1 pairs for each trajectory to `out` (mirrored ones besides), and return the counts.

    `texts`: how often the LLM may try to word an instruction. `mirror`: the negative, too, is what *some* instruction
    asks for; with the roles exchanged each trajectory is seen as chosen and as rejected, so that nothing about its
    style tells which it is, and only the instruction decides. `share`: of the trajectories, those done here.
    """
    batch, hindsight = Batcher(lm), env.hindsight
    if hindsight is None:
        raise ValueError(
            f"{env.name} has no hindsight: give its environment one (three methods, see envs/hindsight.py)"
        )
    ids = item_ids(trajectories)
    # A changed trajectory fails in other ways than the agent does, who at times walks to and fro until the steps end.
    idle: dict[str, list[Trajectory]] = {}
    for t in trajectories:
        if not t.done and not t.failure and not hindsight.achieved(t):
            idle.setdefault(t.task.id, []).append(t)

    async def work(item: int) -> list[dict[str, Any]]:
        attempt = trajectories[item]
        world = World(env, attempt.task)  # one for all: the way to the change is listed once
        made = carried_on(env, attempt, world, stream(seed, ids[item], "carry on"))
        chosen = made or attempt
        if not hindsight.achieved(chosen):
            return [{"id": ids[item], "skipped": "nothing to ask for"}]
        rng = random.Random(stream(seed, ids[item]))
        ends: dict[str, Trajectory] = {}
        if made and negatives and not attempt.failure and part(made, attempt) is not None:
            ends[str(attempt.actions)] = attempt  # it does not do what the carried on one does
        others = [change(env, chosen, rng, world=world) for _ in range(negatives - len(ends))]
        for other in others:
            if other is not None:
                ends.setdefault(str(other.actions), other)
        missing, own = negatives - len(ends), idle.get(chosen.task.id)
        if own:
            other = random.Random(stream(seed, ids[item], "idle")).choice(own)
            ends.setdefault(str(other.actions), other)
        roles = [(k, "a", chosen, x) for k, x in enumerate(ends.values()) if part(chosen, x) is not None]
        if mirror:
            asks = {k: hindsight.achieved(other) for k, _, _, other in roles}
            roles += [
                (k, "b", other, chosen)
                for k, _, _, other in roles
                if asks[k] and not hindsight.satisfied(chosen, asks[k])
            ]
        told = list({good.actions: good for _, _, good, _ in roles}.values())
        seeds = [stream(seed, ids[item], i) for i in range(len(told))]  # one text for each trajectory that is chosen
        texted = await asyncio.gather(
            *(refine(hindsight, batch, t, texts, temperature, s) for t, s in zip(told, seeds))
        )
        wording = {good.actions: text for good, text in zip(told, texted)}
        lines = []
        for k, side, good, bad in roles:
            text, origin, _, _ = wording[good.actions]
            at = part(good, bad)
            pair = PreferencePair(f"{ids[item]}{side}{k}", good.task.id, text, good, bad, origin, at or 0)
            lines.append({"id": pair.id, "pair": pair.to_json()})
        drafts = {"drafted": sum(t[2] for t in texted), "contradicted": sum(t[3] for t in texted)}
        note = {"made": True} if made else {}
        return [*lines, {"id": ids[item], **drafts, "missing": missing, "idle": bool(own), **note}]

    with JsonlStore(out) as store:
        await run_groups(
            range(len(trajectories))[share],
            work,
            lambda _, lines: store.extend(lines),
            lambda item: ids[item] in store.ids,  # the line with the item's own id comes last: the item is complete
            group=group,
            fresh=lm.reset,
            progress=progress,
        )
    return summary(out)


def item_ids(trajectories: Sequence[Trajectory]) -> list[str]:
    """The id of the line that stage 2 writes last for each trajectory, after its pairs."""
    return [f"{t.task.id}/{i}" for i, t in enumerate(trajectories)]


def complete(path: Path, trajectories: Sequence[Trajectory]) -> bool:
    """Whether the file `path` holds what stage 2 makes of each of `trajectories`."""
    return path.exists() and known_ids(path).issuperset(item_ids(trajectories))


async def refine(
    hindsight: Hindsight, batch: Batcher, trajectory: Trajectory, texts: int, temperature: float, seed: int
) -> tuple[str, str, int, int]:
    """An instruction that `trajectory` fulfils: text, origin ("llm" or "plain"), texts drafted, texts rejected."""
    goal = hindsight.achieved(trajectory)
    shown = "".join(f"Facts: {_spelled(f)}\nInstruction: {text}\n\n" for f, text in hindsight.few_shot)
    drafts = []
    if texts:
        drafts = await batch.generate(f"{shown}Facts: {_spelled(goal)}\nInstruction:", texts, 48, temperature, seed)
    wrong = [d for d in drafts if hindsight.parse(d.text) != goal]
    for draft in drafts:
        if hindsight.parse(draft.text) == goal:
            return draft.text.strip(), "llm", len(drafts), len(wrong)
    return hindsight.to_text(goal), "plain", len(drafts), len(wrong)


def carried_on(env: Environment, attempt: Trajectory, world: World, seed: int) -> Trajectory | None:
    """`attempt` carried on as `env` says, where that does something which the attempt did not; else None."""
    hindsight: Any = env.hindsight
    rng = random.Random(seed)
    if hindsight.achieved(attempt) and rng.random() >= CARRIED:
        return None
    if (way := hindsight.carry_on(attempt, seed)) is None:
        return None
    kept, patterns = way
    state, known = world.start(), dict[str, str]()
    for action in attempt.actions[:kept]:
        state = world.step(state, action)
    for pattern in patterns:
        pattern = re.sub(r"(?<!\?P)<(\w+)>", lambda name: re.escape(known.get(name[1], name[0])), pattern)
        fitting = [match for action in state.admissible if (match := re.fullmatch(pattern, action))]
        if fitting:
            match = rng.choice(fitting)
            known.update((name, value) for name, value in match.groupdict().items() if value)
            state = world.step(state, match[0])
    made = state.trajectory
    goal = hindsight.achieved(made)
    return made if goal and not made.failure and not hindsight.satisfied(attempt, goal) else None


def change(
    env: Environment, trajectory: Trajectory, rng: random.Random, tries: int = 8, world: World | None = None
) -> Trajectory | None:
    """`trajectory` with one action changed and the rest carried out again; None where it always ends the same.

    After the change the old actions are kept wherever they are still admissible, else one is drawn. Where episodes
    differ in length (`env.skips`), old actions that no longer fit are passed over: a buyer who took another product
    goes on to the buying, and does not wander until the steps are used up, which would give the negative away.
    `world`: of this task, where several changes share what is known of it.
    """
    hindsight: Any = env.hindsight
    world, goal = world or World(env, trajectory.task), hindsight.achieved(trajectory)
    for _ in range(tries):
        at = rng.randrange(len(trajectory.steps))
        state = world.start()
        ahead = 0  # the next of the old actions
        for i in range(trajectory.task.max_steps or env.max_steps):
            if state.over:
                break
            if env.skips and i > at:
                left = range(ahead, len(trajectory.steps))
                ahead = next((k for k in left if trajectory.actions[k] in state.admissible), len(trajectory.steps))
            old = trajectory.actions[ahead] if ahead < len(trajectory.steps) else ""
            ahead += 1
            if i == at:
                options = [a for a in state.admissible if a != old]
                alike = hindsight.similar_actions(state.trajectory, old, options)
                options = alike if alike and rng.random() < ALIKE else options
            else:
                options = [old] if old in state.admissible else list(state.admissible)
            if not options:
                break
            state = world.step(state, rng.choice(options))
        other = state.trajectory
        if (
            state.over
            and not other.failure
            and other.actions != trajectory.actions
            and not hindsight.satisfied(other, goal)
        ):
            return other
    return None


def part(one: Trajectory, other: Trajectory) -> int | None:
    """Index of the first action in which two trajectories differ; None where one goes on from the other."""
    return next((i for i, (x, y) in enumerate(zip(one.actions, other.actions)) if x != y), None)


def load(path: Path) -> list[PreferencePair]:
    """The pairs that stage 2 wrote."""
    return [PreferencePair.from_json(line["pair"]) for line in read_jsonl(path) if "pair" in line]


def mirrored(pairs: Sequence[PreferencePair]) -> list[bool]:
    """Of each pair: is it there with the roles exchanged too? Only the instruction tells such a pair's sides apart."""
    known = {(p.task_id, p.chosen.actions, p.rejected.actions) for p in pairs}
    return [(p.task_id, p.rejected.actions, p.chosen.actions) in known for p in pairs]


def summary(path: Path) -> Counter[str]:
    """Counts of stage 2: pairs, who worded them, texts drafted and rejected, negatives missing, attempts carried on."""
    counts: Counter[str] = Counter()
    for line in read_jsonl(path):
        if "pair" in line:
            counts["pairs"] += 1
            counts[f"worded by {line['pair']['origin']}"] += 1
        elif "skipped" in line:
            counts[f"skipped: {line['skipped']}"] += 1
        else:
            counts["texts drafted"] += line["drafted"]
            counts["texts rejected"] += line["contradicted"]
            counts["negatives missing"] += line["missing"]
            counts["rejected: an attempt that came to nothing"] += line["idle"]
            counts["chosen: an attempt carried on"] += line.get("made", False)
    return counts


def to_parquet(pairs: Sequence[PreferencePair], path: Path) -> None:
    """The pairs as a `datasets` table; `chosen` and `rejected` are JSON text, the rest as in `PreferencePair`.

    A table that holds exactly these pairs already is left alone; else it is replaced at once.
    """
    import pandas as pd
    from datasets import Dataset
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    rows = [p.to_json() for p in pairs]
    rows = [{**r, "chosen": json.dumps(r["chosen"]), "rejected": json.dumps(r["rejected"])} for r in rows]
    with contextlib.suppress(OSError, ValueError):  # none yet, or torn
        if pd.read_parquet(path).to_dict("records") == rows:
            return
    part = path.with_name(f".{path.name}.part")
    shown = not are_progress_bars_disabled()
    disable_progress_bars()  # it takes milliseconds
    try:
        Dataset.from_list(rows).to_parquet(str(part))
        os.replace(part, path)
    finally:
        if shown:
            enable_progress_bars()


def _spelled(goal: Goal) -> str:
    return "; ".join(f"{key} {value}" for key, value in goal.items())
