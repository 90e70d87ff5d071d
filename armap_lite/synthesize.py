"""Stage 2: from a trajectory to preference pairs, by hindsight and by executed change.

Positive: the instruction is rewritten so that the trajectory is exactly what it asks for. A small LLM is handed the
facts that code read from the trajectory and puts them into words; a text that names another fact, or leaves one out,
is rejected, and where none passes a plain sentence is used. Negative: one action is changed and the rest is carried
out again in the environment, so that it really ends differently; and an attempt of the agent's own at the same task
that came to nothing, if there is one. Some attempts are first carried on in the environment, where hindsight knows how
to (`Hindsight.continuation`), so that instructions of several steps have chosen examples. No score is read anywhere.

With a data LLM that can read, `LLMHindsight` does what the paper says: the LLM reads the whole trajectory, refines the
instruction, and names the action to change and another one to take in its place. The change is executed in the same
way. Its texts are used where the world's code agrees with them; in a world without such code, the LLM has to pick the
right one of the two trajectories blindly.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from armap_lite.batching import Batcher, run_groups
from armap_lite.envs.base import Environment
from armap_lite.envs.hindsight import Assessment, Goal, Hindsight, LLMHindsight
from armap_lite.episode import Episode
from armap_lite.executed import carried_on, carry_out, change, part
from armap_lite.llms.base import LanguageModel
from armap_lite.rng import derive_seed
from armap_lite.storage.store import JsonlStore, known_ids, read_jsonl
from armap_lite.trajectory import PreferencePair, Trajectory

Work = Callable[[int], Awaitable[list[dict[str, Any]]]]  # the lines of one trajectory, by its index
BLIND = {True: "blind check passed", False: "blind check wrong", None: "blind check undecided"}


async def synthesize(
    env: Environment,
    lm: LanguageModel,
    trajectories: Sequence[Trajectory],
    out: Path,
    *,
    num_negatives: int = 2,
    num_drafts: int = 2,
    swap_roles: bool = True,
    temperature: float = 0.7,
    seed: int = 0,
    group: int = 32,
    item_slice: slice = slice(None),
    look_back: str | LLMHindsight = "code",
    progress: Any = lambda n: None,
) -> Counter[str]:
    """Write up to `num_negatives` + 1 pairs (and their mirrors) for each trajectory to `out`, and return the counts.

    `num_drafts`: how often the LLM may try to word an instruction. `swap_roles`: the negative, too, is what *some*
    instruction asks for; with the roles exchanged each trajectory is seen as chosen and as rejected, so that nothing
    about its style tells which it is, and only the instruction decides. `item_slice`: those to process in this call.
    `look_back`: who looks back. "code": the world's code reads trajectories, and the LLM only puts into words what code
    read (`num_drafts` drafts at `temperature`). "llm", or an `LLMHindsight` with other settings: the LLM reads them.
    In a world without such code, it always does.
    """
    if isinstance(look_back, str) and look_back not in ("code", "llm"):
        raise ValueError(f"look_back={look_back!r}: expected 'code', 'llm' or an LLMHindsight")
    ids = item_ids(trajectories)
    batch, size = Batcher(lm), (num_negatives, swap_roles, seed)
    if env.hindsight is not None and look_back == "code":
        work = _by_code(env, env.hindsight, batch, trajectories, ids, num_drafts, temperature, *size)
    else:
        reader = LLMHindsight(env.look_back_examples) if isinstance(look_back, str) else look_back
        work = _by_llm(env, reader, batch, trajectories, ids, *size)
    with JsonlStore(out) as store:
        await run_groups(
            range(len(trajectories))[item_slice],
            work,
            lambda _, lines: store.extend(lines),
            lambda item: ids[item] in store.ids,  # the line with the item's own id comes last: the item is complete
            group=group,
            fresh=lm.reset,
            progress=progress,
        )
    return summary(out)


def _by_code(
    env: Environment,
    hindsight: Hindsight,
    batch: Batcher,
    trajectories: Sequence[Trajectory],
    ids: Sequence[str],
    num_drafts: int,
    temperature: float,
    num_negatives: int,
    swap_roles: bool,
    seed: int,
) -> Work:
    """Code reads what each trajectory did, and the LLM words it."""
    # A changed trajectory fails in other ways than the agent does, who at times walks to and fro until the steps end.
    idle: dict[str, list[Trajectory]] = {}
    for t in trajectories:
        if not t.done and not t.failure and not hindsight.achieved(t):
            idle.setdefault(t.task.id, []).append(t)

    async def work(item: int) -> list[dict[str, Any]]:
        attempt = trajectories[item]
        episode = Episode(env, attempt.task)  # one for all: the way to the change is listed once
        made = carried_on(env, attempt, episode, derive_seed(seed, ids[item], "carry on"))
        chosen = made or attempt
        if not hindsight.achieved(chosen):
            return [{"id": ids[item], "skipped": "nothing to ask for"}]
        rng = random.Random(derive_seed(seed, ids[item]))
        ends: dict[str, Trajectory] = {}
        if made and num_negatives and not attempt.failure and part(made, attempt) is not None:
            ends[str(attempt.actions)] = attempt  # it does not do what the carried on one does
        others = [change(env, chosen, rng, episode=episode) for _ in range(num_negatives - len(ends))]
        for other in others:
            if other is not None:
                ends.setdefault(str(other.actions), other)
        missing, own = num_negatives - len(ends), idle.get(chosen.task.id)
        if own:
            other = random.Random(derive_seed(seed, ids[item], "idle")).choice(own)
            ends.setdefault(str(other.actions), other)
        roles = [(k, "a", chosen, x) for k, x in enumerate(ends.values()) if part(chosen, x) is not None]
        if swap_roles:
            asks = {k: hindsight.achieved(other) for k, _, _, other in roles}
            roles += [
                (k, "b", other, chosen)
                for k, _, _, other in roles
                if asks[k] and not hindsight.satisfied(chosen, asks[k])
            ]
        told = list({good.actions: good for _, _, good, _ in roles}.values())
        seeds = [
            derive_seed(seed, ids[item], i) for i in range(len(told))
        ]  # one text for each trajectory that is chosen
        texted = await asyncio.gather(
            *(refine(hindsight, batch, t, num_drafts, temperature, s) for t, s in zip(told, seeds))
        )
        wording = {good.actions: text for good, text in zip(told, texted)}
        lines = [_line(f"{ids[item]}{side}{k}", good, bad, *wording[good.actions][:2]) for k, side, good, bad in roles]
        drafts = {"drafted": sum(t[2] for t in texted), "contradicted": sum(t[3] for t in texted)}
        note = {"made": True} if made else {}
        return [*lines, {"id": ids[item], **drafts, "missing": missing, "idle": bool(own), **note}]

    return work


def _by_llm(
    env: Environment,
    reader: LLMHindsight,
    batch: Batcher,
    trajectories: Sequence[Trajectory],
    ids: Sequence[str],
    num_negatives: int,
    swap_roles: bool,
    seed: int,
) -> Work:
    """The LLM reads each trajectory, refines its instruction and names the change; then its answers are checked."""
    hindsight = env.hindsight

    async def work(item: int) -> list[dict[str, Any]]:
        name, chosen, counts = ids[item], trajectories[item], Counter[str]()
        reading = await _read(hindsight, reader, batch, chosen, derive_seed(seed, name), counts)
        if not isinstance(reading, Assessment):
            return [{"id": name, **reading, "counts": counts}]
        others = await _changed(env, reader, batch, chosen, reading, num_negatives, derive_seed(seed, name), counts)
        ends = list({other.actions: other for other in others if other is not None}.values())
        roles = [(f"{name}a{k}", chosen, other, reading.instruction) for k, other in enumerate(ends)]
        if swap_roles:
            seeds = [derive_seed(seed, name, "mirror", k) for k in range(len(ends))]
            twins = await asyncio.gather(
                *(_read(hindsight, reader, batch, other, s, counts) for other, s in zip(ends, seeds))
            )
            for k, (other, twin) in enumerate(zip(ends, twins)):
                if isinstance(twin, Assessment) and not _does(hindsight, chosen, twin.instruction):
                    roles.append((f"{name}b{k}", other, chosen, twin.instruction))
        if hindsight is None:
            asked = (reader.prefers(batch, text, good, bad, derive_seed(seed, id)) for id, good, bad, text in roles)
            verdicts = await asyncio.gather(*asked)
            for verdict in verdicts:
                counts[BLIND[verdict]] += 1
            roles = [role for role, verdict in zip(roles, verdicts) if verdict]
        lines = [_line(id, good, bad, text, "llm") for id, good, bad, text in roles]
        return [*lines, {"id": name, "counts": counts, "missing": num_negatives - len(ends)}]

    return work


async def _read(
    hindsight: Hindsight | None,
    reader: LLMHindsight,
    batch: Batcher,
    trajectory: Trajectory,
    seed: int,
    counts: Counter[str],
) -> Assessment | dict[str, str]:
    """What the LLM reads in `trajectory`, where code agrees with it or there is no code; else why it is not used."""
    if not trajectory.steps:
        return {"skipped": "nothing to ask for"}
    reading, counted = await reader.look_back(batch, trajectory, derive_seed(seed, "look back"))
    counts.update(counted)
    if reading is None:
        return {"skipped": "no answer could be read"}
    if not reading.instruction:
        return {"skipped": "nothing to ask for"}
    if hindsight is None:
        return reading
    if _does(hindsight, trajectory, reading.instruction):
        counts["code agrees"] += 1
        return reading
    counts["code contradicts" if hindsight.parse(reading.instruction) else "code cannot read it"] += 1
    return {"skipped": "code does not agree with the text", "text": reading.instruction}


async def _changed(
    env: Environment,
    reader: LLMHindsight,
    batch: Batcher,
    chosen: Trajectory,
    reading: Assessment,
    num_negatives: int,
    seed: int,
    counts: Counter[str],
) -> list[Trajectory | None]:
    """`num_negatives` trajectories that differ from `chosen` in one action and what follows from it.

    The first ones are changed as the LLM says: at a step that it named, to the action that it chooses there. Those
    beyond the steps it named, and those for which its change makes no difference, are changed at random.
    """
    episode, rng = Episode(env, chosen.task), random.Random(derive_seed(seed, "change"))

    def wrong(other: Trajectory) -> bool:
        return not _does(env.hindsight, other, reading.instruction)

    async def named(at: int) -> str | None:
        state = episode.start()
        for action in chosen.actions[:at]:
            state = episode.step(state, action)
        if not set(state.admissible) - {chosen.actions[at]}:
            return None
        here = derive_seed(seed, "instead", at)
        return await reader.replacement(batch, chosen, at, state.admissible, reading.instruction, here)

    steps = reading.change[:num_negatives]
    picks = await asyncio.gather(*(named(at) for at in steps))
    others: list[Trajectory | None] = []
    for at, pick in [*zip(steps, picks), *[(-1, None)] * (num_negatives - len(steps))]:
        other = carry_out(env, chosen, at, lambda *_, pick=pick: [pick], rng, episode) if pick else None
        if other is None or not wrong(other):
            counts["changes that made no difference"] += pick is not None
            other = change(env, chosen, rng, episode=episode, wrong=wrong)
            counts["changed at random"] += other is not None
        else:
            counts["changed as the LLM said"] += 1
        others.append(other)
    return others


def _does(hindsight: Hindsight | None, trajectory: Trajectory, instruction: str) -> bool:
    """Whether code says that `trajectory` does what `instruction` says; without code, no."""
    stated = hindsight.parse(instruction) if hindsight else None
    return bool(hindsight and stated and hindsight.satisfied(trajectory, stated))


def _line(id: str, chosen: Trajectory, rejected: Trajectory, text: str, origin: str) -> dict[str, Any]:
    at = part(chosen, rejected) or 0
    return {"id": id, "pair": PreferencePair(id, chosen.task.id, text, chosen, rejected, origin, at).to_json()}


def item_ids(trajectories: Sequence[Trajectory]) -> list[str]:
    """The id of the line that stage 2 writes last for each trajectory, after its pairs."""
    return [f"{t.task.id}/{i}" for i, t in enumerate(trajectories)]


def complete(path: Path, trajectories: Sequence[Trajectory]) -> bool:
    """Whether the file `path` holds what stage 2 makes of each of `trajectories`."""
    return path.exists() and known_ids(path).issuperset(item_ids(trajectories))


async def refine(
    hindsight: Hindsight, batch: Batcher, trajectory: Trajectory, num_drafts: int, temperature: float, seed: int
) -> tuple[str, str, int, int]:
    """An instruction that `trajectory` fulfils: text, origin ("llm" or "plain"), texts drafted, texts rejected."""
    goal = hindsight.achieved(trajectory)
    shown = "".join(f"Facts: {_spelled(f)}\nInstruction: {text}\n\n" for f, text in hindsight.few_shot)
    drafts = []
    if num_drafts:
        drafts = await batch.generate(
            f"{shown}Facts: {_spelled(goal)}\nInstruction:", num_drafts, 48, temperature, seed
        )
    wrong = [d for d in drafts if hindsight.parse(d.text) != goal]
    for draft in drafts:
        if hindsight.parse(draft.text) == goal:
            return draft.text.strip(), "llm", len(drafts), len(wrong)
    return hindsight.to_text(goal), "plain", len(drafts), len(wrong)


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
            continue
        if "skipped" in line:
            counts[f"skipped: {line['skipped']}"] += 1
        else:
            counts["negatives missing"] += line["missing"]
        counts.update(line.get("counts", {}))
        if "drafted" in line:
            counts["texts drafted"] += line["drafted"]
            counts["texts rejected"] += line["contradicted"]
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
