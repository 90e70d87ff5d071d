"""VILA1.5 as the reward model's backbone: its folders `llm`, `vision_tower` and `mm_projector` in our own modules.

The paper's reward model is VILA1.5-3b: SigLIP's second-to-last layer, 2 x 2 patches side by side, a two-layer MLP, and
a Llama. Tower and projector stay frozen, as in the paper.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from armap_lite.storage.assets import pretrained
from armap_lite.vision.pictures import Tower
from armap_lite.vision.towers import preparation


def load(path: str, settings: dict[str, Any], dtype: torch.dtype) -> tuple[Any, Any, Tower, nn.Module]:
    """Language model, tokenizer, tower and projector of the checkpoint `path`, whose config.json holds `settings`.

    Raises ValueError where it is a VILA of another build.
    """
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import cached_file

    kind = settings["mm_projector_cfg"]["mm_projector_type"]
    if kind != "mlp_downsample" or settings.get("s2") or settings.get("dynamic_s2"):
        raise ValueError(f"{path}: projector {kind!r} or its S2 scales are not built here; take VILA1.5-3b")
    language = pretrained(AutoModel, path, subfolder="llm", dtype=dtype)
    tokenizer = AutoTokenizer.from_pretrained(path, subfolder="llm")
    siglip = pretrained(AutoModel, path, subfolder="vision_tower", dtype=dtype)
    layer = settings.get("mm_vision_select_layer", -2)

    def read(pixels: Tensor) -> Tensor:
        hidden = siglip(pixel_values=pixels, output_hidden_states=True).hidden_states[layer]  # [B, N, C]
        first = 1 if settings.get("mm_vision_select_feature") == "patch" else 0
        return side_by_side(hidden[:, first:])  # [B, K, 4C]

    tower = Tower(f"vila{layer}", siglip, read, **preparation(path, siglip.config, "vision_tower"))
    wide = language.config.hidden_size
    mlp = nn.Sequential(nn.LayerNorm(tower.size), nn.Linear(tower.size, wide), nn.GELU(), nn.Linear(wide, wide))
    weights = load_file(str(cached_file(path, "model.safetensors", subfolder="mm_projector")))
    places = {"layers.1": "0", "layers.2": "1", "layers.4": "3"}  # there, layer 0 is `side_by_side`
    mlp.load_state_dict({places[name.rpartition(".")[0]] + name[name.rindex(".") :]: t for name, t in weights.items()})
    return language, tokenizer, tower, mlp


def side_by_side(patches: Tensor) -> Tensor:
    """Each 2 x 2 square of patches as one vector, four times as long; an odd side is padded with zeros.

    [B, N, C] -> [B, K, 4C], K = ceil(sqrt(N) / 2)^2. The squares come column by column: so VILA was trained.
    """
    side = math.isqrt(patches.shape[1])
    x = F.pad(patches.unflatten(1, (side, side)), (0, 0, 0, side % 2, 0, side % 2))  # [B, h, w, C]
    x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # [B, h/2, 2, w/2, 2, C]
    return x.permute(0, 3, 1, 2, 4, 5).flatten(3).flatten(1, 2)  # [B, K, 4C]
