"""A reward model at work: batched scores; what trajectories share is computed once."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from armap_lite.llms.device import say_once
from armap_lite.llms.forest import HiddenForest
from armap_lite.llms.plain import BothSidesError, PlainHidden, engine, score_whole
from armap_lite.llms.tokens import LineTokenizer
from armap_lite.reward.model import RewardNetwork
from armap_lite.trajectory import Trajectory
from armap_lite.vision.pictures import encode


class RewardModel:
    """`score(instructions, trajectories) -> rewards [B]`; higher is better.

    The trajectories of one task share their beginning, which is computed once (see `llms/forest.py`). Models without a
    linear head at the last token, and models that attend to both sides, score whole texts.
    """

    def __init__(self, network: Any, tokenizer: Any, capacity: int | None = None, pack: int | None = None):
        """`capacity`, `pack`: as in `LocalLM`."""
        self.network: Any = network.eval().requires_grad_(False)
        self.finished = not isinstance(network, RewardNetwork)  # then it encodes trajectories itself
        if not self.finished:
            self.lines = LineTokenizer(tokenizer)
        name = f"reward model on {network.config.backbone}"
        self.forest: Any = None  # None: whole texts are scored
        if network.head is None:
            return
        try:
            self.forest = engine(HiddenForest, PlainHidden, network.backbone, name, capacity, pack)
        except BothSidesError:
            kind = type(network.backbone).__name__
            say_once(f"{name}: {kind} reads text from both sides: it scores whole texts, which is slower")

    def reset(self) -> None:
        """Forget every cached prefix."""
        if self.forest is not None:
            self.forest.clear()

    def encode(self, instruction: str, trajectory: Trajectory) -> tuple[list[int], bool]:
        """The token ids of a trajectory, and whether it was too long and lost its middle."""
        if self.finished:
            return self.network.encode(instruction, trajectory)
        return encode(self.lines, trajectory, instruction, self.network.config.max_tokens, self.network.pictures)

    def score(self, instructions: Sequence[str], trajectories: Sequence[Trajectory]) -> np.ndarray:
        rows = [self.encode(text, trajectory)[0] for text, trajectory in zip(instructions, trajectories, strict=True)]
        if self.forest is None:
            return score_whole(self.network, rows)
        ends = [self.forest.add(self.network.pooled(row) if self.finished else row) for row in rows]
        self.forest.values(ends, self.network.head)
        return np.array([end.value for end in ends], dtype=np.float64)
