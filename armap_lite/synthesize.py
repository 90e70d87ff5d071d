"""Stage 2: from a trajectory to preference pairs, by hindsight and by executed changes. No score is read.

For each trajectory: rewrite the instruction so that the trajectory is what it asks for; find trajectories that do not
satisfy this instruction; and, with the roles swapped, do the same for these. The paper changes one action and executes
the rest again, so that the rejected trajectory is a real one. Other attempts of the agent at the same task cost
nothing, and are what a planner will have to rank: where one did more, also under the task's own instruction.

`_ByCode` is for a small data LLM: the world's code reads what was achieved, and the LLM only words it. `_ByLLM` is the
paper's way: the LLM reads the trajectory, refines the instruction and names the change; code checks what it says, or,
without code, the LLM itself in a blind comparison.
"""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from armap_lite.batching import Batcher, run_groups
from armap_lite.changes import change, continued, execute_change, first_difference
from armap_lite.envs.base import Environment
from armap_lite.envs.hindsight import Assessment, Hindsight, LLMHindsight, facts
from armap_lite.episode import Episode
from armap_lite.llms.base import LanguageModel
from armap_lite.rng import derive_seed
from armap_lite.storage.store import has_ids, read_jsonl
from armap_lite.trajectory import PreferencePair, Trajectory

TEMPERATURE = 0.7  # of the texts that `_ByCode` lets the LLM draft
BLIND = {True: "blind check passed", False: "blind check wrong", None: "blind check undecided"}
Line = dict[str, Any]
Role = tuple[str, Trajectory, Trajectory]  # id of a pair, chosen, rejected


async def synthesize(
    env: Environment,
    lm: LanguageModel,
    trajectories: Sequence[Trajectory],
    out: Path,
    *,
    num_negatives: int = 2,
    num_attempt_negatives: int = 0,
    num_graded: int = 0,
    num_drafts: int = 2,
    swap_roles: bool = True,
    seed: int = 0,
    group: int = 32,
    item_slice: slice = slice(None),
    look_back: str | LLMHindsight = "code",
    progress: Any = lambda n: None,
) -> Counter[str]:
    """Write pairs of each trajectory to `out`, and return `summary(out)`.

    A trajectory gives up to `num_negatives` pairs with executed changes, and up to `num_attempt_negatives` with other
    attempts at the same task. Up to `num_graded` more have the task's own instruction in place of a refined one, and a
    rejected attempt that did fewer of the things asked for, as code counts ("code" only). `swap_roles`: the rejected
    trajectory of an executed change is also the chosen one of another pair, under an instruction of its own, so that
    nothing but the instruction tells the two apart. Attempts are in both roles anyway, as each is looked back at.
    `look_back`: "code" uses the world's `Hindsight`, and `num_drafts` texts of the LLM; "llm", or an
    `LLMHindsight` with options of its own, lets the LLM read, as it always does in a world without `Hindsight`.
    `item_slice`: the trajectories to process in this call.
    """
    if isinstance(look_back, str) and look_back not in ("code", "llm"):
        raise ValueError(f"look_back={look_back!r}: expected 'code', 'llm' or an LLMHindsight")
    ids = item_ids(trajectories)
    common = env, Batcher(lm), trajectories, ids, num_negatives, num_attempt_negatives, num_graded, swap_roles, seed
    way: _ByCode | _ByLLM
    if env.hindsight is not None and look_back == "code":
        way = _ByCode(*common, env.hindsight, num_drafts)
    else:
        way = _ByLLM(*common, LLMHindsight(env.look_back_examples) if isinstance(look_back, str) else look_back)
    items = range(len(trajectories))[item_slice]
    await run_groups(items, way.pairs, out, lambda item: [ids[item]], group=group, fresh=lm.reset, progress=progress)
    return summary(out)


@dataclass
class _Common:
    """What both ways need: fields as in `synthesize`."""

    env: Environment
    batch: Batcher
    trajectories: Sequence[Trajectory]
    ids: Sequence[str]
    num_negatives: int
    num_attempt_negatives: int
    num_graded: int
    swap_roles: bool
    seed: int

    def __post_init__(self) -> None:
        self.attempts: dict[str, list[int]] = {}  # task id -> indices of the attempts that may be rejected, shuffled
        for item, t in enumerate(self.trajectories):
            if not t.failure:
                self.attempts.setdefault(t.task.id, []).append(item)
        for task, items in self.attempts.items():
            random.Random(derive_seed(self.seed, task, "attempts")).shuffle(items)

    def other_attempts(self, item: int, n: int, wrong: Callable[[Trajectory], bool]) -> list[Trajectory]:
        """Up to `n` other attempts at the task of `item` for which `wrong` is True.

        All attempts at a task stand in a circle, and those next to `item` are taken, on either side in turns: so each
        is rejected about as often as it is chosen, and most pairs occur with their roles swapped, too.
        """
        around = self.attempts.get(self.trajectories[item].task.id, [])
        place = around.index(item) if item in around else 0
        ahead = [k for k in (*around[place:], *around[:place]) if k != item]
        nearest = dict.fromkeys(itertools.chain.from_iterable(zip(ahead, reversed(ahead))))
        others = (self.trajectories[k] for k in nearest)
        differing = (t for t in others if first_difference(self.trajectories[item], t) is not None)
        return list(itertools.islice(filter(wrong, differing), n))


@dataclass
class _ByCode(_Common):
    """The world's code reads what a trajectory achieved, and the LLM words it."""

    hindsight: Hindsight
    num_drafts: int

    async def pairs(self, item: int) -> list[Line]:
        """The lines of one trajectory: its pairs, then what was counted."""
        hindsight, id, attempt = self.hindsight, self.ids[item], self.trajectories[item]
        roles, missing, longer = self._executed(id, attempt) if self.num_negatives else ([], 0, None)
        goal = hindsight.achieved(attempt)
        count = self.num_attempt_negatives
        others = self.other_attempts(item, count, lambda t: not hindsight.satisfied(t, goal)) if goal else []
        roles += [(f"{id}c{k}", attempt, other) for k, other in enumerate(others)]
        if not (goal or longer):
            return [{"id": id, "skipped": "nothing to ask for"}]

        worded = list({good.actions: good for _, good, _ in roles}.values())  # one text for each
        options = self.num_drafts, TEMPERATURE
        seeds = [derive_seed(self.seed, id, i) for i in range(len(worded))]
        texts = await asyncio.gather(*(refine(hindsight, self.batch, t, *options, s) for t, s in zip(worded, seeds)))
        wording = {good.actions: text[:2] for good, text in zip(worded, texts)}
        lines = [_line(name, good, bad, *wording[good.actions]) for name, good, bad in roles]
        less = self._did_less(item) if self.num_graded else []
        lines += [_line(f"{id}d{k}", attempt, bad, attempt.task.instruction, "task") for k, bad in enumerate(less)]
        counts = {"drafted": sum(text[2] for text in texts), "contradicted": sum(text[3] for text in texts)}
        counts |= {"missing": missing, "attempts": len(others) + len(less)} | ({"made": True} if longer else {})
        return [*lines, {"id": id, **counts}]

    def _did_less(self, item: int) -> list[Trajectory]:
        """Up to `num_graded` other attempts that did less of what the task itself asks for than `item` did."""
        attempt, count = self.trajectories[item], self.hindsight.count
        asked = self.hindsight.parse(attempt.task.instruction) or {}
        done = count(attempt, asked) if asked else 0
        return self.other_attempts(item, self.num_graded, lambda t: done > 0 and count(t, asked) < done)

    def _executed(self, id: str, attempt: Trajectory) -> tuple[list[Role], int, Trajectory | None]:
        """Pairs with executed changes, how many are missing, and what `attempt` became if it was continued."""
        hindsight = self.hindsight
        episode = Episode(self.env, attempt.task)  # shared by all changes, so their common prefix is executed once
        longer = continued(self.env, attempt, episode, derive_seed(self.seed, id, "carry on"))
        chosen = longer or attempt
        if not hindsight.achieved(chosen):
            return [], 0, None

        rejected: dict[tuple[str, ...], Trajectory] = {}
        if longer and not attempt.failure and first_difference(longer, attempt) is not None:
            rejected[attempt.actions] = attempt
        rng = random.Random(derive_seed(self.seed, id))
        for _ in range(self.num_negatives - len(rejected)):
            if other := change(self.env, chosen, rng, episode=episode):
                rejected.setdefault(other.actions, other)

        differing = [(k, t) for k, t in enumerate(rejected.values()) if first_difference(chosen, t) is not None]
        roles = [(f"{id}a{k}", chosen, other) for k, other in differing]
        for k, other in differing if self.swap_roles else []:
            if (goal := hindsight.achieved(other)) and not hindsight.satisfied(chosen, goal):
                roles.append((f"{id}b{k}", other, chosen))
        return roles, self.num_negatives - len(rejected), longer


async def refine(
    hindsight: Hindsight, batch: Batcher, trajectory: Trajectory, num_drafts: int, temperature: float, seed: int
) -> tuple[str, str, int, int]:
    """An instruction that `trajectory` satisfies: text, origin ("llm" or "plain"), texts drafted, texts rejected.

    The LLM is given the goal that `trajectory` achieved. Its first text that states exactly this goal is taken, else a
    plain sentence.
    """
    goal = hindsight.achieved(trajectory)
    shown = "".join(f"Facts: {facts(g)}\nInstruction: {text}\n\n" for g, text in hindsight.few_shot)
    prompt = f"{shown}Facts: {facts(goal)}\nInstruction:"
    drafts = await batch.generate(prompt, num_drafts, 48, temperature, seed) if num_drafts else []
    right = [draft.text.strip() for draft in drafts if hindsight.parse(draft.text) == goal]
    text, origin = (right[0], "llm") if right else (hindsight.to_text(goal), "plain")
    return text, origin, len(drafts), len(drafts) - len(right)


@dataclass
class _ByLLM(_Common):
    """The LLM reads a trajectory, refines its instruction and names the change; then its answers are checked."""

    reader: LLMHindsight

    async def pairs(self, item: int) -> list[Line]:
        """The lines of one trajectory: its pairs, then what was counted."""
        id, chosen, counts = self.ids[item], self.trajectories[item], Counter[str]()
        read = await self._assess(chosen, derive_seed(self.seed, id), counts)
        if not isinstance(read, Assessment):
            return [{"id": id, **read, "counts": counts}]

        changed = await self._change(chosen, read, derive_seed(self.seed, id), counts)
        rejected = list({other.actions: other for other in changed}.values())

        roles = [(f"{id}a{k}", chosen, other, read.instruction) for k, other in enumerate(rejected)]
        if self.swap_roles:
            seeds = [derive_seed(self.seed, id, "mirror", k) for k in range(len(rejected))]
            twins = await asyncio.gather(*(self._assess(t, s, counts) for t, s in zip(rejected, seeds)))
            for k, (other, twin) in enumerate(zip(rejected, twins)):
                if isinstance(twin, Assessment) and not self._satisfied(chosen, twin.instruction):
                    roles.append((f"{id}b{k}", other, chosen, twin.instruction))

        count = self.num_attempt_negatives
        others = self.other_attempts(item, count, lambda t: not self._satisfied(t, read.instruction))
        roles += [(f"{id}c{k}", chosen, other, read.instruction) for k, other in enumerate(others)]

        if self.env.hindsight is None:
            asked = (
                self.reader.prefers(self.batch, text, good, bad, derive_seed(self.seed, name))
                for name, good, bad, text in roles
            )
            verdicts = await asyncio.gather(*asked)
            counts.update(BLIND[verdict] for verdict in verdicts)
            roles = [role for role, verdict in zip(roles, verdicts) if verdict]
        lines = [_line(name, good, bad, text, "llm") for name, good, bad, text in roles]
        missing = self.num_negatives - len(rejected)
        return [*lines, {"id": id, "counts": counts, "missing": missing, "attempts": len(others)}]

    async def _assess(self, trajectory: Trajectory, seed: int, counts: Counter[str]) -> Assessment | dict[str, str]:
        """What the LLM says of `trajectory`, if code agrees or there is no code; else why it is not used."""
        if not trajectory.steps:
            return {"skipped": "nothing to ask for"}
        read, counted = await self.reader.look_back(self.batch, trajectory, derive_seed(seed, "look back"))
        counts.update(counted)
        if read is None or not read.instruction:
            return {"skipped": "nothing to ask for" if read else "no answer could be read"}
        if self.env.hindsight is None:
            return read
        if self._satisfied(trajectory, read.instruction):
            counts["code agrees"] += 1
            return read
        counts["code contradicts" if self.env.hindsight.parse(read.instruction) else "code cannot read it"] += 1
        return {"skipped": "code does not agree with the text", "text": read.instruction}

    async def _change(self, chosen: Trajectory, read: Assessment, seed: int, counts: Counter[str]) -> list[Trajectory]:
        """Up to `num_negatives` trajectories that differ from `chosen` in one action and what follows from it.

        The steps that the LLM named are changed to the actions that it then chooses there. If it named too few steps,
        or its change cannot be executed or still satisfies the instruction, a random change is used.
        """
        episode, rng = Episode(self.env, chosen.task), random.Random(derive_seed(seed, "change"))

        def wrong(other: Trajectory) -> bool:
            return not self._satisfied(other, read.instruction)

        async def replacement(at: int) -> str | None:
            state = episode.start()
            for action in chosen.actions[:at]:
                state = episode.step(state, action)
            if not set(state.admissible) - {chosen.actions[at]}:
                return None
            here = derive_seed(seed, "instead", at)
            return await self.reader.replacement(self.batch, chosen, at, state.admissible, read.instruction, here)

        steps = read.change[: self.num_negatives]
        actions: list[str | None] = [*await asyncio.gather(*map(replacement, steps))]
        unnamed = self.num_negatives - len(steps)
        changed = []
        for at, action in zip([*steps, *[0] * unnamed], actions + [None] * unnamed):
            other = execute_change(chosen, at, lambda *_, a=action: [a], rng, episode) if action else None
            if other is not None and wrong(other):
                counts["changed as the LLM said"] += 1
            else:
                counts["changes that made no difference"] += action is not None
                other = change(self.env, chosen, rng, episode=episode, wrong=wrong)
                counts["changed at random"] += other is not None
            changed += [other] if other else []
        return changed

    def _satisfied(self, trajectory: Trajectory, instruction: str) -> bool:
        """Whether code says that `trajectory` satisfies `instruction`; always False without `Hindsight`."""
        goal = self.env.hindsight and self.env.hindsight.parse(instruction)
        return bool(self.env.hindsight and goal and self.env.hindsight.satisfied(trajectory, goal))


def _line(id: str, chosen: Trajectory, rejected: Trajectory, text: str, origin: str) -> Line:
    at = first_difference(chosen, rejected) or 0
    return {"id": id, "pair": PreferencePair(id, chosen.task.id, text, chosen, rejected, origin, at).to_json()}


def item_ids(trajectories: Sequence[Trajectory]) -> list[str]:
    """The id of the line that stage 2 writes last for each trajectory, after its pairs."""
    return [f"{t.task.id}/{i}" for i, t in enumerate(trajectories)]


def complete(path: Path, trajectories: Sequence[Trajectory]) -> bool:
    """Whether the file `path` holds what stage 2 makes of each of `trajectories`."""
    return has_ids(path, item_ids(trajectories))


def load(path: Path) -> list[PreferencePair]:
    """The pairs that stage 2 wrote."""
    return [PreferencePair.from_json(line["pair"]) for line in read_jsonl(path) if "pair" in line]


def mirrored(pairs: Sequence[PreferencePair]) -> list[bool]:
    """Of each pair: does it also occur with the roles swapped? Then only the instruction tells its sides apart."""
    known = {(p.task_id, p.chosen.actions, p.rejected.actions) for p in pairs}
    return [(p.task_id, p.rejected.actions, p.chosen.actions) in known for p in pairs]


def summary(path: Path) -> Counter[str]:
    """Counts of stage 2: pairs, who worded them, texts drafted and rejected, negatives missing, attempts continued."""
    counts: Counter[str] = Counter()
    for line in read_jsonl(path):
        if "pair" in line:
            counts.update(["pairs", f"worded by {line['pair']['origin']}"])
            continue
        if "skipped" in line:
            counts[f"skipped: {line['skipped']}"] += 1
        else:
            counts["negatives missing"] += line["missing"]
            counts["rejected: another attempt"] += line.get("attempts", 0)
        counts.update(line.get("counts", {}))
        if "drafted" in line:
            counts["texts drafted"] += line["drafted"]
            counts["texts rejected"] += line["contradicted"]
            counts["chosen: an attempt continued"] += line.get("made", False)
    return counts
