"""ServerLM and answers that are withheld, redirected, put off, not a number, or odd in what was asked."""

import json
import math
import time

import pytest
from scripted_server import chat, failed, refused, said, scripted

from armap_lite import llms
from armap_lite.llms import replies
from armap_lite.llms.client import ServerError
from armap_lite.llms.fields import STRUCTURED
from armap_lite.pipeline.commands import main

CALLS = [{"id": "1", "type": "function", "function": {"name": "act", "arguments": "{}"}}]
WITHHELD = [
    (chat("", "content_filter"), "finish_reason=content_filter"),
    (chat("half a line", "content_filter"), "finish_reason=content_filter"),
    (chat(None, refusal="I cannot help."), "a refusal (I cannot help.)"),
    (chat([{"type": "refusal", "refusal": "Not that."}]), "a refusal (Not that.)"),
    (chat(None, "tool_calls", tool_calls=CALLS), "calls of tools"),
    (chat(None, "function_call", function_call=CALLS[0]["function"]), "calls of tools"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "reason"), WITHHELD)
def test_a_withheld_answer_is_a_miss_and_its_reason_is_said_once(answer, reason, capsys):
    with scripted(answer) as server:
        lm = server.lm(endpoint="chat", parse_retries=0)
        assert [[c.text for c in row] for row in lm.generate(["a"], 2)] == [["", ""]]
        assert (lm.misses, lm.unfinished) == (2, 0)
        lm.choose(["a"], [["half a line", "x"]])
        assert (lm.misses, lm.parsed, lm.fallbacks) == (3, 0, 1)
    assert capsys.readouterr().err.count(f"withholds answers, which count as misses: {reason}") == 1


def test_an_answer_beside_calls_of_tools_is_read():
    assert replies.read(chat("4 * 6 = 24", "tool_calls", tool_calls=CALLS)[2]).text == "4 * 6 = 24"
    filtered = {"choices": [{"text": "go ea", "finish_reason": "content_filter"}]}
    assert replies.read(filtered).text is None


LINES = ["go east\nthen north", "go east", 'say "hi\\n"']


@pytest.mark.parametrize("endpoint", ["completions", "chat"])
@pytest.mark.parametrize("way", [*STRUCTURED, "none"])
def test_choices_of_several_lines_can_be_given(way, endpoint):
    def answer(path: str, request: dict):
        field = "response_format" if way == "json_schema" else way
        words = json.dumps(request.get(field)) if way != "none" else ""
        if way in ("structured_outputs", "guided_choice"):
            found = request[field] if way == "guided_choice" else request[field]["choice"]
            text = found[0]
        elif way == "grammar":
            text = json.loads(request[field].removeprefix("root ::= ").split(" | ")[0])
        elif way == "json_schema":
            schema = request[field]["json_schema"]["schema"]
            text = json.dumps({"choice": schema["properties"]["choice"]["enum"][0]})
        else:
            lines = (request.get("prompt") or request["messages"][0]["content"]).splitlines()
            text = next(line for line in lines if line.startswith("go east"))
        assert "\n" not in words
        stop = request.get("stop")
        text = text.split(stop)[0] if stop else text
        return chat(text) if path.endswith("/chat/completions") else said(text)

    with scripted(answer) as server:
        lm = server.lm(endpoint=endpoint, structured=way)
        [[choice]] = lm.choose(["a\n"], [LINES])
        assert (choice.text, choice.index, lm.misses) == (LINES[0], 0, 0)


@pytest.mark.parametrize("scoring", ["none", "auto"])
def test_equal_choices_share_their_probability(scoring):
    def answer(path: str, request: dict):
        if "prompt_logprobs" not in request:
            return said("x")
        texts = request["prompt"] if isinstance(request["prompt"], list) else [request["prompt"]]
        rows = [[None, *({str(ord(c)): {"logprob": -1.0}} for c in text[1:])] for text in texts]
        return refused(200, {"choices": [{"index": i, "text": "", "prompt_logprobs": r} for i, r in enumerate(rows)]})

    with scripted(answer) as server:
        lm = server.lm(scoring=scoring, samples=4)
        [row] = lm.choose(["go "], [["x", "y", "x"]], None, seeds=[1])
        [alone] = lm.choose(["go "], [["x", "y"]], None, seeds=[1])
    p = [math.exp(choice.logprob) for choice in row]
    assert sum(p) == pytest.approx(1) and p[0] == p[2]
    if scoring == "auto":
        assert [p[0] + p[2], p[1]] == pytest.approx([math.exp(choice.logprob) for choice in alone])


def scored(number: object):
    """A server whose log-probability of the second token is `number`, once it was found to tell any."""

    def answer(path: str, request: dict):
        texts = request["prompt"] if isinstance(request["prompt"], list) else [request["prompt"]]
        p = -1.0 if texts[0].startswith("A word") else number
        rows = [[None, {"go ": {"logprob": -1.0}}, {t[-2]: {"logprob": p}}, {"\n": {"logprob": -1.0}}] for t in texts]
        return refused(200, {"choices": [{"index": i, "text": "", "prompt_logprobs": r} for i, r in enumerate(rows)]})

    return answer


@pytest.mark.parametrize("number", [math.nan, math.inf, "NaN", -math.inf, None])
@pytest.mark.parametrize("n", [1, None])
def test_a_log_probability_that_is_no_number_is_one_error(number, n):
    with scripted(scored(number)) as server, pytest.raises(ServerError, match="sent no OpenAI answer but"):
        server.lm(scoring="prompt_logprobs").choose(["go "], [["x", "y"]], n)


def test_after_an_empty_prompt_choices_are_drawn_aloud(capsys):
    def answer(path: str, request: dict):
        if "prompt_logprobs" not in request:
            return said("y")
        texts = request["prompt"] if isinstance(request["prompt"], list) else [request["prompt"]]
        rows = [[None, *({c: {"logprob": -1.0}} for c in text[1:])] for text in texts]
        return refused(200, {"choices": [{"index": i, "text": "", "prompt_logprobs": r} for i, r in enumerate(rows)]})

    with scripted(answer) as server:
        lm = server.lm(scoring="prompt_logprobs")
        for _ in range(2):
            [[choice]] = lm.choose([""], [["xa", "yb", "y"]])
            assert choice.text == "y" and math.isnan(choice.logprob)
    assert capsys.readouterr().err.count("log-probability of a text's first token") == 1


@pytest.mark.parametrize("temperature", [math.nan, -1.0, math.inf])
def test_a_temperature_is_checked_before_a_request(temperature):
    with scripted(said("x")) as server:
        for ask in (
            lambda lm: lm.generate(["a"], temperature=temperature),
            lambda lm: lm.choose(["a"], [["x"]], temperature=temperature),
        ):
            with pytest.raises(ValueError, match=f"temperature={temperature} is not a finite number"):
                ask(server.lm())
        assert not server.seen


def test_half_a_character_is_named_before_a_request():
    with scripted(said("x")) as server:
        lm = server.lm()
        for ask in (
            lambda: lm.generate(["the door \ud83d is"]),
            lambda: lm.choose(["a"], [["x", "the door \ud83d is"]]),
        ):
            with pytest.raises(ValueError, match=r"half of a character, '\\ud83d'.*the door") as caught:
                ask()
            assert not isinstance(caught.value, UnicodeError)
        assert not server.seen


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirected_post_is_one_error_that_names_the_new_url(status):
    with scripted(said("wrong")) as other:
        moved = status, {"Location": f"{other.url}/completions?a=secret"}, ""
        with scripted(moved) as server, pytest.raises(ServerError) as caught:
            server.lm().generate(["a"])
        assert f"answered {status} (tries: 1)" in str(caught.value) and "secret" not in str(caught.value)
        assert f"it has moved to {other.url}: put that into the model's URL" in str(caught.value)
        assert not other.seen


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_that_stays_a_post_is_followed(status):
    with scripted(said("fine")) as other:
        with scripted((status, {"Location": f"{other.url}/completions"}, "")) as server:
            assert server.lm().generate(["a"])[0][0].text == "fine"
        assert other.seen[0][-1]["prompt"] == "a"


@pytest.mark.parametrize("wait", ["30", "3600", "Wed, 21 Oct 2099 07:28:00 GMT"])
def test_a_server_that_wants_a_long_wait_is_one_error(wait):
    with scripted(failed(429, "later", Retry_After=wait), said("fine")) as server:
        started = time.monotonic()
        with pytest.raises(ServerError, match=r"answered 429 \(tries: 1, Retry-After: .*too long to wait"):
            server.lm(timeout=20).generate(["a"])
        assert time.monotonic() - started < 5 and len(server.seen) == 1


ONE_OF = [
    "`temperature` and `top_p` cannot both be specified for this model. Please use only one.",
    "The parameters top_p and temperature are mutually exclusive",
    "top_p is not supported when temperature is set",
    "temperature is not supported when top_p is set",
    "Unsupported parameter: 'temperature' cannot be used together with 'top_p'",
]


@pytest.mark.parametrize("message", ONE_OF)
def test_where_only_one_of_both_is_taken_it_is_the_temperature(message):
    def answer(path: str, request: dict):
        return failed(400, message) if {"temperature", "top_p"} <= request.keys() else said("fine")

    with scripted(answer) as server:
        lm = server.lm()
        lm.generate(["a"], temperature=0.5)
        lm.generate(["a"], temperature=0.7)
        assert [body.get("temperature") for *_, body in server.seen] == [0.5, 0.5, 0.7]
        assert "top_p" not in server.seen[-1][-1]


def test_where_neither_is_taken_both_are_left_out():
    def answer(path: str, request: dict):
        odd = {"temperature", "top_p"} & request.keys()
        return failed(400, "Unsupported parameters: temperature, top_p") if odd else said("fine")

    with scripted(answer) as server:
        server.lm().generate(["a"], temperature=0.5)
        assert not {"temperature", "top_p"} & server.seen[-1][-1].keys()


def test_a_field_refused_while_weighing_costs_one_request_in_all():
    def answer(path: str, request: dict):
        if "prompt_logprobs" not in request:
            return said("x")
        if "temperature" in request:
            return failed(400, "Unsupported parameter: temperature")
        texts = request["prompt"] if isinstance(request["prompt"], list) else [request["prompt"]]
        rows = [[None, *({c: {"logprob": -1.0}} for c in text[1:])] for text in texts]
        return refused(200, {"choices": [{"index": i, "text": "", "prompt_logprobs": r} for i, r in enumerate(rows)]})

    with scripted(answer) as server:
        lm = server.lm(scoring="auto")
        for _ in range(3):
            lm.choose(["go "], [["x", "y"]])
        assert lm.scoring == "prompt_logprobs" and len(server.seen) == 5  # the probe twice
        lm.generate(["a"])
        assert "temperature" in server.seen[-1][-1]  # learned for weighing alone


@pytest.mark.parametrize("answer", ['{"choice": null}', '{"choice": 7}', "null", "[]", "{}"])
def test_json_without_a_choice_is_a_miss(answer):
    with scripted(chat(answer), chat("y")) as server:
        lm = server.lm(endpoint="chat", structured="json_schema")
        assert lm.choose(["a"], [["x", "y"]])[0][0].text == "y"
        assert (lm.misses, lm.parsed, lm.fallbacks) == (1, 1, 0)


def test_four_passing_errors_end_in_free_text_and_are_said(capsys):
    with scripted(*[failed(500)] * len(STRUCTURED), said("y")) as server:
        lm = server.lm(structured="auto", retries=0)
        assert lm.choose(["a"], [["x", "y"]])[0][0].text == "y" and lm.structured == "none"
    told = capsys.readouterr().err
    assert all(f"`{way}`" in told for way in STRUCTURED) and "choices are read from free text" in told


@pytest.mark.parametrize("option", ["--policy", "--data-llm", "--reward"])
@pytest.mark.parametrize("spec", ["", "  "])
def test_an_empty_name_of_a_model_is_one_line(option, spec, tmp_path, capsys):
    with pytest.raises(ValueError, match="no model is named"):
        llms.load(spec)
    assert main(["reproduce", "--env", "game24", "--out", str(tmp_path), option, spec]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: no model is named") and not list(tmp_path.iterdir())
