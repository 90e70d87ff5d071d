"""ServerLM and models that think before they answer, or whose answers cannot be read."""

import asyncio
import json
from contextlib import nullcontext

import pytest
from scripted_server import chat, failed, refused, said, scripted

from armap_lite.llms import answers, replies
from armap_lite.llms.client import ServerError, UnreadableAnswersError
from armap_lite.pipeline.run import Run

STEPS = ["6 - 4 = 2", "4 * 6 = 24"]
THOUGHT = "\nFirst idea: 6 - 4 = 2 leaves nothing useful.\nSo the product is better.\n"


def thinker(content: str, finish: str = "stop"):
    """A chat server that stops where it is asked to, also within a thought."""

    def answer(path: str, request: dict):
        if not path.endswith("/chat/completions"):
            return failed(404, "not a completion model")
        stop = request.get("stop")
        return chat(content.split(stop)[0] if stop else content, finish)

    return answer


@pytest.mark.parametrize(
    "content",
    [
        f"<think>{THOUGHT}</think>\n\n4 * 6 = 24",
        "<think>\n\n</think>\n\n4 * 6 = 24",
        f"{THOUGHT}</think>\n\n4 * 6 = 24\n",  # the template wrote the opening mark
        f"<think>a</think>6 - 4 = 2<think>{THOUGHT}</think>4 * 6 = 24",
        f"[THINK]{THOUGHT}[/THINK]4 * 6 = 24",
    ],
)
def test_what_follows_the_last_thought_is_the_answer(content):
    with scripted(thinker(content)) as server:
        lm = server.lm(endpoint="auto")
        if content.startswith(("<", "[")):  # else the thought is not to be told from an answer cut at its first line
            assert [c.text for [c] in lm.generate(["a", "b"])] == ["4 * 6 = 24"] * 2
            asked = len(server.seen)
            lm.generate(["c"])
            assert len(server.seen) == asked + 1 and "stop" not in server.seen[-1][-1]  # learned
        assert [c.text for [c] in lm.choose(["a", "b"], [STEPS] * 2)] == ["4 * 6 = 24"] * 2
        assert (lm.parsed, lm.misses, lm.fallbacks, lm.unfinished) == (2, 0, 0, 0)


@pytest.mark.parametrize("finish", ["length", "stop"])
def test_an_unclosed_thought_is_a_miss_and_never_an_action(finish):
    with scripted(thinker("<think>\n6 - 4 = 2 leaves nothing, so I would rather", finish)) as server:
        lm = server.lm(endpoint="chat", parse_retries=1)
        assert lm.generate(["a"])[0][0].text == "" and lm.unfinished == 1
        lm.choose(["a"], [STEPS], 5)
        assert (lm.parsed, lm.misses, lm.fallbacks) == (0, 10, 5)


def test_a_cut_thought_without_an_opening_mark_is_no_action_once_the_model_was_seen_to_think():
    whole, cut = chat(f"{THOUGHT}</think>4 * 6 = 24"), chat(THOUGHT, "length")
    with scripted(whole, cut) as server:
        lm = server.lm(endpoint="chat", parse_retries=0)
        lm.choose(["a"], [STEPS])
        lm.choose(["a"], [STEPS])
        assert (lm.parsed, lm.misses, lm.fallbacks) == (1, 1, 1)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", None])
@pytest.mark.parametrize("content", [None, "", "\n"])
def test_a_thought_apart_that_leaves_no_answer_ends_in_one_error_with_a_way_out(field, content):
    message = {field: "Okay, the user wants"} if field else {}  # a hosted model may hide it
    with scripted(chat(content, "length", **message)) as server:
        for ask in (lambda lm: lm.generate(["a"], max_tokens=48), lambda lm: lm.choose(["a"], [STEPS], seeds=[1])):
            lm, before = server.lm(endpoint="chat"), len(server.seen)
            with pytest.raises(ServerError, match=r"thought only") as caught:
                ask(lm)
            assert 3 <= len(server.seen) - before <= 4  # the last with no stop
            said = str(caught.value)
            assert '{"enable_thinking":false}' in said and 'extra={"max_tokens":4000}' in said and "\n" not in said
            assert lm.fallbacks == 0


def test_one_thought_too_long_is_a_hiccup():
    spent = chat(None, "length", reasoning_content="hm")
    with scripted(spent, spent, spent, chat("fine", reasoning_content="short")) as server:
        lm = server.lm(endpoint="chat")
        [[answer]] = lm.generate(["a"], seeds=[1])
        assert (answer.text, answer.tokens) == ("fine", 20)
        assert len({body["seed"] for *_, body in server.seen[1:]}) == 3  # asked for another answer


def test_a_run_with_a_model_that_only_thinks_stops_at_once(tmp_path):
    with scripted(chat(None, "length", reasoning_content="hm")) as server:
        policy = f"{server.url}#m endpoint=chat concurrency=2"
        run = Run("game24", "fast", tmp_path, policy=policy, collect_tasks=9, samples=4)
        with pytest.raises(ServerError, match="thought only"):
            asyncio.run(run.collect())
        assert len(server.seen) < 20


def test_room_given_by_extra_is_room_for_the_thought():
    def answer(path: str, request: dict):
        enough = request["max_tokens"] >= 2000
        return chat("4 * 6 = 24" if enough else None, "stop" if enough else "length", reasoning_content="long")

    with scripted(answer) as server:
        lm = server.lm(endpoint="chat", extra={"max_tokens": 4000})
        assert lm.choose(["a"], [STEPS])[0][0].text == "4 * 6 = 24"


def test_text_parts_are_joined_and_thoughts_left_out():
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "6 - 4 = 2?"}]},
        {"type": "text", "text": "4 * 6"},
        {"type": "text", "text": " = 24"},
    ]
    with scripted(chat(parts)) as server:
        assert server.lm(endpoint="chat").generate(["a"])[0][0].text == "4 * 6 = 24"
        assert server.lm(endpoint="chat").choose(["a"], [STEPS])[0][0].index == 1


@pytest.mark.parametrize("part", [{"type": "image_url", "image_url": "x"}, {"type": "text", "text": None}, 7, ["x"]])
def test_content_of_another_kind_is_one_error(part):
    with scripted(chat([{"type": "text", "text": "4 * 6 = 24"}, part])) as server:
        for ask in (lambda lm: lm.generate(["a"]), lambda lm: lm.choose(["a"], [STEPS])):
            with pytest.raises(ServerError, match="no OpenAI answer but .content of a kind that is not text"):
                ask(server.lm(endpoint="chat"))


def test_a_thought_before_json_is_read():
    def answer(path: str, request: dict):
        if "response_format" not in request:
            return chat("hm")
        enum = request["response_format"]["json_schema"]["schema"]["properties"]["choice"]["enum"]
        return chat(f"<think>{THOUGHT}</think>" + json.dumps({"choice": enum[-1]}))

    with scripted(answer) as server:
        lm = server.lm(endpoint="chat", structured="auto")
        assert lm.choose(["a"], [STEPS])[0][0].index == 1 and lm.structured == "json_schema" and lm.misses == 0


def test_replies_are_read_or_refused_but_never_wrong():
    assert replies.read(said("a")[2]({})) == replies.Reply("a", 0)
    for odd in (None, [], {}, {"choices": []}, {"choices": [{}]}, {"choices": [{"message": None}]}, {"choices": "x"}):
        with pytest.raises(ValueError):
            replies.read(odd)


def sometimes(bad: int, of: int):
    """`bad` of each `of` answers name no action, as long as they are asked one after the other."""
    count = iter(range(10**6))
    return lambda path, request: said(f"no idea {'x' * 200}" if next(count) % of >= of - bad else STEPS[0])


def test_a_run_stops_where_more_than_a_fifth_of_its_actions_were_drawn_at_random():
    with scripted(sometimes(1, 4)) as server:
        lm = server.lm(parse_retries=0, concurrency=1)
        with pytest.raises(UnreadableAnswersError) as caught:
            lm.choose(["a"] * 40, [STEPS] * 40)
        said = str(caught.value)
        assert said.startswith("7 of 30 actions (23%) were drawn at random")
        assert said.count("'no idea xxx") == 3 and len(said) < 700 and "\n" not in said
        assert len(server.seen) < 40  # the rest is not asked


def test_the_share_is_judged_also_where_the_answers_are_read_by_now():
    with scripted(*[said("no idea")] * 29, said(STEPS[0])) as server:
        lm = server.lm(parse_retries=0, concurrency=1)
        lm.choose(["a"] * 29, [STEPS] * 29)
        with pytest.raises(UnreadableAnswersError, match="29 of 30"):
            lm.choose(["a"], [STEPS])


def test_a_text_cut_by_its_length_is_kept_where_thoughts_stand_apart():
    with scripted(chat("one", reasoning_content="hm"), chat("two and", "length")) as server:
        lm = server.lm(endpoint="chat")
        assert [lm.generate(["a"])[0][0].text for _ in range(2)] == ["one", "two and"] and lm.unfinished == 0


def test_a_fifth_drawn_at_random_goes_on_and_is_counted():
    with scripted(sometimes(1, 5)) as server:
        lm = server.lm(parse_retries=0, concurrency=1)
        lm.choose(["a"] * 100, [STEPS] * 100)
        assert (lm.fallbacks, lm.parsed) == (20, 80)


def test_the_share_holds_over_the_stages_of_a_run_and_is_kept(tmp_path, capsys):
    with scripted(said("no idea")) as server:
        policy = f"{server.url}#m endpoint=completions structured=none scoring=none parse_retries=0"
        sizes = {"collect_tasks": 30, "samples": 1, "num_proposals": 0}
        run = Run("game24", "fast", tmp_path, policy=policy, **sizes)
        with pytest.raises(UnreadableAnswersError, match="100%"):
            asyncio.run(run.collect())
    kept = json.loads(run.path("answers.json").read_text(encoding="utf-8"))
    assert kept["fallbacks"] >= 30 and kept["parsed"] == 0  # what is in the folder by then is counted


@pytest.mark.parametrize(
    ("drawn", "asked", "stops"),
    [
        (3, 3, False),
        (4, 4, False),
        (5, 5, True),
        (5, 10, False),
        (6, 10, True),
        (14, 29, False),
        (15, 29, True),
        (6, 30, False),
        (7, 30, True),
        (200, 1000, False),
        (201, 1000, True),
    ],
)
def test_a_run_is_judged_by_all_its_stages(drawn, asked, stops):
    counts = {"parsed": 0, "misses": drawn, "fallbacks": drawn, "asked": asked}
    with pytest.raises(UnreadableAnswersError, match=f"{drawn} of {asked} ") if stops else nullcontext():
        answers.check(counts, "runs/x")


def test_a_small_run_that_is_mostly_random_stops_at_the_end_of_a_stage(tmp_path):
    """Each notebook is a process of its own, with too few actions to be judged while it runs."""
    with scripted(said("no idea")) as server:
        policy = f"{server.url}#m endpoint=completions structured=none scoring=none parse_retries=0"
        sizes = {"collect_tasks": 1, "samples": 1, "num_proposals": 0}
        run = Run("game24", "fast", tmp_path, policy=policy, **sizes)
        asyncio.run(run.collect())  # three unlucky draws
        run.path("trajectories.jsonl").unlink()
        run = Run("game24", "fast", tmp_path, policy=policy, **sizes)
        with pytest.raises(UnreadableAnswersError, match=r"6 of 6 actions \(100%\)"):
            asyncio.run(run.collect())
        asked = len(server.seen)
        with pytest.raises(UnreadableAnswersError, match="in another folder"):
            asyncio.run(run.collect())
        assert len(server.seen) == asked  # what is in the folder does not get better
    part = Run("game24", "fast", tmp_path, policy=policy, **sizes)
    part.item_slice = slice(0, 1)
    part.check_invalid_actions()  # a worker's part is judged with the others


def test_a_few_actions_drawn_at_random_are_too_few_to_judge():
    with scripted(refused(200, said("no idea")[2]({}))) as server:
        lm = server.lm(parse_retries=0)
        lm.choose(["a"] * 29, [STEPS] * 29)
        assert lm.fallbacks == 29
        with pytest.raises(UnreadableAnswersError, match="30 of 30"):
            lm.choose(["a"], [STEPS])


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("<THINK>", "</THINK>"),
        ("<think >", "</ think >"),
        ("<seed:think>", "</seed:think>"),
        ("◁think▷", "◁/think▷"),
        ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ],
)
def test_marks_of_a_thought_in_other_forms(left, right):
    def text(content):
        return replies.read({"choices": [{"text": content}]}).text

    assert text(f"{left}go west?{right}\ngo east") == "go east"
    assert text(f"{left}go west?") is None
    assert text("Use <think> tags") == "Use <think> tags"
