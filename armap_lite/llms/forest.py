"""A forest of tokens over one transformer: every token sees its ancestors, and nothing is computed twice.

Prompts, growing trajectories, admissible actions and samples are all paths in one tree. A forward pass takes the
tokens that are new, packs them into one row without padding, and lets each attend to its own ancestors only
(a tree mask). Keys and values of every token stay in a pool, so the few-shot head of a prompt is read once,
and a trajectory that grew by one step costs that step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache


class Node:
    """One token and its place in the tree."""

    __slots__ = ("token", "parent", "depth", "children", "slot", "used", "logprob", "value")

    def __init__(self, token: int, parent: Node | None):
        self.token = token
        self.parent = parent
        self.depth: int = parent.depth + 1 if parent else -1  # position in its sequence; the root is before it
        self.children: dict[int, Node] = {}
        self.slot = -1  # where its keys and values lie in the pool; -1: not there
        self.used = 0  # the last forward pass that needed it
        self.logprob: float | None = None  # log p(token | ancestors), once its parent's logits were read
        self.value: float | None = None  # what a scalar head says here (reward models)

    def child(self, token: int) -> Node:
        node = self.children.get(token)
        if node is None:
            node = self.children[token] = Node(token, self)
        return node

    def path(self) -> list[Node]:
        """From the first token down to this node."""
        nodes, node = [], self
        while node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]


class Forest:
    """The tree and its pool of keys and values, for one causal transformer.

    `capacity`: tokens kept in the pool (the oldest leaves go first); `pack`: new tokens in one forward pass.
    """

    def __init__(self, model: Any, capacity: int = 16384, pack: int = 512):
        config = model.config.get_text_config()
        self.model = model
        self.pack = pack
        self.capacity = capacity
        self._shape = (
            config.num_hidden_layers,
            2,
            config.num_key_value_heads,
            capacity,
            getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        )
        self._pool: torch.Tensor | None = None  # [layers, 2, kv heads, capacity, head dim]
        self.tokens_computed = 0
        self.clear()

    def clear(self) -> None:
        """Forget every sequence; the pool's memory stays."""
        self.root = Node(-1, None)
        self._free = list(range(self.capacity))[::-1]
        self._held: list[Node] = []
        self._tick = 0

    def add(self, tokens: Iterable[int], start: Node | None = None) -> Node:
        """The node at the end of `tokens` below `start` (the root by default)."""
        node = start or self.root
        for token in tokens:
            node = node.child(token)
        return node

    def compute(self, wanted: Sequence[Node], read: Any) -> None:
        """Run the model on `wanted` and on their ancestors as far as they are not in the pool.

        `read(nodes, model output, rows)` gets the wanted nodes of each pass and their rows in the output [Q, ...].
        """
        todo = dict.fromkeys(sorted(set(wanted), key=_branch))  # neighbours in the tree next to each other
        batch: dict[Node, None] = {}

        def flush() -> None:
            nodes = list(batch)
            for i in range(0, len(nodes), self.pack):  # more than one pass only for a single long text
                some = nodes[i : i + self.pack]
                asked = [n for n in some if n in todo]
                output, rows = self._forward(some, asked)
                if asked:
                    read(asked, output, rows)
                for node in asked:
                    del todo[node]
            batch.clear()

        for node in list(todo):
            fresh = self._fresh(node, batch, todo)
            if batch and len(batch) + len(fresh) > self.pack:
                flush()
                fresh = self._fresh(node, batch, todo)  # making room may have dropped some of its ancestors
            batch.update(dict.fromkeys(fresh))
        flush()

    def _fresh(self, node: Node, batch: dict[Node, None], todo: dict[Node, None]) -> list[Node]:
        """`node` and its ancestors as far as they have to be computed, parents first."""
        chain = []
        up: Node | None = node
        while up is not None and up.parent is not None and up not in batch:
            if up.slot < 0 or up in todo:
                chain.append(up)
            up = up.parent
        return chain[::-1]

    def _forward(self, batch: list[Node], ask: list[Node]) -> tuple[Any, list[int]]:
        self._tick += 1
        device = next(self.model.parameters()).device
        row = {node: i for i, node in enumerate(batch)}
        past: dict[Node, int] = {}  # cached ancestors and their column
        for node in batch:
            up = node.parent
            while up is not None and up.parent is not None and up not in past and up not in row:
                past[up] = len(past)
                up.used = self._tick
                up = up.parent
            node.used = self._tick
        mask = np.zeros((len(batch), len(past) + len(batch)), dtype=bool)  # [Q, P + Q]
        above: dict[Node, np.ndarray] = {}
        for i, node in enumerate(batch):
            up = node.parent
            if up in row:
                mask[i] = mask[row[up]]  # type: ignore[index]
            elif up is not None and up.parent is not None:
                if up not in above:
                    columns = np.zeros(len(past) + len(batch), dtype=bool)
                    columns[[past[n] if n not in row else len(past) + row[n] for n in up.path()]] = True
                    above[up] = columns
                mask[i] = above[up]
            mask[i, len(past) + i] = True
        self._make_room(sum(n.slot < 0 for n in batch))
        dtype = self.model.dtype
        if self._pool is None:
            self._pool = torch.empty(self._shape, dtype=dtype, device=device)
        cache = DynamicCache(config=self.model.config)
        if past:
            slots = torch.tensor([n.slot for n in past], device=device)
            kept = self._pool.index_select(3, slots)  # [L, 2, H, P, D]
            for layer in range(self._shape[0]):
                cache.update(kept[layer, 0][None], kept[layer, 1][None], layer)
        bias = torch.zeros(mask.shape, dtype=dtype)
        bias[~torch.from_numpy(mask)] = torch.finfo(dtype).min
        rows = [row[n] for n in ask]
        with torch.inference_mode():
            output = self.model(
                input_ids=torch.tensor([[n.token for n in batch]], device=device),  # [1, Q]
                position_ids=torch.tensor([[n.depth for n in batch]], device=device),  # [1, Q]
                attention_mask=bias.to(device)[None, None],  # [1, 1, Q, P + Q]
                past_key_values=cache,
                use_cache=True,
                **self._extra(rows, device),
            )
            self._store(batch, cache, len(past))
        self.tokens_computed += len(batch)
        return output, rows

    def _extra(self, rows: list[int], device: torch.device) -> dict[str, Any]:
        return {}

    def _store(self, batch: list[Node], cache: DynamicCache, past: int) -> None:
        fresh = [(i, n) for i, n in enumerate(batch) if n.slot < 0]
        if not fresh:
            return
        rows = torch.tensor([past + i for i, _ in fresh], device=self._pool.device)  # type: ignore[union-attr]
        slots = torch.tensor([self._free.pop() for _ in fresh], device=rows.device)
        for layer, kept in enumerate(cache.layers):
            self._pool[layer, 0].index_copy_(1, slots, kept.keys[0].index_select(1, rows))  # type: ignore[index]
            self._pool[layer, 1].index_copy_(1, slots, kept.values[0].index_select(1, rows))  # type: ignore[index]
        for (_, node), slot in zip(fresh, slots.tolist()):
            node.slot = slot
            self._held.append(node)

    def _make_room(self, needed: int) -> None:
        """Free the least recently used tokens; of two used together the deeper one goes first."""
        if needed <= len(self._free):
            return
        self._held.sort(key=lambda n: (n.used, -n.depth))
        drop = max(needed - len(self._free), self.capacity // 4)
        drop = min(drop, sum(n.used < self._tick for n in self._held))
        if len(self._free) + drop < needed:
            raise ValueError(
                f"the key-value pool holds {self.capacity} tokens, and one pass needs more: raise `capacity`, "
                "or shorten the prompts"
            )
        for node in self._held[:drop]:
            self._free.append(node.slot)
            node.slot = -1
        self._held = self._held[drop:]


def _branch(node: Node) -> list[int]:
    return [n.token for n in node.path()]


class LogitForest(Forest):
    """A forest whose passes read next-token log-probabilities."""

    def _extra(self, rows: list[int], device: torch.device) -> dict[str, Any]:
        return {"logits_to_keep": torch.tensor(rows, dtype=torch.long, device=device)}  # none is a valid choice

    def logprobs(self, nodes: Sequence[Node]) -> dict[Node, torch.Tensor]:
        """log p(next token | node), [V] each."""
        found: dict[Node, torch.Tensor] = {}

        def read(asked: list[Node], output: Any, rows: list[int]) -> None:
            for node, logits in zip(asked, output.logits[0].float().log_softmax(-1)):
                found[node] = logits

        self.compute(nodes, read)
        return found

    def weigh(self, nodes: Iterable[Node]) -> None:
        """Fill in `logprob` of the children of `nodes`, in passes of bounded size."""

        def read(asked: list[Node], output: Any, rows: list[int]) -> None:
            table = output.logits[0].float().log_softmax(-1)  # [asked, V]
            index = [(i, c) for i, n in enumerate(asked) for c in n.children.values()]
            picked = table[[i for i, _ in index], [c.token for _, c in index]].tolist()
            for (_, child), value in zip(index, picked):
                child.logprob = value

        wanted = [n for n in nodes if any(c.logprob is None for c in n.children.values())]
        if wanted:
            self.compute(wanted, read)
