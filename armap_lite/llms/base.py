"""The contract of a language model: `generate` free text, or `choose` among admissible strings."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


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
