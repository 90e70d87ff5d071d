"""Stage 1: proposals that fit, trajectories that differ, and files that resume to the last byte."""

import asyncio
import random
from pathlib import Path

import pytest
from tiny import Fragile, ScriptedLM, cuts, puzzle, tiny_lm

from armap_lite import collect
from armap_lite.agent import Agent
from armap_lite.envs.game24 import Game24
from armap_lite.storage.store import read_jsonl
from armap_lite.trajectory import Trajectory

ENV = Game24()
TASKS = [puzzle(*numbers, id=id, split="train") for id, numbers in zip("abcd", [(1, 4, 8, 8), (2, 9, 10, 12)] * 2)]


def run(out: Path, lm, tasks=TASKS, **options) -> dict[str, int]:
    agent = Agent(lm, Game24(), examples=1)
    return asyncio.run(collect.collect(Game24(), agent, tasks, out, **{"samples": 4, **options}))


def drafts(**texts: list[str]) -> ScriptedLM:
    """Writes the texts given for a task's numbers (`n1488`), one after the other."""
    return ScriptedLM(text=lambda prompt, seed: texts["n" + prompt.splitlines()[-2][13:].replace(" ", "")].pop(0))


def test_a_proposal_is_adopted_where_it_fits_the_state_and_becomes_the_task(tmp_path):
    lm = drafts(
        n1488=["Use 1 4 8 to obtain 36.", " Make 36 from 8 8 4 1. ", "Use 1 4 8 8 to obtain 5."],
        n291012=["Use 2 9 10 13 to obtain 7.", "Win!", ""],
    )
    counts = run(tmp_path / "t.jsonl", lm, TASKS[:2], num_proposals=3)
    mine, own = ([t for t in collect.load(tmp_path / "t.jsonl") if t.task.id == id] for id in "ab")
    assert {t.task.instruction for t in mine} == {"Make 36 from 8 8 4 1."}  # the first that fits, not the last
    assert {t.task.setup["target"] for t in mine} == {36}
    assert {(t.task.id, t.task.split) for t in mine} == {("a", "train")}
    assert own and all(t.task == TASKS[1] for t in own)
    assert counts["instructions by llm"] == counts["instructions by plain"] == 4
    acted_on = {prompt.splitlines()[-1] for kind, prompts, _ in lm.calls if kind == "choose" for prompt in prompts}
    assert "Make 36 from 8 8 4 1." in acted_on and TASKS[0].instruction not in acted_on


def test_the_prompt_for_proposals_shows_how_tasks_are_worded_and_ends_at_the_state_at_hand(tmp_path):
    lm = ScriptedLM()
    run(tmp_path / "t.jsonl", lm, TASKS[:1])
    [[prompt]] = [prompts for kind, prompts, _ in lm.calls if kind == "generate"]
    assert prompt.endswith("State: left: 1 4 8 8\nInstruction:")
    assert all(text in prompt for _, text in ENV.hindsight.few_shot)


def test_without_proposals_no_text_is_asked_for(tmp_path):
    lm = ScriptedLM()
    counts = run(tmp_path / "t.jsonl", lm, num_proposals=0, group=2)
    assert lm.resets == 2  # each group starts with an empty cache, so that a resumed one computes the same
    assert counts["instructions by plain"] == 16 and not any(kind == "generate" for kind, *_ in lm.calls)


def test_what_is_kept_was_executed_and_differs_and_repeats_are_counted(tmp_path):
    tasks = [puzzle(2, 3, id="small"), puzzle(2, 3, id="twin"), puzzle(1, 4, 8, 8, id="large")]
    out = tmp_path / "t.jsonl"
    counts = run(out, ScriptedLM(), tasks, samples=30)
    lines = list(read_jsonl(out))
    kept = {line["id"]: Trajectory.from_json(line["trajectory"]) for line in lines if "trajectory" in line}
    assert [line["id"] for line in lines if line["task_id"] == "small"] == [f"small#{k}" for k in range(30)]
    assert len(lines) == 90 and counts["kept"] + counts["duplicates"] == 90 and counts["kept"] == len(kept)
    for task in tasks:
        own = [t for id, t in kept.items() if id.startswith(f"{task.id}#")]
        assert len({t.actions for t in own}) == len(own) == (5 if len(task.setup["numbers"]) == 2 else len(own))
        assert all(t == Game24().replay(task, t.actions) and t.done for t in own)
    assert len(collect.load(out)) == counts["kept"] > 20
    for line in lines:
        if first := line.get("duplicate_of"):
            assert first in kept and first.startswith(line["task_id"] + "#") and "trajectory" not in line
            assert int(first.split("#")[1]) < int(line["id"].split("#")[1])


def test_actions_are_drawn_from_the_policy_at_the_temperature_asked_for(tmp_path):
    def weight(prompt: str, choice: str) -> float:
        return 20.0 if " + " in choice else 1.0

    kept = {}
    for temperature in (0.01, 1.0, 100.0):
        counts = run(
            tmp_path / f"{temperature}.jsonl", ScriptedLM(weight), TASKS[:1], samples=60, temperature=temperature
        )
        trajectories = collect.load(tmp_path / f"{temperature}.jsonl")
        sums = sum(" + " in action for t in trajectories for action in t.actions) / sum(
            len(t.steps) for t in trajectories
        )
        kept[temperature] = (counts["kept"], sums)
    assert kept[0.01][0] < kept[1.0][0] < kept[100.0][0]
    assert kept[0.01][1] == 1.0 > kept[1.0][1] > kept[100.0][1]


def test_failures_are_counted(tmp_path):
    agent = Agent(ScriptedLM(), Fragile(), examples=1)
    out = tmp_path / "t.jsonl"
    counts = asyncio.run(collect.collect(Fragile(), agent, TASKS[:2], out, samples=20, num_proposals=0))
    failed = [t for t in collect.load(out) if t.failure]
    assert counts["failures"] == len(failed) > 0
    assert all(t.failure == "the simulator died" and not t.done and len(t.steps) < 3 for t in failed)
    assert counts["kept"] + counts["duplicates"] == 40
    assert any(t.done for t in collect.load(out))


# Resume, with a real model, a real cache and a real tokenizer


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[bytes, dict[str, int]]:
    out = tmp_path_factory.mktemp("whole") / "t.jsonl"
    counts = small(out)
    return out.read_bytes(), counts


def small(out: Path, seed: int = 0) -> dict[str, int]:
    return run(out, tiny_lm(), samples=3, group=2, num_proposals=1, temperature=2.0, seed=seed)


def test_the_same_seed_gives_the_same_file(whole, tmp_path):
    assert small(tmp_path / "again.jsonl") == whole[1]
    assert (tmp_path / "again.jsonl").read_bytes() == whole[0]
    small(tmp_path / "other.jsonl", seed=1)
    assert (tmp_path / "other.jsonl").read_bytes() != whole[0]


@pytest.mark.slow
def test_a_run_broken_off_anywhere_ends_as_if_it_had_not_been(whole, tmp_path):
    data, counts = whole
    for cut in cuts(data, random.Random(0), 3):
        out = tmp_path / f"{cut}.jsonl"
        out.write_bytes(data[:cut])
        assert small(out) == counts
        assert out.read_bytes() == data


def test_a_finished_run_asks_nothing(whole, tmp_path):
    out = tmp_path / "t.jsonl"
    out.write_bytes(whole[0])
    lm = ScriptedLM()
    done: list[int] = []
    assert run(out, lm, samples=3, progress=done.append) == whole[1]
    assert not lm.calls and sum(done) == len(TASKS) and out.read_bytes() == whole[0]
