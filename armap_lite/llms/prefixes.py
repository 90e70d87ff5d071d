"""Training computes once what texts have in common: equal beginnings, and layers in which nothing learns.

Both sides of a pair share the instruction and the first steps, and one trajectory stands in several pairs. A batch is
the union of its texts' paths in a tree of tokens, in one row under a tree mask. What the lowest, frozen layers compute
is kept for all epochs and validations. In the last layer, the MLP computes only the tokens that the head reads.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface

from armap_lite.llms import layers
from armap_lite.llms.device import say_once
from armap_lite.llms.layers import replaced
from armap_lite.llms.plain import length_matters

KEPT_BYTES = 2**30  # of hidden states of frozen layers; if all texts need more, those layers are computed each time
JOIN = 512  # attending to so many tokens costs about as much as the rest of a layer for one token; estimated
BLOCK = 1024  # nodes, at least, that go through the frozen layers together
ROWWISE = ("mlp", "self_attn.o_proj")  # of the last layer: what they compute at one token depends on that token only

Text = tuple[int, ...]


class Batch(NamedTuple):
    """Texts as one row of N nodes."""

    nodes: Tensor  # [N], ascending
    ends: Tensor  # [B]: place in the row of each text's last token
    trees: list[tuple[slice, Tensor]]  # places of a tree's nodes in the row, and the mask of n * n nodes


class PrefixTrees:
    """`parts` of texts as paths in trees. Numbers of nodes ascend along a path, and a tree's numbers are consecutive.

    What is read with the first part needs nothing of the next: training waits for no text of the validation.
    """

    def __init__(self, *parts: Iterable[Text]):
        self.paths: dict[Text, np.ndarray] = {}
        self.blocks: list[list[Text]] = []  # whole trees with at least BLOCK nodes together
        self.block: dict[Text, int] = {}
        tokens, depths, starts = list[int](), list[int](), list[int]()  # starts: the first node of each tree
        for part in parts:
            before, path = Text(), list[int]()
            begun = -BLOCK  # the first node of this part's last block
            for text in sorted({*part} - self.paths.keys()):
                same = sum(1 for _ in itertools.takewhile(lambda both: both[0] == both[1], zip(before, text)))
                if not same or same * JOIN <= (len(tokens) - starts[-1]) * (len(text) - same):
                    same = 0
                    starts.append(len(tokens))
                    if len(tokens) - begun >= BLOCK:
                        begun = len(tokens)
                        self.blocks.append([])
                path = [*path[:same], *range(len(tokens), len(tokens) + len(text) - same)]
                tokens += text[same:]
                depths += range(same, len(text))
                self.paths[text] = np.array(path)
                self.blocks[-1].append(text)
                self.block[text] = len(self.blocks) - 1
                before = text
        self.starts, self.tokens, self.depths = np.array(starts), torch.tensor(tokens), torch.tensor(depths)

    def batch(self, texts: Sequence[Text]) -> Batch:
        paths = [self.paths[text] for text in texts]
        nodes = np.unique(np.concatenate(paths))  # [N]
        places = [np.searchsorted(nodes, path) for path in paths]
        borders = np.flatnonzero(np.diff(np.searchsorted(self.starts, nodes, "right"))) + 1
        trees = []
        for start, end in itertools.pairwise([0, *borders.tolist(), len(nodes)]):
            mask = np.zeros((end - start, end - start), dtype=bool)  # [n, n]
            for path in (place - start for place in places if start <= place[0] < end):
                mask[np.ix_(path, path)] |= np.tri(len(path), dtype=bool)
            trees.append((slice(start, end), torch.from_numpy(mask)))
        return Batch(torch.from_numpy(nodes), torch.tensor([place[-1] for place in places]), trees)


def attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, scaling: float | None = None, **options: Any
) -> tuple[Tensor, None]:
    """Attention in each of the `trees` of a `Batch`: [1, H, N, D], [1, K, N, D], [1, K, N, V] -> [1, N, H, V]."""
    heads, kinds = query.shape[1], key.shape[1]  # each head of keys serves heads / kinds of the query, stacked below
    seen = []
    for row, allowed in options["trees"]:
        asked = query[:, :, row].reshape(1, kinds, -1, query.shape[-1])  # [1, K, H / K * n, D]
        found = functional.scaled_dot_product_attention(
            asked, key[:, :, row], value[:, :, row], allowed.repeat(heads // kinds, 1), scale=scaling
        )
        seen.append(found.reshape(1, heads, len(allowed), -1))
    return torch.cat(seen, 2).transpose(1, 2), None


AttentionInterface.register("prefix_trees", attention)


class SharedForward:
    """`forward` of a reward network for batches of known texts on a CPU: the same rewards [B], and gradients."""

    def __init__(self, network: Any, *parts: Iterable[Text]):
        """`network`: with a `backbone` and a scalar `head`, as `RewardNetwork`; `parts`: as in `PrefixTrees`."""
        self.network, self.trees = network, PrefixTrees(*parts)
        parent, name = layers.find(network.backbone) or (network, "")
        self.layers = list(getattr(parent, name))
        self.frozen = self.layers[: num_frozen(network.backbone, self.layers)]
        shape = len(self.trees.tokens), network.head.in_features
        if 4 * shape[0] * shape[1] > KEPT_BYTES:
            self.frozen = []
        self.kept = torch.empty(shape if self.frozen else 0)  # [M, H] by node: what the frozen layers compute
        self.filled: set[int] = set()  # blocks whose nodes are in it

    def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Rewards [B] of texts [B, T], padded on the right."""
        texts = [tuple(ids[:n]) for ids, n in zip(input_ids.tolist(), attention_mask.sum(-1).tolist())]
        batch = self.trees.batch(texts)
        ends, row = torch.unique(batch.ends, return_inverse=True)  # [E], [B]
        with ExitStack() as stack:
            if self.frozen:
                below = self._below(texts, batch)  # [1, N, H]
                stack.enter_context(replaced(self.frozen, "forward", lambda *_, **__: below))
            for name, module in self.layers[-1].named_modules():
                if name in ROWWISE:
                    stack.enter_context(replaced([module], "forward", only_at(ends, module.forward)))
            states = self._run(batch)  # [1, N, H]
        return layers.score(self.network.head, states[0, ends])[row]  # [B]

    def _run(self, batch: Batch) -> Tensor:
        """The backbone's last hidden states [1, N, H]."""
        backbone: Any = self.network.backbone
        config = backbone.config.get_text_config()
        with replaced([config], "_attn_implementation", "prefix_trees"):
            return backbone(
                input_ids=self.trees.tokens[batch.nodes][None],
                position_ids=self.trees.depths[batch.nodes][None],
                attention_mask=torch.zeros(1, 1, 1, 1),  # four axes: taken as it is, unread
                use_cache=False,
                trees=batch.trees,
            ).last_hidden_state

    def _below(self, texts: Sequence[Text], batch: Batch) -> Tensor:
        """What the frozen layers compute [1, N, H].

        Blocks are the same in every run, and so are their last bits, also after a resume.
        """
        seen: list[Tensor] = []

        def keep(x: Tensor, *_: Any, **__: Any) -> Tensor:
            seen[:] = [x]
            return x

        for block in sorted({self.trees.block[text] for text in texts} - self.filled):
            whole = self.trees.batch(self.trees.blocks[block])
            with torch.no_grad(), replaced(self.layers[len(self.frozen) :], "forward", keep):
                self._run(whole)
            self.kept[whole.nodes] = seen[0][0]
            self.filled.add(block)
        return self.kept[batch.nodes][None]


def num_frozen(backbone: Any, every: list[nn.Module]) -> int:
    """How many of the lowest layers compute always the same: neither they nor the embeddings have anything to learn."""
    learned = {id(p) for p in backbone.parameters() if p.requires_grad}
    first = next((i for i, layer in enumerate(every) if learned & {id(p) for p in layer.parameters()}), len(every))
    if first in (0, len(every)):
        return 0
    above = {id(p) for module in layers.top(backbone, len(every) - first) for p in module.parameters()}
    return first if learned <= above else 0


def only_at(places: Tensor, whole: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`whole`, computed only at `places` [E] of [1, N, H]; elsewhere it is 0."""

    def forward(states: Tensor) -> Tensor:
        found = whole(states[:, places])  # [1, E, H]
        return found.new_zeros(*states.shape[:-1], found.shape[-1]).index_copy(1, places, found)

    return forward


def shared_forward(network: Any, *parts: Iterable[Text]) -> SharedForward | None:
    """A `SharedForward` where it gives the network's own rewards, tried on a small batch; else None, and a line."""
    backbone: Any = network.backbone
    config = backbone.config.get_text_config()
    window = getattr(config, "sliding_window", None) or getattr(config, "attention_chunk_size", None)
    own_positions = network.config.vision == "own"  # those of a vision-language model may depend on its pictures
    if layers.find(backbone) and not (window or own_positions or length_matters(backbone)):
        trial: list[Text] = [(3, 4, 5, 6, 7), (3, 4, 5, 6, 8, 9), (3, 4, 5, 6), (10, 4, 5)]
        ids = nn.utils.rnn.pad_sequence([*map(torch.tensor, trial)], batch_first=True)  # [B, T]
        mask = (ids > 0).long()  # [B, T]
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                expected, found = network(ids, mask), SharedForward(network, trial)(ids, mask)  # [B] each
            if torch.allclose(expected, found, rtol=1e-3, atol=1e-3 * float(expected.abs().max())):
                return SharedForward(network, *parts)
        except Exception:  # whatever a model of another build makes of such a batch
            pass
    say_once(f"{network.config.backbone}: {type(backbone).__name__} trains on whole texts, which is slower")
    return None
