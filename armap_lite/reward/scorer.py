"""A trained reward model at work: batched scores, shared prefixes read once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from armap_lite.llms.forest import Forest, Node
from armap_lite.reward.model import RewardNetwork
from armap_lite.reward.vision import encode
from armap_lite.tokens import LineTokenizer
from armap_lite.trajectory import Trajectory


class RewardForest(Forest):
    """A forest whose passes read the scalar head."""

    def __init__(self, network: RewardNetwork, capacity: int, pack: int):
        super().__init__(network.backbone, capacity, pack)
        self.network = network

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

    def __init__(self, network: RewardNetwork, tokenizer: Any, capacity: int = 16384, pack: int = 512):
        self.network = network.eval().requires_grad_(False)
        self.lines = LineTokenizer(tokenizer)
        self.forest = RewardForest(network, capacity, pack)

    def reset(self) -> None:
        """Forget every cached prefix."""
        self.forest.clear()

    def encode(self, instruction: str, trajectory: Trajectory) -> tuple[list[int], bool]:
        """The tokens of a trajectory, and whether it was too long and lost its middle."""
        return encode(self.lines, trajectory, instruction, self.network.config.max_tokens, self.network.pictures)

    def score(self, instructions: Sequence[str], trajectories: Sequence[Trajectory]) -> np.ndarray:
        ends = []
        for instruction, trajectory in zip(instructions, trajectories, strict=True):
            ends.append(self.forest.add(self.encode(instruction, trajectory)[0]))
        self.forest.values(ends)
        return np.array([end.value for end in ends], dtype=np.float64)
