"""Stage 2: instructions that say what was done, negatives that were really done, and files that resume."""

import asyncio
import dataclasses
import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny import Fragile, ScriptedLM, cuts, puzzle, tiny_lm

from armap_lite import synthesize
from armap_lite.batching import Batcher
from armap_lite.envs.game24 import Game24, Game24Hindsight
from armap_lite.episode import Episode
from armap_lite.exchange import preferences
from armap_lite.storage.store import read_jsonl
from armap_lite.synthesize import refine
from armap_lite.trajectory import PreferencePair, Trajectory

ENV = Game24()
HINDSIGHT = ENV.hindsight


def walk(task, rng: random.Random) -> Trajectory:
    trajectory = ENV.replay(task, ())
    while not trajectory.done:
        action = rng.choice(ENV.admissible())
        trajectory = trajectory.then(action, ENV.step(action))
    return trajectory


RNG = random.Random(0)
HANDS = [(1, 4, 8, 8), (2, 9, 10, 12), (4, 4, 6, 8), (5, 5, 5, 1), (1, 2, 4, 11), (13, 13, 7, 2)]
WALKS = [walk(puzzle(*hand, id=f"t{i}", split="train"), RNG) for i, hand in enumerate(HANDS) for _ in range(10)]
TOLD = [t for t in WALKS if HINDSIGHT.achieved(t)]  # the rest ends at a fraction or beyond 999


def said(prompt: str) -> dict[str, str]:
    """The facts at the end of the prompt that a data LLM gets."""
    line = re.findall(r"Facts: numbers ([\d ]+); result (\S+)\nInstruction:$", prompt)
    [(numbers, result)] = line
    return {"numbers": numbers, "result": result}


def writer(prompt: str, seed: int) -> str:
    """A data LLM that is right two times out of five."""
    facts = said(prompt)
    return [
        f" Combine {facts['numbers']} so that you get {facts['result']}. ",
        f"Use {facts['numbers']} to obtain 24.",
        "Use the numbers well.",
        f"Reach {facts['result']} with {' '.join(facts['numbers'].split()[::-1])}!",
        f"Make {facts['result']} from 1 2 3 4.",
    ][seed % 5]


def run(out: Path, lm=None, trajectories=WALKS, env=None, **options) -> dict[str, int]:
    return asyncio.run(
        synthesize.synthesize(env or Game24(), lm or ScriptedLM(text=writer), trajectories, out, **options)
    )


def item(pair: PreferencePair) -> str:
    """The id of the collected trajectory that a pair was made from."""
    return re.sub(r"[abcd]\d+$", "", pair.id)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[list[PreferencePair], dict[str, int], Path]:
    out = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    counts = run(out, num_negatives=3)
    return synthesize.load(out), counts, out


def test_every_negative_was_executed_and_ends_differently(made):
    """Published negatives for Game of 24 are texts that nobody carried out."""
    pairs, _, _ = made
    assert len(pairs) > 2 * len(TOLD)
    for pair in pairs:
        for side in (pair.chosen, pair.rejected):
            assert side == Game24().replay(side.task, side.actions) and side.done and not side.failure
            assert not any("Nothing happens" in step.observation for step in side.steps)
        assert pair.chosen.task == pair.rejected.task and pair.task_id == pair.chosen.task.id
        assert HINDSIGHT.achieved(pair.rejected) != HINDSIGHT.achieved(pair.chosen) != {}


def test_changed_at_is_where_they_part_and_what_can_stay_stays(made):
    places = set()
    for pair in made[0]:
        at, good, bad = pair.changed_at, pair.chosen.actions, pair.rejected.actions
        assert good[:at] == bad[:at] and good[at] != bad[at]
        places.add(at)
        if "a" in pair.id.rpartition("/")[2]:
            for i in range(at + 1, len(good)):
                ENV.replay(pair.chosen.task, bad[:i])
                assert bad[i] == good[i] or good[i] not in ENV.admissible()
    assert places == {0, 1, 2}


def test_the_instruction_is_fulfilled_by_the_chosen_and_by_the_chosen_alone(made):
    for pair in made[0]:
        stated = HINDSIGHT.parse(pair.instruction)
        assert stated == HINDSIGHT.achieved(pair.chosen) and stated != HINDSIGHT.achieved(pair.rejected)
        assert pair.instruction == pair.instruction.strip()


def test_each_wording_keeps_its_origin_and_the_counts_are_those_of_the_file(made):
    pairs, counts, out = made
    plain = [p for p in pairs if p.instruction == HINDSIGHT.to_text(HINDSIGHT.achieved(p.chosen))]
    assert {p.origin for p in plain} == {"plain"} and {p.origin for p in pairs if p not in plain} == {"llm"}
    assert counts["worded by plain"] == len(plain) > 0
    assert counts["worded by llm"] == len(pairs) - len(plain) > 0
    assert counts["pairs"] == len(pairs) == len({p.id for p in pairs})
    assert counts["skipped: nothing to ask for"] == len(WALKS) - len(TOLD) > 0
    first = [p for p in pairs if re.search(r"/\d+a\d+$", p.id)]
    assert len(first) + counts["negatives missing"] == 3 * len(TOLD)
    told = {(item(p), p.chosen.actions, p.instruction) for p in pairs}
    assert len(told) == len({key[:2] for key in told})  # a trajectory is worded once, however often it is chosen
    assert counts["texts drafted"] == 2 * len(told) < 2 * len(pairs)
    assert sum("pair" not in line for line in read_jsonl(out)) == len(WALKS)  # one closing line for each trajectory


def test_rejected_drafts_are_counted(tmp_path):
    lm = ScriptedLM(text=writer)
    counts = run(tmp_path / "p.jsonl", lm, num_drafts=3, group=20)
    assert lm.resets == len(WALKS) // 20
    asked = [
        said(prompt) for kind, prompts, _ in lm.calls if kind == "generate" for prompt in prompts for _ in range(3)
    ]
    wrong = sum(HINDSIGHT.parse(text) != facts for text, facts in zip(lm.written, asked, strict=True))
    assert counts["texts drafted"] == len(lm.written) and counts["texts rejected"] == wrong > 0


def test_changes_that_share_a_world_are_the_same_and_see_the_way_once(monkeypatch):
    env, seen, state = Game24(), [], Episode._keep
    monkeypatch.setattr(Episode, "_keep", lambda self, t, o: seen.append(t.actions) or state(self, t, o))
    walk = env.replay(puzzle(4, 5, 6, 10), ("10 - 4 = 6", "6 * 5 = 30", "30 + 6 = 36"))

    def three(episode: Episode | None) -> tuple[list, list]:
        rng = random.Random(3)
        seen.clear()
        return [synthesize.change(env, walk, rng, episode=episode) for _ in range(3)], list(seen)

    (alone, often), (shared, once) = three(None), three(Episode(env, walk.task))
    assert shared == alone and set(once) == set(often)
    assert len(once) == len(set(once)) < len(often)


def test_mirrored_pairs_exchange_the_roles_under_an_instruction_of_their_own(made, tmp_path):
    pairs = {p.id: p for p in made[0]}
    mirrors = {id: p for id, p in pairs.items() if re.search(r"/\d+b\d+$", id)}
    for id, mirror in mirrors.items():
        head, _, k = id.rpartition("b")
        other = pairs[f"{head}a{k}"]
        assert (mirror.chosen, mirror.rejected) == (other.rejected, other.chosen)
        assert mirror.changed_at == other.changed_at and mirror.instruction != other.instruction
    unworthy = [p for id, p in pairs.items() if id not in mirrors and not HINDSIGHT.achieved(p.rejected)]
    assert len(pairs) == 2 * len(mirrors) + len(unworthy)  # a negative that nobody would ask for has no mirror
    assert sum(synthesize.mirrored(made[0])) >= 2 * len(mirrors) > 0
    assert not any(p in unworthy for p, both in zip(made[0], synthesize.mirrored(made[0])) if both)
    run(tmp_path / "p.jsonl", num_negatives=3, swap_roles=False)
    alone = synthesize.load(tmp_path / "p.jsonl")
    assert alone == [p for id, p in pairs.items() if id not in mirrors]


def test_without_texts_every_wording_is_plain_and_no_llm_is_asked(tmp_path):
    lm = ScriptedLM()
    counts = run(tmp_path / "p.jsonl", lm, num_drafts=0)
    assert counts["worded by plain"] == counts["pairs"] > 0 and counts["texts drafted"] == 0 and not lm.calls


def test_what_nobody_could_ask_for_is_skipped_and_counted(tmp_path):
    broken = dataclasses.replace(TOLD[0], steps=TOLD[0].steps[:2], done=False, failure="died")
    ends_at_a_third = Game24().replay(puzzle(1, 1, 1, 3), ("1 + 1 = 2", "2 - 1 = 1", "1 / 3 = 1/3"))
    counts = run(tmp_path / "p.jsonl", trajectories=[broken, ends_at_a_third])
    assert counts == {"skipped: nothing to ask for": 2}


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> tuple[list[PreferencePair], dict[str, int], Path]:
    out = tmp_path_factory.mktemp("others") / "pairs.jsonl"
    counts = run(out, num_negatives=0, num_attempt_negatives=4)
    return synthesize.load(out), counts, out


def test_other_attempts_at_the_task_are_rejected_where_they_do_not_fulfil_the_goal(others):
    pairs, counts, _ = others
    assert counts["pairs"] == len(pairs) == counts["rejected: another attempt"] == len({p.id for p in pairs})
    assert counts["negatives missing"] == 0
    for pair in pairs:
        assert pair.chosen in TOLD and pair.rejected in WALKS and pair.chosen.task == pair.rejected.task
        goal = HINDSIGHT.parse(pair.instruction)
        assert goal == HINDSIGHT.achieved(pair.chosen) != HINDSIGHT.achieved(pair.rejected)
    chosen, rejected = Counter(p.chosen.actions for p in pairs), Counter(p.rejected.actions for p in pairs)
    for walk in WALKS:
        differing = [t for t in WALKS if t.task == walk.task and HINDSIGHT.achieved(t) != HINDSIGHT.achieved(walk)]
        same = [t for t in WALKS if t.task == walk.task and t.actions == walk.actions]
        assert chosen[walk.actions] == (walk in TOLD) * len(same) * min(4, len(differing))
    assert sum(rejected[walk.actions] > 0 for walk in WALKS) > 0.9 * len(WALKS)  # nearly each is rejected for some
    told = [p for p in pairs if p.rejected in TOLD]
    assert sum(synthesize.mirrored(told)) > 0.7 * len(told)  # most pairs occur in both roles


def test_other_attempts_need_no_simulator(others, tmp_path, monkeypatch):
    monkeypatch.setattr(Game24, "step", None)
    assert run(tmp_path / "p.jsonl", num_negatives=0, num_attempt_negatives=4) == others[1]
    assert (tmp_path / "p.jsonl").read_bytes() == others[2].read_bytes()


def test_both_kinds_of_negatives_together_are_those_of_each(made, others, tmp_path):
    counts = run(tmp_path / "p.jsonl", num_negatives=3, num_attempt_negatives=4)
    both = {p.id: p for p in synthesize.load(tmp_path / "p.jsonl")}
    assert both.keys() == {p.id for p in (*made[0], *others[0])} and counts["pairs"] == len(both)
    for pair in (*made[0], *others[0]):
        assert (both[pair.id].chosen, both[pair.id].rejected) == (pair.chosen, pair.rejected)


def test_a_share_of_the_attempts_knows_the_others_and_no_broken_one_is_rejected(others, tmp_path):
    run(tmp_path / "p.jsonl", num_negatives=0, num_attempt_negatives=4, item_slice=slice(0, 7))
    assert synthesize.load(tmp_path / "p.jsonl") == [p for p in others[0] if int(item(p).rpartition("/")[2]) < 7]
    good, bad = next((a, b) for a in TOLD for b in TOLD if a.task == b.task and a.actions[0] != b.actions[0])
    stuck = dataclasses.replace(bad, steps=bad.steps[:2], done=False)  # achieved nothing, as its steps ran out
    broken = dataclasses.replace(stuck, failure="died")
    stranger = next(t for t in TOLD if t.task != good.task)
    options = {"num_negatives": 0, "num_attempt_negatives": 3}
    run(tmp_path / "q.jsonl", trajectories=[good, stranger, stuck, broken], **options)
    assert [(p.chosen, p.rejected) for p in synthesize.load(tmp_path / "q.jsonl")] == [(good, stuck)]


class Counting(Game24Hindsight):
    """What counts here is how near to the number asked for an attempt came: 0 to 3 things, none where it got lost."""

    def count(self, trajectory, goal):
        reached = self.achieved(trajectory).get("result")
        return 3 - min(3, abs(int(reached) - int(goal["result"])) // 8) if reached else 0


def test_attempts_are_graded_by_what_the_task_itself_asks_for(others, tmp_path):
    counting = Game24()
    counting.hindsight = Counting()
    counts = run(tmp_path / "p.jsonl", env=counting, num_negatives=0, num_attempt_negatives=4, num_graded=2)
    pairs = synthesize.load(tmp_path / "p.jsonl")
    graded = [p for p in pairs if p.origin == "task"]
    assert [p for p in pairs if p.origin != "task"] == others[0]  # beside the other kinds, which stay as they are
    assert counts["worded by task"] == len(graded) > 20 and counts["rejected: another attempt"] == len(pairs)
    assert len({p.id for p in pairs}) == len(pairs)
    for pair in graded:
        assert pair.instruction == pair.chosen.task.instruction and pair.chosen.task == pair.rejected.task
        goal = HINDSIGHT.parse(pair.instruction)
        assert Counting().count(pair.chosen, goal) > Counting().count(pair.rejected, goal)
    assert max(Counter(p.id.rpartition("d")[0] for p in graded).values()) == 2
    assert any(not HINDSIGHT.satisfied(p.chosen, HINDSIGHT.parse(p.instruction)) for p in graded)  # more, not all
    options = {"num_negatives": 0, "num_attempt_negatives": 4, "num_graded": 2, "env": counting}
    run(tmp_path / "q.jsonl", item_slice=slice(0, 7), **options)  # a part, then the rest, as after an interruption
    assert run(tmp_path / "q.jsonl", **options) == counts and synthesize.load(tmp_path / "q.jsonl") == pairs


def test_code_that_counts_nothing_grades_by_whether_the_task_was_fulfilled(tmp_path):
    task = puzzle(1, 2, 3, 4, id="easy", split="train")
    solved = ENV.replay(task, ("1 * 2 = 2", "2 * 3 = 6", "4 * 6 = 24"))
    missed = [ENV.replay(task, ("1 * 2 = 2", "2 * 3 = 6", last)) for last in ("4 + 6 = 10", "6 - 4 = 2")]
    assert solved.done and all(t.done for t in missed)
    run(tmp_path / "p.jsonl", trajectories=[missed[0], solved, missed[1]], num_negatives=0, num_graded=5)
    pairs = synthesize.load(tmp_path / "p.jsonl")
    assert {(p.chosen.actions, p.rejected.actions) for p in pairs} == {(solved.actions, t.actions) for t in missed}
    assert {p.instruction for p in pairs} == {task.instruction}


def test_attempts_at_a_task_that_code_cannot_parse_are_not_graded(tmp_path):
    task = dataclasses.replace(WALKS[0].task, instruction="Surprise me.")
    lost = [dataclasses.replace(t, task=task) for t in WALKS[:10]]
    assert run(tmp_path / "p.jsonl", trajectories=lost, num_negatives=0, num_graded=2)["pairs"] == 0


def test_a_trajectory_that_always_ends_the_same_has_no_negative(tmp_path):
    class OneWay(Game24):
        def admissible(self):
            return super().admissible()[:1]

    only = OneWay().replay(puzzle(2, 3), ("3 + 2 = 5",))
    counts = run(tmp_path / "p.jsonl", trajectories=[only], env=OneWay(), num_negatives=2)
    assert counts["pairs"] == 0 and counts["negatives missing"] == 2


def test_a_negative_is_never_a_trajectory_that_broke_off(tmp_path):
    sums = [t for t in TOLD if not any("*" in action for action in t.actions)]
    run(tmp_path / "p.jsonl", trajectories=sums, env=Fragile(), num_negatives=4)
    pairs = synthesize.load(tmp_path / "p.jsonl")
    assert pairs and all(p.chosen.done and p.rejected.done for p in pairs)


# Attempts that are carried on


class Onward(Game24Hindsight):
    def continuation(self, trajectory, seed):
        return 1, [r"nothing fits this", r"(?P<it>\d+) .*", r"(?!<it> ).*"]


class Carrying(Game24):
    """Keeps the first step of an attempt and goes on with any two others, the last of them not the first again."""

    hindsight = Onward()


def test_some_attempts_are_carried_on_and_are_then_rejected_for_what_they_came_to(tmp_path):
    counts = run(tmp_path / "p.jsonl", ScriptedLM(), env=Carrying(), num_drafts=0, num_negatives=2)
    pairs, notes = (
        synthesize.load(tmp_path / "p.jsonl"),
        {line["id"]: line for line in read_jsonl(tmp_path / "p.jsonl")},
    )
    made = {item(p) for p in pairs if notes[item(p)].get("made")}
    assert counts["chosen: an attempt continued"] == len(made)
    assert 0.2 < len(made & {f"{t.task.id}/{i}" for i, t in enumerate(WALKS) if t in TOLD}) / len(TOLD) < 0.8
    for pair in pairs:
        if item(pair) in made and re.search(r"/\d+a\d+$", pair.id):
            attempt = WALKS[int(item(pair).rpartition("/")[2])]
            assert pair.chosen.actions[:1] == attempt.actions[:1] and pair.chosen.actions != attempt.actions
            assert pair.chosen == Game24().replay(pair.chosen.task, pair.chosen.actions)
            assert ENV.hindsight.achieved(pair.chosen) not in ({}, ENV.hindsight.achieved(attempt))
            assert not pair.chosen.actions[2].startswith(pair.chosen.actions[1].split()[0] + " ")
            if pair.id.endswith("a0"):
                assert pair.rejected == attempt
    plain = run(tmp_path / "q.jsonl", ScriptedLM(), num_drafts=0, num_negatives=2)
    assert "chosen: an attempt continued" not in +plain, "a world that knows no way on stays as it was"


def test_carrying_on_is_the_same_for_the_same_seed_and_after_a_break(tmp_path):
    def some(out: Path, seed: int) -> bytes:
        run(out, ScriptedLM(), WALKS[:12], env=Carrying(), num_drafts=0, num_negatives=1, group=4, seed=seed)
        return out.read_bytes()

    whole = some(tmp_path / "whole.jsonl", 0)
    assert some(tmp_path / "again.jsonl", 0) == whole != some(tmp_path / "other.jsonl", 1)
    for cut in cuts(whole, random.Random(2), 2):
        (tmp_path / f"{cut}.jsonl").write_bytes(whole[:cut])
        assert some(tmp_path / f"{cut}.jsonl", 0) == whole


# Whatever the LLM writes

DONE = Game24().replay(puzzle(1, 4, 8, 8), ("8 * 4 = 32", "32 + 8 = 40", "40 / 1 = 40"))
FACTS = {"numbers": "1 4 8 8", "result": "40"}
SENTENCE = ["Use", "the", "numbers", "1", "4", "8", "8", "to", "obtain", "40", "."]
OTHERS = [
    "make",
    "reach",
    "get",
    "total",
    "exactly",
    "each",
    "once",
    "24",
    "-40",
    "41",
    "04",
    "and",
    ",",
    "!",
    "=",
    "٤",
    "Ⅷ",
]
words = st.sampled_from([*SENTENCE, *OTHERS])
near = st.permutations(SENTENCE).map(" ".join)
edited = st.builds(
    lambda place, word, cut: " ".join([*SENTENCE[:place], word, *SENTENCE[place + cut :]]),
    st.integers(0, 10),
    words,
    st.integers(0, 1),
)
drafts = st.text(max_size=60) | st.lists(words, max_size=12).map(" ".join) | near | edited


def refined(texts: list[str]) -> tuple[str, str, int, int]:
    left = iter(texts)
    lm = ScriptedLM(text=lambda prompt, seed: next(left))

    async def ask():
        return await refine(HINDSIGHT, Batcher(lm), DONE, len(texts), 0.7, 0)

    return asyncio.run(ask())


def contradicts(text: str) -> bool:
    """Read in another way than the filter reads: exactly the five numbers, the result right behind the verb."""
    numbers = [int(n) for n in re.findall(r"(?<![\d./-])\d+(?![\d/]|\.\d)", text)]
    goal = re.search(r"(?i)(obtain|make|reach|get|total)s?( exactly)? 40(?!\d|\.\d|/)", text)
    odd = re.search(r"\d[./]\d|-\s*\d", text)
    return sorted(numbers) != [1, 4, 8, 8, 40] or goal is None or odd is not None


@pytest.mark.slow
@settings(max_examples=400)
@given(st.lists(drafts, min_size=1, max_size=3))
@example(["Use the numbers 1 4 8 8 to obtain 24.", "Reach 40 from 8 8 4 1."])
@example(["Use 1 4 8 8 and 40 to make 40."])
@example(["Use the numbers 1 4 8 8 to obtain 40/1."])
def test_a_refined_instruction_never_contradicts_the_trajectory(texts):
    assert HINDSIGHT.achieved(DONE) == FACTS
    text, origin, drafted, rejected = refined(texts)
    assert HINDSIGHT.parse(text) == FACTS and not contradicts(text)
    passed = [t.strip() for t in texts if HINDSIGHT.parse(t) == FACTS]
    assert (text, origin) == ((passed[0], "llm") if passed else (HINDSIGHT.to_text(FACTS), "plain"))
    assert (drafted, rejected) == (len(texts), len(texts) - len(passed))


@pytest.mark.parametrize(
    "text",
    [
        "Use the numbers 1 4 8 to obtain 40.8",
        "Use the numbers 1 4 8 8 but do not make 40.",
        "Use the numbers 1 4 8 8 and never reach 40.",
        pytest.param("Use 1/0 4 8 8 to get 40", id="division by zero"),
    ],
)
def test_a_text_that_denies_the_result_or_means_another_is_not_taken(text):
    assert refined([text])[1] == "plain"


# Files


def test_pairs_become_a_table_that_datasets_reads(made, tmp_path):
    from datasets import Dataset

    preferences.to_parquet(made[0], tmp_path / "pairs.parquet")
    table = Dataset.from_parquet(str(tmp_path / "pairs.parquet"), cache_dir=str(tmp_path / "cache"))
    assert len(table) == len(made[0])
    for row, pair in zip(table, made[0], strict=True):
        sides = {side: json.loads(row[side]) for side in ("chosen", "rejected")}
        assert PreferencePair.from_json({**row, **sides}) == pair


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[bytes, dict[str, int]]:
    out = tmp_path_factory.mktemp("whole") / "p.jsonl"
    counts = small(out)
    return out.read_bytes(), counts


def small(out: Path, seed: int = 0) -> dict[str, int]:
    return run(out, tiny_lm(), WALKS[:6], num_drafts=1, num_negatives=2, group=4, seed=seed)


def test_the_same_seed_gives_the_same_file(whole, tmp_path):
    assert small(tmp_path / "again.jsonl") == whole[1]
    assert (tmp_path / "again.jsonl").read_bytes() == whole[0]
    small(tmp_path / "other.jsonl", seed=1)
    assert (tmp_path / "other.jsonl").read_bytes() != whole[0]


@pytest.mark.slow
def test_a_run_broken_off_anywhere_ends_as_if_it_had_not_been(whole, tmp_path):
    data, counts = whole
    for cut in cuts(data, random.Random(1), 3):
        out = tmp_path / f"{cut}.jsonl"
        out.write_bytes(data[:cut])
        assert small(out) == counts
        assert out.read_bytes() == data
