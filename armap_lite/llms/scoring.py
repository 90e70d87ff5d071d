"""Log-probabilities of given text from a server that tells them, as vLLM does; llama.cpp does not."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from armap_lite.llms.choices import tempered
from armap_lite.llms.client import REFUSED, Client, ServerError

# How they are asked for, in the order it is tried. vLLM generates one token at least; it is not read.
SCORING: dict[str, dict[str, Any]] = {
    "prompt_logprobs": {"prompt_logprobs": 0, "max_tokens": 1},  # vLLM
    "echo": {"echo": True, "logprobs": 1, "max_tokens": 0},  # the older API, and SGLang
}
AT_ONCE = 32  # texts of one request, where the server takes several
Scored = list[tuple[str, float]]  # tokens with their log-probabilities; nan for the first, which nothing precedes


class NoFirstTokenError(ValueError):
    """Texts differ from their first token on, whose log-probability the server does not know."""


def given(data: Any, texts: Sequence[str], way: str) -> list[Scored]:
    """The tokens of each of `texts`, which were sent as prompts, with their log-probabilities.

    `way`: "prompt_logprobs" (vLLM) or "echo" (the older API). Raises ValueError where `data` does not hold them.
    """
    try:
        choices = sorted(data["choices"], key=lambda choice: choice["index"])
        if len(choices) != len(texts):
            raise ValueError(f"{len(choices)} answers to {len(texts)} texts")
        if way == "prompt_logprobs":
            return _numbers([[_only(token) for token in choice["prompt_logprobs"]] for choice in choices])
        out = []
        for choice, text in zip(choices, texts):
            if choice["text"] != text:
                raise ValueError(f"the text comes back as {choice['text'][-60:]!r}")
            pairs = zip(choice["logprobs"]["tokens"], choice["logprobs"]["token_logprobs"], strict=True)
            out.append([(str(token), math.nan if p is None else float(p)) for token, p in pairs])
        return _numbers(out)
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError(str(data)) from error


def _numbers(paths: list[Scored]) -> list[Scored]:
    """`paths` as they are. Raises ValueError where a log-probability is none; only that of a first token may lack."""
    for path in paths:
        for token, p in path[1:]:
            if math.isnan(p) or p == math.inf:
                raise ValueError(f"the log-probability {p} of {token!r}")
    return paths


def _only(token: Any) -> tuple[str, float]:
    if token is None:
        return "", math.nan
    [(name, entry)] = token.items()
    return name, float(entry["logprob"])


def weights(paths: Sequence[Scored]) -> list[float]:
    """The log-probability of each text from where the texts first differ: up to a constant, that of the whole text.

    So it does not matter where the prompt ends, nor whether its last token merges with the first of what follows.
    Raises NoFirstTokenError where the texts differ from their first token on, unless that has one.
    """
    start = 0
    for column in zip(*([token for token, _ in path] for path in paths)):
        if len(set(column)) > 1 or "\ufffd" in column[0]:  # part of a character: other bytes look the same
            break
        start += 1
    sums = [math.fsum(p for _, p in path[start:]) for path in paths]
    unknown = start == 1 and not paths[0][0][0]  # vLLM does not name the first token: it may not be the same either
    if any(map(math.isnan, sums)) or unknown:
        raise NoFirstTokenError("tells no log-probability of a text's first token")
    return sums


class TextScorer:
    """Weighs choices as whole strings, as `LocalLM` does. `way`: a key of SCORING, "none", or "auto" until `find`."""

    def __init__(self, client: Client, model: str, extra: Mapping[str, Any], way: str = "auto"):
        self.client, self.model, self.extra, self.way, self.batch = client, model, extra, way, AT_ONCE
        self._lock = threading.Lock()

    def find(self, plain: Callable[[], Any]) -> bool:
        """Whether the server tells log-probabilities of given text; found out once, by asking for some.

        `plain` sends a request without such a field: where that fails too, its ServerError is raised.
        """
        with self._lock:
            if self.way == "auto":
                self.way = self.client.first(SCORING, self._works, plain, "choices are drawn, not weighed")
        return self.way != "none"

    def _works(self, way: str) -> bool:
        for self.batch in (AT_ONCE, 1):
            texts = ["A word: zq7\n", "A word: xv9\n"][: self.batch]
            try:
                return all(len(path) > 1 for path in given(self._post(texts, way), texts, way))
            except ValueError:
                continue
            except ServerError as error:
                if self.batch == 1 or error.status not in REFUSED:
                    raise
        return False

    def _post(self, texts: Sequence[str], way: str) -> Any:
        body = {"model": self.model, "temperature": 1.0, **self.extra, **SCORING[way]}
        body["prompt"] = list(texts) if len(texts) > 1 else texts[0]
        return self.client.post("/completions", body, memory=way)

    def requests(self, prompt: str, options: Sequence[str]) -> list[list[str]]:
        """The texts to `score`, a list for each request: the distinct options, each with the newline after it."""
        texts = [f"{prompt}{option}\n" for option in dict.fromkeys(options)]
        return [texts[at : at + self.batch] for at in range(0, len(texts), self.batch)]

    def score(self, texts: Sequence[str]) -> tuple[list[Scored], int]:
        """The tokens of each text with their log-probabilities, and how many tokens the request took."""
        data = self._post(texts, self.way)
        try:
            return given(data, texts, self.way), self.client.read(data).tokens
        except ValueError as error:
            raise self.client.no_answer(error) from None

    def distribution(self, paths: Sequence[Scored], options: Sequence[str], temperature: float) -> np.ndarray:
        """log P of each option, given that the answer is one of them; `paths`: those of the distinct ones, in order.

        Raises NoFirstTokenError (see `weights`), and ServerError where no option has a probability above 0.
        """
        weight = dict(zip(dict.fromkeys(options), weights(paths)))
        if max(weight.values()) == -math.inf:
            raise self.client.no_answer(f"the log-probability -inf of each of {len(weight)} choices")
        return tempered([weight[option] for option in options], temperature, options)
