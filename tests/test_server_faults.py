"""ServerLM against a scripted server: retries, errors, refusals, and where its key shows."""

import asyncio
import contextlib
import json
import logging
import pickle
import re
import time
from pathlib import Path

import pytest
from scripted_server import failed, said, scripted

from armap_lite import llms
from armap_lite.llms.client import ServerError
from armap_lite.llms.fields import STRUCTURED
from armap_lite.pipeline.run import Run

KEY = "sk-sentinel-4711"
STEPS = ["8 * 3 = 24 (left: 2 24)", 'say "hi" \\ back', "öffne die Tür"]


def test_waits_as_long_as_a_429_says():
    with scripted(failed(429, Retry_After="1.2"), said("fine")) as server:
        assert server.lm().generate(["a"])[0][0].text == "fine"
        (first, *_), (second, *_) = server.seen
        assert second - first >= 1.2


def test_5xx_is_tried_again_and_waits_longer_each_time():
    with scripted(failed(500), failed(503), said("fine")) as server:
        assert server.lm().generate(["a"])[0][0].text == "fine"
        first, second, third = (at for at, *_ in server.seen)
        assert third - second > second - first > 0.3


def test_a_timeout_is_tried_again():
    slow = said(lambda _: time.sleep(0.6) or "late")
    with scripted(slow, said("fine")) as server:
        assert server.lm(timeout=0.3).generate(["a"])[0][0].text == "fine"
        assert len(server.seen) == 2
    silent = r"#m gave no answer within 0.3 s \(tries: 2\); raise timeout"
    with scripted(slow) as server, pytest.raises(ServerError, match=silent):
        server.lm(timeout=0.3, retries=1).generate(["a"])


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422])
def test_other_4xx_are_not_tried_again(status):
    with scripted(failed(status, "no such thing")) as server:
        with pytest.raises(ServerError) as caught:
            server.lm().generate(["a"])
        assert len(server.seen) == 1 and caught.value.status == status
        assert f"{server.url}#m answered {status} (tries: 1)" in str(caught.value) and "no such thing" in str(
            caught.value
        )
        assert ("OPENAI_API_KEY" in str(caught.value)) == (status in (401, 403))


def test_after_the_last_try_one_line_names_url_status_and_way_out():
    with scripted(failed(429, "slow\ndown")) as server:
        with pytest.raises(ServerError) as caught:
            server.lm(retries=1, concurrency=7).generate(["a"])
        assert len(server.seen) == 2
        assert "\n" not in str(caught.value)
        assert re.search(
            r"#m answered 429 \(tries: 2\).*slow.*lower concurrency=7, or raise retries=1$", str(caught.value)
        )


def test_nobody_there():
    with scripted(said("")) as server:
        url = server.url
    started = time.monotonic()
    with pytest.raises(ServerError) as caught:
        llms.load(f"{url}#m", retries=1).generate(["a"])
    assert str(caught.value).startswith(f"cannot reach {url}#m (tries: 2): ") and "refused" in str(caught.value)
    assert "\n" not in str(caught.value) and time.monotonic() - started > 0.3  # it did try again
    with pytest.raises(ServerError, match="cannot reach"):
        llms.load(url, retries=0)


@pytest.mark.parametrize(
    "reply",
    [
        (200, {}, '{"choices": [{"te'),
        (200, {"Content-Type": "text/html"}, "<html>\n<p>hello</p>"),
        (200, {}, {"object": "list", "data": None}),
        (200, {}, {"choices": []}),
    ],
    ids=["truncated", "html", "other", "empty"],
)
def test_no_completion_at_all(reply):
    with scripted(reply) as server:
        for ask in (lambda: server.lm().generate(["a"]), lambda: llms.load(server.url)):
            with pytest.raises(ServerError, match=f"^{server.url} sent no OpenAI answer but .*[^\n]*ending in /v1"):
                ask()


def test_requests_run_side_by_side_and_come_back_in_order():
    running, most = set(), []

    def answer(request: dict) -> str:
        running.add(request["prompt"])
        most.append(len(running))
        time.sleep(0.3 - int(request["prompt"]) / 50)  # the first answers last
        running.discard(request["prompt"])
        return request["prompt"]

    with scripted(said(answer)) as server:
        out = server.lm(concurrency=4).generate([str(i) for i in range(9)])
        assert [c.text for [c] in out] == [str(i) for i in range(9)]
        assert max(most) == 4
        assert {c.tokens for [c] in out} == {0}  # this server does not count


def test_what_a_request_holds():
    with scripted(said("text, more", {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7})) as server:
        [[one, two]] = server.lm(extra={"top_k": -1}).generate(
            ["a"], 2, max_tokens=3, temperature=0.7, stop=",", seeds=[9]
        )
        assert (one.text, one.tokens) == ("text", 7) and one == two  # cut here where the server does not cut
        bodies = [body for *_, body in server.seen]
        seeds = {body.pop("seed") for body in bodies}
        assert len(seeds) == 2 and all(0 <= seed < 2**31 for seed in seeds)
        wanted = {
            "model": "m",
            "prompt": "a",
            "max_tokens": 3,
            "temperature": 0.7,
            "top_p": 1.0,
            "stop": ",",
            "top_k": -1,
        }
        assert bodies == [wanted] * 2
        server.lm().generate(["a"])
        assert "seed" not in server.seen[-1][-1]


def test_chat_is_taken_where_there_are_no_completions():
    with scripted(failed(404, "a chat model"), said("fine")) as server:
        lm = server.lm(endpoint="auto")
        assert lm.generate(["a"])[0][0].text == "fine" and lm.endpoint == "chat"
        assert lm.generate(["b"])[0][0].text == "fine"
        assert [path for _, path, *_ in server.seen] == ["/v1/completions"] + ["/v1/chat/completions"] * 2
        assert server.seen[-1][-1]["messages"] == [{"role": "user", "content": "b"}]
        assert lm.choose(["b"], [["x", "fine"]])[0][0].index == 1
        asked = server.seen[-1][-1]["messages"][0]["content"]
        assert asked.startswith("b\n") and asked.endswith(":\nx\nfine")


def test_a_broken_server_decides_nothing():
    with scripted(failed(500)) as server:
        lm = server.lm(endpoint="auto", structured="auto", retries=0)
        for _ in range(2):
            with pytest.raises(ServerError, match="answered 500"):
                lm.choose(["a"], [["b"]])
        assert (lm.endpoint, lm.structured) == ("auto", "auto")


@pytest.mark.parametrize("way", list(STRUCTURED))
def test_each_structured_way_is_found_once(way):
    """A server that heeds one way, and ignores or refuses the others."""

    def answer(request: dict) -> str:
        known = {
            "structured_outputs": lambda: request["structured_outputs"]["choice"][-1],
            "guided_choice": lambda: request["guided_choice"][-1],
            "grammar": lambda: json.loads(request["grammar"].split(" | ")[-1]),
            "json_schema": lambda: json.dumps(
                {"choice": request["response_format"]["json_schema"]["schema"]["properties"]["choice"]["enum"][-1]}
            ),
        }
        field = "response_format" if way == "json_schema" else way
        return known[way]() if field in request else "well, let me think"

    replies = [said(answer)] if way == "grammar" else [failed(422)] * list(STRUCTURED).index(way) + [said(answer)]
    with scripted(*replies) as server:
        lm = server.lm(structured="auto")
        assert [(c.text, c.index) for [c] in lm.choose(["a"], [[*STEPS, STEPS[-1]]])] == [(STEPS[-1], 2)]
        assert lm.structured == way and lm.misses == 0
        assert str(server.seen[-1][-1]).count("Tür") == 1  # named twice, sent once: some refuse repeats
        asked = len(server.seen)
        lm.choose(["a"], [["x", "y"]])
        assert len(server.seen) == asked + 1  # remembered


def test_a_list_the_server_refuses_is_parsed_instead():
    with scripted(failed(400, "too many"), said("Answer: Y.")) as server:
        lm = server.lm(structured="grammar")
        assert lm.choose(["a"], [["x", "y"]])[0][0].text == "y"
        assert (lm.misses, lm.parsed, lm.fallbacks) == (1, 1, 0)
        assert "x\ny" in server.seen[-1][-1]["prompt"] and "grammar" not in server.seen[-1][-1]


def test_misses_are_bounded_counted_and_end_in_a_uniform_draw():
    with scripted(said("no idea", {"prompt_tokens": 3, "completion_tokens": 1})) as server:
        lm = server.lm(parse_retries=1)
        [row] = lm.choose(["a"], [["x", "y", "z"]], 12, seeds=[1])
        assert len(server.seen) == lm.misses == 24 and (lm.parsed, lm.fallbacks) == (0, 12)
        assert {c.text for c in row} == {"x", "y", "z"} and {c.tokens for c in row} == {24 * 4}
        again, other = (server.lm(parse_retries=1).choose(["a"], [["x", "y", "z"]], 12, seeds=[s])[0] for s in (1, 2))
        assert [c.text for c in again] == [c.text for c in row] != [c.text for c in other]


def test_misses_are_kept_and_add_up(tmp_path, capsys):
    first = said(lambda request: request["prompt"].split("\n")[1])  # of the listed actions
    with scripted(*[said("no idea"), said("no idea"), first] * 2) as server:
        for _ in range(2):  # the second Run goes on in the folder of the first
            policy = f"{server.url}#m endpoint=completions structured=none scoring=none parse_retries=0 concurrency=1"
            run = Run("game24", "fast", tmp_path, policy=policy, collect_tasks=1, samples=1, num_proposals=0)
            asyncio.run(run.collect())
            run.path("trajectories.jsonl").unlink()
    counts = json.loads(run.path("answers.json").read_text(encoding="utf-8"))
    assert counts == {"parsed": 2, "misses": 4, "fallbacks": 4, "asked": 6}  # three steps, twice
    assert capsys.readouterr().out.count(": 1 actions read out of free text, 2 answers not admissible, 2 actions") == 2


def test_a_miss_at_temperature_0_is_asked_again_at_another():
    with scripted(said("no idea"), said("x")) as server:
        assert server.lm().choose(["a"], [["x", "y"]], temperature=0.0)[0][0].text == "x"
        assert [body["temperature"] for *_, body in server.seen] == [0.0, 1.0]


def test_choose_refuses_what_makes_no_sense():
    with scripted(said("x")) as server:
        for prompts, choices in ((["a"], [[]]), (["a", "b"], [["x"]])):
            with pytest.raises(ValueError, match="choices"):
                server.lm().choose(prompts, choices)
        assert not server.seen


def test_the_key_is_sent_and_shown_nowhere(monkeypatch, caplog):
    monkeypatch.setenv("MY_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    with scripted(said("fine"), failed(401, f"wrong key {KEY} in header 'Bearer {KEY}'")) as server:
        lm = server.lm(api_key_env="MY_KEY")
        lm.generate(["a"])
        with pytest.raises(ServerError, match="MY_KEY") as caught:
            lm.generate(["a"])
        assert [headers["Authorization"] for _, _, headers, _ in server.seen] == [f"Bearer {KEY}"] * 2
    shown = [repr(lm), str(lm), repr(vars(lm)), caplog.text]
    shown += [repr(vars(part)) for part in (lm._client, lm._client._client)]
    frames = [entry.frame for entry in caught.traceback if Path(entry.path).name == "server.py"]
    shown += [f"{name} = {value!r}" for frame in frames for name, value in frame.f_locals.items()]
    error: BaseException | None = caught.value
    while error:
        shown.append(repr(error) + repr(vars(error)))
        error = error.__cause__ or error.__context__
    with contextlib.suppress(TypeError):  # locks and sockets
        shown.append(pickle.dumps(lm).decode("latin-1"))
    assert len(caplog.records) > 3 and len(frames) > 2 and not [text for text in shown if KEY in text]


def test_a_key_that_no_header_can_hold_is_not_quoted(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n{KEY}")
    with scripted(said("fine")) as server:
        with pytest.raises(ServerError) as caught:
            server.lm(retries=0).generate(["a"])
        assert KEY not in str(caught.value)


def test_the_key_is_read_when_it_is_needed_and_stays_with_its_server(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with (
        scripted(said("fine")) as other,
        scripted(said("fine"), (307, {"Location": f"{other.url}/completions"}, "")) as server,
    ):
        lm = server.lm()
        lm.generate(["a"])
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        lm.generate(["a"])
        first, second = (headers["Authorization"] for _, _, headers, _ in server.seen)
        assert KEY not in first and KEY in second
        named = server.url.replace("127.0.0.1", "LocalHost")  # the same place
        llms.load(f"{named}#m", endpoint="completions").generate(["a"])
        assert KEY in server.seen[-1][2]["Authorization"]
        assert other.seen and not any(KEY in str(headers) for _, _, headers, _ in other.seen)


def test_a_key_in_the_url_is_refused():
    with pytest.raises(ValueError) as caught:
        llms.load(f"http://me:{KEY}@127.0.0.1:1/v1#m")
    assert KEY not in str(caught.value) and "OPENAI_API_KEY" in str(caught.value)


def test_a_server_with_several_models_wants_a_name():
    listed = 200, {}, {"object": "list", "data": [{"id": "one"}, {"id": "two"}]}
    with scripted(listed) as server, pytest.raises(ValueError, match=f"{server.url} serves one, two; name one: http"):
        llms.load(server.url)
