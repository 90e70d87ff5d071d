"""Log-probabilities of given text from a server that returns them, as vLLM does; llama.cpp does not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from armap_lite.llms.choices import tempered
from armap_lite.llms.client import Client

SCORING = ("prompt_logprobs",)  # the fields that ask for them
AT_ONCE = 32  # texts of one request
Scored = list[tuple[str, float]]  # tokens with their log-probabilities; nan for the first, which nothing precedes


class NoFirstTokenError(ValueError):
    """Texts differ from their first token on, whose log-probability the server does not know."""


def given(data: Any, count: int) -> list[Scored]:
    """The tokens of each of `count` texts sent as prompts, with their log-probabilities.

    Raises ValueError where `data` does not hold a number for each token, but for the first.
    """
    try:
        choices = sorted(data["choices"], key=lambda choice: choice["index"])
        paths = [[_token(entry) for entry in choice["prompt_logprobs"]] for choice in choices]
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError(str(data)) from error
    if len(paths) != count:
        raise ValueError(f"{len(paths)} answers to {count} texts")
    for token, p in (pair for path in paths for pair in path[1:]):
        if math.isnan(p) or p == math.inf:
            raise ValueError(f"the log-probability {p} of {token!r}")
    return paths


def _token(entry: Any) -> tuple[str, float]:
    if entry is None:
        return "", math.nan
    [(name, found)] = entry.items()
    return name, float(found["logprob"])


def weights(paths: Sequence[Scored]) -> list[float]:
    """The log-probability of each text from where they first differ: up to a constant, that of the whole text.

    So a prompt's last token may merge with the first of what follows. Raises NoFirstTokenError where the texts may
    differ from their first token on, which has no name and no number.
    """
    start = 0
    for column in zip(*([token for token, _ in path] for path in paths)):
        if len(set(column)) > 1 or "\ufffd" in column[0]:  # part of a character: other bytes look the same
            break
        start += 1
    sums = [math.fsum(p for _, p in path[start:]) for path in paths]
    if any(map(math.isnan, sums)) or (start == 1 and not paths[0][0][0]):
        raise NoFirstTokenError("tells no log-probability of a text's first token")
    return sums


class TextScorer:
    """Compares choices as whole strings, as `LocalLM` does."""

    def __init__(self, client: Client, model: str, extra: Mapping[str, Any]):
        self.client, self.model, self.extra = client, model, extra

    def works(self, way: str) -> bool:
        """Whether the server returns log-probabilities of given text. Raises ServerError where it refuses to."""
        try:
            return all(len(path) > 1 for path in given(self._post(["A word: zq7\n", "A word: xv9\n"]), 2))
        except ValueError:
            return False

    def _post(self, texts: Sequence[str]) -> Any:
        # vLLM generates one token at least; it is not read
        body = {"model": self.model, "temperature": 1.0, **self.extra, "prompt_logprobs": 0, "max_tokens": 1}
        return self.client.post("/completions", {**body, "prompt": list(texts)}, memory="prompt_logprobs")

    def requests(self, prompt: str, options: Sequence[str]) -> list[list[str]]:
        """The texts to `score`, a list for each request: the distinct options, each with the newline after it."""
        texts = [f"{prompt}{option}\n" for option in dict.fromkeys(options)]
        return [texts[at : at + AT_ONCE] for at in range(0, len(texts), AT_ONCE)]

    def score(self, texts: Sequence[str]) -> tuple[list[Scored], int]:
        """The tokens of each text with their log-probabilities, and how many tokens the request took."""
        data = self._post(texts)
        try:
            return given(data, len(texts)), self.client.read(data).tokens
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
