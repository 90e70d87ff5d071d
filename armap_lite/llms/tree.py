"""A tree of tokens, and the contract of an engine that computes what a model says at its nodes.

`forest.py` computes each node once; `plain.py` runs whole sequences through the model's own forward pass.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional

from armap_lite.llms import layers
from armap_lite.llms.device import bfloat16_products, say_once


class Node:
    """One token and its place in the tree."""

    __slots__ = ("token", "parent", "depth", "children", "slot", "used", "logprob", "logit", "value")

    def __init__(self, token: int, parent: Node | None):
        self.token = token
        self.parent = parent
        self.depth: int = parent.depth + 1 if parent else -1  # position in its sequence; the root is before it
        self.children: dict[int, Node] = {}
        self.slot = -1  # where its keys and values lie in the pool; -1: not there
        self.used = 0  # the last forward pass that needed it
        self.logprob: float | None = None  # log p(token | ancestors), once its parent's logits were read
        self.logit: float | None = None  # log p up to a constant that it shares with its siblings
        self.value: float | None = None  # the scalar head's output here (reward models)

    def child(self, token: int) -> Node:
        if token not in self.children:
            self.children[token] = Node(token, self)
        return self.children[token]

    def path(self, known: Container[Node] = ()) -> list[Node]:
        """From the first token, or the first that is not `known`, down to this node."""
        nodes, node = [], self
        while node.parent is not None and node not in known:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]


Read = Callable[[list[Node], Tensor], None]


class Engine(ABC):
    """A tree of tokens over one transformer; `compute` is an engine's work, `_call` says what is read of a pass."""

    capacity: int
    pack: int
    spare = 0  # tokens that a pass may compute on a guess, because they cost less than one more pass

    def __init__(self, model: Any):
        self.model = model
        self.limit, self.stated = layers.context(model)
        self.tokens_computed = 0
        self.clear()

    def clear(self) -> None:
        """Forget every sequence."""
        self.root = Node(-1, None)

    def add(self, tokens: Iterable[int], start: Node | None = None) -> Node:
        """The node at the end of `tokens` below `start` (the root by default)."""
        node = start or self.root
        for token in tokens:
            node = node.child(token)
        return node

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def run(self, wanted: Sequence[Node], read: Read) -> None:
        """`compute`, for texts that the model can read. Raises ValueError for a longer one."""
        longest = 1 + max((node.depth for node in wanted), default=-1)
        if self.limit is not None and longest > self.limit:
            raise ValueError(
                f"a text of {longest} tokens, but {_label(self.model)} reads at most {self.limit}; shorten it (fewer "
                "examples or steps), or take a model with a longer context"
            )
        if self.stated is not None and longest > self.stated:
            say_once(f"{_label(self.model)} was made for texts of {self.stated} tokens, and is given longer ones")
        self.compute(wanted, read)

    @abstractmethod
    def compute(self, wanted: Sequence[Node], read: Read) -> None:
        """Run the model on `wanted`, with their ancestors before them, in passes of bounded size.

        `read(nodes, table)` gets the wanted nodes of each pass and what the model says there [nodes, ...].
        """

    @abstractmethod
    def _call(self, rows: Tensor, inputs: dict[str, Any]) -> Tensor:
        """One forward pass on `inputs` [B, T]; its output in fp32 at `rows` [N] of the B * T tokens -> [N, ...]."""


def _label(model: nn.Module) -> str:
    return f"{type(model).__name__} {getattr(model, 'name_or_path', '')}".rstrip()


def check_numbers(model: nn.Module, numbers: Iterable[float]) -> None:
    """Raise ValueError where one of `numbers` that `model` computed is NaN or positive infinity."""
    if any(math.isnan(number) or number == math.inf for number in numbers):
        dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
        ways = " or ".join(f"dtype={kind}" for kind in ("bfloat16", "float32") if kind != dtype)
        raise ValueError(
            f"{_label(model)} computes NaN in {dtype}: its numbers overflow, or its weights are damaged; "
            f"load it with {ways}, or take another checkpoint"
        )


_WIDE: WeakKeyDictionary[nn.Module, tuple[Tensor, Tensor | None]] = WeakKeyDictionary()


def _wide(head: nn.Linear) -> tuple[Tensor, Tensor | None]:
    """Weight and bias in fp32. The copy of a bf16 or fp16 head is kept: to make it takes as long as to use it."""
    own = head.weight.detach(), None if head.bias is None else head.bias.detach()
    if own[0].dtype == torch.float32:
        return own
    if head not in _WIDE or _WIDE[head][0].device != own[0].device:
        _WIDE[head] = own[0].float(), None if own[1] is None else own[1].float()
    return _WIDE[head]


class Logits(Engine):
    """Reads next-token log-probabilities of a causal language model."""

    def __init__(self, model: Any, **options: Any):
        super().__init__(model, **options)
        self._head = model.get_output_embeddings()
        self._read_only: Tensor | None = None  # the tokens whose logits are read; None: all
        self._sound = False  # whether all logits of a pass were seen to be numbers

    def _call(self, rows: Tensor, inputs: dict[str, Any]) -> Tensor:
        head = self._head
        if type(head) is not nn.Linear:  # one of its own kind, such as a quantised one, is taken as it is
            return self.model(**inputs).logits.flatten(0, 1)[rows].float()
        weight, bias = _wide(head)

        def forward(hidden: Tensor) -> Tensor:
            read = hidden.flatten(0, -2)[rows].float()  # [N, H]
            if self._read_only is None:
                exact = hidden.dtype == head.weight.dtype == torch.bfloat16 and hidden.device.type == "cpu"
                with bfloat16_products() if exact else nullcontext():
                    return functional.linear(read, weight, bias)[None]  # [1, N, V]
            table = read.new_empty(1, len(read), len(weight))  # as wide as usual: the model may mask tokens by number
            some = self._read_only
            table[..., some] = functional.linear(read, weight[some], None if bias is None else bias[some])
            return table

        # In bf16, logits differ from those of an fp32 head by up to .6. The model's own forward calls the head, so its
        # scaling and soft-capping of logits apply. Only the rows that are read are computed.
        with layers.replaced([head], "forward", forward):
            return self.model(**inputs).logits.flatten(0, 1)  # [N, V]

    def logprobs(self, nodes: Sequence[Node]) -> dict[Node, Tensor]:
        """log p(next token | node), [V] each."""
        found: dict[Node, Tensor] = {}

        def read(asked: list[Node], logits: Tensor) -> None:
            table = logits.log_softmax(-1)  # [asked, V]
            check_numbers(self.model, table[:, 0].tolist())  # one NaN among the logits is in each of them
            found.update(zip(asked, table))

        self.run(nodes, read)
        return found

    def fill(self, name: str, nodes: Iterable[Node]) -> None:
        """Fill in "logprob" or "logit" (`name`) of the children of `nodes`; logits take only their part of the head."""
        wanted = [n for n in nodes if any(getattr(c, name) is None for c in n.children.values())]
        if not wanted:
            return

        def read(asked: list[Node], table: Tensor) -> None:
            if name == "logprob" or not self._sound:
                logp = table.log_softmax(-1)  # [asked, V]
                check_numbers(self.model, logp[:, 0].tolist())  # one NaN among the logits is in each of them
                table = logp if name == "logprob" else table
            index = [(i, c) for i, n in enumerate(asked) for c in n.children.values()]
            picked = table[[i for i, _ in index], [c.token for _, c in index]].tolist()
            check_numbers(self.model, picked)
            for (_, child), value in zip(index, picked):
                setattr(child, name, value)

        if name == "logit" and self._sound:  # the first time all logits are read, so that a damaged head shows
            tokens = sorted({token for n in wanted for token in n.children})
            self._read_only = torch.tensor(tokens, device=self.device)
        try:
            self.run(wanted, read)
        finally:
            self._read_only = None
        self._sound = True


class Hidden(Engine):
    """Reads the last hidden state of a model without a vocabulary."""

    def _call(self, rows: Tensor, inputs: dict[str, Any]) -> Tensor:
        return self.model(**inputs).last_hidden_state.flatten(0, 1)[rows].float()  # [N, H]

    def values(self, nodes: Sequence[Node], head: nn.Module) -> None:
        """Fill in `value` of `nodes`: what the scalar `head` makes of their hidden states."""

        def read(asked: list[Node], hidden: Tensor) -> None:
            values = head(hidden)[:, 0].tolist()
            check_numbers(self.model, values)
            for node, value in zip(asked, values):
                node.value = value

        wanted = [n for n in dict.fromkeys(nodes) if n.value is None]
        if wanted:
            self.run(wanted, read)
