"""Vision towers: the embedded one, any vision model of transformers, or that of a vision-language model."""

import functools
import inspect
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer
from transformers.image_processing_base import ImageProcessingMixin
from transformers.utils import cached_file

from armap_lite.storage.assets import converted, fetch, pretrained
from armap_lite.vision.pictures import IMAGENET, Tower

_norm = functools.partial(nn.BatchNorm2d, eps=1e-3)


class EfficientNetLite0(nn.Module):
    """The network of `efficientnet-lite0` without its classifier; names as in the checkpoint (arXiv 1905.11946)."""

    stages = ((1, 16, 1, 3, 1), (2, 24, 6, 3, 2), (2, 40, 6, 5, 2), (3, 80, 6, 3, 2), (3, 112, 6, 5, 1),
              (4, 192, 6, 5, 2), (1, 320, 6, 3, 1))  # fmt: skip  # blocks, channels, expansion, kernel, stride

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = _Conv(3, 32, 3, 2), _norm(32)
        self._blocks: Any = nn.ModuleList()
        width = 32
        for blocks, channels, expansion, kernel, stride in self.stages:
            for i in range(blocks):
                self._blocks.append(_Block(width, channels, expansion, kernel, stride if i == 0 else 1))
                width = channels

    def forward(self, pixels: Tensor, taps: Sequence[int] = (0, 4, 15), grid: int = 7) -> Tensor:
        """Blocks `taps`, each with the same weight, on a `grid`: pixels [B, 3, 224, 224] -> [B, C, grid, grid]."""
        x, tapped, mean, std = F.relu6(self._bn0(self._conv_stem(pixels))), [], 0, 0  # x: [B, 32, 112, 112]
        for i, block in enumerate(self._blocks):
            x = block(x)  # [B, C, h, w]
            # Of each channel on ImageNet: what its batch norms were trained to.
            mean = block._bn2.bias + (mean if block.skip else 0)  # [C]
            std = (block._bn2.weight**2 + (std**2 if block.skip else 0)).sqrt()  # [C]
            if i in taps:
                even = (x - mean[:, None, None]) / std[:, None, None] / math.sqrt(len(mean))
                tapped.append(F.adaptive_avg_pool2d(even, grid))  # [B, C, grid, grid]
        return torch.cat(tapped, 1)


class _Block(nn.Module):
    """An inverted residual block: expand, depthwise convolution, project."""

    def __init__(self, width: int, channels: int, expansion: int, kernel: int, stride: int):
        super().__init__()
        inner = width * expansion
        self.skip = stride == 1 and width == channels
        if inner > width:
            self._expand_conv, self._bn0 = _Conv(width, inner, 1), _norm(inner)
        self._depthwise_conv, self._bn1 = _Conv(inner, inner, kernel, stride, inner), _norm(inner)
        self._project_conv, self._bn2 = _Conv(inner, channels, 1), _norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if hasattr(self, "_expand_conv") else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.skip else y


class _Conv(nn.Conv2d):
    """Padded as in TensorFlow, where the network was trained: with a stride, more on the right than on the left."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)
        before, rest = divmod(kernel - stride, 2)
        self.around = (before, before + rest) * 2

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self.around))


def efficientnet(tokens: int) -> Tower:
    """The embedded tower. Two early blocks are read besides the last, which has lost half of the colours.

    Ridge regression on 160 drawn shapes (ten colours, two patterns): the colour is right from the last block for 0.57,
    from blocks 0, 4 and 15 for 0.95; the pattern from either.
    """
    network = EfficientNetLite0()
    weights = load_file(converted(fetch("efficientnet-lite0")) / "model.safetensors")
    network.load_state_dict({name: tensor for name, tensor in weights.items() if name in network.state_dict()})
    grid = square_root(tokens)
    return Tower("efficientnet-lite0", network, lambda x: network(x, grid=grid).flatten(2).transpose(1, 2), side=224)


def transformer(path: str, tokens: int) -> Tower:
    """Any vision model of transformers; its patches, or its map, pooled to a square of `tokens`."""
    network = pretrained(AutoModel, path, dtype=torch.float32)
    network = network.vision_model if hasattr(network, "text_model") else network  # of two towers, the one that sees
    numbers = preparation(path, network.config)
    grid = square_root(tokens)

    def read(pixels: Tensor) -> Tensor:
        hidden = network(pixel_values=pixels).last_hidden_state  # [B, 1 + N, C], or [B, C, h, w]
        if hidden.dim() == 3:
            patches = (numbers["side"] // network.config.patch_size) ** 2  # what stands before them is not a place
            hidden = hidden[:, -patches:].transpose(1, 2).unflatten(2, (math.isqrt(patches), -1))  # [B, C, h, w]
        return F.adaptive_avg_pool2d(hidden, grid).flatten(2).transpose(1, 2)  # [B, K, C]

    return Tower(Path(path).name, network, read, **numbers)


def own(path: str, dtype: torch.dtype) -> tuple[Any, Tower]:
    """The language model inside a vision-language model of transformers, and the rest of it as its tower."""
    network = pretrained(AutoModel, path, dtype=dtype)
    language = network.get_decoder()
    asks = inspect.signature(network.forward).parameters
    # Positions in two dimensions, or pictures that see ahead: what plain ids in a row would not reproduce.
    if not hasattr(network, "get_image_features") or {"image_grid_thw", "token_type_ids"} & {*asks}:
        raise ValueError(
            f"{path} ({network.config.model_type}) does not read pictures as LLaVA does, as tokens in a causal row; "
            "take a LLaVA, SmolVLM or VILA checkpoint, or give a language model eyes with vision='efficientnet-lite0'"
        )
    network.set_decoder(None)
    tiles = network.config.model_type in ("smolvlm", "idefics3")  # they take several pictures for each text

    def read(pixels: Tensor) -> Tensor:
        found = network.get_image_features(pixels[:, None] if tiles else pixels, return_dict=True)
        return torch.stack(list(found.pooler_output))  # [B, K, H]

    return language, Tower(Path(path).name, network, read, **preparation(path, network.config.vision_config))


def vila(path: str, settings: dict[str, Any], dtype: torch.dtype) -> tuple[Any, Any, Tower, nn.Module]:
    """Language model, tokenizer, tower and projector of the VILA checkpoint `path`, whose config.json is `settings`.

    The paper's reward model is VILA1.5-3b, a folder each for `llm`, `vision_tower` and `mm_projector`: SigLIP's
    second-to-last layer, 2 x 2 patches side by side, a two-layer MLP, and a Llama. Tower and projector stay frozen, as
    in the paper. Raises ValueError where it is a VILA of another build.
    """
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


def preparation(path: str, config: Any, subfolder: str = "") -> dict[str, Any]:
    """Side, mean and std of the pictures that the model in `path` was trained on."""
    found = ImageProcessingMixin.get_image_processor_dict(path, subfolder=subfolder)[0]
    sizes = [found.get(name) or {} for name in ("crop_size", "max_image_size", "size")]
    sides = [size if isinstance(size, int) else next(iter(size.values()), None) for size in sizes]
    side = next((s for s in sides if s), None) or config.image_size
    return {"side": side, "mean": found.get("image_mean") or IMAGENET[0], "std": found.get("image_std") or IMAGENET[1]}


def square_root(tokens: int) -> int:
    side = math.isqrt(max(tokens, 0))
    if not tokens or side**2 != tokens:
        raise ValueError(f"vision_tokens={tokens} is not a square; use 1, 4, 9 or 16")
    return side
