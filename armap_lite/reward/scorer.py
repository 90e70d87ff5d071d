"""A trained reward model at work: batched scores, shared prefixes read once."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from armap_lite.llms.device import say_once
from armap_lite.llms.forest import Forest
from armap_lite.llms.plain import BothSidesError, Plain, engine
from armap_lite.llms.tokens import LineTokenizer
from armap_lite.llms.tree import Hidden, check_numbers
from armap_lite.reward.finished import FinishedNetwork
from armap_lite.reward.model import RewardNetwork, place
from armap_lite.trajectory import Trajectory
from armap_lite.vision.pictures import encode

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
        found = np.empty(len(rows))
        batch: list[int] = []
        for i in [*sorted(range(len(rows)), key=lambda i: len(rows[i])), None]:
            other = i is None or (self._reads_padding and batch and len(rows[i]) != len(rows[batch[0]]))
            if batch and (other or len(batch) == BATCH):
                found[batch] = self._together([rows[k] for k in batch])
                batch = []
            if i is not None:
                batch.append(i)
        check_numbers(self.network.backbone, found)
        return found

    def _together(self, rows: Sequence[list[int]]) -> np.ndarray:
        """Rewards of `rows`, padded on the right, by one forward pass of the whole model."""
        from armap_lite.reward.data import pad  # imports Lightning, which takes a second

        device = next(self.network.parameters()).device
        batch = {name: tensor.to(device) for name, tensor in pad(rows, self.pad).items()}
        with torch.inference_mode():
            return self.network(**batch).cpu().numpy()

    @functools.cached_property
    def _reads_padding(self) -> bool:
        """Whether a longer text beside it changes a text's reward: XLNet's is read at the end of the padded row."""
        short, long = [*range(3, 9)], [*range(3, 19)]
        try:
            alone, beside = self._together([short])[0], self._together([short, long])[0]
        except ValueError:  # Bart wants an eos in each text
            return True
        return not np.isclose(alone, beside, rtol=1e-3, atol=1e-5)
