"""A trained reward model at work: batched scores, shared prefixes read once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from armap_lite.llms.device import say_once
from armap_lite.llms.forest import Forest
from armap_lite.llms.plain import BothSidesError, Plain, engine
from armap_lite.llms.tree import Hidden, check_numbers
from armap_lite.reward.finished import FinishedNetwork
from armap_lite.reward.model import RewardNetwork, place
from armap_lite.reward.vision import encode
from armap_lite.tokens import LineTokenizer
from armap_lite.trajectory import Trajectory

BATCH = 16  # texts in one pass of a model that is run as a whole


class RewardForest(Hidden, Forest):
    """A forest over the backbone."""


class PlainReward(Hidden, Plain):
    """Plain forward passes of the backbone."""


class RewardModel:
    """`score(instructions, trajectories) -> rewards [B]`; higher is better.

    The trajectories of one task share their beginning; each line of it is read once (see `llms/forest.py`).
    """

    def __init__(
        self,
        network: RewardNetwork | FinishedNetwork,
        tokenizer: Any,
        capacity: int | None = None,
        pack: int | None = None,
        dtype: str = "auto",
    ):
        """`capacity`, `pack`: as in `LocalLM`. `dtype`: that of the backbone, which is converted in place.

        "auto" is bf16 on CUDA (fp16 where the card has no bf16) for backbones of `LARGE` parameters and more; else the
        backbone stays as it is. The head always computes in fp32.
        """
        network = place(network, next(network.parameters()).device, dtype)
        self.network: Any = network.eval().requires_grad_(False)
        self.finished = isinstance(network, FinishedNetwork)
        self.pad = tokenizer.pad_token_id or 0  # masked: any token will do
        if not self.finished:
            self.lines = LineTokenizer(tokenizer)
        name = f"reward model on {network.config.backbone}"
        self.forest: Any = None  # where there is none, the model is run as a whole
        if network.head is None:  # no linear head at the last token
            return
        try:
            self.forest = engine(RewardForest, PlainReward, network.backbone, name, capacity, pack)
        except BothSidesError:  # it needs the mask that `_whole` passes
            kind = type(network.backbone).__name__
            say_once(f"{name}: {kind} reads text from both sides: it scores whole texts, which is slower")

    def reset(self) -> None:
        """Forget every cached prefix."""
        if self.forest is not None:
            self.forest.clear()

    def encode(self, instruction: str, trajectory: Trajectory) -> tuple[list[int], bool]:
        """The tokens of a trajectory, and whether it was too long and lost its middle."""
        if self.finished:
            return self.network.encode(instruction, trajectory)
        return encode(self.lines, trajectory, instruction, self.network.config.max_tokens, self.network.pictures)

    def score(self, instructions: Sequence[str], trajectories: Sequence[Trajectory]) -> np.ndarray:
        rows = [self.encode(text, trajectory)[0] for text, trajectory in zip(instructions, trajectories, strict=True)]
        if self.forest is None:
            return self._whole(rows)
        ends = [self.forest.add(self.network.pooled(row) if self.finished else row) for row in rows]
        self.forest.values(ends, self.network.head)
        return np.array([end.value for end in ends], dtype=np.float64)

    def _whole(self, rows: Sequence[list[int]]) -> np.ndarray:
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
            check_numbers(self.network.backbone, found[some])
        return found
