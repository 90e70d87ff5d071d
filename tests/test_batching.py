"""Many coroutines, one batch: who waits is answered together, and nobody waits for ever."""

import asyncio

import pytest
from tiny import ScriptedLM, ScriptedReward, puzzle

from armap_lite.batching import Batcher, chunks, gather_or_cancel, run_groups
from armap_lite.storage.store import JsonlStore, read_jsonl
from armap_lite.trajectory import Trajectory


def play(coroutine):
    """Run it; what hangs is an error, not a test that never ends."""
    return asyncio.run(asyncio.wait_for(coroutine, 30))


async def walk(batch: Batcher, name: str, steps: int, idle: int = 0) -> str:
    text = name
    for step in range(steps):
        for _ in range(idle):
            await asyncio.sleep(0)
        [choice] = await batch.choose(text, ["a", "b", "c"], 1, 1.0, step)
        text += choice.text
    return text


def test_all_that_wait_are_answered_in_one_batch():
    lm = ScriptedLM()
    batch = Batcher(lm)

    async def nested(k: int) -> list[str]:  # as a planner does: rollouts side by side within tasks side by side
        return await asyncio.gather(*(walk(batch, f"{k}{i}", 3) for i in range(4)))

    async def run():
        return await asyncio.gather(*(nested(k) for k in range(5)))

    play(run())
    assert [len(prompts) for _, prompts, _ in lm.calls] == [20, 20, 20]


def test_shorter_walks_drop_out_and_the_rest_stay_together():
    lm = ScriptedLM()
    batch = Batcher(lm)

    async def run():
        return await asyncio.gather(*(walk(batch, f"{k}", k + 1) for k in range(4)))

    play(run())
    assert [len(prompts) for _, prompts, _ in lm.calls] == [4, 3, 2, 1]


def test_the_same_run_makes_the_same_batches_and_answers():
    runs = []
    for _ in range(3):
        lm = ScriptedLM(weight=lambda prompt, choice: 1 + (len(prompt) * ord(choice)) % 5)
        batch = Batcher(lm)

        async def run(batch=batch):
            return await asyncio.gather(*(walk(batch, f"{k}", 2 + k % 3, idle=k % 2) for k in range(6)))

        runs.append((play(run()), lm.calls))
    assert runs[0] == runs[1] == runs[2]
    alone = [play(walk(Batcher(lm), f"{k}", 2 + k % 3)) for k in range(6)]
    assert alone == runs[0][0]  # an answer does not depend on who else asked


def test_each_asker_gets_the_answer_to_its_own_question():
    lm = ScriptedLM(text=lambda prompt, seed: f"{prompt}-{seed}")
    reward = ScriptedReward(lambda trajectory: float(trajectory.start))
    batch = Batcher(lm, reward)
    task = puzzle(1, 2)

    async def run():
        return await asyncio.gather(
            batch.generate("a", 2, 8, 1.0, 10),
            batch.score(task.instruction, Trajectory(task, "1.5")),
            batch.generate("b", 1, 8, 1.0, 20),
            batch.choose("c", ["x", "y"], None, 1.0, 0),
            batch.generate("d", 2, 8, 1.0, 30),
            batch.score(task.instruction, Trajectory(task, "-2")),
        )

    a, first, b, c, d, second = play(run())
    assert [[t.text for t in texts] for texts in (a, b, d)] == [["a-10", "a-11"], ["b-20"], ["d-30", "d-31"]]
    assert (first, second) == (1.5, -2.0) and type(first) is float
    assert [choice.text for choice in c] == ["x", "y"]
    assert sorted((kind, prompts) for kind, prompts, _ in lm.calls) == [
        ("choose", ["c"]),
        ("generate", ["a", "d"]),  # what is asked in the same way goes together
        ("generate", ["b"]),
    ]
    assert len(reward.scored) == 2


class Small(ScriptedLM):
    """A model whose cache holds prompts of so many letters in all."""

    room = 10

    def fits(self, prompts: list[str]) -> int:
        held = [sum(map(len, prompts[: i + 1])) for i in range(len(prompts))]
        return max(1, sum(letters <= self.room for letters in held))


@pytest.mark.parametrize("room", [1, 4, 10, 1000])
def test_where_a_cache_does_not_hold_all_who_began_first_ends_first_and_answers_are_the_same(room: int):
    lm, ended = Small(weight=lambda prompt, choice: 1 + (len(prompt) * ord(choice)) % 5), []
    lm.room = room
    batch = Batcher(lm)

    async def one(name: str) -> str:
        text = await walk(batch, name, 4)
        ended.append(name)
        return text

    async def run():
        return await asyncio.gather(*map(one, "abcdef"))

    found = play(run())
    assert found == [play(walk(Batcher(lm), name, 4)) for name in "abcdef"]
    for _, prompts, _ in lm.calls:
        assert len(prompts) == 1 or sum(map(len, prompts)) <= room
    if room < 1000:
        assert ended == sorted(ended)


def test_an_error_while_prompts_are_measured_reaches_all_who_wait():
    class Broken(ScriptedLM):
        def fits(self, prompts: list[str]) -> int:
            raise OSError("no tokenizer")

    async def run():
        batch = Batcher(Broken())
        return await asyncio.gather(*(walk(batch, name, 1) for name in "ab"), return_exceptions=True)

    assert [str(error) for error in play(run())] == ["no tokenizer"] * 2


def test_an_error_reaches_everyone_who_asked_and_nobody_else():
    def weight(prompt: str, choice: str) -> float:
        if "bad" in prompt:
            raise ConnectionError("gone")
        return 1.0

    lm = ScriptedLM(weight, text=lambda prompt, seed: "fine")
    batch = Batcher(lm)

    async def run():
        asked = [batch.choose(p, ["a"], 1, 1.0, 0) for p in ("good", "bad", "good")]
        other = batch.generate("g", 1, 8, 1.0, 0)
        answers = await asyncio.gather(*asked, other, return_exceptions=True)
        again = await batch.choose("good", ["a"], 1, 1.0, 0)
        return answers, again

    answers, again = play(run())
    assert [str(e) for e in answers[:3]] == ["gone"] * 3 and all(isinstance(e, ConnectionError) for e in answers[:3])
    assert answers[3][0].text == "fine" and again[0].text == "a"


def test_who_is_cancelled_holds_nobody_up():
    lm = ScriptedLM()
    batch = Batcher(lm)

    async def run():
        walks = [asyncio.ensure_future(walk(batch, f"{k}", 3)) for k in range(4)]
        await asyncio.sleep(0)  # now all of them wait
        walks[1].cancel()
        answers = await asyncio.gather(*walks, return_exceptions=True)
        assert isinstance(answers[1], asyncio.CancelledError)
        return [len(answers[k]) for k in (0, 2, 3)]

    assert play(run()) == [4, 4, 4]
    assert [len(prompts) for _, prompts, _ in lm.calls][1:] == [3, 3]


def test_one_batcher_serves_several_event_loops():
    batch = Batcher(ScriptedLM())
    assert [len(play(walk(batch, "x", 2))) for _ in range(3)] == [3, 3, 3]


def test_together_ends_the_others_where_one_fails():
    ended = []

    async def fails():
        await asyncio.sleep(0)
        raise OSError("disk")

    async def waits(k):
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(k)

    async def run():
        with pytest.raises(OSError, match="disk"):
            await gather_or_cancel([waits(1), fails(), waits(2)])

    play(run())
    assert ended == [1, 2]


# run_groups


class Log:
    """Runs `run_groups` over `items` and writes down what it did."""

    def __init__(self, out, items, done=(), group=3, broken=None):
        self.events: list[tuple] = []
        self.progress = 0
        self.error = None
        with JsonlStore(out) as store:
            store.extend({"id": str(item)} for item in done)

        async def work(item):
            self.events.append(("work", item))
            for _ in range(20 * (item % 3)):
                await asyncio.sleep(0)
            if item == broken:
                raise OSError(f"item {item}")
            return [{"id": f"{item}, first"}, {"id": str(item), "made": True}]

        def count(n):
            self.progress += n

        def fresh():
            self.events.append(("fresh",))

        try:
            play(run_groups(items, work, out, lambda item: [str(item)], group=group, fresh=fresh, progress=count))
        except OSError as error:
            self.error = str(error)
        self.made = [int(line["id"]) for line in read_jsonl(out) if "made" in line]

    def of(self, kind):
        return [event[1] for event in self.events if event[0] == kind]


def test_groups_run_one_after_the_other_and_each_starts_fresh(tmp_path):
    log = Log(tmp_path / "out.jsonl", range(8))
    groups = [[0, 1, 2], [3, 4, 5], [6, 7]]
    starts = [i for i, event in enumerate(log.events) if event == ("fresh",)] + [len(log.events)]
    assert starts[0] == 0
    for begin, end, group in zip(starts[:-1], starts[1:], groups, strict=True):
        assert [event[1] for event in log.events[begin + 1 : end]] == group
    assert [sorted(log.made[i : i + 3]) for i in (0, 3, 6)] == groups
    assert log.progress == 8


@pytest.mark.parametrize("done", [{0}, {0, 1, 2}, {1, 4}, {0, 1, 2, 3}, set(range(8)), set()])
def test_a_broken_off_group_is_done_over_but_only_what_is_new_is_written(done, tmp_path):
    log = Log(tmp_path / "out.jsonl", range(8), done)
    groups = [group for group in ([0, 1, 2], [3, 4, 5], [6, 7]) if not done.issuperset(group)]
    assert log.of("work") == [item for group in groups for item in group]
    assert sorted(log.made) == sorted(set(range(8)) - done)
    assert len([event for event in log.events if event == ("fresh",)]) == len(groups)
    assert log.progress == 8


def test_an_error_stops_the_run_and_the_next_one_goes_on(tmp_path):
    log = Log(tmp_path / "out.jsonl", range(8), broken=4)
    assert log.error == "item 4" and {0, 1, 2} <= set(log.made) <= {0, 1, 2, 3}
    assert not set(log.of("work")) & {6, 7}
    again = Log(tmp_path / "out.jsonl", range(8))
    assert again.error is None and sorted(again.made) == list(range(8))


def test_chunks_cover_everything_once():
    assert [list(chunk) for chunk in chunks(range(7), 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(chunks([], 3)) == []
