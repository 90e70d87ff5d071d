"""Configuration of a reward model and of its training. Imports nothing heavy, so that settings load at once."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from armap_lite.storage import store
from armap_lite.storage.former_names import current_names
from armap_lite.storage.records import CheckedRecord, Record

CHOICES = {"schedule": ("linear", "constant"), "monitor": ("val_accuracy", "val_loss")}
FEWEST_TOKENS = 8  # smallest max_tokens: with fewer, hardly a word of either end of a text is left


@dataclass(frozen=True)
class RewardConfig(CheckedRecord):
    """Architecture of a reward model; saved beside its weights."""

    backbone: str = "smollm2-135m-instruct"  # an asset's name, a Hugging Face id or folder, or a GGUF file
    num_layers: int | None = 16  # layers kept of the backbone, from the bottom; None keeps all
    trainable: str = "top:8"  # what learns besides the head: "top:K" layers, "lora:R" adapters of rank R, or "all"
    max_tokens: int = 512  # longer inputs lose their middle; training counts them
    # Vision tower: "efficientnet-lite0", a transformers vision model by id or folder, or "own": that of the backbone,
    # a vision-language model. None: text only.
    vision: str | None = None
    vision_tokens: int = 4  # tokens per picture, a square number; a vision-language model has its own number

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_tokens < FEWEST_TOKENS:
            raise ValueError(f"max_tokens={self.max_tokens!r}: expected at least {FEWEST_TOKENS}")

    @classmethod
    def read(cls, file: Path) -> RewardConfig:
        """The configuration in `file`, a reward.json. Raises ValueError with its name if it holds none."""
        way_out = "train the model again, or take its folder anew from where it came"
        saved = store.read_json(file, way_out)
        try:
            return cls.from_json(current_names(saved))
        except ValueError as error:
            raise ValueError(f"{file}: {error}; {way_out}") from error


@dataclass(frozen=True)
class TrainingConfig(CheckedRecord):
    """How a reward model is trained; each field is explained where its value is chosen, in `profiles.py`."""

    lr: float = 3e-4
    epochs: int = 1
    batch_size: int = 8  # pairs in one forward pass, on each device
    accumulate_grad_batches: int = 1  # forward passes in one optimiser step
    warmup: float = 0.1  # share of the steps in which the learning rate rises from 0
    schedule: str = "linear"  # afterwards: "constant", or "linear" down to 0
    weight_decay: float = 0.0
    gradient_clip_val: float = 1.0
    center_rewards_coefficient: float = 1e-3
    val_fraction: float = 0.2  # share of the tasks held out for validation
    num_validations: int = 5  # evenly spread over the run; each writes a checkpoint to resume from
    monitor: str = "val_accuracy"  # selects the best validation; or "val_loss", which is less noisy with few pairs
    patience: int = 3  # validations without a better one before training stops early
    precision: str = "32-true"  # as Lightning names it; "auto": "bf16-mixed" where the device computes in it
    devices: int = 1
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()

        def expect(right: bool, name: str, what: str) -> None:
            if not right:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected {what}")

        for name in ("epochs", "batch_size", "accumulate_grad_batches", "num_validations", "patience", "devices"):
            expect(getattr(self, name) >= 1, name, "at least 1")
        for name in ("lr", "weight_decay", "gradient_clip_val", "center_rewards_coefficient"):
            expect(0 <= getattr(self, name) < math.inf, name, "a number, at least 0")
        for name, values in CHOICES.items():
            expect(getattr(self, name) in values, name, f"one of {', '.join(values)}")
        expect(0 <= self.warmup < 1, "warmup", "a share from 0 to below 1, such as 0.1")
        expect(0 < self.val_fraction < 1, "val_fraction", "a share between 0 and 1, such as 0.2")


def trained_on(pairs: Iterable[Record], reward: RewardConfig, training: TrainingConfig, seed: int) -> dict[str, Any]:
    """The inputs of a training run, as JSON: the SHA-256 of the pairs' content, the settings and the seed."""
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(json.dumps(pair.to_json(), sort_keys=True).encode() + b"\n")
    settings = {"reward": dataclasses.asdict(reward), "training": dataclasses.asdict(training)}
    return {"pairs_sha256": digest.hexdigest(), "seed": seed, **settings}


def same_source(known: Any, mine: dict[str, Any]) -> bool:
    """Whether `known`, read from a file, equals `mine`, a `trained_on`; a field that it lacks has its default."""
    defaults = {"reward": dataclasses.asdict(RewardConfig()), "training": dataclasses.asdict(TrainingConfig())}
    known = known if isinstance(known, dict) else {}
    read = {name: fields | current_names(known.get(name) or {}) for name, fields in defaults.items()}
    return {**known, **read} == mine


# The JSON object in a file that training wrote.
read_json = functools.partial(store.read_json, way_out="delete it, and training starts anew")
