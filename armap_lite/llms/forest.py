"""A forest of tokens over one transformer: every token sees its ancestors, and nothing is computed twice.

Prompts, growing trajectories, admissible actions and samples are all paths in one tree. A forward pass takes the
tokens that are new, packs them into one row without padding, and lets each attend to its own ancestors only
(a tree mask). Keys and values of every token stay in a pool, so the few-shot head of a prompt is read once,
and a trajectory that grew by one step costs that step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface


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


class Group:
    """Tokens of one pass, from row `start` on, and the columns they attend to: all their ancestors and themselves."""

    def __init__(self, start: int = 0):
        self.start = start
        self.columns: dict[Node, int] = {}
        self.paths: list[np.ndarray] = []  # of each row: the columns it sees
        self._known: dict[Node | None, np.ndarray] = {}

    def missing(self, node: Node) -> list[Node]:
        """What `node` needs and is not among the columns yet, ancestors first."""
        new = []
        up = node
        while up.parent is not None and up not in self.columns:
            new.append(up)
            up = up.parent
        return new[::-1]

    def add(self, node: Node) -> None:
        above = self._known.get(node.parent)
        if above is None:
            above = np.array([self.columns[n] for n in node.parent.path()], dtype=np.int64)  # type: ignore[union-attr]
            self._known[node.parent] = above
        self._known[node] = np.append(above, self.columns[node])
        self.paths.append(self._known[node])

    def mask(self) -> np.ndarray:
        """[q, p]: 0 where a row sees a column, the lowest number where it does not."""
        mask = np.full((len(self.paths), len(self.columns)), np.finfo(np.float32).min, dtype=np.float32)
        for row, path in zip(mask, self.paths):
            row[path] = 0
        return mask


class Pass:
    """What the attention of one forward pass needs: where new keys and values go, and who sees whom."""

    def __init__(self, pool: Tensor, rows: list[int], slots: list[int], groups: list[Group]):
        self.pool = pool  # [layers, capacity, 2, kv heads, head dim]
        self.rows, self.slots = (torch.tensor(x, dtype=torch.long, device=pool.device) for x in (rows, slots))
        lowest = torch.finfo(pool.dtype).min
        self.groups = [
            (
                slice(group.start, group.start + len(group.paths)),
                torch.tensor([node.slot for node in group.columns], device=pool.device),
                torch.from_numpy(group.mask()).clamp(min=lowest).to(pool),  # [q, p]
            )
            for group in groups
        ]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        """query [H, Q, D], key and value [K, Q, D] of the new tokens -> [Q, H, D]."""
        heads, _, size = query.shape
        pool = self.pool[layer]
        if len(self.rows):
            new = torch.stack([key, value]).permute(2, 0, 1, 3)  # [Q, 2, K, D]
            pool.index_copy_(0, self.slots, new.index_select(0, self.rows))
        out = torch.empty_like(query.transpose(0, 1))
        kinds = len(key)  # each head of keys serves heads / kinds of the query: their rows stand one below the other
        for rows, columns, mask in self.groups:
            keys, values = pool.index_select(0, columns).permute(1, 2, 0, 3)  # [K, p, D] each
            asked = query[:, rows].reshape(1, kinds, -1, size)  # [1, K, H / K * q, D]
            mask = mask.repeat(heads // kinds, 1)  # [H / K * q, p]
            seen = functional.scaled_dot_product_attention(asked, keys[None], values[None], attn_mask=mask, scale=scale)
            out[rows] = seen.reshape(heads, -1, size).transpose(0, 1)
        return out


_PASS: ContextVar[Pass] = ContextVar("pass")
GATHER = 16  # to fetch a token's keys and values costs about as much as attending to it so often: estimated, not tuned


def attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, scaling: float | None = None, **options: Any
) -> tuple[Tensor, None]:
    """The attention of a forest's pass, as transformers calls it. Raises ValueError for what it cannot do."""
    if odd := [name for name in ("softcap", "s_aux", "position_bias") if options.get(name) is not None]:
        raise ValueError(f"{type(module).__name__} attends with {odd[0]}, which prefix reuse does not do; use a server")
    return _PASS.get().attend(module.layer_idx, query[0], key[0], value[0], scaling)[None], None


AttentionInterface.register("forest", attention)


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
            capacity,
            2,
            config.num_key_value_heads,
            getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        )
        self._pool: torch.Tensor | None = None  # [layers, capacity, 2, kv heads, head dim]
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
        weight = next(self.model.parameters())
        groups = self._groups(batch)
        fresh = [node for node in batch if node.slot < 0]
        self._make_room(len(fresh))
        if self._pool is None:
            self._pool = torch.empty(self._shape, dtype=weight.dtype, device=weight.device)
        for node in fresh:
            node.slot = self._free.pop()
        row = {node: i for i, node in enumerate(batch)}
        rows = [row[n] for n in ask]
        token = _PASS.set(Pass(self._pool, [row[n] for n in fresh], [n.slot for n in fresh], groups))
        config = self.model.config.get_text_config()
        usual, config._attn_implementation = config._attn_implementation, "forest"
        try:
            with torch.inference_mode():
                output = self.model(
                    input_ids=torch.tensor([[n.token for n in batch]], device=weight.device),  # [1, Q]
                    position_ids=torch.tensor([[n.depth for n in batch]], device=weight.device),  # [1, Q]
                    attention_mask=torch.zeros(1, 1, 1, 1, device=weight.device),  # four axes: taken as it is, unread
                    use_cache=False,
                    **self._extra(rows, weight.device),
                )
        except BaseException:  # what was half computed is not there
            for node in fresh:
                self._free.append(node.slot)
                node.slot = -1
            raise
        finally:
            config._attn_implementation = usual
            _PASS.reset(token)
        self._held += fresh
        self.tokens_computed += len(batch)
        return output, rows

    def _groups(self, batch: list[Node]) -> list[Group]:
        """`batch` cut into runs of neighbours that have most of their ancestors in common.

        A run of q tokens that see p others costs q * p to attend and GATHER * p to fetch: a token joins the run before
        it where that costs less than a run of its own.
        """
        groups: list[Group] = []
        group = Group()
        for i, node in enumerate(batch):
            new = group.missing(node)
            joined = len(group.columns) + len(new) * (len(group.paths) + 1 + GATHER)
            if not groups or joined > (node.depth + 1) * (1 + GATHER):
                group = Group(i)
                groups.append(group)
                new = group.missing(node)
            for up in new:
                group.columns[up] = len(group.columns)
                up.used = self._tick
            group.add(node)
        return groups

    def _extra(self, rows: list[int], device: torch.device) -> dict[str, Any]:
        return {}

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
