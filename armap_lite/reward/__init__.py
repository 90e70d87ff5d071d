"""The reward model: `load` one that was trained (see `training.py`), or take it `untrained` for comparison.

A finished one, published or exported, needs no training (see `finished.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from armap_lite.reward.config import RewardConfig, TrainingConfig

if TYPE_CHECKING:
    from armap_lite.reward.scorer import RewardModel

__all__ = ["RewardConfig", "TrainingConfig", "is_finished", "load", "untrained"]


def is_finished(spec: str) -> bool:
    """Whether `spec` is a reward model that needs no training: a folder that `training.train` wrote, or a
    sequence-classification model (a folder or a Hugging Face id). Raises OSError where a hub id cannot be looked up.
    """
    if (Path(spec).expanduser() / "reward.json").is_file():
        return True
    from armap_lite.reward.finished import is_classifier

    return is_classifier(spec)


def load(path: Path | str, **options: Any) -> RewardModel:
    """The reward model in the folder `path`, or the finished one that a Hugging Face id names.

    `options`: `device` (see `device.pick`), and those of `RewardModel`, such as `dtype`, `capacity` and `pack`.
    Raises FileNotFoundError where `path` holds none, OSError where a hub id cannot be looked up.
    """
    from armap_lite.reward import finished
    from armap_lite.reward.model import build
    from armap_lite.reward.scorer import RewardModel
    from armap_lite.storage.assets import AssetError

    folder = Path(path).expanduser()
    file = folder / "reward.json"
    dtype = options.setdefault("dtype", "auto")
    where = {"device": options.pop("device", "auto"), "dtype": dtype}
    if not file.is_file():
        known = (folder / "config.json").is_file() or not folder.is_dir()
        try:
            known = known and finished.is_classifier(str(path))
        except AssetError:  # a path where nothing is
            known = False
        if not known:
            raise FileNotFoundError(
                f"{path} holds no reward model (no reward.json, no sequence classification); "
                "train one, or give the folder of one"
            )
        return RewardModel(*finished.load(str(path), **where), **options)
    network, tokenizer = build(RewardConfig.read(file), **where)
    network.load_learned(folder)
    return RewardModel(network, tokenizer, **options)


def untrained(config: RewardConfig, seed: int = 0) -> RewardModel:
    """The reward model as training starts from it: a pretrained backbone and a random head."""
    import torch

    from armap_lite.reward.model import build
    from armap_lite.reward.scorer import RewardModel

    torch.manual_seed(seed)
    network, tokenizer = build(config, dtype="auto")
    return RewardModel(network, tokenizer)
