"""The contract of a language model (`generate` free text, `choose` among admissible strings), and what all need."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Completion:
    """One generated text; `tokens` counts the prompt's and the text's own tokens."""

    text: str
    tokens: int


@dataclass(frozen=True)
class Choice:
    """One of the admissible strings, with its log-probability at the temperature asked for.

    `tokens`: of the prompt and of all choices, cached or not, so that budgets do not depend on what ran before.
    """

    text: str
    index: int
    logprob: float
    tokens: int


class LanguageModel(ABC):
    """Batch first: both methods take lists, and a seed for each item."""

    name: str
    has_prefix_cache: bool = False  # a prompt asked again costs nothing (a local cache), or its full price (a server)

    def reset(self) -> None:
        """Forget every cached prefix, where there is a cache."""

    @abstractmethod
    def generate(
        self,
        prompts: Sequence[str],
        n: int = 1,
        *,
        max_tokens: int = 64,
        temperature: float = 1.0,
        stop: str = "\n",
        seeds: Sequence[int] | None = None,
        schema: Mapping[str, Any] | None = None,
    ) -> list[list[Completion]]:
        """`n` completions of each prompt, each cut before the first `stop`.

        `schema`: the JSON Schema of an object that is wanted. A server that can keeps to it; else it changes nothing.
        """

    @abstractmethod
    def choose(
        self,
        prompts: Sequence[str],
        choices: Sequence[Sequence[str]],
        n: int | None = 1,
        *,
        temperature: float = 1.0,
        seeds: Sequence[int] | None = None,
        decoding: str = "sequence",
    ) -> list[list[Choice]]:
        """`n` draws among `choices[i]` after `prompts[i]`; with n=None every choice once, in order.

        Temperature 0 takes the most probable choice. `decoding`: "sequence" compares whole strings; "token" walks
        their trie, which lists of hundreds need. A server decodes by token in any case.
        """


def check_request(
    prompts: Sequence[str],
    temperature: float,
    seeds: Sequence[int] | None,
    choices: Sequence[Sequence[str]] | None = None,
) -> None:
    """Raise ValueError for a prompt, temperature, seeds or choices that cannot be used."""
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ValueError(f"temperature={temperature} is not a finite number of 0 or more; 0 takes the most probable")
    for what, given in (("seeds", seeds), ("lists of choices", choices)):
        if given is not None and len(given) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts but {len(given)} {what}; each prompt needs its own")
    for prompt, options in zip(prompts, choices or [()] * len(prompts)):
        if choices is not None and not options:
            raise ValueError(f"no choices for the prompt ending in {prompt[-60:]!r}; a finished episode has none")
        for text in (prompt, *options):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise ValueError(
                    f"half of a character, {text[error.start]!r}, stands in {text[max(0, error.start - 20) :][:60]!r}; "
                    "text has to be valid Unicode: read it with errors='replace'"
                ) from None


def tempered(logits: Sequence[float | None], temperature: float, options: Sequence[str] = ()) -> np.ndarray:
    """Log-probabilities that are proportional to `logits` / `temperature`; at 0, all for the first of the highest.

    `options`: the choices that the logits belong to, where some may be equal: these share their probability.
    Raises ValueError where each of `logits` is -inf.
    """
    found = np.array(logits, dtype=np.float64)
    if found.max() == -np.inf:
        raise ValueError(f"the model gives each of {len(found)} choices the probability 0; load it with dtype=float32")
    if temperature == 0:
        return np.where(np.arange(len(found)) == found.argmax(), 0.0, -np.inf)
    with np.errstate(over="ignore"):
        shifted = (found - found.max()) / temperature
    if options:
        equal = Counter(options)
        shifted = shifted - np.log([equal[option] for option in options])
    return shifted - np.log(np.exp(shifted).sum())


def draw(
    options: Sequence[str], logits: Sequence[float], temperature: float, n: int | None, seed: int | None, tokens: int
) -> list[Choice]:
    """`n` draws among `options` with their `logits`, each with a cost of `tokens`; None: every option."""
    logp = tempered(logits, temperature, options)
    p = np.exp(logp)
    rng = np.random.default_rng(seed)
    picks = range(len(options)) if n is None else rng.choice(len(p), n, p=p / p.sum()).tolist()
    return [Choice(options[k], k, float(logp[k]), tokens) for k in picks]
