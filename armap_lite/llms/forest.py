"""A forest of tokens over one transformer: every token sees its ancestors, and nothing is computed twice.

Prompts, growing trajectories, admissible actions and samples are paths in one tree. A forward pass packs the new
tokens into one row without padding, under a tree mask. Keys and values stay in a pool.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface

from armap_lite.llms.device import bfloat16_products
from armap_lite.llms.layers import replaced
from armap_lite.llms.tree import Engine, Hidden, Logits, Node, Read


class AttentionBlock:
    """Query tokens of one forward pass that share most ancestors, and the KV slots they attend to."""

    def __init__(self, start: int = 0):
        self.start = start
        self.columns: dict[Node, int] = {}
        self.paths: list[np.ndarray] = []  # of each row: the columns it sees
        self._known: dict[Node | None, np.ndarray] = {}

    def add(self, node: Node) -> None:
        above = self._known.get(node.parent)
        if above is None:
            above = np.array([self.columns[n] for n in node.parent.path()], dtype=np.int64)  # type: ignore[union-attr]
            self._known[node.parent] = above
        self._known[node] = np.append(above, self.columns[node])
        self.paths.append(self._known[node])

    def mask(self, window: int | None) -> np.ndarray:
        """[q, p]: 0 where a row sees a column, else the lowest number. `window`: the tokens a row sees; None: all."""
        mask = np.full((len(self.paths), len(self.columns)), np.finfo(np.float32).min, dtype=np.float32)
        for row, path in zip(mask, self.paths):
            row[path if window is None else path[-window:]] = 0
        return mask


class ForwardContext:
    """What the attention of one forward pass needs: where new keys and values go, and who sees whom."""

    def __init__(self, forest: Forest, rows: list[int], slots: list[int], groups: list[AttentionBlock]):
        self.forest, self.groups = forest, groups
        parts = [rows, slots, *([node.slot for node in group.columns] for group in groups)]
        sent = torch.tensor([i for part in parts for i in part], dtype=torch.long, device=forest.device)  # one copy
        self.rows, self.slots, *self.columns = sent.split([len(part) for part in parts])
        self._masks: dict[int | None, list[Tensor]] = {}

    def masks(self, window: int | None, repeat: int, like: Tensor) -> list[Tensor]:
        """[repeat * q, p] of each group, on the device and in the dtype of `like`."""
        if window not in self._masks:
            lowest = torch.finfo(like.dtype).min
            masks = [group.mask(window) for group in self.groups]
            sent = torch.from_numpy(np.concatenate([mask.ravel() for mask in masks])).clamp(min=lowest).to(like)
            parts = sent.split([mask.size for mask in masks])
            self._masks[window] = [part.view(mask.shape).repeat(repeat, 1) for part, mask in zip(parts, masks)]
        return self._masks[window]

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float | None, window: int | None
    ) -> Tensor:
        """query [H, Q, D], key [K, Q, D] and value [K, Q, V] of the new tokens -> [Q, H, V]."""
        heads, count, size = query.shape
        new = torch.cat([key, value], -1).transpose(0, 1)  # [Q, K, D + V]
        pools = self.forest.pools
        if layer not in pools:
            pools[layer] = new.new_empty(self.forest.capacity, *new.shape[1:])
        pool = pools[layer]
        if len(self.rows):
            pool.index_copy_(0, self.slots, new.index_select(0, self.rows))
        out = query.new_zeros(count, heads, value.shape[-1])  # rows of padding stay zero
        kinds = len(key)  # each head of keys serves heads / kinds of the query: their rows stand one below the other
        masks = self.masks(window, heads // kinds, query)
        for group, columns, mask in zip(self.groups, self.columns, masks):
            rows = slice(group.start, group.start + len(group.paths))
            keys, values = pool.index_select(0, columns).transpose(0, 1).split([size, value.shape[-1]], -1)  # [K, p, _]
            asked = query[:, rows].reshape(kinds, -1, size)  # [K, H / K * q, D]
            seen = _attend(asked, keys, values, mask, scale)
            out[rows] = seen.reshape(heads, -1, value.shape[-1]).transpose(0, 1)
        return out


def _attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float | None) -> Tensor:
    """query [K, q, D], keys [K, p, D], values [K, p, V], mask [q, p] -> [K, q, V]."""
    if query.dtype != torch.bfloat16 or query.device.type != "cpu" or len(mask) < FEW:
        return functional.scaled_dot_product_attention(
            query[None], keys[None], values[None], attn_mask=mask, scale=scale
        )[0]
    # PyTorch's CPU kernel computes bfloat16 attention at the speed of fp32. Here both products are bfloat16 ones.
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    wide, across = query.float(), keys.transpose(1, 2).float()
    out = []
    count = max(16, SCORES // across[:, 0].numel())
    for some, mine in zip(wide.split(count, 1), mask.split(count)):
        with bfloat16_products():
            scores = some @ across  # [K, count, p]
        out.append(torch.add(mine, scores, alpha=scale).softmax(-1).to(values.dtype) @ values)
    return torch.cat(out, 1)


class RefusedError(ValueError):
    """An attention that the forest does not compute."""


_CONTEXT: ContextVar[ForwardContext] = ContextVar("pass")
GATHER = 16  # to fetch a token's keys and values costs about as much as attending to it so often
BLOCK = {"cpu": 8000, "cuda": 150_000}  # and so much is an attention block's own cost; on CUDA estimated: six kernels
CUTS = 512  # places at which a pass may be cut, at most
FEW = 96  # rows for which PyTorch's attention is as fast as ours
SCORES = 2**18  # scores computed at once: they stay in the processor's cache
EVEN = 64  # on CUDA the rows of a pass are padded to a multiple of it: kernels and memory blocks depend on shapes;
# the columns are not, because each group has its own number of them


def attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, scaling: float | None = None, **options: Any
) -> tuple[Tensor, None]:
    """The attention of a forest's pass, as transformers calls it. Raises RefusedError for what it cannot do."""
    if not getattr(module, "is_causal", True):
        raise RefusedError(f"{type(module).__name__} attends to both sides")
    if odd := [name for name in ("softcap", "s_aux", "position_bias") if options.get(name) is not None]:
        raise RefusedError(f"{type(module).__name__} attends with {odd[0]}")
    window = options.get("sliding_window")
    return _CONTEXT.get().attend(module.layer_idx, query[0], key[0], value[0], scaling, window)[None], None


AttentionInterface.register("forest", attention)


class Forest(Engine):
    """The tree and its pool of keys and values, for one causal transformer.

    `capacity`: tokens kept in the pool (the oldest leaves go first); `pack`: new tokens in one forward pass.
    """

    def __init__(self, model: Any, capacity: int = 16384, pack: int = 512):
        self.pack = pack
        self.spare = pack // 32
        self.capacity = capacity
        self.pools: dict[int, Tensor] = {}  # by layer: [capacity, K, D + V], K heads' keys (size D) and values (V)
        super().__init__(model)

    def clear(self) -> None:
        """Forget every sequence; the pool's memory stays."""
        super().clear()
        self._free = list(range(self.capacity))[::-1]
        self._held: list[Node] = []
        self._tick = 0

    def compute(self, wanted: Sequence[Node], read: Read) -> None:
        tokens: dict[Node, list[int]] = {}
        for node in wanted:
            above = tokens.get(node.parent)  # type: ignore[arg-type]
            tokens[node] = [up.token for up in node.path()] if above is None else [*above, node.token]
        todo = dict.fromkeys(sorted(tokens, key=tokens.__getitem__))  # neighbours in the tree next to each other
        batch: dict[Node, None] = {}  # what the next pass computes
        needed: set[Node] = set()  # that, and all its ancestors: they have to be in the pool together

        def flush() -> None:
            nodes = list(batch)
            for i in range(0, len(nodes), self.pack):  # more than one pass only for a single long text
                some = nodes[i : i + self.pack]
                asked = [n for n in some if n in todo]
                table = self._forward(some, asked)
                if asked:
                    read(asked, table)
                for node in asked:
                    del todo[node]
            batch.clear()
            needed.clear()

        for node in list(todo):
            path = node.path(needed)
            fresh = sum(n.slot < 0 or n in todo for n in path)
            if batch and (len(batch) + fresh > self.pack or len(needed) + len(path) > self.capacity):
                flush()
                path = node.path(needed)
            batch.update((n, None) for n in path if n.slot < 0 or n in todo)
            needed.update(path)
        flush()

    def _forward(self, batch: list[Node], ask: list[Node]) -> Tensor:
        self._tick += 1
        groups = self._groups(batch)
        fresh = [node for node in batch if node.slot < 0]
        self._make_room(len(fresh))
        for node in fresh:
            node.slot = self._free.pop()
        device, row = self.device, {node: i for i, node in enumerate(batch)}
        padding = [0] * (-len(batch) % EVEN if device.type == "cuda" else 0)
        context = ForwardContext(self, [row[n] for n in fresh], [n.slot for n in fresh], groups)
        token = _CONTEXT.set(context)
        config = self.model.config.get_text_config()
        try:
            with torch.inference_mode(), replaced([config], "_attn_implementation", "forest"):
                inputs = {
                    "input_ids": torch.tensor([[n.token for n in batch] + padding], device=device),  # [1, Q]
                    "position_ids": torch.tensor([[n.depth for n in batch] + padding], device=device),  # [1, Q]
                    "attention_mask": torch.zeros(1, 1, 1, 1, device=device),  # four axes: taken as it is, unread
                    "use_cache": False,
                }
                table = self._call(torch.tensor([row[n] for n in ask], dtype=torch.long, device=device), inputs)
        except BaseException:  # what was half computed is not there
            for node in fresh:
                self._free.append(node.slot)
                node.slot = -1
            raise
        finally:
            _CONTEXT.reset(token)
        self._held += fresh
        self.tokens_computed += len(batch)
        return table

    def _groups(self, batch: list[Node]) -> list[AttentionBlock]:
        """`batch` cut into runs of neighbours that have most of their ancestors in common.

        A run of q tokens that see p tokens in all costs p * (q + GATHER) + BLOCK. The cuts with the least sum are found
        from left to right. `batch` is in depth-first order, so p of a run is the path of its first token and what each
        later one adds to the path of the one before it.
        """
        seen: set[Node] = set()
        added = []
        for node in batch:
            new = node.path(seen)
            seen.update(new)
            added.append(len(new))
        total, depths = np.cumsum(added), np.array([node.depth + 1 for node in batch])
        block = BLOCK.get(self.device.type, BLOCK["cpu"])
        bounds = np.array([*range(0, len(batch), 1 + (len(batch) - 1) // CUTS), len(batch)])
        best, start = np.zeros(len(bounds)), [0]  # least cost of what is before each bound; where its last run begins
        for i, end in enumerate(bounds[1:], 1):
            from_ = bounds[:i]
            columns = depths[from_] + total[end - 1] - total[from_]
            costs = best[:i] + columns * (end - from_ + GATHER) + block
            start.append(int(costs.argmin()))
            best[i] = costs[start[i]]
        cuts = [len(bounds) - 1]
        while cuts[0]:
            cuts.insert(0, start[cuts[0]])
        groups = []
        for begin, end in itertools.pairwise(bounds[cuts].tolist()):
            groups.append(AttentionBlock(begin))
            for node in batch[begin:end]:
                for up in node.path(groups[-1].columns):
                    groups[-1].columns[up] = len(groups[-1].columns)
                    up.used = self._tick
                groups[-1].add(node)
        return groups

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


class LogitForest(Logits, Forest):
    """A forest whose passes read next-token log-probabilities."""


class HiddenForest(Hidden, Forest):
    """A forest whose passes read last hidden states."""
