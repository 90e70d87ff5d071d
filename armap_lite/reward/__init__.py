"""Stage 3, the reward model: `load` a trained or finished one, or take it `untrained` as a baseline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from armap_lite.reward.config import RewardConfig, TrainingConfig

if TYPE_CHECKING:
    from armap_lite.reward.scorer import RewardModel

__all__ = ["RewardConfig", "TrainingConfig", "is_finished", "load", "untrained"]


def is_finished(spec: str) -> bool:
    """Whether `spec` needs no training: a folder that `training.train` wrote, or a sequence-classification model.

    Raises OSError where a Hugging Face id cannot be looked up.
    """
    from armap_lite.exchange.finished import is_classifier

    return (Path(spec).expanduser() / "reward.json").is_file() or is_classifier(spec)


def load(path: Path | str, device: str = "auto", dtype: str = "auto", **options: Any) -> RewardModel:
    """The reward model in the folder `path`, or the finished one that a Hugging Face id names.

    `device`: see `device.pick`; `dtype`: see `device.load_to`; `options`: `capacity` and `pack`, as in `LocalLM`.
    Raises FileNotFoundError where `path` holds no reward model, OSError where a hub id cannot be looked up.
    """
    from armap_lite.exchange import finished
    from armap_lite.reward.model import build
    from armap_lite.reward.scorer import RewardModel
    from armap_lite.storage.assets import AssetError

    folder = Path(path).expanduser()
    if (folder / "reward.json").is_file():
        network, tokenizer = build(RewardConfig.read(folder / "reward.json"), device, dtype)
        network.load_learned(folder)
        return RewardModel(network, tokenizer, **options)
    try:
        known = finished.is_classifier(str(path))
    except AssetError:  # there is no such path
        known = False
    if not known:
        missing = "no reward.json, no sequence classification"
        raise FileNotFoundError(f"{path} holds no reward model ({missing}); train one, or give the folder of one")
    return RewardModel(*finished.load(str(path), device, dtype), **options)


def untrained(config: RewardConfig, seed: int = 0) -> RewardModel:
    """The reward model before training: a pretrained backbone with a random head."""
    import torch

    from armap_lite.reward.model import build
    from armap_lite.reward.scorer import RewardModel

    torch.manual_seed(seed)
    return RewardModel(*build(config, dtype="auto"))
