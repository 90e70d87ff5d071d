"""A trained reward model at work: batched scores, shared prefixes read once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from armap_lite.llms.forest import Forest, Node
from armap_lite.reward.finished import FinishedNetwork
from armap_lite.reward.model import RewardNetwork
from armap_lite.reward.vision import encode
from armap_lite.tokens import LineTokenizer
from armap_lite.trajectory import Trajectory

BATCH = 16  # texts in one pass of a model that is run as a whole


class RewardForest(Forest):
    """A forest whose passes read the scalar head."""

    def __init__(self, network: RewardNetwork | FinishedNetwork, capacity: int, pack: int):
        super().__init__(network.backbone, capacity, pack)
        self.network: Any = network

    def values(self, nodes: Sequence[Node]) -> None:
        """Fill in `value` of `nodes`."""

        def read(asked: list[Node], output: Any, rows: list[int]) -> None:
            hidden = output.last_hidden_state[0, rows].float()  # [asked, H]
            for node, value in zip(asked, self.network.head(hidden)[:, 0].tolist()):
                node.value = value

        wanted = [n for n in dict.fromkeys(nodes) if n.value is None]
        if wanted:
            self.compute(wanted, read)


class RewardModel:
    """`score(instructions, trajectories) -> rewards [B]`; higher is better.

    The trajectories of one task share their beginning; each line of it is read once (see `llms/forest.py`).
    """

    def __init__(
        self, network: RewardNetwork | FinishedNetwork, tokenizer: Any, capacity: int = 16384, pack: int = 512
    ):
        self.network: Any = network.eval().requires_grad_(False)
        self.finished = isinstance(network, FinishedNetwork)
        self.pad = tokenizer.pad_token_id or 0  # masked: any token will do
        if not self.finished:
            self.lines = LineTokenizer(tokenizer)
        self.forest = RewardForest(network, capacity, pack) if network.head is not None else None

    def reset(self) -> None:
        """Forget every cached prefix."""
        if self.forest:
            self.forest.clear()

    def encode(self, instruction: str, trajectory: Trajectory) -> tuple[list[int], bool]:
        """The tokens of a trajectory, and whether it was too long and lost its middle."""
        if self.finished:
            return self.network.encode(instruction, trajectory)
        return encode(self.lines, trajectory, instruction, self.network.config.max_tokens, self.network.pictures)

    def score(self, instructions: Sequence[str], trajectories: Sequence[Trajectory]) -> np.ndarray:
        rows = [self.encode(text, trajectory)[0] for text, trajectory in zip(instructions, trajectories, strict=True)]
        if self.forest is None:
            return self._plain(rows)
        ends = [self.forest.add(row) for row in rows]
        self.forest.values(ends)
        return np.array([end.value for end in ends], dtype=np.float64)

    def _plain(self, rows: Sequence[list[int]]) -> np.ndarray:
        """Rewards of `rows` of tokens by the whole model, in padded batches of like length."""
        from armap_lite.reward.data import pad  # imports Lightning, which takes a second

        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        found = np.empty(len(rows))
        device = next(self.network.parameters()).device
        for i in range(0, len(rows), BATCH):
            some = order[i : i + BATCH]
            batch = {name: tensor.to(device) for name, tensor in pad([rows[k] for k in some], self.pad).items()}
            with torch.inference_mode():
                found[some] = self.network(**batch).cpu().numpy()
        return found
