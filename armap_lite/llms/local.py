"""A language model on this machine, through transformers."""

import functools
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch

from armap_lite.llms.base import Choice, Completion, LanguageModel
from armap_lite.llms.choices import check_request, draw
from armap_lite.llms.device import say_once
from armap_lite.llms.forest import LogitForest
from armap_lite.llms.layers import check_vocabulary
from armap_lite.llms.plain import PlainLogits, engine
from armap_lite.llms.tokens import LineTokenizer
from armap_lite.llms.tree import Node
from armap_lite.llms.trie import all_logprobs, build_trie, walk


class LocalLM(LanguageModel):
    """`generate` and `choose` on one transformers model, over a tree of tokens.

    Its engine is the forest where that computes what the model itself computes, else the slower one of `plain.py`, and
    a line on stderr says why. `capacity`: tokens whose keys and values are kept; `pack`: tokens in one forward pass.
    None takes what fits the device.

    With decoding="sequence", `choose` is exact: P(choice) is the model's probability of the choice and the newline
    after it, to the power of 1/temperature, divided by the sum over all choices. With "token", each token is drawn
    from the model's distribution over those that lead to a choice, so a draw reads one path of the choices' trie.
    """

    has_prefix_cache = True

    def __init__(
        self, model: Any, tokenizer: Any, name: str = "local", capacity: int | None = None, pack: int | None = None
    ):
        self.name = name
        self.model = model.eval()
        self.tokenizer = tokenizer
        check_vocabulary(model, tokenizer)
        self.lines = LineTokenizer(tokenizer)
        self.forest = engine(LogitForest, PlainLogits, model, name, capacity, pack)
        self._before = Node(-1, None)  # below it, by token, what the model said after earlier prompts
        self._trie = functools.lru_cache(256)(build_trie)
        ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)  # chat models have several
        self._ends = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}

    def reset(self) -> None:
        """Forget every cached prefix."""
        self.forest.clear()
        self._before = Node(-1, None)

    def fits(self, prompts: Sequence[str], more: int = 0) -> int:
        """How many of `prompts`, from the first on, three quarters of the pool hold together; at least one.

        Each with `more` tokens behind it. With more of them side by side, each call would read all of them anew.
        """
        rows = [[self.lines.start, *self.lines(prompt)] for prompt in prompts]
        room = self.forest.capacity * 3 // 4  # the rest is for choices and what is written
        if not isinstance(self.forest, LogitForest) or sum(len(row) + more for row in rows) <= room:
            return len(rows)
        held: set[Node] = set()
        for i, row in enumerate(rows):
            new = self.forest.add(row).path(held)
            held.update(new)
            room -= len(new) + more
            if i and room < 0:
                return i
        return len(rows)

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
        if decoding not in ("sequence", "token"):
            raise ValueError(f"decoding={decoding!r} is not known; use 'sequence' or 'token'")
        check_request(prompts, temperature, seeds, choices)
        seeds_or_none = [None] * len(prompts) if seeds is None else seeds
        split = [self.lines.after(prompt, options) for prompt, options in zip(prompts, choices)]
        leaves = [self.forest.add([self.lines.start, *head]) for head, _ in split]
        if decoding == "token":
            questions = [(leaf, self._trie(tails), texts) for leaf, (_, tails), texts in zip(leaves, split, choices)]
            if n is None:
                return all_logprobs(self.forest, questions, temperature)
            return walk(self.forest, questions, n, temperature, seeds_or_none, self._before)
        paths = [
            [[*accumulate(tail, Node.child, initial=leaf)][1:] for tail in tails]
            for leaf, (_, tails) in zip(leaves, split)
        ]
        nodes = (node for some in paths for path in some for node in path)
        self.forest.fill("logprob", dict.fromkeys(node.parent for node in nodes if node.parent))
        out = []
        for leaf, options, some, seed in zip(leaves, choices, paths, seeds_or_none):
            logits = [sum(node.logprob for node in path) for path in some]  # type: ignore[misc]
            size = leaf.depth + 1 + len({node for path in some for node in path})
            out.append(draw(options, logits, temperature, n, seed, size))
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
        check_request(prompts, temperature, seeds)
        out: list[list[Completion]] = []
        while len(out) < len(prompts):
            first = len(out)
            end = first + self.fits(prompts[first:], n * max_tokens)
            own = None if seeds is None else seeds[first:end]
            out += self._generate(prompts[first:end], n, max_tokens, temperature, stop, own)
        return out

    def _generate(
        self,
        prompts: Sequence[str],
        n: int,
        max_tokens: int,
        temperature: float,
        stop: str,
        seeds: Sequence[int] | None,
    ) -> list[list[Completion]]:
        starts = [self.forest.add([self.lines.start, *self.lines(prompt)]) for prompt in prompts]
        samples = [(i, k) for i in range(len(prompts)) for k in range(n)]
        rngs = [np.random.default_rng(None if seeds is None else [seeds[i], k]) for i, k in samples]
        tips: list[Node] = [starts[i] for i, _ in samples]
        texts: list[list[int]] = [[] for _ in samples]
        live = list(range(len(samples)))
        for _ in range(max_tokens):
            if not live:
                break
            table = self.forest.logprobs(list(dict.fromkeys(tips[s] for s in live)))
            logp = torch.stack([table[tips[s]] for s in live])  # [S, V]
            going = []
            for s, token in zip(live, _draw(logp, temperature, [rngs[s] for s in live])):
                if token in self._ends:
                    continue
                texts[s].append(token)
                tips[s] = tips[s].child(token)
                if self.forest.limit is not None and tips[s].depth >= self.forest.limit:
                    say_once(f"{self.name} reads at most {self.forest.limit} tokens: a text that it wrote ends there")
                elif not stop or stop not in self.tokenizer.decode(texts[s][-8:], skip_special_tokens=True):
                    going.append(s)
            live = going
        out: list[list[Completion]] = [[] for _ in prompts]
        for (i, _), tokens in zip(samples, texts):
            text = self.tokenizer.decode(tokens, skip_special_tokens=True)
            text = text.split(stop)[0] if stop else text
            out[i].append(Completion(text, starts[i].depth + 1 + len(tokens)))
        return out


def _draw(logp: torch.Tensor, temperature: float, rngs: Sequence[np.random.Generator]) -> list[int]:
    """A token for each row of `logp` [S, V], drawn on its device with one number of the row's generator."""
    if temperature == 0:
        return logp.argmax(-1).tolist()
    wide = logp.double()
    rising = ((wide - wide.amax(-1, keepdim=True)) / temperature).softmax(-1).cumsum(-1)  # [S, V]
    numbers = torch.tensor([[rng.random()] for rng in rngs], dtype=torch.float64).to(logp.device)  # [S, 1]
    return torch.searchsorted(rising, numbers * rising[:, -1:]).clamp(max=logp.shape[-1] - 1)[:, 0].tolist()
