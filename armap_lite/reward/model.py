"""The reward model: a language model without its vocabulary head, and one number at the last token.

R(instruction, trajectory) = w . h, where h is the hidden state of the last *attended* token. The backbone is the
policy's kind of transformer, cut after `num_layers` layers: telling a good trajectory from a bad one needs less depth
than writing one, and half the layers cost half the time. Only the top layers (or LoRA adapters) learn. Saved are the
learned tensors and the backbone's name. Pictures come in through the input embedding (see `vision/pictures.py`).
"""

import dataclasses
import functools
import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from armap_lite import vision
from armap_lite.llms import layers
from armap_lite.llms.device import load_to, say_once
from armap_lite.llms.plain import mask_is_needless
from armap_lite.reward.config import RewardConfig
from armap_lite.storage import folders, low_rank
from armap_lite.storage.assets import resolve_model
from armap_lite.vision.pictures import Tower, embed_pictures
from armap_lite.vision.projector import WordProjector


class RewardNetwork(nn.Module):
    """Backbone and scalar head: `forward(input_ids, attention_mask)`, [B, T] padded on the right -> rewards [B]."""

    def __init__(
        self, backbone: nn.Module, config: RewardConfig, tower: Tower | None = None, projector: nn.Module | None = None
    ):
        """`tower`: for pictures; `projector`: one that was trained with both. Without it, a new one learns."""
        super().__init__()
        limit = layers.context(backbone)[0]
        if limit is not None and limit < config.max_tokens:
            kind = type(backbone).__name__
            say_once(f"{config.backbone}: {kind} reads {limit} tokens at most, not max_tokens={config.max_tokens}")
            config = dataclasses.replace(config, max_tokens=limit)
        self.config = config
        self.backbone = prepare(backbone, config)
        words = self.backbone.get_input_embeddings()  # type: ignore[operator]
        # What comes out has the size of a word (OPT's `hidden_size` may be another). No bias: transformers has none.
        self.head = nn.Linear(words.embedding_dim, 1, bias=False)
        nn.init.normal_(self.head.weight, std=0.02)
        self.pictures = embed_pictures(self.backbone, tower, projector, config.max_tokens) if tower else None
        if projector is not None:
            projector.requires_grad_(config.trainable == "all")

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        mask = None if self._needs_no_mask else attention_mask  # [B, T]
        states = self.backbone(input_ids=input_ids, attention_mask=mask, use_cache=False)
        return at_end(self.head, states.last_hidden_state, attention_mask)  # [B]

    @functools.cached_property
    def _needs_no_mask(self) -> bool:
        """Positions of a vision-language model may depend on its pictures, so it gets a mask in any case."""
        return self.config.vision != "own" and mask_is_needless(self.backbone)

    def learned(self) -> dict[str, Tensor]:
        """The tensors that are not the backbone's own, by name: head, new projector, what `config.trainable` names."""
        return {n: p.detach() for n, p in self.named_parameters() if p.requires_grad or n.startswith(self._projectors)}

    def pretrained(self) -> dict[str, Tensor]:
        """The tensors that a new network of this configuration has again: neither random nor learned before."""
        made = ("head.", *self._projectors)
        return {n: p.detach() for n, p in self.named_parameters() if not n.startswith(made) and "lora_" not in n}

    @property
    def _projectors(self) -> tuple[str, ...]:
        return tuple(f"{n}." for n, module in self.named_modules() if isinstance(module, WordProjector))

    def save(self, path: Path | str, tensors: dict[str, Tensor] | None = None) -> None:
        """Write what was learned, or `tensors` instead, and `reward.json` to the folder `path`, whole or not at all."""
        learned = self.learned() if tensors is None else tensors
        with folders.whole(Path(path)) as part:
            save_file({k: v.contiguous().cpu() for k, v in learned.items()}, part / "weights.safetensors")
            (part / "reward.json").write_text(json.dumps(dataclasses.asdict(self.config), indent=1), encoding="utf-8")

    def load_learned(self, path: Path | str) -> None:
        """Read what `save` or `export.shrink` wrote, into a network that has not learned yet.

        Raises ValueError where its tensors are not exactly those that learn here.
        """
        tensors = low_rank.join(load_file(Path(path) / "weights.safetensors"), self.pretrained())
        shapes = [{name: tensor.shape for name, tensor in some.items()} for some in (tensors, self.learned())]
        if odd := sorted({name for name, _ in shapes[0].items() ^ shapes[1].items()}):
            backbone = self.config.backbone
            raise ValueError(f"{path}: its tensors do not fit backbone {backbone!r} ({odd[:3]} differ); train it again")
        self.load_state_dict(tensors, strict=False)


def at_end(head: Any, states: Tensor, attention_mask: Tensor) -> Tensor:
    """`head` applied to the hidden `states` [B, T, H] at the last attended token of each row -> [B], in fp32."""
    return layers.score(head, states[torch.arange(len(states), device=states.device), last_attended(attention_mask)])


def last_attended(attention_mask: Tensor) -> Tensor:
    """Index of the last 1 in each row of `attention_mask` [B, T] -> [B], whatever the padding side."""
    length = attention_mask.shape[-1]
    return length - 1 - attention_mask.flip(-1).long().argmax(-1)  # [B]


def prepare(backbone: Any, config: RewardConfig) -> nn.Module:
    """Cut `backbone` after `config.num_layers` layers and leave only what `config.trainable` names to learn."""
    if config.num_layers is not None:
        layers.cut(backbone, config.num_layers)
    if not re.fullmatch(r"all|(top|lora):[1-9]\d*", config.trainable):
        raise ValueError(f"trainable={config.trainable!r}: expected 'top:8' (layers), 'lora:64' (rank) or 'all'")
    kind, _, number = config.trainable.partition(":")
    backbone.requires_grad_(kind == "all")
    if kind == "top":
        for module in layers.top(backbone, int(number)):
            module.requires_grad_(True)
    return layers.with_lora(backbone, int(number)) if kind == "lora" else backbone


def build(config: RewardConfig, device: str = "auto", dtype: str = "float32") -> tuple[RewardNetwork, Any]:
    """A reward network on the pretrained backbone that `config` names, untrained, and its tokenizer.

    `device`: see `device.pick`; `dtype`: see `device.load_to`.
    """
    path = resolve_model(config.backbone)
    tokenizer: Any = None

    def make(kind: Any) -> RewardNetwork:
        nonlocal tokenizer
        backbone, tokenizer, tower, projector = vision.load(config.vision, config.vision_tokens, path, kind)
        layers.check_vocabulary(backbone, tokenizer)
        return RewardNetwork(backbone, config, tower, projector)

    return load_to(device, dtype, make), tokenizer
