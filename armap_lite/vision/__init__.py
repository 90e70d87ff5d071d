"""Pictures as tokens of a language model: vision tower, projector and their published weights."""

from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer, PretrainedConfig

from armap_lite.storage.assets import pretrained, resolve_model
from armap_lite.vision import towers
from armap_lite.vision.pictures import Tower


def load(vision: str | None, tokens: int, path: str, dtype: Any) -> tuple[Any, Any, Tower | None, nn.Module | None]:
    """Language model in `path`, its tokenizer, the tower that `vision` names, and the projector if one was trained.

    `vision`, `tokens`: `vision` and `vision_tokens` of `RewardConfig`. `dtype`: a torch dtype, or "auto": the
    stored one, and fp32 with a tower, which computes in it and is kept in what it was loaded in.
    """
    if vision is None:
        return pretrained(AutoModel, path, dtype=dtype), AutoTokenizer.from_pretrained(path), None, None
    dtype = torch.float32 if dtype == "auto" else dtype
    if vision != "own":
        embedded = vision == "efficientnet-lite0"
        tower = towers.efficientnet(tokens) if embedded else towers.transformer(resolve_model(vision), tokens)
        return pretrained(AutoModel, path, dtype=dtype), AutoTokenizer.from_pretrained(path), tower, None
    settings = PretrainedConfig.get_config_dict(path)[0]
    if "mm_projector_cfg" in settings:
        return towers.vila(path, settings, dtype)
    language, tower = towers.own(path, dtype)
    return language, AutoTokenizer.from_pretrained(path), tower, nn.Identity()
