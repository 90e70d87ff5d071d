"""The reward model: `load` one that was trained (see `training.py`), or take it `untrained` for comparison."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from armap_lite.reward.config import RewardConfig, TrainingConfig

if TYPE_CHECKING:
    from armap_lite.reward.scorer import RewardModel

__all__ = ["RewardConfig", "TrainingConfig", "load", "untrained"]


def load(path: Path | str, **options: Any) -> RewardModel:
    """The reward model that was saved to the folder `path`. Raises FileNotFoundError where there is none.

    `options`: `device` and `dtype` (see `device.pick`), and those of `RewardModel`.
    """
    from armap_lite.reward.model import build
    from armap_lite.reward.scorer import RewardModel

    file = Path(path) / "reward.json"
    if not file.is_file():
        raise FileNotFoundError(f"{path} holds no reward model (no reward.json); train one, or give the folder of one")
    where = {name: options.pop(name) for name in ("device", "dtype") if name in options}
    network, tokenizer = build(RewardConfig(**json.loads(file.read_text())), **where)
    network.load_learned(path)
    return RewardModel(network, tokenizer, **options)


def untrained(config: RewardConfig, seed: int = 0) -> RewardModel:
    """The reward model as training starts from it: a pretrained backbone and a random head."""
    import lightning as L

    from armap_lite.reward.model import build
    from armap_lite.reward.scorer import RewardModel

    L.seed_everything(seed, verbose=False)
    network, tokenizer = build(config)
    return RewardModel(network, tokenizer)
