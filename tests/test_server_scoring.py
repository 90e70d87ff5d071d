"""`choose` by log-probabilities of given text, against servers that answer as vLLM does, with a real model behind."""

import functools
import math

import numpy as np
import pytest
import torch
from scripted_server import Scripted, failed, said, scripted
from tiny import tiny_lm

from armap_lite.llms.client import ServerError
from armap_lite.llms.fields import weights
from armap_lite.llms.server import ServerLM

PROMPTS = ["Use the numbers 1 4 8 8\n", "left: 3 3 4\nöffne die Tür\n"]
CHOICES = [["8 * 4 = 32", "8 / 4 = 2", "8 * 4 = 3", "öffne die Tür"], ["3 + 3 = 6", "3", "3 + 3 = 6", "33"]]


@functools.cache
def local():
    return tiny_lm()


def logprobs(text: str) -> tuple[list[int], list[float | None]]:
    lm = local()
    ids = [lm.lines.start, *lm.tokenizer(text, add_special_tokens=False)["input_ids"]]
    with torch.inference_mode():
        logp = lm.model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    return ids, [None, *(float(logp[i, token]) for i, token in enumerate(ids[1:]))]


def vllm(path: str, request: dict, knows: bool = True):
    """A reply as vLLM's /v1/completions writes it: one choice with `prompt_logprobs` for each prompt."""
    texts = request["prompt"] if isinstance(request["prompt"], list) else [request["prompt"]]
    choices, used = [], 0
    for index, text in enumerate(texts):
        choice = {"index": index, "text": " x", "logprobs": None, "finish_reason": "length", "stop_reason": None}
        ids, logp = logprobs(text)
        used += len(ids)
        spelled = local().tokenizer.batch_decode([[i] for i in ids])
        choice["prompt_logprobs"] = None
        if "prompt_logprobs" in request and knows:
            choice["prompt_logprobs"] = [
                None if p is None else {str(i): {"logprob": p, "rank": 1, "decoded_token": s}}
                for i, p, s in zip(ids, logp, spelled)
            ]
        choices.append(choice)
    usage = {"prompt_tokens": used, "completion_tokens": len(texts), "total_tokens": used + len(texts)}
    return (
        200,
        {},
        {"id": "cmpl-1", "object": "text_completion", "created": 1, "choices": choices[::-1], "usage": usage},
    )


def scorer(server: Scripted, **options) -> ServerLM:
    return server.lm(scoring="auto", **options)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.0])
def test_choices_are_weighed_as_the_model_itself_weighs_them(temperature):
    with scripted(vllm) as server:
        lm = scorer(server)
        rows = lm.choose(PROMPTS, CHOICES, None, temperature=temperature)
        assert lm.scoring == "prompt_logprobs" and lm.structured == "none"
    wanted = local().choose(PROMPTS, CHOICES, None, temperature=temperature)
    for row, want in zip(rows, wanted):
        assert [(c.text, c.index) for c in row] == [(c.text, c.index) for c in want]
        np.testing.assert_allclose([c.logprob for c in row], [c.logprob for c in want], atol=1e-3)
        assert row[0].tokens > 0


def test_draws_follow_the_weights_and_the_seeds_as_they_do_locally():
    with scripted(vllm) as server:
        lm = scorer(server)
        mine = lm.choose(PROMPTS, CHOICES, 50, seeds=[1, 2], temperature=2.0)
        again = lm.choose(PROMPTS[1:], CHOICES[1:], 50, seeds=[2], temperature=2.0)
    wanted = local().choose(PROMPTS, CHOICES, 50, seeds=[1, 2], temperature=2.0)
    assert [[c.index for c in row] for row in mine] == [[c.index for c in row] for row in wanted]
    assert again[0] == mine[1] and len({c.index for c in mine[0]}) > 1
    assert all(math.isfinite(c.logprob) for row in mine for c in row)


def test_it_is_found_out_once_and_choices_of_a_prompt_share_a_request():
    with scripted(vllm) as server:
        lm = scorer(server)
        lm.choose(PROMPTS[:1], CHOICES[:1])
        assert len(server.seen) == 2
        lm.choose(PROMPTS, CHOICES)
        assert len(server.seen) == 4 and isinstance(server.seen[-1][-1]["prompt"], list)
        many = [f"{a} + {b}" for a in range(7) for b in range(7)]
        [row] = lm.choose(PROMPTS[:1], [many], None)
        assert len(row) == 49 and sum(math.exp(c.logprob) for c in row) == pytest.approx(1)
        assert max(len(body["prompt"]) for *_, body in server.seen) <= 32 and len(server.seen) == 6


def test_a_prompt_that_merges_with_its_choices_is_weighed_over_the_whole_text():
    lm = local()
    prompt, options = "8 * 4 = 3", ["2", "6", "x"]  # "32" may be one token
    whole = [logprobs(f"{prompt}{option}\n") for option in options]
    wanted = np.array([sum(p for p in logp if p is not None) for _, logp in whole])
    wanted -= np.log(np.exp(wanted).sum())
    assert any(ids[: len(lm.lines(prompt)) + 1] != [lm.lines.start, *lm.lines(prompt)] for ids, _ in whole)
    with scripted(vllm) as server:
        [row] = scorer(server).choose([prompt], [options], None)
    np.testing.assert_allclose([c.logprob for c in row], wanted, atol=1e-4)


@pytest.mark.parametrize(
    "answer",
    [
        said("hm"),
        failed(400, "unknown field"),
        failed(500, "logits_all must be True"),
        lambda path, request: vllm(path, request, knows=False),
    ],
    ids=["ignored", "refused", "broken", "null"],
)
def test_where_text_is_not_weighed_choices_are_drawn_as_ever(answer, capsys):
    def mixed(path: str, request: dict):
        if "prompt_logprobs" in request:
            return answer(path, request) if callable(answer) else answer
        return said(CHOICES[0][1])

    with scripted(mixed) as server:
        lm = scorer(server, retries=0)
        assert lm.choose(PROMPTS[:1], CHOICES[:1])[0][0].index == 1
        asked = len(server.seen)
        assert math.isnan(lm.choose(PROMPTS[:1], CHOICES[:1])[0][0].logprob)
        assert lm.scoring == "none" and len(server.seen) == asked + 1
    assert ("choices are drawn, not weighed" in capsys.readouterr().err) == (
        answer == failed(500, "logits_all must be True")
    )


def test_by_token_and_by_chat_choices_are_drawn():
    with scripted(lambda path, request: said(CHOICES[0][1])) as server:
        scorer(server).choose(PROMPTS[:1], CHOICES[:1], decoding="token")
        scorer(server, endpoint="chat").choose(PROMPTS[:1], CHOICES[:1])
        assert not any("prompt_logprobs" in body for *_, body in server.seen)


def test_extra_reaches_a_scoring_request_but_not_its_length():
    with scripted(vllm) as server:
        scorer(server, extra={"max_tokens": 4000, "priority": 1}).choose(PROMPTS[:1], CHOICES[:1])
        assert all(body["max_tokens"] <= 1 and body["priority"] == 1 for *_, body in server.seen)


def test_a_server_that_stops_weighing_is_an_error_not_a_guess():
    with scripted(vllm, said("hm")) as server, pytest.raises(ServerError, match="no OpenAI answer"):
        scorer(server).choose(PROMPTS, CHOICES)


def test_weights_start_where_texts_differ():
    a, b = [("x", math.nan), ("y", -1.0), ("z", -2.0)], [("x", math.nan), ("y", -1.5), ("w", -3.0), ("v", -1.0)]
    assert weights([a, b]) == [-2.0, -4.0]
    assert weights([a]) == weights([a, a])[:1] == [0.0]
    assert weights([[("x", math.nan), ("\ufffd", -1.0)], [("x", math.nan), ("\ufffd", -2.0)]]) == [-1.0, -2.0]
    with pytest.raises(ValueError, match="first token"):
        weights([[("x", math.nan)], [("y", math.nan)]])
