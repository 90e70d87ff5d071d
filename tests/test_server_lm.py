"""ServerLM against a real llama.cpp server with the embedded model. Its faults: test_server_faults.py."""

import json
import math
import urllib.request
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from llama_server import serving

from armap_lite import llms
from armap_lite.llms.device import pick
from armap_lite.llms.match import match
from armap_lite.llms.server import ServerLM
from armap_lite.storage import assets

PROMPT = "Question: 2 + 3?\nAnswer: 5\nQuestion: 1 + 1?\nAnswer:"
STEPS = ["8 * 3 = 24 (left: 2 24)", "8 * 3 = 24 (left: 24)", 'say "hi" \\ back', "öffne die Tür"]  # overlaps, escapes


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """A llama.cpp server with the embedded model; it ends with this process, whatever happens to it."""
    with serving(str(assets.fetch("smollm2-135m-instruct")), "smol") as address:
        yield address


@pytest.fixture(scope="session")
def lm(url: str) -> ServerLM:
    return ServerLM(url, "smol", concurrency=2)


def test_generate_keeps_order_counts_tokens_and_stops(lm, url):
    prompts = [PROMPT, "The days: Monday, Tuesday, Wednesday,", "Once upon a"]
    out = lm.generate(prompts, 2, max_tokens=4, temperature=0.0)
    assert lm.endpoint == "completions"
    assert [len(texts) for texts in out] == [2, 2, 2]
    assert [texts[0] == texts[1] for texts in out] == [True] * 3  # greedy
    assert ["2" in out[0][0].text, "Thursday" in out[1][0].text, "time" in out[2][0].text] == [True] * 3
    assert all("\n" not in c.text for texts in out for c in texts)
    assert out[2][0].tokens == count(url, prompts[2]) + 4  # no newline in the four
    [[cut]] = lm.generate([prompts[1]], max_tokens=8, temperature=0.0, stop="day")
    assert cut.text.strip() == "Thurs"


def test_the_seed_of_each_item_and_sample_decides_its_text(url):
    lm = ServerLM(url, "smol", concurrency=1)
    ask = {"max_tokens": 6, "temperature": 1.5}
    [first] = lm.generate(["Once upon a"], 2, seeds=[1], **ask)
    assert first[0].text != first[1].text
    again, other = lm.generate(["Once upon a"] * 2, 1, seeds=[1, 2], **ask)
    assert again[0] == first[0]  # neither n nor the place in the batch matters
    assert other[0].text not in {c.text for c in first}


def test_chat_wraps_the_prompt_in_the_models_template(lm, url):
    question = "What is the capital of France?"
    chat = ServerLM(url, "smol", endpoint="chat")
    [[asked]], [[continued]] = (one.generate([question], max_tokens=8, temperature=0.0) for one in (chat, lm))
    assert asked.text and asked.text != continued.text
    assert asked.tokens > count(url, question) + 8


def test_structured_choices_are_found_out_and_admissible(lm):
    lm.misses = lm.parsed = 0
    out = lm.choose([PROMPT, "Move:\n"], [["elephant", "2", "house"], STEPS], 2, seeds=[1, 2])
    assert (lm.structured, lm.scoring) == ("grammar", "none")
    for options, draws in zip([["elephant", "2", "house"], STEPS], out):
        assert len(draws) == 2 and all(options[c.index] == c.text for c in draws)
        assert all(math.isnan(c.logprob) and c.tokens > 0 for c in draws)
    assert (lm.misses, lm.parsed, lm.fallbacks) == (0, 0, 0)  # the server did it all
    [[sure]] = lm.choose([PROMPT + " "], [["elephant", "2", "house"]], 1, temperature=0.0)
    assert sure.text == "2"


def test_every_choice_with_its_estimated_probability(lm):
    [row] = lm.choose([PROMPT + " "], [["elephant", "2", "house"]], None, seeds=[3])
    assert [c.index for c in row] == [0, 1, 2]
    assert sum(math.exp(c.logprob) for c in row) == pytest.approx(1)
    assert row[1].logprob == max(c.logprob for c in row) and all(c.logprob > -math.inf for c in row)
    [row] = lm.choose([PROMPT + " "], [["elephant", "2", "house"]], None, temperature=0.0)
    assert [c.logprob for c in row] == [-math.inf, 0.0, -math.inf]


@pytest.mark.slow
def test_by_chat_a_way_to_restrict_answers_is_found_as_well(url):
    lm = ServerLM(url, "smol", endpoint="chat", concurrency=2)
    [draws] = lm.choose(["Which move?"], [STEPS], 2, seeds=[1])
    assert lm.structured != "none" and all(STEPS[c.index] == c.text for c in draws)
    assert (lm.misses, lm.parsed, lm.fallbacks) == (0, 0, 0)


def test_choices_as_a_json_schema(url):
    lm = ServerLM(url, "smol", endpoint="chat", structured="json_schema")
    [[choice]] = lm.choose(["Which move?"], [STEPS], seeds=[1])
    assert choice.text in STEPS and (lm.misses, lm.parsed) == (0, 0)


def test_choices_read_from_free_text_are_admissible(url):
    lm = ServerLM(url, "smol", structured="none", parse_retries=1)
    options = ["go north", "go south"]
    [draws] = lm.choose(["Choose a direction.\n"], [options], 3, seeds=[1])
    assert all(options[c.index] == c.text for c in draws)
    assert lm.parsed + lm.fallbacks == 3 and lm.misses >= 2 * lm.fallbacks


def test_load_by_url(url):
    assert llms.load(f"{url}#smol", concurrency=3).concurrency == 3
    assert llms.load(url).name == "smol"  # the only one there


def count(url: str, text: str) -> int:
    request = urllib.request.Request(
        url.replace("/v1", "/tokenize"), json.dumps({"content": text}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as reply:
        return len(json.load(reply)["tokens"])


texts = st.text("ab 1.(\\\n", max_size=6)


@given(st.lists(texts, min_size=1, max_size=5), texts, st.sampled_from(["{}", " {}\n", "I say: {}!", '"{}"']))
def test_match_never_leaves_the_choices_nor_misses_one_given_as_it_is(choices, answer, frame):
    found = match(frame.format(answer), choices)
    assert found is None or 0 <= found < len(choices)
    if answer in choices and frame == "{}":
        assert found is not None or len({c for c in choices if c.strip() == answer.strip()}) > 1
        assert found is None or choices[found].strip() == answer.strip()


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("go north", 0),
        ("GO  NORTH\n", 0),
        ("I think `go north` is best.", None),  # no sentence is read
        ("Go  North", 0),
        ("go north or go south", None),
        ("ergo northern", None),
        ("11 + 2 = 13", None),  # not 1 + 2 = 13
        ("", None),
    ],
)
def test_match(answer, found):
    assert match(answer, ["go north", "go south", "1 + 2 = 13"]) == found


@pytest.mark.slow
def test_load_by_name_runs_here():
    lm = llms.load("smollm2-135m-instruct", device="cpu", dtype="float32", capacity=64)
    assert (lm.name, lm.model.dtype) == ("smollm2-135m-instruct", torch.float32)
    assert lm.choose([PROMPT + " "], [["elephant", "2"]], temperature=0.0)[0][0].text == "2"


@pytest.mark.parametrize("spec", ["http://127.0.0.1:1/v1#m", "smollm2-135m-instruct"])
def test_an_unknown_option_is_named(spec, monkeypatch):
    monkeypatch.setattr(assets, "resolve_model", lambda spec: pytest.fail("loaded before the options were checked"))
    with pytest.raises(TypeError, match="colour"):
        llms.load(spec, colour="red")


def test_unknown_ways_are_named():
    for options in ({"endpoint": "post"}, {"structured": "xml"}):
        with pytest.raises(ValueError, match=r"post|xml"):
            ServerLM("http://127.0.0.1:1/v1", "m", **options)


def test_pick():
    assert pick("cpu", "float16") == (torch.device("cpu"), torch.float16)
    assert pick("cpu")[1] in (torch.float32, torch.bfloat16)
    with pytest.raises(ValueError, match="int8"):
        pick("cpu", "int8")
