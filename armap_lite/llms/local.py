"""A language model on this machine, through transformers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from armap_lite.llms.base import Choice, Completion, LanguageModel
from armap_lite.llms.forest import LogitForest, Node
from armap_lite.llms.trie import Branch, draw, grow, table
from armap_lite.tokens import LineTokenizer


class LocalLM(LanguageModel):
    """`generate` and `choose` on one transformers model, over a forest of tokens (see `forest.py`).

    `choose` by "string" is exact: P(choice) is the model's probability of the choice and the newline after it,
    divided by the sum over all choices, to the power of 1/temperature. It is the model's own distribution,
    given that the answer is admissible. By "token", each token is drawn from the model's distribution over those
    that lead to a choice: a draw reads one path of the choices' trie, which lists of hundreds of strings need.

    Text is tokenised line by line, so that a prompt that grew by a line keeps the tokens it had.
    """

    remembers = True

    def __init__(self, model: Any, tokenizer: Any, name: str = "local", capacity: int = 16384, pack: int = 512):
        self.name = name
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.lines = LineTokenizer(tokenizer)
        self.forest = LogitForest(model, capacity, pack)
        self._trie = functools.lru_cache(256)(self._grow)

    def reset(self) -> None:
        """Forget every cached prefix."""
        self.forest.clear()

    def _prompt(self, text: str) -> Node:
        return self.forest.add([self.lines.start, *self.lines(text)])

    def _grow(self, options: tuple[str, ...]) -> Branch:
        return grow([[*self.lines(option), self.lines.newline] for option in options])

    def choose(
        self,
        prompts: Sequence[str],
        choices: Sequence[Sequence[str]],
        n: int | None = 1,
        *,
        temperature: float = 1.0,
        seeds: Sequence[int] | None = None,
        by: str = "string",
    ) -> list[list[Choice]]:
        if by not in ("string", "token"):
            raise ValueError(f"by={by!r} is not known; choose by 'string' or by 'token'")
        if len(prompts) != len(choices):
            raise ValueError(
                f"{len(prompts)} prompts but {len(choices)} lists of choices; each prompt needs its own list"
            )
        for prompt, options in zip(prompts, choices):
            if not options:
                raise ValueError(
                    f"no choices for the prompt ending in {prompt[-60:]!r}; an episode that is over has none"
                )
        if by == "token":
            leaves, tries = [self._prompt(prompt) for prompt in prompts], [self._trie(tuple(o)) for o in choices]
            if n is None:
                return table(self.forest, leaves, tries, choices, temperature)
            return draw(self.forest, leaves, tries, choices, n, temperature, seeds or [None] * len(tries))
        paths, sizes = [], []
        for prompt, options in zip(prompts, choices):
            leaf = self._prompt(prompt)
            ends = [self.forest.add([*self.lines(o), self.lines.newline], leaf) for o in options]
            paths.append([end.path()[leaf.depth + 1 :] for end in ends])
            sizes.append(leaf.depth + 1 + len({node for path in paths[-1] for node in path}))
        self.forest.weigh(dict.fromkeys(node.parent for item in paths for path in item for node in path if node.parent))
        out = []
        for i, options in enumerate(choices):
            logits = np.array([sum(node.logprob for node in path) for path in paths[i]], dtype=np.float64)  # type: ignore[misc]
            logp = (
                log_softmax(logits / temperature)
                if temperature > 0
                else np.where(np.arange(len(logits)) == logits.argmax(), 0.0, -np.inf)
            )
            if n is None:
                picks: Any = range(len(options))
            else:
                rng = np.random.default_rng(seeds[i] if seeds is not None else None)
                picks = rng.choice(len(options), size=n, p=np.exp(logp) / np.exp(logp).sum())
            out.append([Choice(options[k], int(k), float(logp[k]), sizes[i]) for k in picks])
        return out

    def generate(
        self,
        prompts: Sequence[str],
        n: int = 1,
        *,
        max_tokens: int = 64,
        temperature: float = 1.0,
        stop: str = "\n",
        seeds: Sequence[int] | None = None,
        schema: Any = None,
    ) -> list[list[Completion]]:
        starts = [self._prompt(p) for p in prompts]
        samples = [
            (i, np.random.default_rng([seeds[i], k] if seeds is not None else None))
            for i in range(len(prompts))
            for k in range(n)
        ]
        tips: list[Node] = [starts[i] for i, _ in samples]
        texts: list[list[int]] = [[] for _ in samples]
        live = list(range(len(samples)))
        for _ in range(max_tokens):
            table = self.forest.logprobs(list(dict.fromkeys(tips[s] for s in live)))
            going = []
            for s in live:
                token = _draw(table[tips[s]], temperature, samples[s][1])
                if token == self.tokenizer.eos_token_id:
                    continue
                texts[s].append(token)
                tips[s] = tips[s].child(token)
                if stop not in self.tokenizer.decode(texts[s][-8:], skip_special_tokens=True):
                    going.append(s)
            live = going
            if not live:
                break
        out: list[list[Completion]] = [[] for _ in prompts]
        for (i, _), tokens in zip(samples, texts):
            text = self.tokenizer.decode(tokens, skip_special_tokens=True).split(stop)[0]
            out[i].append(Completion(text, starts[i].depth + 1 + len(tokens)))
        return out


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def _draw(logp: torch.Tensor, temperature: float, rng: np.random.Generator) -> int:
    if temperature <= 0:
        return int(logp.argmax())
    p = (logp.double() / temperature).softmax(-1).numpy()
    return int(np.searchsorted(np.cumsum(p), rng.random() * p.sum()).clip(0, len(p) - 1))
