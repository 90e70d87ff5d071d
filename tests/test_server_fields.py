"""ServerLM and servers that refuse fields, break at them, hide errors in a 200, or stand behind a proxy."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_server import chat, failed, refused, said, scripted

from armap_lite import llms
from armap_lite.llms import replies
from armap_lite.llms.client import ServerError
from armap_lite.llms.fields import STRUCTURED

FIELDS = ["max_tokens", "temperature", "top_p", "stop", "seed"]
WAYS = {  # how servers say that they refuse a field
    "openai": lambda f: (400, {"error": {"message": f"Unsupported parameter: '{f}' is not supported.", "param": f}}),
    "openai value": lambda f: (400, {"error": {"message": f"Unsupported value: '{f}' does not support this value."}}),
    "older openai": lambda f: (400, {"error": {"message": f"Unrecognized request argument supplied: {f}"}}),
    "pydantic": lambda f: (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", f], "msg": "Extra inputs"}]}),
    "nested text": lambda f: (400, {"error": {"message": json.dumps({"detail": [{"loc": ["body", f]}]})}}),
    "mistral": lambda f: (422, {"object": "error", "message": {"detail": [{"loc": ["body", f], "msg": "no"}]}}),
    "google": lambda f: (400, {"error": {"message": f'Invalid JSON payload. Unknown name "{f}": Cannot find field.'}}),
    "python": lambda f: (500, {"error": f"create() got an unexpected keyword argument '{f}'"}),
}  # fmt: skip


def strict(known: set[str], way: str, endpoint: str = "/chat/completions"):
    """A server that refuses, one after the other, all fields but the `known` ones."""

    def answer(path: str, request: dict):
        if not path.endswith(endpoint):
            return failed(404, "no such route")
        odd = sorted(set(request) - known - {"model", "messages", "prompt"})
        return refused(*WAYS[way](odd[0])) if odd else said("fine, really\nmore")

    return answer


@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("endpoint", ["/chat/completions", "/completions"])
def test_every_refused_field_is_left_out_from_then_on_and_said_once(way, endpoint, capsys):
    with scripted(strict(set(), way, endpoint)) as server:
        lm = server.lm(endpoint="auto", retries=0)
        assert [c.text for [c] in lm.generate(["a", "b"], seeds=[1, 2])] == ["fine, really"] * 2
        asked = len(server.seen)
        lm.generate(["c"], seeds=[3], temperature=1.0)
        assert len(server.seen) == asked + 1  # learned
        assert server.seen[-1][-1].keys() - {"prompt", "messages"} == {"model"}
    told = capsys.readouterr().err
    assert all(told.count(f"`{name}") == 1 for name in FIELDS)
    assert "does not take `seed`: answers are not repeatable" in told


def test_several_fields_refused_in_one_answer():
    def answer(path: str, request: dict):
        odd = [{"loc": ["body", name], "msg": "Extra inputs"} for name in ("seed", "stop") if name in request]
        return refused(422, {"detail": odd}) if odd else said("fine\nmore")

    with scripted(answer) as server:
        assert server.lm().generate(["a"], seeds=[1])[0][0].text == "fine"
        assert FIELDS[:3] == [name for name in FIELDS if name in server.seen[-1][-1]] and len(server.seen) == 3


@pytest.mark.parametrize(
    ("field", "new", "message"),
    [
        ("max_tokens", "max_completion_tokens", "'max_tokens' is not supported. Use 'max_completion_tokens' instead."),
        ("seed", "random_seed", "Unknown field `seed`, did you mean `random_seed`?"),
    ],
)
def test_a_field_with_another_name_is_renamed(field, new, message, capsys):
    with scripted(refused(400, {"error": {"message": message, "param": field}}), said("fine")) as server:
        lm = server.lm(concurrency=1)
        lm.generate(["a", "b"], seeds=[1, 2], max_tokens=7)
        assert all(new in body and field not in body for *_, body in server.seen[-2:])
    assert capsys.readouterr().err.count(f"takes `{field}` under the name `{new}`") == 1


def test_a_new_name_that_is_refused_as_well_is_left_out():
    with scripted(
        refused(400, {"error": {"message": "Unknown `seed`, did you mean `random_seed`?"}}),
        refused(400, {"error": {"message": "Unknown field `random_seed`, did you mean `seed`?"}}),
        said("fine"),
    ) as server:
        server.lm(concurrency=1).generate(["a", "b"], seeds=[1, 2])
        assert len(server.seen) == 4 and not {"seed", "random_seed"} & server.seen[-1][-1].keys()


def test_a_temperature_that_is_refused_is_not_sent_and_another_one_is(capsys):
    def answer(path: str, request: dict):
        if request.get("temperature", 1) != 1:
            return failed(400, "'temperature' does not support 0. Only the default (1) is supported.")
        return said("fine")

    with scripted(answer) as server:
        lm = server.lm()
        for heat in (0.0, 1.0, 0.0):
            lm.generate(["a"], temperature=heat)
        assert [body.get("temperature") for *_, body in server.seen] == [0.0, None, 1.0, None]
    told = capsys.readouterr().err
    assert told.count("does not take `temperature=0.0`: answers are drawn at the server's own temperature") == 1


@pytest.mark.parametrize(
    "message",
    [
        "max_tokens is too large: 64. This model supports at most 16 completion tokens.",
        "This model's maximum context length is 32 tokens, but you requested 90 in the messages.",
        "The response was filtered due to the prompt.",
        "Invalid request",
        "Invalid value for 'messages'",
    ],
)
def test_what_names_no_field_stays_an_error(message):
    with scripted(failed(400, message)) as server:
        with pytest.raises(ServerError, match="answered 400"):
            server.lm().generate(["a"], seeds=[1])
        assert len(server.seen) == 1


def test_learning_is_safe_with_many_requests_at_once(capsys):
    with scripted(strict({"max_tokens"}, "openai", "/completions")) as server:
        out = server.lm(concurrency=16).generate(["a"] * 64, seeds=range(64))
        assert len(out) == 64 and len(server.seen) <= 64 + 16 * len(FIELDS)
    assert capsys.readouterr().err.count("`seed`") == 1


def test_extra_overrides_and_none_leaves_out():
    with scripted(said("fine")) as server:
        server.lm(extra={"max_completion_tokens": 500, "max_tokens": None, "seed": None}).generate(["a"], seeds=[1])
        assert not {"max_tokens", "seed"} & server.seen[-1][-1].keys()
        assert server.seen[-1][-1]["max_completion_tokens"] == 500


UNRELATED = [
    "The prompt is invalid: extra text after stop token",
    "The prompt is invalid: extra text after 'stop' token",
    "Invalid value in messages[0]: stop and seed are forbidden words",
    "Unexpected end of the prompt; stop here, or try another seed",
    "Extra data in JSON: {'model': 'm', 'seed': 1, 'stop': 'x', 'temperature': 0.0}",
    "Stop is a word that is not allowed here",
]


@pytest.mark.parametrize("message", UNRELATED)
def test_a_refusal_of_something_else_teaches_nothing(message, capsys):
    with scripted(lambda path, request: failed(400, message) if request["prompt"] == "odd" else said("fine")) as server:
        lm = server.lm(concurrency=1)
        with pytest.raises(ServerError, match="answered 400"):
            lm.generate(["odd"], temperature=0.0, seeds=[1])
        assert len(server.seen) <= 1 + len(FIELDS)
        lm.generate(["a"], temperature=0.0, seeds=[1])
        assert {"stop", "seed", "temperature", "top_p"} <= server.seen[-1][-1].keys()
    assert "does not take" not in capsys.readouterr().err


@pytest.mark.parametrize("param", ["messages.0.stop", "logprobs", "prompt"])
def test_what_the_answer_says_of_another_field_teaches_nothing(param):
    body = {"error": {"message": "Unsupported: 'stop' and 'seed'", "param": param}}
    assert replies.refused(json.dumps(body), {"stop", "seed"}) is None


@pytest.mark.parametrize(
    "message",
    [
        "unsupported parameter: seed",
        "seed is not supported",
        "The parameter seed is currently not supported by this model",
        "Unrecognized request arguments supplied: seed, stop",
        "create() got an unexpected keyword argument 'seed'",
        "1 validation error for Request seed Extra inputs are not permitted [type=extra_forbidden]",
        "This model does not support the seed parameter",
        "Additional properties are not allowed ('seed' was unexpected)",
        "unknown field `seed`, expected one of `model`, `stop`, `temperature`",
        "supported fields are model, stop, temperature; unknown: seed",
        "[{'type': 'extra_forbidden', 'loc': ('body', 'seed'), 'input': {'stop': 'x', 'temperature': 1}}]",
    ],
)
def test_only_the_field_that_is_refused_is_left_out_whatever_the_words(message):
    def answer(path: str, request: dict):
        return failed(400, message) if "seed" in request else said("fine")

    with scripted(answer) as server:
        server.lm().generate(["a"], seeds=[1])
        left = [name for name in FIELDS if name not in server.seen[-1][-1]]
    assert left == ["seed"]


def test_what_is_left_out_in_vain_is_sent_again(capsys):
    """Only a request that succeeds without a field shows that the field was at fault."""
    wrong = failed(400, "Parameter seed is not supported")
    with scripted(wrong, failed(400, "The prompt is too odd"), said("fine")) as server:
        lm = server.lm(concurrency=1)
        with pytest.raises(ServerError, match="too odd"):
            lm.generate(["a"], seeds=[1])
        assert "seed" not in server.seen[1][-1]
        lm.generate(["b"], seeds=[1])
        assert "seed" in server.seen[-1][-1]
    assert "does not take" not in capsys.readouterr().err


names = st.sampled_from(["max_tokens", "seed", "stop", "top_k"])


@given(st.sampled_from(list(WAYS)), names, st.sets(names))
def test_only_fields_that_were_sent_are_ever_refused(way, field, sent):
    assert replies.refused(json.dumps(WAYS[way](field)[1]), sent) == ((field, None) if field in sent else None)


@given(
    st.text()
    | st.recursive(st.none() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)).map(json.dumps)
)
def test_any_answer_can_be_read(text):
    assert replies.refused(text, {"seed"}) in (None, ("seed", None)) or "_" in text
    assert replies.hidden_status(text) in (None, 400, 404, 429)


@pytest.mark.parametrize("status", [400, 403, 404, 405, 410, 422, 501])
def test_a_server_without_completions_is_asked_by_chat(status):
    def answer(path: str, request: dict):
        return chat("fine") if path.endswith("/chat/completions") else failed(status, "not here")

    with scripted(answer) as server:
        assert server.lm(endpoint="auto", retries=0).generate(["a"])[0][0].text == "fine"


def test_a_403_everywhere_names_the_key():
    with scripted(failed(403, "no")) as server, pytest.raises(ServerError, match=r"403.*OPENAI_API_KEY"):
        server.lm(endpoint="auto").generate(["a"])


@pytest.mark.parametrize(
    "error",
    [
        {"error": {"message": "Provider returned error", "code": 502}},
        {"error": {"message": "overloaded", "status": "503"}},
        {"object": "error", "message": "busy", "code": 500},
        {
            "choices": [
                {"index": 0, "text": "", "error": {"code": 502, "message": "upstream"}, "finish_reason": "error"}
            ]
        },
        {"error": "Rate limit exceeded"},
    ],
)
def test_an_error_with_status_200_is_tried_again_as_its_own_code(error):
    with scripted(refused(200, error), said("fine")) as server:
        assert server.lm().generate(["a"])[0][0].text == "fine"
        assert len(server.seen) == 2


def test_an_error_with_status_200_that_stays_is_named_with_its_code():
    with scripted(refused(200, {"error": {"message": "no such model", "code": 404}})) as server:
        with pytest.raises(ServerError, match=r"answered 404 \(tries: 1\).*no such model") as caught:
            server.lm().generate(["a"])
        assert caught.value.status == 404 and len(server.seen) == 1


def test_an_unexpected_endpoint_with_status_200_is_none():
    def answer(path: str, request: dict):
        if path == "/v1/chat/completions":
            return chat("fine")
        return refused(200, {"error": f"Unexpected endpoint or method. (POST {path})"})

    with scripted(answer) as server:
        assert server.lm(endpoint="auto").generate(["a"])[0][0].text == "fine"
        with pytest.raises(ServerError, match="that the URL ends in /v1"):
            llms.load(server.url.removesuffix("/v1"))


def test_an_error_field_that_is_null_is_no_error():
    status, headers, body = chat("fine")
    with scripted((status, headers, {**body, "error": None, "usage": None})) as server:
        [[answer]] = server.lm(endpoint="chat").generate(["a"])
        assert (answer.text, answer.tokens) == ("fine", 0)


@pytest.mark.parametrize("endpoint", ["completions", "chat"])
@pytest.mark.parametrize("status", [500, 501])
def test_where_a_structured_field_breaks_the_server_another_way_is_taken(endpoint, status, capsys):
    fields = {*STRUCTURED, "response_format"}

    def answer(path: str, request: dict):
        return failed(status, "Internal server error") if fields & request.keys() else said("Answer: y.")

    with scripted(answer) as server:
        lm = server.lm(endpoint=endpoint, structured="auto", retries=3)
        assert lm.choose(["a"], [["x", "y"]])[0][0].text == "y"
        assert lm.structured == "none" and len(server.seen) <= 2 * len(STRUCTURED) + 2  # one retry each
        lm.choose(["a"], [["x", "y"]])
    told = capsys.readouterr().err
    assert told.count("fails at requests with") == 1 and "`json_schema`: choices are read from free text" in told


def test_where_one_way_breaks_the_server_the_next_one_is_found(capsys):
    def answer(path: str, request: dict):
        if {"structured_outputs", "guided_choice"} & request.keys():
            return failed(500)
        return said(json.loads(request["grammar"].split(" | ")[-1]) if "grammar" in request else "hm")

    with scripted(answer) as server:
        lm = server.lm(structured="auto", retries=0)
        assert lm.choose(["a"], [["x", "y"]])[0][0].text == "y" and lm.structured == "grammar"
    assert "`structured_outputs`, `guided_choice`: `grammar` is used" in capsys.readouterr().err


def test_a_way_that_breaks_later_is_given_up_after_a_few_tries(capsys):
    with scripted(lambda path, request: failed(500) if "grammar" in request else said("x")) as server:
        lm = server.lm(structured="grammar", retries=0, concurrency=1)
        lm.choose(["a"], [["x", "y"]], 6)
        assert sum("grammar" in body for *_, body in server.seen) == 3 and lm.structured == "none"
        assert (lm.misses, lm.parsed, lm.fallbacks) == (3, 6, 0)
    assert "with `grammar`: choices are read from free text there" in capsys.readouterr().err


@pytest.mark.parametrize("retries", [0, 1])
def test_a_server_that_breaks_at_everything_decides_nothing(retries):
    with scripted(failed(500)) as server:
        lm = server.lm(endpoint="chat", structured="auto", retries=retries)
        with pytest.raises(ServerError, match="answered 500"):
            lm.choose(["a"], [["x", "y"]])
        assert lm.structured == "auto"


def test_a_query_of_the_url_goes_with_each_request():
    with scripted(said("fine")) as server:
        lm = llms.load(f"{server.url}?api-version=2024-10-21&x=1#m endpoint=completions")
        lm.generate(["a"])
        assert [path for _, path, *_ in server.seen] == ["/v1/completions?api-version=2024-10-21&x=1"]
    with scripted(refused(200, {"data": [{"id": "one"}]})) as server:
        assert llms.load(f"{server.url}?api-version=1").name == "one"
        assert server.seen[-1][1] == "/v1/models?api-version=1"


PROXIES = ["socks://127.0.0.1:9/", "socks5://127.0.0.1:9", "http://127.0.0.1:9", "nonsense"]


@pytest.mark.parametrize("variable", ["ALL_PROXY", "HTTP_PROXY", "http_proxy"])
@pytest.mark.parametrize("value", PROXIES)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_no_proxy_is_asked_for_this_machine(variable, value, host, monkeypatch):
    monkeypatch.setenv(variable, value)
    with scripted(said("fine")) as server:
        url = server.url.replace("127.0.0.1", host)
        lm = llms.load(f"{url}#m endpoint=completions retries=0")
        assert lm.generate(["a"])[0][0].text == "fine"


@pytest.mark.parametrize("value", ["socks://me:secret@127.0.0.1:9/", "socks5://127.0.0.1:9"])
def test_a_proxy_that_cannot_be_used_is_named(value, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(ServerError, match=r"ALL_PROXY=socks.*unset it") as caught:
        llms.load("http://models.example/v1#m")
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)


def test_a_refused_field_does_not_change_what_is_drawn():
    """Without `seed`, choose(n=None) still estimates a distribution."""
    with scripted(strict({"max_tokens", "temperature"}, "openai", "/completions")) as server:
        [row] = server.lm(structured="none").choose(["a"], [["fine, really", "other"]], None, seeds=[1])
        assert sum(math.exp(choice.logprob) for choice in row) == pytest.approx(1)


def test_a_probe_teaches_nothing_about_fields():
    small = "Invalid 'max_tokens': integer below minimum value. Expected a value >= 2, but got 1 instead."

    def answer(path: str, request: dict):
        if request.get("max_tokens") == 1:
            return 400, {}, {"error": {"message": small, "param": "max_tokens"}}
        return said("b")

    with scripted(answer) as server:
        lm = server.lm(scoring="auto", structured="none")
        lm.choose(["a"], [["a", "b"]])
        lm.generate(["a"])
        assert server.seen[-1][-1]["max_tokens"] == 64
    assert replies.refused(json.dumps({"error": {"message": small, "param": "max_tokens"}}), FIELDS) is None


@pytest.mark.parametrize("error", ["overloaded", {"message": "Service Unavailable"}, {"code": 503.0}])
def test_a_passing_error_decides_nothing(error):
    passing = (200, {"Retry-After": "0.01"}, {"error": error})
    with scripted(passing, said("fine")) as server:
        lm = server.lm(endpoint="auto")
        lm.generate(["a"])
        assert lm.endpoint == "completions"


def test_a_forbidden_request_is_no_missing_endpoint():
    with scripted(refused(403, "<html>blocked</html>")) as server:
        lm = server.lm(endpoint="auto")
        with pytest.raises(ServerError):
            lm.generate(["a"])
        assert lm.endpoint == "auto"


def test_what_auto_falls_back_to_is_said(capsys):
    def answer(path: str, request: dict):
        return said("a") if path.endswith("/chat/completions") else failed(404, "no such route")

    with scripted(answer) as server:
        server.lm(endpoint="auto", structured="auto").choose(["p"], [["a", "b"]])
    told = capsys.readouterr().err
    assert "endpoint=chat" in told and "structured=none" in told
